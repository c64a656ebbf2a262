"""NRRD files read (voxels through SimpleITK) and written, with their geometry exact to the last bit.

SimpleITK takes space directions apart into spacing and unit vectors, which loses the last bit of an oblique grid. The
text of the header is the truth: it is parsed here, and written here, so that an output has exactly its input's grid,
sheared ones included. Format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..ct.grid import corner_distance
from ..ct.volume import Volume
from ..errors import InputError, OutputError
from .atomic import atomic_file
from .gzip_writer import write_gzip
from .stored_image import (
    CT,
    MAX_DEFLATE_RATIO,
    StoredImage,
    captured_stderr,
    check_data_file,
    check_size,
    check_spacing,
    compact,
    damaged,
    lps_to_ras,
)

MAX_HEADER_BYTES = 2**20
SAME_GRID_MM = 1e-3
MAX_LINE = 500  # of a field; ITK's message about a much longer one does not fit its buffers, and it crashes
# Factors that turn a space's axes into RAS.
SPACES = {
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
}
TYPE_NAMES = {"uint8": "unsigned char", "int16": "short", "uint16": "unsigned short", "float32": "float"}


def nrrd_fields(path: Path) -> dict[str, str]:
    """Read the fields of a NRRD header (.nrrd or .nhdr), lower-case keys; empty where there is no NRRD header."""
    lines = [line for line in _header_lines(path) if _is_field(line)]
    fields = (line.split(": ", 1) for line in lines if ": " in line)
    return {key.strip().lower(): value.strip() for key, value in fields}


def nrrd_line_lengths(path: Path) -> list[int]:
    """Length of each line of a NRRD header that is neither a comment nor a key with a value of the writer's own."""
    return [len(line) for line in _header_lines(path) if _is_field(line)]


def nrrd_own_fields(path: Path) -> dict[str, str]:
    """Keys and values of the writer's own (``key:=value``) in a NRRD header, as 3D Slicer describes segments."""
    pairs = (line.split(":=", 1) for line in _header_lines(path) if not _is_field(line) and ":=" in line)
    return {key.strip(): value.replace("\\n", "\n").replace("\\\\", "\\") for key, value in pairs}


def _header_lines(path: Path) -> list[str]:
    with open(path, "rb") as stream:
        if not stream.read(8).startswith(b"NRRD00"):
            return []
        stream.seek(0)
        head = stream.read(MAX_HEADER_BYTES)
    header = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0].decode("utf-8", "replace")
    return [line.rstrip("\r") for line in header.split("\n")[1:]]


def _is_field(line: str) -> bool:
    field, own = line.find(": "), line.find(":=")
    return not line.startswith("#") and (own < 0 or 0 <= field < own)


def nrrd_geometry(fields: dict[str, str], stage: str) -> np.ndarray | None:
    """Return the exact ``(4, 4)`` index to RAS matrix of a 3-D NRRD, mm; None where the header leaves it open.

    :raises LesionDecompError: a spacing of zero, or below, or not a number.
    """
    if "spacings" in fields:
        # Not a number stands for an axis that is none of space; a 3-D image has none of those.
        spacings = _numbers(fields["spacings"])
        check_spacing(stage, [s for s in spacings if fields.get("dimension") == "3" or not np.isnan(s)])
    vectors = [_numbers(text) for text in re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))]
    signs = SPACES.get(fields.get("space", "").lower())
    if vectors and all(len(vector) == 3 for vector in vectors):
        check_spacing(stage, [float(np.linalg.norm(vector)) for vector in vectors])
    if signs is None or len(vectors) != 3 or any(len(vector) != 3 for vector in vectors):
        return None
    if fields.get("dimension") != "3":
        return None
    origin = _numbers(fields.get("space origin", "(0,0,0)").strip("()"))
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(vectors).T
    if len(origin) == 3:
        matrix[:3, 3] = origin
    matrix[:3] *= np.array(signs)[:, None]
    return matrix + 0.0


def read_nrrd(path: Path, stage: str) -> StoredImage:
    """Read a NRRD file (.nrrd, or .nhdr with its data file beside it).

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    fields = nrrd_fields(path)
    if any(length > MAX_LINE for length in nrrd_line_lengths(path)):  # also where a header never ends
        raise damaged(stage, "NRRD file", "a header line of impossible length")
    if not fields:
        raise InputError(stage, "a file without a NRRD header", "a NRRD file (.nrrd or .nhdr)")
    data_file = fields.get("data file", fields.get("datafile", ""))
    exact = nrrd_geometry(fields, stage)
    image = _read(path, stage, data_file, fields.get("encoding", "").lower())
    if exact is None or corner_distance(image.array.shape, exact, image.ijk_to_ras) > SAME_GRID_MM:
        if "space" not in fields:
            warning = "The NRRD header gives no orientation: right and left may be swapped."
            return StoredImage(image.array, image.ijk_to_ras, "NRRD", image.stored_type, (warning,))
        return image
    return StoredImage(image.array, exact, "NRRD", image.stored_type)


def _read(path: Path, stage: str, data_file: str, encoding: str) -> StoredImage:
    import SimpleITK as sitk  # noqa: N813

    voxels = check_data_file(path, data_file, "NRRD", stage) if data_file else path
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with captured_stderr():
            reader.ReadImageInformation()
        components = reader.GetNumberOfComponents()
        check_size(stage, reader.GetSize(), components)
        claimed = float(np.prod([float(n) for n in reader.GetSize()])) * _voxel_bytes(reader.GetPixelID())
        ratio = 1 if encoding == "raw" else MAX_DEFLATE_RATIO
        if voxels.stat().st_size * ratio < claimed:  # before memory is asked for
            raise damaged(stage, "NRRD file", f"the header promises {claimed:.0f} bytes of voxels")
        with captured_stderr():
            image = reader.Execute()
    except RuntimeError as error:
        if "spacing is not supported" in str(error):
            check_spacing(stage, [0.0])
        raise damaged(stage, "NRRD file") from error
    stored = sitk.GetArrayViewFromImage(image).dtype
    if stored.kind not in "iuf":
        raise InputError(stage, f"voxels of type {stored}", f"{CT} with real numbers")
    n = image.GetDimension()
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(n, n)[:3, :3] * np.array(image.GetSpacing())[:3]
    matrix[:3, 3] = np.array(image.GetOrigin())[:3]
    array = sitk.GetArrayFromImage(image)
    del image
    return StoredImage(compact(array.reshape(array.shape[-3:])), lps_to_ras(matrix), "NRRD", stored.name)


def _voxel_bytes(kind: int) -> int:
    import SimpleITK as sitk  # noqa: N813

    sizes = {
        2: (sitk.sitkInt16, sitk.sitkUInt16),
        4: (sitk.sitkInt32, sitk.sitkUInt32, sitk.sitkFloat32),
        8: (sitk.sitkInt64, sitk.sitkUInt64, sitk.sitkFloat64),
    }
    return next((size for size, kinds in sizes.items() if kind in kinds), 1)


def write_nrrd(path: str | Path, array: np.ndarray, ijk_to_ras: np.ndarray, stage: str = "Writing the results") -> None:
    """Write a gzip-compressed NRRD that appears under its name only when complete.

    Same array and matrix, same bytes: the file holds neither time nor name. Written slice by slice, so that a flipped
    or permuted view costs no copy of the volume.

    :param array: ``(k, j, i)`` uint8, int16, uint16 or float32.
    :param ijk_to_ras: ``(4, 4)`` mm, any invertible affine; read back bit for bit.
    :raises LesionDecompError: another voxel type; full disk, no permission.
    """
    name = TYPE_NAMES.get(array.dtype.name)
    if name is None or array.ndim != 3:
        raise OutputError(stage, f"{array.ndim}-D voxels of type {array.dtype}", f"3-D {', '.join(TYPE_NAMES)}")
    lps = lps_to_ras(ijk_to_ras)
    header = (
        "NRRD0004\n"
        "# Complete NRRD file format specification at:\n"
        "# http://teem.sourceforge.net/nrrd/format.html\n"
        f"type: {name}\n"
        "dimension: 3\n"
        "space: left-posterior-superior\n"
        f"sizes: {array.shape[2]} {array.shape[1]} {array.shape[0]}\n"
        f"space directions: {' '.join(_vector(lps[:3, axis]) for axis in range(3))}\n"
        "kinds: domain domain domain\n"
        "endian: little\n"
        "encoding: gzip\n"
        f"space origin: {_vector(lps[:3, 3])}\n\n"
    )
    little = array.dtype.newbyteorder("<")
    planes = (memoryview(np.ascontiguousarray(plane, dtype=little)).cast("B") for plane in array)
    with atomic_file(path, "wb", stage) as stream:
        stream.write(header.encode("ascii"))
        write_gzip(stream, planes)


def write_image(path: str | Path, array: np.ndarray, like: Volume | np.ndarray) -> None:
    """Write an array on the grid of ``like`` (a volume, or an index to RAS matrix); see :func:`write_nrrd`.

    :raises LesionDecompError: an array of another shape than the volume's; otherwise as :func:`write_nrrd`.
    """
    if isinstance(like, Volume):
        if array.shape != like.shape:
            raise OutputError("Writing the results", f"an array of {array.shape}", f"the CT's {like.shape}")
        like = like.ijk_to_ras
    write_nrrd(path, array, like)


def _numbers(text: str) -> list[float]:
    try:
        return [float(value) for value in re.split(r"[,\s]+", text.strip()) if value]
    except ValueError:
        return []


def _vector(values: np.ndarray) -> str:
    # repr gives the shortest text that reads back to the same double.
    return "(" + ",".join(repr(float(value)).removesuffix(".0") for value in values) + ")"
