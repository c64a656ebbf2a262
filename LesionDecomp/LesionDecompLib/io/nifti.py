"""Reading NIfTI-1 files (.nii, .nii.gz).

nibabel takes header and voxels apart, after what the header claims has been checked here. SimpleITK's voxels are not
used: it fills the missing part of a truncated file with zeros, takes a zero spacing for 1 mm and drops a sheared sform
without a word. Voxels are scaled here, slice by slice to float32, where nibabel makes float64 of all of them. The
geometry is SimpleITK's wherever the header agrees with it, so that the grid is the one 3D Slicer shows.
Header layout: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.grid import corner_distance
from ..errors import InputError
from .stored_image import (
    CT,
    MAX_DEFLATE_RATIO,
    StoredImage,
    captured_stderr,
    check_size,
    check_spacing,
    compact,
    damaged,
    lps_to_ras,
)

HEADER_BYTES = 348
TYPES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # codes of whole and real numbers
COLOR = {128: 3, 2304: 4}
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, meter, millimeter, micrometer
SAME_GRID_MM = 0.05  # header affines are float32


def read_nifti(path: Path, stage: str) -> StoredImage:
    """Read a NIfTI-1 file.

    :param path: an existing file.
    :raises LesionDecompError: not NIfTI-1, damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"  # whatever the name is
        file.seek(0)
        stream: io.BufferedIOBase = gzip.GzipFile(fileobj=file) if is_packed else file
        try:
            header = _Header(stream.read(HEADER_BYTES), stage)
            if path.stat().st_size * (MAX_DEFLATE_RATIO if is_packed else 1) < header.voxel_bytes:
                raise damaged(stage, "NIfTI file", f"the header promises {header.voxel_bytes} bytes of voxels")
            array = header.voxels(stream)
            stream.read(1)  # at the end of the stream its checksum is compared
        except (EOFError, zlib.error) as error:
            raise damaged(stage, "NIfTI file") from error
        except OSError as error:
            if error.errno is not None:  # of the system
                raise
            raise damaged(stage, "NIfTI file", str(error).splitlines()[0]) from error
    ijk_to_ras, warnings = _geometry(path, header, stage)
    return StoredImage(compact(array), ijk_to_ras, "NIfTI", header.dtype.newbyteorder("=").name, warnings)


class _Header:
    """What a header states, once it is known to be that of a CT that could be.

    :param data: its 348 bytes.
    """

    def __init__(self, data: bytes, stage: str) -> None:
        from nibabel.nifti1 import Nifti1Header  # the command line's alone; slow to import

        if len(data) < HEADER_BYTES:
            raise damaged(stage, "NIfTI file", f"{len(data)} bytes, less than its header")
        order = next((order for order in "<>" if struct.unpack(order + "i", data[:4])[0] == HEADER_BYTES), "")
        if not order or data[344:348] not in (b"n+1\0", b"ni1\0"):
            second = struct.unpack("<i", data[:4])[0] in (540, 469893120)
            found = "a NIfTI-2 file" if second else "a file without a NIfTI-1 header"
            raise InputError(stage, found, "a NIfTI-1 file (.nii or .nii.gz)", "Save it as NIfTI-1 or NRRD.")
        if data[344:348] == b"ni1\0":
            raise InputError(stage, "half of a .hdr/.img pair", "a single NIfTI-1 file (.nii or .nii.gz)")
        fields: Any = Nifti1Header(data, endianness=order, check=False)
        self.size = _size(fields, stage)
        check_spacing(stage, fields["pixdim"][1:4].tolist())
        self.dtype: np.dtype = fields.get_data_dtype()
        self.offset = float(fields["vox_offset"])
        if not HEADER_BYTES <= self.offset <= 2**28:
            raise damaged(stage, "NIfTI file", "voxels that begin inside the header")
        self.slope, self.intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
        self.qform_code, self.sform_code = int(fields["qform_code"]), int(fields["sform_code"])
        unit = UNITS_MM.get(int(fields["xyzt_units"]) & 7, 1.0)
        self.sform, self.qform = fields.get_sform(), _qform(fields)
        self.sform[:3] *= unit
        self.qform[:3] *= unit

    @property
    def voxel_bytes(self) -> int:
        """Of all voxels as the file holds them."""
        return int(np.prod(self.size, dtype=np.int64)) * self.dtype.itemsize

    def voxels(self, stream: io.BufferedIOBase) -> np.ndarray:
        """``(k, j, i)``, native byte order, scaled.

        :raises OSError, EOFError, zlib.error: fewer voxels than promised, or a damaged stream.
        """
        from nibabel.volumeutils import array_from_file

        array = array_from_file(self.size, self.dtype, stream, int(self.offset), mmap=False).transpose()
        if not self.dtype.isnative:
            array = array.astype(self.dtype.newbyteorder("="))
        usable = np.isfinite(self.slope) and np.isfinite(self.intercept) and self.slope != 0
        if not usable or (self.slope, self.intercept) == (1, 0):
            return array
        scaled = np.empty(array.shape, np.float32)
        for source, result in zip(array, scaled, strict=True):
            result[...] = source * np.float64(self.slope) + np.float64(self.intercept)
        return scaled


def _size(fields: Any, stage: str) -> tuple[int, int, int]:
    dims = [int(n) for n in fields["dim"]]
    if not 1 <= dims[0] <= 7:
        raise damaged(stage, "NIfTI file", f"{dims[0]} dimensions")
    code = int(fields["datatype"])
    # Trailing axes of one voxel are padding; the third axis is kept, so that one slice is called one slice.
    components = COLOR.get(code, max(1, dims[5]) if dims[0] >= 5 else 1)
    size = check_size(stage, tuple(dims[1 : dims[0] + 1][:4]), components)
    if code not in TYPES:
        raise InputError(stage, f"NIfTI voxels of type code {code}", f"{CT} with real numbers")
    return size


def _qform(fields: Any) -> np.ndarray:
    """Index to RAS by the header's quaternion and offset, ``(4, 4)``; zeros where they are impossible."""
    from nibabel.spatialimages import HeaderDataError

    fields["pixdim"][0] = -1 if fields["pixdim"][0] < 0 else 1  # which nibabel wants; 0 stands for 1
    try:
        return fields.get_qform()
    except (HeaderDataError, ValueError):
        return np.zeros((4, 4))


def _geometry(path: Path, header: _Header, stage: str) -> tuple[np.ndarray, tuple[str, ...]]:
    shape = header.size[::-1]
    usable = header.sform_code > 0 and _is_usable(header.sform)
    if header.sform_code <= 0 and header.qform_code <= 0:
        warnings: tuple[str, ...] = ("The NIfTI header gives no orientation: right and left may be swapped.",)
    else:
        warnings = ()
    shown = _itk_matrix(path)
    if shown is None and not usable and header.qform_code > 0 and _is_usable(header.qform):
        return header.qform + 0.0, warnings  # a file that ITK can't open under its name
    if shown is not None and (not usable or corner_distance(shape, shown, header.sform) < SAME_GRID_MM):
        return shown, warnings
    # The two forms differ. A scanner's sheared sform is the truth (gantry tilt); one aligned to another image or to
    # an atlas (code 2 and up) is not where the scanner saw the patient.
    if shown is not None and (header.sform_code != 1 or _is_right_angled(header.sform)):
        return shown, (*warnings, "The NIfTI header holds two different orientations (qform and sform).")
    if not usable:
        raise InputError(stage, "a NIfTI header without a usable orientation", "a valid qform or sform")
    if not _is_right_angled(header.sform):
        warnings = (*warnings, "The voxel grid is sheared (as by a tilted gantry); the sform was followed.")
    return header.sform + 0.0, warnings


def _is_usable(matrix: np.ndarray) -> bool:
    return bool(np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-9)


def _is_right_angled(matrix: np.ndarray) -> bool:
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.allclose(unit.T @ unit, np.eye(3), atol=1e-3))


def _itk_matrix(path: Path) -> np.ndarray | None:
    # None where ITK can't express the orientation (a sheared sform and no qform), or goes by the name and can't read.
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NiftiImageIO")
    try:
        with captured_stderr():
            reader.ReadImageInformation()
    except RuntimeError:
        return None
    n = reader.GetDimension()
    matrix = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    matrix[:3, :3] = direction * np.array(reader.GetSpacing())[:3]
    matrix[:3, 3] = np.array(reader.GetOrigin())[:3]
    return lps_to_ras(matrix)
