"""A follow-up as one page of HTML that needs no other file: trend, pictures and tables of change, definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..measurement.change.comparison import Comparison
from ..measurement.change.definitions import (
    CHANGES,
    COLORS,
    DEFINITIONS,
    NAMES,
    OF_SCANS,
    change_measurement,
)
from ..measurement.change.labels import Change
from ..measurement.statistics import REGION_HEADER
from .change_pictures import change_pictures
from .page import page_template
from .style import STYLE

if TYPE_CHECKING:
    from .follow import FollowUp

TITLE = "Follow-up of lung lesions in chest CT"
IN_TABLE = tuple(f"{NAMES[change]}_ml" for change in Change)
BESIDE = (
    "earlier_lesion_volume_ml",
    "later_lesion_volume_ml",
    "lesion_volume_change_percent",
    "earlier_involvement_percent",
    "later_involvement_percent",
    "earlier_lung_volume_ml",
    "later_lung_volume_ml",
    "earlier_lung_hu_mean",
    "later_lung_hu_mean",
)


def follow_page(follow: FollowUp, record: Mapping[str, Any]) -> str:
    """Make the page.

    :param record: of the follow-up.
    :return: HTML, UTF-8.
    """
    from markupsafe import Markup  # not before: it comes with torch, which Slicer may lack

    parts = [
        _part(number, follow, comparison, written)
        for number, (comparison, written) in enumerate(
            zip(follow.comparisons, record["comparisons"], strict=True), start=1
        )
    ]
    return page_template("follow_page.html").render(
        title=TITLE,
        style=Markup(STYLE),
        trend=Markup(follow.trend_svg()),
        parts=parts,
        scans=record["scans"],
        labels=[(NAMES[c], DEFINITIONS[c], _css(COLORS[c])) for c in Change],
        columns=[change_measurement(key) for key in (*IN_TABLE, *BESIDE)],
        definitions=[*OF_SCANS, *(m for m in CHANGES if m not in OF_SCANS and not m.key.endswith("_percent"))],
        region_header=REGION_HEADER,
        finished=record["run"]["finished_utc"].replace("T", " ").replace("+00:00", " UTC"),
        notice=record["notice"],
        software=record["software"],
        warnings=follow.warnings,
    )


def _part(number: int, follow: FollowUp, comparison: Comparison, written: Mapping[str, Any]) -> dict[str, Any]:
    earlier, later = follow.scans[number - 1], follow.scans[number]
    registration = written["registration"]
    vessels = registration["vessel_distance_mm"]
    facts = [
        f"registered by {registration['by']}, affine and B-spline",
        f"lungs overlap by a Dice of {registration['lung_dice']:.3f}",
        "vessels not compared" if vessels is None else f"vessels {vessels:.1f} mm apart on average",
        f"mean motion {registration['motion_mean_mm']:.1f} mm",
        f"lung volumes differ by {registration['lung_volume_difference_percent']:.0f} %",
    ]
    return {
        "title": f"Scan {number} to scan {number + 1}",
        "pictures": change_pictures(earlier, later, comparison.labels, comparison.motion),
        "rows": comparison.rows,
        "tiles": [(NAMES[c], comparison.ml(c), _css(COLORS[c]), DEFINITIONS[c]) for c in Change],
        "lesions": _counts_line(written["lesions"]),
        "facts": "; ".join(facts),
        "warnings": written["warnings"],
        "scans_warn": bool(follow.scan_warnings(number) or follow.scan_warnings(number + 1)),
    }


def _counts_line(lesions: Mapping[str, int]) -> str:
    parts = [f"{lesions['new']} new", f"{lesions['resolved']} resolved", f"{lesions['later_kept']} still there"]
    if lesions["earlier_not_seen"]:
        parts.append(f"{lesions['earlier_not_seen']} earlier not seen on the later CT")
    return ", ".join(parts)


def _css(color: tuple[float, float, float]) -> str:
    return "rgb({})".format(", ".join(str(round(255 * part)) for part in color))
