"""Reading NIfTI-1 files (.nii, .nii.gz).

The voxels are read here, not by SimpleITK, which fills the missing part of a truncated file with zeros, takes a zero
spacing for 1 mm and drops a sheared sform without a word. The geometry is SimpleITK's wherever the header agrees with
it, so that the grid is the one 3D Slicer shows. Header layout: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .inflated import Inflated
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
    fill,
    lps_to_ras,
)

HEADER_BYTES = 348
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COLOR = {128: 3, 2304: 4}
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, meter, millimeter, micrometer
SAME_GRID_MM = 0.05  # header affines are float32


def read_nifti(path: Path, stage: str) -> StoredImage:
    """Read a NIfTI-1 file.

    :param path: an existing file.
    :raises LesionDecompError: not NIfTI-1, damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"  # whatever the name says
    try:
        with open(path, "rb") as file:
            stream = Inflated(file, is_gzip=True) if is_packed else file
            header = _Header(stream.read(HEADER_BYTES), stage)
            array = _voxels(stream, header, path, stage)
    except (EOFError, zlib.error) as error:
        raise damaged(stage, "NIfTI file") from error
    ijk_to_ras, warnings = _geometry(path, header, stage)
    return StoredImage(array, ijk_to_ras, "NIfTI", header.dtype.newbyteorder("=").name, warnings)


class _Header:
    def __init__(self, data: bytes, stage: str) -> None:
        if len(data) < HEADER_BYTES:
            raise damaged(stage, "NIfTI file", f"{len(data)} bytes, less than its header")
        self.order = next((order for order in "<>" if struct.unpack(order + "i", data[:4])[0] == HEADER_BYTES), "")
        if not self.order or data[344:348] not in (b"n+1\0", b"ni1\0"):
            second = struct.unpack("<i", data[:4])[0] in (540, 469893120)
            found = "a NIfTI-2 file" if second else "a file without a NIfTI-1 header"
            raise InputError(stage, found, "a NIfTI-1 file (.nii or .nii.gz)", "Save it as NIfTI-1 or NRRD.")
        if data[344:348] == b"ni1\0":
            raise InputError(stage, "half of a .hdr/.img pair", "a single NIfTI-1 file (.nii or .nii.gz)")
        dims = self._get(data, 40, "8h")
        if not 1 <= dims[0] <= 7:
            raise damaged(stage, "NIfTI file", f"{dims[0]} dimensions")
        code = self._get(data, 70, "h")[0]
        sizes = dims[1 : dims[0] + 1]
        # Trailing axes of one voxel are padding; the third axis is kept, so that one slice is called one slice.
        components = COLOR.get(code, max(1, dims[5]) if dims[0] >= 5 else 1)
        self.size = check_size(stage, sizes[:4], components)
        if code not in TYPES:
            raise InputError(stage, f"NIfTI voxels of type code {code}", f"{CT} with real numbers")
        self.dtype = np.dtype(self.order + TYPES[code])
        pixdim = self._get(data, 76, "8f")
        check_spacing(stage, pixdim[1:4])
        self.offset = self._get(data, 108, "f")[0]
        if not HEADER_BYTES <= self.offset <= 2**28:
            raise damaged(stage, "NIfTI file", "voxels said to begin inside the header")
        self.slope, self.intercept = self._get(data, 112, "2f")
        self.unit = UNITS_MM.get(data[123] & 7, 1.0)
        self.qform_code, self.sform_code = self._get(data, 252, "2h")
        self.sform = np.eye(4)
        self.sform[:3] = np.array(self._get(data, 280, "12f"), dtype=np.float64).reshape(3, 4) * self.unit
        self.qform = self._qform(data, pixdim)

    def _qform(self, data: bytes, pixdim: tuple[float, ...]) -> np.ndarray:
        """Index to RAS by the header's quaternion and offset (method 2 of nifti1.h), ``(4, 4)`` mm."""
        b, c, d, *offset = (float(value) for value in self._get(data, 256, "6f"))
        a = max(0.0, 1.0 - (b * b + c * c + d * d)) ** 0.5
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
        matrix[:3, :3] *= np.array([pixdim[1], pixdim[2], pixdim[3] * (-1.0 if pixdim[0] < 0 else 1.0)])
        matrix[:3, 3] = offset
        matrix[:3] *= self.unit
        return matrix

    def _get(self, data: bytes, offset: int, layout: str) -> tuple[Any, ...]:
        return struct.unpack_from(self.order + layout, data, offset)

    @property
    def is_scaled(self) -> bool:
        used = np.isfinite(self.slope) and np.isfinite(self.intercept) and self.slope != 0
        return bool(used and (self.slope, self.intercept) != (1, 0))


def _voxels(stream: Inflated | io.BufferedReader, header: _Header, path: Path, stage: str) -> np.ndarray:
    shape = header.size[::-1]
    needed = int(np.prod(shape, dtype=np.int64)) * header.dtype.itemsize
    ratio = MAX_DEFLATE_RATIO if isinstance(stream, Inflated) else 1
    if path.stat().st_size * ratio < needed:  # before memory is asked for
        raise damaged(stage, "NIfTI file", f"the header promises {needed} bytes of voxels")
    array = np.empty(shape, header.dtype)
    stream.read(int(header.offset) - HEADER_BYTES)
    fill(array, stream, stage, "NIfTI file")
    stream.read(1)  # at the end of the stream its checksum is compared
    if not header.dtype.isnative:
        array = array.astype(header.dtype.newbyteorder("="))
    if header.is_scaled:
        scaled = np.empty(shape, np.float32)
        for source, result in zip(array, scaled, strict=True):
            result[...] = source * np.float64(header.slope) + np.float64(header.intercept)
        array = scaled
    return compact(array)


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
