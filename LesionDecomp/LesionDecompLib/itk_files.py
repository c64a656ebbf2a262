"""Reading NRRD and MetaImage files through SimpleITK, whose silences about a bad header are made up for here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .errors import LesionDecompError
from .nrrd import nrrd_fields, nrrd_geometry
from .stored_image import (
    CT,
    MAX_DEFLATE_RATIO,
    StoredImage,
    captured_stderr,
    check_size,
    check_spacing,
    compact,
    corner_distance,
    damaged,
    lps_to_ras,
)

SAME_GRID_MM = 1e-3


def read_nrrd(path: Path, stage: str) -> StoredImage:
    """Read a NRRD file (.nrrd, or .nhdr with its data file beside it).

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    fields = nrrd_fields(path)
    if not fields:
        raise LesionDecompError(stage, "a file without a NRRD header", "a NRRD file (.nrrd or .nhdr)")
    data_file = fields.get("data file", fields.get("datafile", ""))
    exact = nrrd_geometry(fields, stage)
    image = _read(path, "NrrdImageIO", "NRRD", stage, data_file)
    if exact is None or corner_distance(image.array.shape, exact, image.ijk_to_ras) > SAME_GRID_MM:
        if "space" not in fields:
            warning = "The NRRD header gives no orientation: right and left may be swapped."
            return StoredImage(image.array, image.ijk_to_ras, "NRRD", image.stored_type, (warning,))
        return image
    return StoredImage(image.array, exact, "NRRD", image.stored_type)


def read_metaimage(path: Path, stage: str) -> StoredImage:
    """Read a MetaImage (.mha, or .mhd with its data file beside it).

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as stream:
        head = stream.read(2**16).split(b"ElementDataFile", 1)
    if len(head) < 2:
        raise LesionDecompError(stage, "a file without a MetaImage header", "a MetaImage (.mha or .mhd)")
    fields = dict(re.findall(r"^\s*(\w+)\s*=\s*(.*?)\s*$", head[0].decode("utf-8", "replace"), re.MULTILINE))
    for key in ("ElementSpacing", "ElementSize"):
        if key in fields:
            check_spacing(stage, [_number(value) for value in fields[key].split()])
    data_file = head[1].split(b"\n", 1)[0].decode("utf-8", "replace").strip(" =\r\t")
    return _read(path, "MetaImageIO", "MetaImage", stage, "" if data_file.upper() == "LOCAL" else data_file)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _read(path: Path, image_io: str, kind: str, stage: str, data_file: str) -> StoredImage:
    import SimpleITK as sitk  # noqa: N813

    _check_data_file(path, data_file, kind, stage)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(image_io)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with captured_stderr():
            reader.ReadImageInformation()
        components = reader.GetNumberOfComponents()
        check_size(stage, reader.GetSize(), components)
        claimed = float(np.prod([float(n) for n in reader.GetSize()]))
        if not data_file and path.stat().st_size * MAX_DEFLATE_RATIO < claimed:  # before memory is asked for
            raise damaged(stage, f"{kind} file", f"the header promises {claimed:.0f} voxels")
        with captured_stderr():
            image = reader.Execute()
    except RuntimeError as error:
        if "spacing is not supported" in str(error):
            check_spacing(stage, [0.0])
        raise damaged(stage, f"{kind} file") from error
    stored = sitk.GetArrayViewFromImage(image).dtype
    if stored.kind not in "iuf":
        raise LesionDecompError(stage, f"voxels of type {stored}", f"{CT} with real numbers")
    n = image.GetDimension()
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(image.GetDirection()).reshape(n, n)[:3, :3] * np.array(image.GetSpacing())[:3]
    matrix[:3, 3] = np.array(image.GetOrigin())[:3]
    array = sitk.GetArrayFromImage(image)
    del image
    return StoredImage(compact(array.reshape(array.shape[-3:])), lps_to_ras(matrix), kind, stored.name)


def _check_data_file(path: Path, data_file: str, kind: str, stage: str) -> None:
    if not data_file:
        return
    if data_file.upper().startswith("LIST") or "%" in data_file or re.search(r"\s", data_file.strip()):
        pieces = data_file.split()
        # A file name may hold spaces; a pattern or a list names several files.
        if not (path.parent / data_file).is_file():
            raise LesionDecompError(
                stage, f"a {kind} header with its voxels in several files ({pieces[0]} …)", "one data file"
            )
    target = path.parent / data_file
    if not target.is_file():
        raise LesionDecompError(
            stage, f"a {kind} header without its data file '{Path(data_file).name}'", "both files in one folder"
        )
