"""The frames of an enhanced (multi-frame) CT, each as a slice of its own.

What a file of one slice states about it stands in functional groups here, of each frame or shared by all (DICOM PS3.3,
section C.7.6.16). Further multi-frame kinds that have such groups, e.g. series converted by an archive, read the same.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from .header import FRAMES, DicomSlice, text_of
from .lengths import mapped

if TYPE_CHECKING:
    from pydicom import Dataset

SHARED = "SharedFunctionalGroupsSequence"
# Name of a slice's field -> the group that holds it, and what it is called there.
GROUPS = {
    "position": ("PlanePositionSequence", "ImagePositionPatient"),
    "orientation": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "pixel_spacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "thickness": ("PixelMeasuresSequence", "SliceThickness"),
    "slope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "intercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "rescale_type": ("PixelValueTransformationSequence", "RescaleType"),
    "image_type": ("CTImageFrameTypeSequence", "FrameType"),
    "acquisition": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "acquired_at": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "time_point": ("FrameContentSequence", "TemporalPositionIndex"),
    "phase": ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    "kernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "tilt": ("CTAcquisitionDetailsSequence", "GantryDetectorTilt"),
    "kvp": ("CTXRayDetailsSequence", "KVP"),
    "body_part": ("FrameAnatomySequence", "BodyPartExamined"),
}
BINARY_GROUPS = ("FrameAcquisitionNumber", "KVP", "GantryDetectorTilt")


def frames_of(image: DicomSlice) -> list[DicomSlice] | None:
    """A slice for each frame; the image itself where the file describes none.

    :param image: what the file as a whole states; where a frame states something else, that holds.
    :return: None where the file describes another number of frames than it has.
    """
    import pydicom  # slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = [FRAMES, SHARED, "SpecificCharacterSet"]
        with mapped(image.path) as file:
            data = pydicom.dcmread(file, force=True, stop_before_pixels=True, specific_tags=wanted)
        frames = data.get(FRAMES)
        if not frames:
            return [image]
        if len(frames) != image.size[2]:
            return None
        shared = _fields(data[SHARED].value[0]) if data.get(SHARED) else {}
        size = (*image.size[:2], 1)
        number = image.tags["instance_number"]
        return [
            replace(
                image,
                size=size,
                frame=n,
                tags={**image.tags, **shared, **_fields(frame), "instance_number": f"{number or 1}.{n + 1:06d}"},
            )
            for n, frame in enumerate(frames)
        ]


def _fields(groups: Dataset) -> dict[str, str]:
    fields = {}
    for name, (group, keyword) in GROUPS.items():
        item = groups.get(group)
        if item:
            value = str(item[0].get(keyword, "")) if keyword in BINARY_GROUPS else text_of(item[0], keyword)
            if value and value != "None":
                fields[name] = value
    return fields
