"""The trend chart of a follow-up, as SVG: lesion volume and involvement at each scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from .charts import FAINT, INK, LESION, RULE, round_scale

WIDTH, HEIGHT = 640, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 52, 34, 42  # margins, px
SHARE = "#2b6cb0"
LEAST_GAP = 44  # px between labels of scans
FONT = "Segoe UI, Helvetica Neue, Arial, Liberation Sans, sans-serif"


@dataclass(frozen=True)
class TrendPoint:
    """One scan.

    :param label: what stands below it: a date, days, or a number.
    :param position: along the axis, in any unit.
    :param lesion_ml: mL.
    :param involvement_percent: % of the lungs.
    """

    label: str
    position: float
    lesion_ml: float
    involvement_percent: float


def trend_points(
    lesion_ml: Sequence[float],
    involvement_percent: Sequence[float],
    dates: Sequence[date] | None,
    shown: bool,
) -> tuple[list[TrendPoint], str]:
    """Points of the chart, and what their axis is called.

    :param dates: None where they are not known: the scans then stand at even distances.
    :param shown: show dates; otherwise days since the first scan.
    """
    if dates is None:
        labels, places, title = [f"scan {n + 1}" for n in range(len(lesion_ml))], list(range(len(lesion_ml))), "scan"
    elif shown:
        labels, places, title = [day.isoformat() for day in dates], [day.toordinal() for day in dates], "date"
    else:
        places = [(day - dates[0]).days for day in dates]
        labels, title = [f"day {days}" for days in places], "days since the first scan"
    return [
        TrendPoint(label, float(place), ml, percent)
        for label, place, ml, percent in zip(labels, places, lesion_ml, involvement_percent, strict=True)
    ], title


def trend_chart(points: Sequence[TrendPoint], axis: str) -> str:
    """Draw lesion volume (left scale) and involvement (right scale) of each scan.

    :return: SVG that needs no other file.
    """
    places = np.array([point.position for point in points])
    low, span = float(places.min()), max(float(places.max() - places.min()), 1e-9)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    # Inset, so that the first and the last scan do not stand on the scales.
    x = LEFT + 24 + (inner_width - 48) * (places - low) / span
    if len(points) == 1:
        x[:] = LEFT + inner_width / 2
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']
    series = (
        ([p.lesion_ml for p in points], LESION, "Lesion volume (mL)", LEFT, "end", -6),
        ([p.involvement_percent for p in points], SHARE, "Involvement (%)", WIDTH - RIGHT, "start", 6),
    )
    for number, (values, color, title, edge, anchor, gap) in enumerate(series):
        known = np.array([value if np.isfinite(value) else np.nan for value in values])
        step, top = round_scale(float(np.nanmax(known)) if np.isfinite(known).any() else 0.0)
        for value in np.arange(0, top + step / 2, step):
            level = TOP + inner_height * (1 - value / top)
            if number == 0:
                parts.append(_line(LEFT, level, WIDTH - RIGHT, level, RULE))
            parts.append(_text(edge + gap, level + 3.5, f"{value:g}", anchor, color))
        y = TOP + inner_height * (1 - known / top)
        shown = np.isfinite(y)
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[shown], y[shown], strict=True))
        dash = ' stroke-dasharray="5 3"' if number else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="1.8"{dash}/>')
        for a, b in zip(x[shown], y[shown], strict=True):
            if number:
                parts.append(f'<rect x="{a - 3.5:.1f}" y="{b - 3.5:.1f}" width="7" height="7" fill="{color}"/>')
            else:
                parts.append(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{color}"/>')
        title_x, title_anchor = (LEFT - 40, "start") if not number else (WIDTH - RIGHT + 40, "end")
        parts.append(_text(title_x, 16, title, title_anchor, color, bold=True))
    last = -np.inf
    for place, point in zip(x, points, strict=True):
        parts.append(_line(place, TOP + inner_height, place, TOP + inner_height + 4, INK))
        if place - last >= LEAST_GAP or not np.isfinite(last):
            parts.append(_text(place, TOP + inner_height + 17, point.label, "middle", INK))
            last = place
    parts.append(_text(LEFT + inner_width / 2, HEIGHT - 6, axis, "middle", FAINT))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Lesion volume and involvement over the scans" '
        f'font-family="{FONT}" font-size="11" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="0.8"/>'


def _text(x: float, y: float, text: str, anchor: str, color: str, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{weight}>{text}</text>'
