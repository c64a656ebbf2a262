"""NRRD files read and written, with their geometry exact to the last bit.

SimpleITK takes space directions apart into spacing and unit vectors, which loses the last bit of an oblique grid, reads
numbers by the rules of the process's country, and crashes on long lines. The text of the header is the truth: it is
parsed here (:mod:`.nrrd_header`), voxels are read here, and written, so that an output has exactly its input's grid,
sheared ones included. Format: https://teem.sourceforge.net/nrrd/format.html
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..ct.oddity import Oddity
from ..ct.volume import Volume
from ..errors import InputError, OutputError
from .atomic import atomic_file
from .data_files import data_files
from .gzip_writer import write_gzip
from .nrrd_header import NrrdHeader
from .packed import MOST_RATIO, Unpacked
from .stored_image import StoredImage, bytes_left_over, compact, damaged, fill, lps_to_ras, no_orientation, no_spacing
from .text_voxels import from_hex, from_text

KIND = "NRRD"
FILE = "NRRD file"
MAX_LAYERS = 512
TYPE_NAMES = {"uint8": "unsigned char", "int16": "short", "uint16": "unsigned short", "float32": "float"}


def read_nrrd(path: Path, stage: str) -> StoredImage:
    """Read a NRRD file (.nrrd, or .nhdr with its data files beside it).

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    header = _header(path, stage)
    axes = header.space_axes(stage)
    sizes = header.sizes(stage)
    array, warnings = _voxels(path, header, sizes, stage)
    matrix, has_spacing = header.matrix(axes, stage)
    # The fastest axis comes last; axes that are none of space have one voxel each.
    array = array.transpose([len(sizes) - 1 - n for n in reversed(axes)] + [
        len(sizes) - 1 - n for n in range(len(sizes)) if n not in axes
    ]).reshape([sizes[n] for n in reversed(axes)])  # fmt: skip
    if not has_spacing:
        warnings.append(no_spacing(KIND))
    if not header.has_orientation:
        warnings.append(no_orientation(KIND))
    stored = array.dtype.name
    return StoredImage(compact(array), matrix, KIND, stored, tuple(warnings))


def nrrd_files(path: Path, stage: str) -> list[Path]:
    """The files that hold the voxels of a NRRD beside its header; none where it holds them itself.

    :raises LesionDecompError: one of them is not there.
    """
    header = NrrdHeader.read(path)
    named = header.fields.get("data file", "")
    return data_files(path, named, list(header.listed), KIND, stage) if named else []


def read_nrrd_layers(path: Path, stage: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the layers of a segmentation of 3D Slicer whose segments overlap, ``(layers, k, j, i)``; index to RAS.

    :raises LesionDecompError: as :func:`read_nrrd`, or not 4-D with the layers as its first axis.
    """
    header = _header(path, stage)
    sizes = header.sizes(stage)
    if len(sizes) != 4 or sizes[0] > MAX_LAYERS:
        raise damaged(stage, FILE, "no layers of segments")
    NrrdHeader({**header.fields, "sizes": " ".join(["1", *map(str, sizes[1:])])}).space_axes(stage)
    array, _ = _voxels(path, header, sizes, stage)
    matrix, _ = header.matrix((1, 2, 3), stage)
    return np.moveaxis(array, -1, 0), matrix


def _header(path: Path, stage: str) -> NrrdHeader:
    header = NrrdHeader.read(path)
    if not header.fields:
        raise InputError(stage, "a file without a NRRD header", "a NRRD file (.nrrd or .nhdr)", code="no_header")
    return header


def _voxels(path: Path, header: NrrdHeader, sizes: tuple[int, ...], stage: str) -> tuple[np.ndarray, list[Oddity]]:
    """All voxels, the fastest axis last, native byte order; warnings."""
    dtype, encoding = header.dtype(stage), header.encoding
    if not encoding:
        found = f"the NRRD encoding '{header.fields.get('encoding', '')[:40]}'"
        raise InputError(stage, found, "raw, gzip, bzip2, hex or text", "Save it as gzip.", code="encoding")
    named = header.fields.get("data file", "")
    files = data_files(path, named, list(header.listed), KIND, stage) if named else [path]
    count = int(np.prod(sizes, dtype=np.int64))
    claimed = count * dtype.itemsize
    size = sum(file.stat().st_size for file in files)
    ratio = {"text": dtype.itemsize, "hex": 1}.get(encoding) or MOST_RATIO[encoding if encoding != "raw" else ""]
    if size * ratio < claimed or count % len(files):  # before memory is asked for
        raise damaged(stage, FILE, f"the header promises {claimed} bytes of voxels")
    array = np.empty(count, dtype)
    left_over = False
    for part, file in zip(array.reshape(len(files), -1), files, strict=True):
        with open(file, "rb") as stream:
            if not named:
                stream.seek(header.end)
            left_over |= _read_part(stream, header, part, stage)
    array = array.reshape(sizes[::-1])
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    return array, [bytes_left_over(KIND)] if left_over else []


def _read_part(stream: BinaryIO, header: NrrdHeader, part: np.ndarray, stage: str) -> bool:
    """Fill ``part`` ``(n,)`` from a stream at the beginning of its voxels; whether bytes are left over."""
    encoding, skipped = header.encoding, header.skip("byte", stage)
    for _ in range(header.skip("line", stage)):
        if not stream.readline():
            raise damaged(stage, FILE, "fewer lines than are to be skipped")
    if encoding in ("text", "hex"):
        if encoding == "text":
            stream.seek(max(skipped, 0), 1)
            from_text(stream, part, stage, FILE)
        else:
            stream.seek(max(skipped, 0), 1)
            from_hex(stream, part, stage, FILE)
        return False
    if skipped == -1:
        if encoding != "raw":
            raise damaged(stage, FILE, "a skip from the end of packed voxels")
        if stream.seek(0, 2) < part.nbytes:
            raise damaged(stage, FILE, f"less than {part.nbytes} bytes of voxels")
        stream.seek(-part.nbytes, 2)
    unpacked = Unpacked(stream, "" if encoding == "raw" else encoding)
    try:
        unpacked.skip(max(skipped, 0))
        fill(part, unpacked, stage, FILE)
        return unpacked.finish()
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise damaged(stage, FILE) from error


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
        raise OutputError(
            stage, f"{array.ndim}-D voxels of type {array.dtype}", f"3-D {', '.join(TYPE_NAMES)}", code="output_type"
        )
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
            raise OutputError(
                "Writing the results", f"an array of {array.shape}", f"the CT's {like.shape}", code="output_other_grid"
            )
        like = like.ijk_to_ras
    write_nrrd(path, array, like)


def _vector(values: np.ndarray) -> str:
    # repr gives the shortest text that reads back to the same double.
    return "(" + ",".join(repr(float(value)).removesuffix(".0") for value in values) + ")"
