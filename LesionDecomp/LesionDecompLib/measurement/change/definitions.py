"""What is measured of a change: each value with title, unit and definition, for table, CSV, JSON, tooltips and page."""

from __future__ import annotations

from ..definitions import Measurement
from .labels import MEETING_MM, Change

_MEET = f"Lesions meet where they share a voxel or come within {MEETING_MM:g} mm of each other once registered."
NAMES = {
    Change.NEW: "new",
    Change.GROWN: "grown",
    Change.PERSISTENT: "persistent",
    Change.RESOLVED: "resolved",
    Change.SHRUNK: "shrunk",
}
DEFINITIONS = {
    Change.NEW: f"Lesions of the later CT that meet none of the earlier one. {_MEET}",
    Change.GROWN: "Later-only voxels of lesions that meet one of the earlier CT.",
    Change.PERSISTENT: "Voxels that are lesion in both CTs.",
    Change.RESOLVED: "Lesions of the earlier CT that meet none of the later one.",
    Change.SHRUNK: "Earlier-only voxels of lesions that are still there.",
}
COLORS = {  # red, green, blue in [0, 1]
    Change.NEW: (0.89, 0.10, 0.11),
    Change.GROWN: (1.00, 0.50, 0.05),
    Change.PERSISTENT: (0.96, 0.86, 0.30),
    Change.RESOLVED: (0.15, 0.65, 0.25),
    Change.SHRUNK: (0.25, 0.60, 0.95),
}
# The first three lie in the later lesions, the last two and persistent in the earlier ones.
IN_EARLIER = (Change.PERSISTENT, Change.RESOLVED, Change.SHRUNK)
_ON_GRID = (
    "Voxels of the change labelmap times its voxel volume (the later CT's); those that registration leaves outside the "
    "later lungs count for the region of the nearest lung voxel."
)
_IN_EARLIER = (
    "Volume that the same voxels had in the earlier CT: each earlier lesion's own volume there, shared among its "
    "voxels, so that what the breath stretched is not taken for growth."
)


def _of_label(change: Change) -> tuple[Measurement, ...]:
    name = NAMES[change]
    title = name.capitalize()
    return (
        Measurement(f"{name}_ml", title, "mL", f"{DEFINITIONS[change]} {_ON_GRID}", 2),
        Measurement(
            f"{name}_percent", title, "% of lung", f"{title} volume over the region's lung volume in the later CT.", 2
        ),
    )


OF_SCANS: tuple[Measurement, ...] = (
    Measurement(
        "earlier_lung_volume_ml", "Earlier lung volume", "mL", "Lung volume of the region in the earlier CT's own mask."
    ),
    Measurement(
        "later_lung_volume_ml", "Later lung volume", "mL", "Lung volume of the region in the later CT's own mask."
    ),
    Measurement(
        "lung_volume_change_percent",
        "Lung volume change",
        "%",
        "Later less earlier lung volume, over the earlier one: a different breath, mostly.",
    ),
    Measurement("earlier_lung_hu_mean", "Earlier lung mean", "HU", "Mean HU of the region's lung in the earlier CT."),
    Measurement("later_lung_hu_mean", "Later lung mean", "HU", "Mean HU of the region's lung in the later CT."),
    Measurement(
        "earlier_lesion_volume_ml",
        "Earlier lesion volume",
        "mL",
        "Lesion volume of the region in the earlier CT's own labelmap.",
        2,
    ),
    Measurement(
        "later_lesion_volume_ml",
        "Later lesion volume",
        "mL",
        "Lesion volume of the region in the later CT's own labelmap.",
        2,
    ),
    Measurement("lesion_volume_change_ml", "Lesion volume change", "mL", "Later less earlier lesion volume.", 2),
    Measurement(
        "lesion_volume_change_percent",
        "Lesion volume change",
        "%",
        "Later less earlier lesion volume, over the earlier one; undefined where there was none.",
    ),
    Measurement(
        "earlier_involvement_percent", "Earlier involvement", "%", "Lesion over lung volume in the earlier CT.", 2
    ),
    Measurement("later_involvement_percent", "Later involvement", "%", "Lesion over lung volume in the later CT.", 2),
    Measurement(
        "involvement_change_points",
        "Involvement change",
        "points",
        "Later less earlier involvement, percentage points.",
        2,
    ),
)
OF_LABELS: tuple[Measurement, ...] = tuple(one for change in Change for one in _of_label(change))
IN_EARLIER_ML: tuple[Measurement, ...] = tuple(
    Measurement(f"{NAMES[c]}_earlier_ml", f"{NAMES[c].capitalize()}, in the earlier CT", "mL", _IN_EARLIER, 2)
    for c in IN_EARLIER
)
CHANGES: tuple[Measurement, ...] = (*OF_SCANS, *OF_LABELS, *IN_EARLIER_ML)


def change_measurement(key: str) -> Measurement:
    """The measurement with this key; ``KeyError`` if there is none."""
    return _BY_KEY[key]


_BY_KEY = {m.key: m for m in CHANGES}
