"""Writing NIfTI-1 files (.nii.gz) on the CT's grid, for programs that read no NRRD."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..ct.volume import Volume
from ..errors import OutputError
from ..libraries import libraries_named
from .atomic import atomic_file
from .gzip_writer import write_gzip

STAGE = "Writing the results"
TYPES = ("uint8", "int16", "uint16", "float32")


@libraries_named()
def write_nifti(path: str | Path, array: np.ndarray, like: Volume) -> None:
    """Write a gzip-compressed NIfTI-1 file that appears under its name only when complete.

    Same array and grid, same bytes. The sform holds the grid as float32, sheared ones too; the qform holds it where
    axes are at right angles.

    :param array: ``(k, j, i)`` uint8, int16, uint16 or float32.
    :param like: whose grid it lies on.
    :raises LesionDecompError: another voxel type or shape; full disk, no permission.
    """
    from nibabel.nifti1 import Nifti1Header  # the command line's alone; slow to import

    if array.dtype.name not in TYPES or array.shape != like.shape:
        found = f"voxels of type {array.dtype} and shape {array.shape}"
        raise OutputError(STAGE, found, f"{', '.join(TYPES)} on the CT's grid", code="output_type")
    header = Nifti1Header(endianness="<")
    header.set_data_dtype(array.dtype.newbyteorder("<"))
    header.set_data_shape(array.shape[::-1])
    header.set_xyzt_units("mm")
    unit = like.ijk_to_ras[:3, :3] / like.spacing
    is_right_angled = bool(np.allclose(unit.T @ unit, np.eye(3), atol=1e-6))
    header.set_qform(like.ijk_to_ras, code=1 if is_right_angled else 0, strip_shears=True)
    header.set_sform(like.ijk_to_ras, code=1)
    header["pixdim"][1:4] = like.spacing
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    head = memoryview(header.binaryblock + bytes(4))
    little = array.dtype.newbyteorder("<")
    planes = (memoryview(np.ascontiguousarray(plane, dtype=little)).cast("B") for plane in array)

    def parts() -> Iterator[memoryview]:
        yield head
        yield from planes

    with atomic_file(path, "wb", STAGE) as stream:
        write_gzip(stream, parts())
