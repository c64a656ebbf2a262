"""Reading NIfTI-1 and NIfTI-2 files (.nii, .nii.gz, .nii.bz2).

nibabel takes the header apart, after what it claims has been checked here. SimpleITK's voxels are not used: it fills
the missing part of a truncated file with zeros, takes a zero spacing for 1 mm and drops a sheared sform without a word.
The geometry is SimpleITK's wherever the header agrees with it, so that the grid is the one 3D Slicer shows.
Header layouts: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h, https://nifti.nimh.nih.gov/pub/dist/doc/nifti2.h
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ct.grid import corner_distance
from ..ct.oddity import Oddity
from ..errors import InputError
from .packed import MOST_RATIO, Unpacked, packing_of
from .stored_image import (
    CT,
    StoredImage,
    bytes_left_over,
    check_size,
    check_spacing,
    compact,
    damaged,
    fill,
    itk_header,
    lps_to_ras,
    no_orientation,
)

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

KIND, FILE = "NIfTI", "NIfTI file"
HEADER_BYTES = {1: 348, 2: 540}  # by version
MAGIC = {1: (344, (b"n+1\0",), (b"ni1\0",)), 2: (4, (b"n+2\0",), (b"ni2\0",))}  # where, one file, half of a pair
TYPES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # codes of whole and real numbers
COLOR = {128: 3, 2304: 4}
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # unknown, meter, millimeter, micrometer
SAME_GRID_MM = 0.05  # header affines are float32
SAME_SPACING = 1e-3  # relative


def read_nifti(path: Path, stage: str) -> StoredImage:
    """Read a NIfTI file.

    :param path: an existing file.
    :raises LesionDecompError: not NIfTI, damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as file:
        packing = packing_of(file.read(3))  # whatever the name promises
        file.seek(0)
        stream = Unpacked(file, packing)
        try:
            header = _Header(stream, stage)
            if path.stat().st_size * MOST_RATIO[packing] < header.voxel_bytes:
                raise damaged(stage, FILE, f"the header promises {header.voxel_bytes} bytes of voxels")
            array = header.voxels(stream, stage)
            left_over = stream.finish()
        except (EOFError, zlib.error) as error:
            raise damaged(stage, FILE) from error
        except OSError as error:
            if error.errno is None:  # a packed stream that is none, not a disk's error
                raise damaged(stage, FILE) from error
            raise
    matrix, warnings = _geometry(path, header, stage)
    if left_over:
        warnings = (*warnings, bytes_left_over(KIND))
    return StoredImage(compact(array), matrix, KIND, header.dtype.newbyteorder("=").name, warnings)


class _Header:
    """The fields of a NIfTI header that matter here, in native byte order.

    :raises LesionDecompError: no NIfTI header, or one that no CT has.
    """

    def __init__(self, stream: Unpacked, stage: str) -> None:
        from nibabel.nifti1 import Nifti1Header  # the command line's alone; slow to import
        from nibabel.nifti2 import Nifti2Header

        data = stream.read(HEADER_BYTES[1])
        if len(data) < HEADER_BYTES[1]:
            raise damaged(stage, FILE, f"{len(data)} bytes, less than its header")
        known = {struct.pack(order + "i", size): (order, version) for order in "<>"
                 for version, size in HEADER_BYTES.items()}  # fmt: skip
        order, version = known.get(data[:4], ("", 1))
        if version == 2:
            data += stream.read(HEADER_BYTES[2] - HEADER_BYTES[1])
        place, single, pair = MAGIC[version]
        magic = data[place : place + 4]
        if magic in pair:
            raise InputError(stage, "half of a .hdr/.img pair", "a single NIfTI file (.nii or .nii.gz)", code="pair")
        if not order or magic not in single or len(data) < HEADER_BYTES[version]:
            found, advice = "a file without a NIfTI header", "Save it as NIfTI or NRRD."
            raise InputError(stage, found, "a NIfTI file (.nii or .nii.gz)", advice, code="no_header")
        make: Any = Nifti2Header if version == 2 else Nifti1Header
        self.stored = data  # as the file holds it
        fields: Any = make(data, endianness=order, check=False)
        self.size = _size(fields, stage)
        # A sign of a spacing means nothing: directions are those of qform and sform.
        fields["pixdim"][1:4] = np.abs(fields["pixdim"][1:4])
        check_spacing(stage, fields["pixdim"][1:4].tolist())
        self.dtype: np.dtype = fields.get_data_dtype()
        offset = float(fields["vox_offset"])
        if not HEADER_BYTES[version] <= offset <= 2**28:
            raise damaged(stage, FILE, "voxels that begin inside the header")
        self._rest = int(offset) - len(data)
        self.slope, self.intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
        self.qform_code, self.sform_code = int(fields["qform_code"]), int(fields["sform_code"])
        unit = UNITS_MM.get(int(fields["xyzt_units"]) & 7, 1.0)
        self.sform, self.qform = fields.get_sform(), _qform(fields)
        self.sform[:3] *= unit
        self.qform[:3] *= unit
        self.spacing = np.array(fields["pixdim"][1:4], dtype=np.float64) * unit

    @property
    def voxel_bytes(self) -> int:
        """Of all voxels as the file holds them."""
        return int(np.prod(self.size, dtype=np.int64)) * self.dtype.itemsize

    @property
    def has_sform(self) -> bool:
        """Whether the sform is valid."""
        return self.sform_code > 0 and _is_usable(self.sform)

    @property
    def has_qform(self) -> bool:
        """Whether the qform is valid."""
        return self.qform_code > 0 and _is_usable(self.qform)

    def voxels(self, stream: Unpacked, stage: str) -> np.ndarray:
        """``(k, j, i)``, native byte order, scaled slice by slice to float32 where the header states it.

        :raises EOFError, OSError, zlib.error: a damaged stream.
        :raises LesionDecompError: fewer voxels than promised.
        """
        stream.skip(self._rest)
        array: np.ndarray = np.empty(self.size[::-1], self.dtype)
        fill(array, stream, stage, FILE)
        if not self.dtype.isnative:
            array = array.astype(self.dtype.newbyteorder("="))
        usable = np.isfinite(self.slope) and np.isfinite(self.intercept) and self.slope != 0
        if not usable or (self.slope, self.intercept) == (1, 0):
            return array
        scaled: np.ndarray = np.empty(array.shape, np.float32)
        for source, result in zip(array, scaled, strict=True):
            result[...] = source * np.float64(self.slope) + np.float64(self.intercept)
        return scaled


def _size(fields: Any, stage: str) -> tuple[int, int, int]:
    dims = [int(n) for n in fields["dim"]]
    if not 1 <= dims[0] <= 7:
        raise damaged(stage, FILE, f"{dims[0]} dimensions")
    dims[4:] = [max(1, n) for n in dims[4:]]  # 0 stands for an axis that is not there
    code = int(fields["datatype"])
    # Trailing axes of one voxel are padding; the third axis is kept, so that one slice is called one slice.
    components = COLOR.get(code, dims[5] if dims[0] >= 5 else 1)
    size = check_size(stage, tuple(dims[1 : dims[0] + 1][:4]), components)
    if code not in TYPES:
        found = f"NIfTI voxels of type code {code}"
        raise InputError(stage, found, f"{CT} with real numbers", code="voxel_type")
    return size


def _qform(fields: Any) -> np.ndarray:
    """Index to RAS by the header's quaternion and offset, ``(4, 4)``; zeros where they are impossible."""
    from nibabel.spatialimages import HeaderDataError  # slow to import

    fields["pixdim"][0] = -1 if fields["pixdim"][0] < 0 else 1  # which nibabel wants; 0 stands for 1
    try:
        return fields.get_qform()
    except (HeaderDataError, ValueError):
        return np.zeros((4, 4))


def _geometry(path: Path, header: _Header, stage: str) -> tuple[np.ndarray, tuple[Oddity, ...]]:
    shape = header.size[::-1]
    shown = _itk_matrix(path, header)
    if not header.has_sform and not header.has_qform:
        if header.sform_code <= 0 and header.qform_code <= 0:
            # Columns and rows run to the left and to the back, as SimpleITK takes them to do.
            matrix = shown if shown is not None else lps_to_ras(np.diag([*header.spacing, 1.0]))
            return matrix + 0.0, (no_orientation(KIND),)
        raise InputError(
            stage, "a NIfTI header without a usable orientation", "a valid qform or sform", code="no_usable_orientation"
        )
    followed = _followed(header, shown)
    warnings = [*_form_warnings(header, followed), *_spacing_warnings(header, followed)]
    # As 3D Slicer shows it, to the last bit, where that is the same grid.
    if shown is not None and corner_distance(shape, shown, followed) < SAME_GRID_MM:
        followed = shown
    if not _is_right_angled(followed):
        text = "The voxel grid is sheared (as by a tilted gantry); the sform was followed."
        warnings.append(Oddity(text, "sheared_grid", 0.0, 0.0))
    return followed + 0.0, tuple(warnings)


def _followed(header: _Header, shown: np.ndarray | None) -> np.ndarray:
    """The form that places the image.

    Of two that differ a scanner's sheared sform is the truth (gantry tilt); else the one that 3D Slicer shows, so that
    an sform aligned to another image or to an atlas (code 2 and up), which is not where the scanner saw the patient,
    is followed only where Slicer does so.
    """
    if not header.has_qform:
        return header.sform
    if not header.has_sform:
        return header.qform
    if shown is None or (header.sform_code == 1 and not _is_right_angled(header.sform)):
        return header.sform
    shape = header.size[::-1]
    return min((header.sform, header.qform), key=lambda form: corner_distance(shape, shown, form))


def _form_warnings(header: _Header, followed: np.ndarray) -> list[Oddity]:
    if not (header.has_qform and header.has_sform):
        return []
    distance = corner_distance(header.size[::-1], header.qform, header.sform)
    if distance <= SAME_GRID_MM:
        return []
    name = "sform" if followed is header.sform else "qform"
    text = (
        f"The NIfTI header holds two different orientations: qform and sform place voxels up to {distance:.3g} mm "
        f"apart. The {name} was followed."
    )
    return [Oddity(text, "qform_sform_differ", distance, SAME_GRID_MM)]


def _spacing_warnings(header: _Header, followed: np.ndarray) -> list[Oddity]:
    """Whether the spacing in the header's pixdim is another one than that of the form that was followed."""
    lengths = np.linalg.norm(followed[:3, :3], axis=0)
    difference = float(np.abs(header.spacing / lengths - 1).max())
    if difference <= SAME_SPACING:
        return []
    stated, taken = ("×".join(f"{value:.4g}" for value in spacing) for spacing in (header.spacing, lengths))
    text = f"The NIfTI header states a voxel spacing of {stated} mm (pixdim) and one of {taken} mm, which was taken."
    return [Oddity(text, "pixdim_differs", difference, SAME_SPACING)]


def _is_usable(matrix: np.ndarray) -> bool:
    return bool(np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 1e-9)


def _is_right_angled(matrix: np.ndarray) -> bool:
    unit = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return bool(np.allclose(unit.T @ unit, np.eye(3), atol=1e-3))


def _itk_matrix(path: Path, header: _Header) -> np.ndarray | None:
    # None where ITK can't express the orientation (a sheared sform and no qform).
    try:
        reader = itk_header(path, "NiftiImageIO")
    except RuntimeError:  # also where ITK goes by the name and can't unpack what is in the file
        try:
            reader = _reader_of_unpacked(header)
        except (OSError, RuntimeError):
            return None
    n = reader.GetDimension()
    if n < 3:
        return None
    matrix = np.eye(4)
    direction = np.array(reader.GetDirection()).reshape(n, n)[:3, :3]
    matrix[:3, :3] = direction * np.array(reader.GetSpacing())[:3]
    matrix[:3, 3] = np.array(reader.GetOrigin())[:3]
    return lps_to_ras(matrix) if np.isfinite(matrix).all() and abs(np.linalg.det(matrix)) > 0 else None


def _reader_of_unpacked(header: _Header) -> sitk.ImageFileReader:
    """SimpleITK's reader of the header alone, from a temporary file that is not packed.

    :raises OSError: no temporary folder.
    :raises RuntimeError: it cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="lesiondecomp-") as folder:
        plain = Path(folder) / "header.nii"
        plain.write_bytes(header.stored + bytes(4))  # no extensions follow
        return itk_header(plain, "NiftiImageIO")
