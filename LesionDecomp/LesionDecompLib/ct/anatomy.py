"""What the labels mean: names, colors, SNOMED CT codes of lungs and lesions, in labelmaps, segments and DICOM."""

from __future__ import annotations

from dataclasses import dataclass

Code = tuple[str, str, str]  # coding scheme, value, meaning

TERMINOLOGY_CONTEXT = "Segmentation category and type - DICOM master list"
REGION_CONTEXT = "Anatomic codes - DICOM master list"
NO_CODE: Code = ("", "", "")
ANATOMICAL_STRUCTURE: Code = ("SCT", "123037004", "Anatomical Structure")
ALTERED_STRUCTURE: Code = ("SCT", "49755003", "Morphologically Altered Structure")
LUNG: Code = ("SCT", "39607008", "Lung")
LESION: Code = ("SCT", "52988006", "Lesion")
RIGHT: Code = ("SCT", "24028007", "Right")
LEFT: Code = ("SCT", "7771000", "Left")


@dataclass(frozen=True)
class Structure:
    """One label of a labelmap, or one segment.

    ``label`` is its value in its labelmap, ``color`` red, green, blue in [0, 1], the rest DICOM codes.
    """

    segment_id: str
    name: str
    label: int
    color: tuple[float, float, float]
    category: Code
    type: Code
    modifier: Code = NO_CODE
    region: Code = NO_CODE

    @property
    def terminology(self) -> str:
        """The entry in the form in which Slicer keeps it in a segment's tag."""
        codes = ["^".join(code) for code in (self.category, self.type, self.modifier)]
        region = ["^".join(code) for code in (self.region, NO_CODE)]
        return "~".join([TERMINOLOGY_CONTEXT, *codes, REGION_CONTEXT, *region])


RIGHT_LUNG = Structure("right-lung", "right lung", 1, (0.35, 0.62, 0.85), ANATOMICAL_STRUCTURE, LUNG, RIGHT)
LEFT_LUNG = Structure("left-lung", "left lung", 2, (0.45, 0.78, 0.55), ANATOMICAL_STRUCTURE, LUNG, LEFT)
LUNG_LESION = Structure("lesion", "lesion", 1, (0.95, 0.30, 0.10), ALTERED_STRUCTURE, LESION, region=LUNG)

LUNGS = (RIGHT_LUNG, LEFT_LUNG)
LESIONS = (LUNG_LESION,)
