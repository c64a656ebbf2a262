"""One comparison of two scans, from registration to table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...ct.oddity import Oddity
from ...progress import Cancel, Progress, check_cancel, unwatched
from ..regions import GivenRegions
from .definitions import NAMES
from .labels import Change, ChangeLabels, label_change
from .motion import Motion
from .quality import Quality, registration_quality
from .registration import SPACING_MM, register_lungs
from .scan import STAGE, Scan
from .table import ChangeRow, change_rows

BEYOND_ML = 0.1  # of lesion where the other CT has no voxel


@dataclass(frozen=True, eq=False)
class Comparison:
    """What changed between two scans.

    :param labels: ``(k, j, i)`` uint8 on the later scan's grid: 0, or one of :class:`.labels.Change`.
    :param rows: the table of change, both lungs first.
    :param counts: lesions by what became of them, see :attr:`.labels.ChangeLabels.counts`.
    """

    labels: np.ndarray
    rows: list[ChangeRow]
    counts: dict[str, int]
    quality: Quality
    motion: Motion
    warnings: list[str]

    def ml(self, change: Change) -> float:
        """Volume of a label in both lungs, mL."""
        return self.rows[0].values[f"{NAMES[change]}_ml"]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        vessel = self.quality.vessel_mm
        return {
            "rows": [row.record() for row in self.rows],
            "lesions": dict(self.counts),
            "registration": {
                "by": self.quality.by,
                "grid_mm": SPACING_MM,
                "lung_dice": round(self.quality.lung_dice, 4),
                "vessel_distance_mm": None if np.isnan(vessel) else round(vessel, 3),
                "motion_mean_mm": round(self.quality.motion_mm[0], 3),
                "motion_p95_mm": round(self.quality.motion_mm[1], 3),
                "lung_volume_difference_percent": round(self.quality.lung_volume_percent, 2),
            },
            "warnings": [str(text) for text in self.warnings],
            "warning_codes": [text.record() for text in self.warnings if isinstance(text, Oddity)],
        }


def compare_scans(
    earlier: Scan,
    later: Scan,
    regions: GivenRegions | None = None,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> Comparison:
    """Register two scans of one patient, label every lesion voxel by what became of it, and measure that.

    :param regions: parts of the later lungs to measure beside lungs, thirds and halves.
    :param progress: called with (``"registration"`` or ``"change"``, steps done, steps in all).
    :param cancelled: asked at each step.
    :raises LesionDecompError: a scan without lungs.
    :raises Cancelled: ``cancelled`` returned True.
    """
    registered = register_lungs(earlier, later, progress, cancelled)
    report = progress if progress is not None else unwatched
    report("change", 0, 3)
    quality = registration_quality(earlier, later, registered)
    check_cancel(cancelled, STAGE)
    report("change", 1, 3)
    change = label_change(earlier, later, registered.motion)
    check_cancel(cancelled, STAGE)
    report("change", 2, 3)
    rows, odd = change_rows(earlier, later, change, regions)
    report("change", 3, 3)
    warnings = [*quality.warnings, *_beyond(change), *odd]
    return Comparison(change.labels, rows, change.counts, quality, registered.motion, warnings)


def _beyond(change: ChangeLabels) -> list[str]:
    found: list[str] = []
    if change.unseen_ml > BEYOND_ML:
        text = (
            f"{change.unseen_ml:.1f} mL of the later lesions lie where the earlier CT has no voxel: they count as "
            "new or grown, and may have been there."
        )
        found.append(Oddity(text, "follow_beyond_earlier_ct", change.unseen_ml, BEYOND_ML))
    if change.lost_ml > BEYOND_ML:
        text = (
            f"{change.lost_ml:.1f} mL of the earlier lesions lie where the later CT has no voxel, or outside its "
            "lungs; they are not labeled."
        )
        found.append(Oddity(text, "follow_beyond_later_ct", change.lost_ml, BEYOND_ML))
    return found
