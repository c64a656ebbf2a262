"""CT volumes from files and DICOM folders, each with what there is to know about the input.

Formats: NIfTI, NRRD, MetaImage, and a folder holding a DICOM series.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..ct.grid import FINEST_MM
from ..ct.volume import Volume
from ..errors import InputError, LesionDecompError
from ..libraries import libraries_named
from .archive import is_archive, unpacked
from .dicom.files import is_dicom_file
from .dicom.series import read_dicom
from .folders import files_below
from .metaimage import metaimage_files, read_metaimage
from .nifti import read_nifti
from .nrrd import nrrd_files, read_nrrd, write_image
from .stored_image import StoredImage, damaged, unreadable

__all__ = ["ReadInfo", "case_name", "read_stored", "read_volume", "volume_identity", "write_image"]

READERS = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nii.bz2": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}
DETACHED = {".nrrd": nrrd_files, ".nhdr": nrrd_files, ".mha": metaimage_files, ".mhd": metaimage_files}
LARGEST_HEADER = 1 << 20  # bytes; a larger file holds its voxels itself
FORMATS = "NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr), MetaImage (.mha, .mhd), DICOM (a folder, a file, a zip)"


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


def read_volume(path: str | Path, stage: str = "Reading the CT", series: str | None = None) -> tuple[Volume, ReadInfo]:
    """Read a chest CT.

    :param path: a NIfTI, NRRD or MetaImage file, a folder with a DICOM series, one file of such a series, or a zip
        archive of these.
    :param series: of several DICOM series the one to read, by its UID, its number or a part of its description; None:
        the best for lungs by a rule, with a warning that names it and the others.
    :return: the volume (HU, int16 where that loses nothing, else float32) and what is known about it.
    :raises LesionDecompError: missing, empty, damaged, truncated, of an unknown format, not one 3-D scalar volume, not
        finite, 8-bit, or with an impossible geometry; for DICOM see
        :func:`LesionDecompLib.io.dicom.series.read_dicom`.
    """
    path = Path(path)
    stored = read_stored(path, stage, series)
    if stored.stored_type in ("int8", "uint8") and stored.array.min() >= -128:
        low, high = stored.array.min(), stored.array.max()
        raise InputError(
            stage, f"8-bit gray levels from {low:g} to {high:g}", "a chest CT in HU (16 bits)", code="eight_bit"
        )
    try:
        volume = Volume.from_array(stored.array, stored.ijk_to_ras, case_name(path))
    except LesionDecompError as error:
        raise InputError(stage, error.found, error.expected, error.advice, error.remedy, error.code) from error
    voxels, identity = volume_identity(volume)
    info = ReadInfo(stored.format, stored.stored_type, voxels, identity, stored.warnings, stored.facts)
    return volume, info


def volume_identity(volume: Volume) -> tuple[str, str]:
    """Return SHA-256 of shape and HU, and of those with the index to RAS matrix; independent of format and path.

    The matrix counts to 0.1 µm, as spacing does (:func:`.ct.grid.nominal_mm`): programs, 3D Slicer among them, take it
    apart and put it together again, which changes its last bits.
    """
    digest = hashlib.sha256(f"{volume.array.dtype.name} {volume.array.shape}".encode())
    little = volume.array.dtype.newbyteorder("<")
    for plane in volume.array:
        digest.update(np.ascontiguousarray(plane, dtype=little))
    voxels = digest.hexdigest()
    placed = np.floor(volume.ijk_to_ras / FINEST_MM + 0.5 - 1 / 64)
    digest.update(np.ascontiguousarray(placed, dtype="<f8"))
    return voxels, digest.hexdigest()


def case_name(path: str | Path) -> str:
    """Name of a case: its file's name less the format's ending, or its folder's name."""
    path = Path(path)
    name = path.name or path.resolve().name or "case"
    if name in (".", ".."):
        name = path.resolve().name or "case"
    for ending in sorted([*READERS, ".dcm", ".zip"], key=len, reverse=True):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def image_files(path: Path) -> list[Path]:
    """An image file, and those that hold its voxels where its header lies apart, as far as they are there.

    :param path: a regular file; a pipe would be waited for.
    """
    files_of = DETACHED.get(path.suffix.lower())
    if files_of is None or path.stat().st_size > LARGEST_HEADER:
        return [path]
    try:
        return list(dict.fromkeys([path, *files_of(path, "Reading the header")]))
    except (LesionDecompError, OSError):  # reported when the image is read
        return [path]


@libraries_named()
def read_stored(path: Path, stage: str, series: str | None = None) -> StoredImage:
    """Read any image as its file or series holds it.

    :raises LesionDecompError: as :func:`read_volume`, but for what makes a CT.
    """
    try:
        if path.is_dir():
            return read_dicom(path, stage, series)
        if not path.exists():
            raise InputError(stage, f"no file or folder '{path.name}'", FORMATS, code="not_found")
        if not path.is_file():
            raise InputError(stage, f"'{path.name}', which is not a regular file", FORMATS, code="not_a_file")
        if path.stat().st_size == 0:
            raise InputError(stage, f"an empty file '{path.name}'", FORMATS, code="empty_file")
        reader = next((READERS[ending] for ending in READERS if path.name.lower().endswith(ending)), None)
        if reader is not None:
            if series is not None:
                raise InputError(
                    stage,
                    f"'{path.name}', which holds no DICOM series to choose from",
                    "a DICOM input where a series is named",
                    code="series_without_dicom",
                )
            return reader(path, stage)
        if is_archive(path):
            return _read_archive(path, stage, series)
        if is_dicom_file(path):
            return read_dicom(path, stage, series)
        raise InputError(stage, f"the unknown file type of '{path.name}'", FORMATS, code="unknown_format")
    except OSError as error:
        raise unreadable(path, stage, error) from error
    except MemoryError as error:
        raise InputError(
            stage, "an image larger than the free memory", "an image that fits", code="out_of_memory"
        ) from error
    except UnicodeError as error:
        raise damaged(stage, "file") from error


def _read_archive(path: Path, stage: str, series: str | None) -> StoredImage:
    """Read the DICOM series of a zip archive, or its only image file."""
    with unpacked(path, stage) as folder:
        files = list(files_below(folder))
        images = [file for file in files if file.name.lower().endswith(tuple(READERS))]
        if len(images) == 1 and not any(is_dicom_file(file) for file in files if file not in images):
            return read_stored(images[0], stage, series)
        if len(images) > 1 and not any(is_dicom_file(file) for file in files):
            found = f"{len(images)} image files in '{path.name}'"
            raise InputError(stage, found, "one CT", "Unpack it, and give the file.", code="several_images_in_zip")
        try:
            return read_dicom(folder, stage, series)
        except LesionDecompError as error:  # the folder's name is of no use to anybody
            found = error.found.replace(f"'{folder.name}'", f"'{path.name}'")
            raise InputError(stage, found, error.expected, error.advice, error.remedy, error.code) from error
