"""Reading NRRD files through SimpleITK, with the geometry that the header's text gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import LesionDecompError
from .nrrd import nrrd_fields, nrrd_geometry, nrrd_line_lengths
from .stored_image import (
    CT,
    MAX_DEFLATE_RATIO,
    StoredImage,
    captured_stderr,
    check_data_file,
    check_size,
    check_spacing,
    compact,
    corner_distance,
    damaged,
    lps_to_ras,
)

SAME_GRID_MM = 1e-3
MAX_LINE = 500  # of a field; what ITK says of a much longer one it can't read does not fit its buffers, and it crashes


def read_nrrd(path: Path, stage: str) -> StoredImage:
    """Read a NRRD file (.nrrd, or .nhdr with its data file beside it).

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    fields = nrrd_fields(path)
    if any(length > MAX_LINE for length in nrrd_line_lengths(path)):  # also where a header never ends
        raise damaged(stage, "NRRD file", "a header line of impossible length")
    if not fields:
        raise LesionDecompError(stage, "a file without a NRRD header", "a NRRD file (.nrrd or .nhdr)")
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
        raise LesionDecompError(stage, f"voxels of type {stored}", f"{CT} with real numbers")
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
