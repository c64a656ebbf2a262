"""Finding the DICOM images in a folder and reading their headers; nothing about the patient is looked at.

Headers are read by pydicom, pixels by GDCM (:func:`image_reader`), which unpacks all the compressed kinds of them.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError
from ..stored_image import damaged
from .lengths import lengths_fit

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813
    from pydicom import Dataset

EXPECTED = "a folder with one CT series"
MAX_FILES = 20_000
CT_STORAGE = b"1.2.840.10008.5.1.4.1.1.2\0"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
TAGS = {
    "sop_class": "SOPClassUID",
    "sop_instance": "SOPInstanceUID",
    "image_type": "ImageType",
    "modality": "Modality",
    "description": "SeriesDescription",
    "series_uid": "SeriesInstanceUID",
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
    "samples": "SamplesPerPixel",
    "bits": "BitsAllocated",
    "slope": "RescaleSlope",
    "rescale_type": "RescaleType",
    "thickness": "SliceThickness",
    "tilt": "GantryDetectorTilt",
    "kernel": "ConvolutionKernel",
    "kvp": "KVP",
    "contrast": "ContrastBolusAgent",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
}
SIZE = ("Columns", "Rows", "NumberOfFrames")
BINARY = ("SamplesPerPixel", "BitsAllocated")  # hold a number, not its decimal text
LARGE_BYTES = 1 << 16  # values of more are left where they are: pixels


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One image file of a series: its size (columns, rows, frames), the fields named in ``TAGS``, and ``syntax``."""

    path: Path
    size: tuple[int, ...]
    tags: dict[str, str] = field(repr=False)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Values of a decimal field; none where it is missing or does not read."""
        try:
            return tuple(float(value) for value in self.tags[name].split("\\") if value.strip())
        except ValueError:
            return ()

    @property
    def is_localizer(self) -> bool:
        """Whether the image is a scout view, by its image type."""
        return "LOCALIZER" in self.tags["image_type"].upper() or "SCOUT" in self.tags["image_type"].upper()

    @property
    def is_uncompressed(self) -> bool:
        """Whether the pixels are stored as they are, by the transfer syntax."""
        return self.tags["syntax"].strip("\0 ") in UNCOMPRESSED

    @property
    def is_placed(self) -> bool:
        """Whether the image states where in the patient it lies."""
        return len(self.numbers("position")) == 3 and len(self.numbers("orientation")) == 6

    def fits(self, other: DicomSlice) -> bool:
        """Whether both can lie in one volume: same size, orientation and pixel spacing, but for rounding."""
        if self.size != other.size:
            return False
        pairs = ((self.numbers(name), other.numbers(name)) for name in ("orientation", "pixel_spacing"))
        return all(len(a) == len(b) and np.allclose(a, b, rtol=0, atol=1e-3) for a, b in pairs)


def is_dicom_file(path: Path) -> bool:
    """Whether the file begins as DICOM files do, with or without a preamble."""
    with open(path, "rb") as stream:
        head = stream.read(132)
    return head[128:132] == b"DICM" or head[:4] in (b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x02\0\0\0")


def scan_folder(folder: Path, stage: str) -> tuple[list[DicomSlice], int]:
    """Read the headers of all DICOM images in ``folder`` and its subfolders, in the order of their paths.

    :return: the images, and how many DICOM objects hold none (reports, contours).
    :raises LesionDecompError: no image at all, more files than any export has, or a damaged CT image.
    """
    slices, others, seen = [], 0, 0
    for seen, path in enumerate(_files(folder), start=1):
        if seen > MAX_FILES:
            raise InputError(stage, f"more than {MAX_FILES} files in '{folder.name}'", EXPECTED)
        if not is_dicom_file(path):
            continue
        item = read_header(path)
        if item is not None:
            slices.append(item)
        elif _claims_ct(path):
            raise damaged(stage, f"DICOM file '{path.name}'")
        else:
            others += 1
    if not slices:
        found = f"{others} DICOM objects without an image" if others else f"no DICOM file among {seen} files"
        raise InputError(stage, f"{found} in '{folder.name}'", EXPECTED)
    return slices, others


def image_reader(path: Path) -> sitk.ImageFileReader:
    """SimpleITK's reader for one DICOM file."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    return reader


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if not name.startswith(".") and name.upper() != "DICOMDIR" and path.is_file():
                yield path


def read_header(path: Path) -> DicomSlice | None:
    """The header of an image file; None where it holds no image, or is damaged."""
    if not lengths_fit(path):
        return None
    import pydicom  # the command line's alone; slow to import

    wanted = [*TAGS.values(), *SIZE, "SpecificCharacterSet", "PixelData"]
    try:
        with warnings.catch_warnings():  # of what others wrote against the standard's letter
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, force=True, defer_size=LARGE_BYTES, specific_tags=wanted)
            if "PixelData" not in data:
                return None
            size = (int(data.Columns), int(data.Rows), int(data.get("NumberOfFrames") or 1))
            tags = {name: _text(data, keyword) for name, keyword in TAGS.items()}
            return DicomSlice(path, size, {**tags, "syntax": str(data.file_meta.get("TransferSyntaxUID", ""))})
    except MemoryError:
        raise
    except Exception:  # pydicom raises a dozen kinds here; all mean that the header is damaged
        return None


def _text(data: Dataset, keyword: str) -> str:
    """A field as text, its values between backslashes as the file has them; empty where there is none."""
    raw = data.get_item(keyword)
    if raw is None or not raw.value:
        return ""
    if keyword in BINARY or not isinstance(raw.value, bytes):
        return str(data[keyword].value)
    return raw.value.decode("utf-8", "replace").strip("\0 ")


def _claims_ct(path: Path) -> bool:
    with open(path, "rb") as stream:
        return CT_STORAGE in stream.read(4096)
