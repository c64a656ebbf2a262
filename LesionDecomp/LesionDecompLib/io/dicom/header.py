"""What a DICOM file's header states about its images; about the patient, only whether two files show the same one.

pydicom reads the headers; the command line alone comes with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pydicom import Dataset

DESIGNATION = re.compile(r"\x1b[ -/]+[0-~]")
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"  # also the beginning of the classes of enhanced CT
UNCOMPRESSED = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
BIG_ENDIAN = "1.2.840.10008.1.2.2"
TAGS = {
    "sop_class": "SOPClassUID",
    "sop_instance": "SOPInstanceUID",
    "image_type": "ImageType",
    "modality": "Modality",
    "description": "SeriesDescription",
    "protocol": "ProtocolName",
    "body_part": "BodyPartExamined",
    "study_uid": "StudyInstanceUID",
    "series_uid": "SeriesInstanceUID",
    "series_number": "SeriesNumber",
    "instance_number": "InstanceNumber",
    "acquisition": "AcquisitionNumber",
    "acquired_at": "AcquisitionTime",
    "time_point": "TemporalPositionIndex",
    "time_point_number": "TemporalPositionIdentifier",
    "phase": "NominalPercentageOfCardiacPhase",
    "position": "ImagePositionPatient",
    "orientation": "ImageOrientationPatient",
    "pixel_spacing": "PixelSpacing",
    "samples": "SamplesPerPixel",
    "bits": "BitsAllocated",
    "bits_stored": "BitsStored",
    "signed": "PixelRepresentation",
    "padding": "PixelPaddingValue",
    "padding_limit": "PixelPaddingRangeLimit",
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
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
# Hold a number, not its decimal text.
BINARY = ("SamplesPerPixel", "BitsAllocated", "BitsStored", "PixelRepresentation", "TemporalPositionIndex",
          "PixelPaddingValue", "PixelPaddingRangeLimit", "NominalPercentageOfCardiacPhase")  # fmt: skip
FREE_TEXT = ("SeriesDescription", "ProtocolName", "ConvolutionKernel")
PATIENT = ("PatientID", "PatientName")
FRAMES = "PerFrameFunctionalGroupsSequence"
PIXELS = "PixelData"
LARGE_BYTES = 1 << 16  # values of more are left where they are: pixels


@dataclass(frozen=True, eq=False)
class DicomSlice:
    """One image of a series.

    :param path: its file.
    :param size: columns, rows, and how many frames the file has where none of them is described by itself.
    :param tags: the fields named in ``TAGS``, ``syntax`` (the transfer syntax) and ``patient`` (a hash).
    :param pixels: where in the file the pixels' bytes begin, and how many there are; -1 where that is not stated.
    :param frame: which frame of the file, of how many ``frames``.
    """

    path: Path
    size: tuple[int, ...]
    tags: dict[str, str] = field(repr=False)
    pixels: tuple[int, int] = (0, -1)
    frame: int = 0
    frames: int = 1

    def numbers(self, name: str) -> tuple[float, ...]:
        """Values of a decimal field; none where it is missing or does not read. A comma is taken for a point."""
        return decimals(self.tags[name])

    def number(self, name: str, otherwise: float = 0.0) -> float:
        """The first value of a decimal field, where there is a finite one."""
        values = self.numbers(name)
        return values[0] if values and np.isfinite(values[0]) else otherwise

    @property
    def is_ct(self) -> bool:
        """Whether the image is of a CT, by its modality, or where that is missing by its class."""
        modality = self.tags["modality"].upper()
        return modality == "CT" or (not modality and self.tags["sop_class"].startswith(CT_IMAGE))

    @property
    def is_localizer(self) -> bool:
        """Whether the image is a scout view, by its image type."""
        return any(word in self.tags["image_type"].upper() for word in ("LOCALIZER", "SCOUT", "TOPOGRAM"))

    @property
    def is_uncompressed(self) -> bool:
        """Whether the pixels are stored as they are, by the transfer syntax."""
        return self.tags["syntax"] in UNCOMPRESSED

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


def decimals(text: str) -> tuple[float, ...]:
    """The numbers of a decimal field, its values between backslashes; none where one of them is no number."""
    try:
        return tuple(float(_with_point(value)) for value in text.split("\\") if value.strip())
    except ValueError:
        return ()


def text_of(data: Dataset, keyword: str) -> str:
    """A field as text, its values between backslashes as the file has them; empty where there is none."""
    raw: Any = data.get_item(keyword)
    if raw is None or raw.value is None or raw.value == b"":
        return ""
    if not isinstance(raw.value, bytes):
        values = data[keyword].value
        return "\\".join(map(str, values)) if isinstance(values, (list, tuple)) else str(values)
    if keyword not in BINARY:
        if (keyword in FREE_TEXT and not raw.value.isascii()) or b"\x1b" in raw.value:
            return plain(data[keyword].value).strip("\0 ")  # by the file's character set
        return raw.value.decode("utf-8", "replace").strip("\0 ")
    if len(raw.value) == 2:
        return str(int.from_bytes(raw.value, "little" if raw.is_little_endian else "big"))
    return str(data[keyword].value)


def plain(value: object) -> str:
    """A value as text, without the designations of ISO 2022 that pydicom leaves in Chinese (GB 2312)."""
    return DESIGNATION.sub("", str(value))


def _with_point(value: str) -> str:
    return value.replace(",", ".") if value.count(",") == 1 and "." not in value else value
