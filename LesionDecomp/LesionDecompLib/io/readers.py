"""CT volumes and lung masks from files and DICOM folders, each with what there is to know about the input.

Formats: NIfTI, NRRD, MetaImage, and a folder holding a DICOM series.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..ct.grid import AxialView
from ..ct.volume import Volume
from ..errors import InputError, LesionDecompError
from .dicom.files import is_dicom_file
from .dicom.series import read_dicom_folder
from .metaimage import read_metaimage
from .nifti import read_nifti
from .nrrd import read_nrrd, write_image
from .stored_image import StoredImage, corner_distance, damaged

__all__ = ["ReadInfo", "case_name", "read_mask", "read_volume", "volume_identity", "write_image"]

READERS = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}
FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd) or a folder with a DICOM series"
SAME_GRID = 0.05  # of the smallest spacing: what a mask's corners may lie off the CT's


@dataclass(frozen=True, eq=False)
class ReadInfo:
    """What identifies an input and how it was stored; no path, nothing about the patient.

    :param format: ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"`` or ``"DICOM"``.
    :param stored_type: numpy's name of the voxel type in the file.
    :param voxels_sha256: of shape and HU alone: the same for one CT in two formats.
    :param sha256: of shape, HU and index to RAS matrix: the input's identity.
    :param dicom: facts about scanner and reconstruction; empty for other formats.
    """

    format: str
    stored_type: str
    voxels_sha256: str
    sha256: str
    warnings: tuple[str, ...] = ()
    dicom: dict[str, str | float | bool] = field(default_factory=dict)

    @property
    def is_dicom(self) -> bool:
        """Whether the input was a DICOM series."""
        return self.format == "DICOM"


def read_volume(path: str | Path, stage: str = "Reading the CT") -> tuple[Volume, ReadInfo]:
    """Read a chest CT.

    :param path: a NIfTI, NRRD or MetaImage file, or a folder with a DICOM series.
    :return: the volume (HU, int16 where that loses nothing, else float32) and what is known about it.
    :raises LesionDecompError: missing, empty, damaged, truncated, of an unknown format, not one 3-D scalar volume, not
        finite, 8-bit, or with an impossible geometry; for DICOM see
        :func:`LesionDecompLib.io.dicom.series.read_dicom_folder`.
    """
    path = Path(path)
    stored = _read(path, stage)
    if stored.stored_type in ("int8", "uint8") and stored.array.min() >= -128:
        low, high = stored.array.min(), stored.array.max()
        raise InputError(stage, f"8-bit gray levels from {low:g} to {high:g}", "a chest CT in HU (16 bits)")
    try:
        volume = Volume.from_array(stored.array, stored.ijk_to_ras, case_name(path))
    except LesionDecompError as error:
        raise InputError(stage, error.found, error.expected, error.advice) from error
    voxels, identity = volume_identity(volume)
    info = ReadInfo(stored.format, stored.stored_type, voxels, identity, stored.warnings, stored.facts)
    return volume, info


def read_mask(
    path: str | Path, like: Volume, stage: str = "Reading the lung mask", *, may_be_empty: bool = False
) -> np.ndarray:
    """Read a lung mask that lies on the CT's grid; its axes may be stored in another order or direction.

    :param like: the CT.
    :param may_be_empty: take a mask without a lung as well.
    :return: ``(k, j, i)`` uint8 on the CT's grid. Labels 1 (right lung) and 2 (left lung) are kept; where there are
        others, every voxel above zero becomes 1.
    :raises LesionDecompError: unreadable (see :func:`read_volume`), on another grid, or without a lung.
    """
    stored = _read(Path(path), stage)
    there, here = (AxialView.of(item.array.shape, item.ijk_to_ras) for item in (stored, like))
    expected = f"the CT's grid of {_size(like.array)} voxels"
    if there.shape != here.shape:
        raise InputError(stage, f"a mask of {_size(stored.array)} voxels", expected)
    distance = corner_distance(here.shape, there.axial_to_ras, here.axial_to_ras)
    if distance > SAME_GRID * like.spacing.min():
        raise InputError(stage, f"a mask that lies up to {distance:.3g} mm beside the CT", expected)
    array = here.from_axial(there.to_axial(stored.array))
    if not np.isfinite(array).all():
        raise InputError(stage, "a mask with NaN or infinite voxels", "whole numbers, 0 outside the lungs")
    if array.min() >= 0 and array.max() <= 2 and np.array_equal(array, np.rint(array)):
        labels = np.ascontiguousarray(array, dtype=np.uint8)
    else:
        labels = np.ascontiguousarray(array > 0).view(np.uint8)
    if not may_be_empty and not labels.any():
        raise InputError(stage, "a mask without a lung voxel", "voxels above 0 inside the lungs")
    return labels


def volume_identity(volume: Volume) -> tuple[str, str]:
    """Return SHA-256 of shape and HU, and of those with the index to RAS matrix; independent of format and path."""
    digest = hashlib.sha256(f"{volume.array.dtype.name} {volume.array.shape}".encode())
    little = volume.array.dtype.newbyteorder("<")
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane, dtype=little))
    voxels = digest.hexdigest()
    digest.update(np.ascontiguousarray(volume.ijk_to_ras + 0.0, dtype="<f8"))
    return voxels, digest.hexdigest()


def case_name(path: str | Path) -> str:
    """Name of a case: its file's name less the format's ending, or its folder's name."""
    path = Path(path)
    name = path.name or path.resolve().name or "case"
    if name in (".", ".."):
        name = path.resolve().name or "case"
    for ending in sorted(READERS, key=len, reverse=True):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _read(path: Path, stage: str) -> StoredImage:
    try:
        if path.is_dir():
            return read_dicom_folder(path, stage)
        if not path.exists():
            raise InputError(stage, f"no file or folder '{path.name}'", FORMATS)
        if not path.is_file():
            raise InputError(stage, f"'{path.name}', which is not a regular file", FORMATS)
        if path.stat().st_size == 0:
            raise InputError(stage, f"an empty file '{path.name}'", FORMATS)
        reader = next((READERS[ending] for ending in READERS if path.name.lower().endswith(ending)), None)
        if reader is not None:
            return reader(path, stage)
        if is_dicom_file(path):
            raise InputError(
                stage, "a single DICOM file", "a folder with the whole series", "Give the folder that holds the file."
            )
        raise InputError(stage, f"the unknown file type of '{path.name}'", FORMATS)
    except OSError as error:
        found = f"'{path.name}', which cannot be opened ({error.strerror or error})"
        raise InputError(stage, found, "a readable file or folder") from error
    except MemoryError as error:
        raise InputError(stage, "an image larger than the free memory", "an image that fits") from error
    except UnicodeError as error:
        raise damaged(stage, "file") from error


def _size(array: np.ndarray) -> str:
    return "×".join(str(n) for n in reversed(array.shape))
