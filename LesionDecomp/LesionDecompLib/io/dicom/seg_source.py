"""Headers of CT images as highdicom can take them for a segmentation that refers to them.

What hospitals' headers lack or have wrong must not cost a result: texts of any character set become UTF-8, elements
that may be empty are filled, dates and numbers that are none are emptied, and positions are those that were read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...errors import OutputError
from .header import DicomSlice, plain

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement

STAGE = "Writing the DICOM segmentation"
UTF_8 = "ISO_IR 192"
TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")
MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
                "StudyTime", "ReferringPhysicianName")  # fmt: skip
NEEDED = {"StudyInstanceUID": "study", "SOPInstanceUID": "image", "SOPClassUID": "class"}
# What a value must look like for others to be able to read it; else it is emptied.
FORMS = {
    "DA": re.compile(r"\d{8}"),
    "TM": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
    "DT": re.compile(r"\d{4,14}(\.\d{1,6})?([+-]\d{4})?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    "IS": re.compile(r"[+-]?\d{1,10}"),
    "UI": re.compile(r"\d+(\.\d+)+"),
}
SEXES = ("M", "F", "O")
LONGEST_UID = 64


def source_images(items: Iterable[DicomSlice], slice_distance: float) -> list[Dataset]:
    """The data sets of images, without pixels, each file once.

    :param items: the slices, all of one series.
    :param slice_distance: mm.
    :raises LesionDecompError: a header lacks what nobody can fill in: the UID of its study, or of the image.
    """
    items = list(items)
    by_path = {item.path: item for item in items}
    images = [_image(item, slice_distance) for item in by_path.values()]
    first = images[0]
    for image in images:
        # Slices of one volume whose UIDs an anonymizer has set apart; all refer to what the first one does.
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
            setattr(image, keyword, first[keyword].value)
    if len(images) > 1 and any(item.frames > 1 for item in items):
        raise OutputError(
            STAGE, f"a series of {len(images)} multi-frame files", "single images, or one file", code="seg_source"
        )
    return images


def _image(item: DicomSlice, slice_distance: float) -> Dataset:
    import highdicom  # an extra, slow to import
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Without a preamble, which older archives leave out, pydicom must be made to take it for DICOM.
        image = pydicom.dcmread(item.path, stop_before_pixels=True, force=True)
        for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"):
            name = {"PixelSpacing": "pixel_spacing", "ImagePositionPatient": "position"}.get(keyword, "orientation")
            if item.frames == 1 and keyword in image:
                setattr(image, keyword, [_ds(value) for value in item.numbers(name)])
        if item.frames == 1:
            # As the positions have it: what images state about it is often wrong, and would be copied.
            image.SliceThickness = _ds(item.number("thickness", slice_distance))
            image.SpacingBetweenSlices = round(slice_distance, 6)
        _clean(image)
        image.SpecificCharacterSet = UTF_8
        for keyword in MAY_BE_EMPTY:
            if keyword not in image:
                setattr(image, keyword, "")
        if image.PatientSex not in SEXES:
            image.PatientSex = ""
        for keyword, what in NEEDED.items():
            if not image.get(keyword):
                raise OutputError(
                    STAGE,
                    f"a series that no segmentation can refer to ('{item.path.name}' has no UID of its {what})",
                    "a complete DICOM CT series",
                    "Leave out the segmentation.",
                    remedy="dicom_seg",
                    code="seg_source",
                )
        for keyword in ("SeriesInstanceUID", "FrameOfReferenceUID"):
            if not image.get(keyword):
                setattr(image, keyword, highdicom.UID())
        image.Modality = image.get("Modality") or "CT"
    return image


def _clean(image: Dataset) -> None:
    """Make texts Unicode, and empty what has no valid form; in sequences, too."""
    try:
        image.decode()
    except (AttributeError, LookupError, TypeError, ValueError):  # a character set that nobody knows
        image.SpecificCharacterSet = "ISO_IR 100"
    for tag in list(image.keys()):
        try:
            element = image[tag]
        except Exception:  # pydicom raises a dozen kinds here; what it cannot read, others can't
            del image[tag]
            continue
        if element.VR == "SQ":
            for part in element.value or []:
                _clean(part)
        elif element.VR in TEXTS and element.value:
            element.value = _as_text(element)
        elif element.VR in FORMS and not _is_valid(element):
            element.value = ""


def _as_text(element: DataElement) -> Any:
    values = element.value if element.VM > 1 else [element.value]
    texts = ["".join(c for c in plain(value) if c.isprintable() or c in "\r\n\t") for value in values]
    return texts if len(texts) > 1 else texts[0]


def _is_valid(element: DataElement) -> bool:
    if element.value in (None, ""):
        return True
    values = element.value if element.VM > 1 else [element.value]
    texts = [str(value).strip() for value in values]
    is_uid = element.VR == "UI"
    return all(FORMS[element.VR].fullmatch(text) and not (is_uid and len(text) > LONGEST_UID) for text in texts)


def _ds(value: float) -> str:
    """A number as DICOM's decimal text of at most 16 characters."""
    return next(text for digits in range(16, 0, -1) if len(text := f"{value:.{digits}g}") <= 16)
