"""What the segments of a DICOM segmentation say of themselves: their key measurements, each with its definition."""

from __future__ import annotations

from collections.abc import Sequence

from ..ct.anatomy import LUNG_LESION, LUNGS
from .definitions import measurement
from .statistics import RegionStatistics

LONGEST = 1024  # characters of a DICOM short text
OF_LUNGS = ("lung_volume_ml", "involvement_percent")
OF_LESIONS = ("lesion_volume_ml", "involvement_percent", "ground_glass_ml", "consolidation_ml", "lesion_count")


def segment_descriptions(rows: Sequence[RegionStatistics]) -> dict[str, str]:
    """A text for each segment, by its ID: ``"Lung volume 2400.9 mL (Voxels of the lung mask ...). ..."``; ASCII.

    :param rows: statistics of the result.
    """
    values = {row.region: row.values for row in rows}
    texts = {lung.segment_id: _text(values[lung.name], OF_LUNGS) for lung in LUNGS}
    return {**texts, LUNG_LESION.segment_id: _text(values["both lungs"], OF_LESIONS)}


def _text(values: dict[str, float], keys: Sequence[str]) -> str:
    parts = []
    for measured in map(measurement, keys):
        meaning = measured.explanation.rstrip(".")
        unit = f" {measured.unit}" if measured.unit else ""
        parts.append(f"{measured.title} {measured.text(values[measured.key])}{unit} ({meaning}).")
    text = " ".join(parts)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
