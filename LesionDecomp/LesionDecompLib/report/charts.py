"""The two charts of the report page, as SVG: lesion volume against threshold, and lesion area along the body axis."""

from __future__ import annotations

import numpy as np

from .colors import heat_color_table

WIDTH = 300
CURVE_HEIGHT, AXIS_HEIGHT = 148, 196
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 16, 30  # margins, px
INK, FAINT, RULE, LESION, LUNG = "#1c2430", "#66707f", "#d5dae1", "#c2352b", "#dfe5ec"
LOW_HEAT = 0.1  # below, the curve soars to the whole lung and would flatten all the rest


def volume_chart(thresholds: np.ndarray, volumes_ml: np.ndarray, threshold: float) -> str:
    """Draw the volume of heat at or above each threshold, the chosen one marked.

    :param thresholds: ``(n,)`` rising from 0 to 1.
    :param volumes_ml: ``(n,)`` mL.
    """
    chosen = float(np.interp(threshold, thresholds, volumes_ml))
    highest = max(float(np.interp(LOW_HEAT, thresholds, volumes_ml)), 1.25 * chosen)
    step, top_value = round_scale(highest)
    inner_width, inner_height = WIDTH - LEFT - RIGHT, CURVE_HEIGHT - TOP - BOTTOM
    shown = np.flatnonzero(volumes_ml <= top_value)
    # One point for each pixel is all that can be seen.
    shown = shown[:: max(1, len(shown) // inner_width)]
    x = LEFT + thresholds[shown] * inner_width
    y = TOP + inner_height * (1 - volumes_ml[shown] / top_value)
    parts = [_text(LEFT, 10, "Lesion volume (mL) at each threshold", "start", INK)]
    for value in np.arange(0, top_value + step / 2, step):
        level = TOP + inner_height * (1 - value / top_value)
        parts += [_line(LEFT, level, WIDTH - RIGHT, level, RULE), _text(LEFT - 4, level + 3, f"{value:g}", "end")]
    bar = TOP + inner_height + 2
    colors = heat_color_table(60)
    for number, (red, green, blue) in enumerate(colors):
        left = LEFT + number * inner_width / len(colors)
        parts.append(
            f'<rect x="{left:.1f}" y="{bar}" width="{inner_width / len(colors) + 0.3:.1f}" height="6" '
            f'fill="rgb({red},{green},{blue})"/>'
        )
    for tick in range(6):
        parts.append(_text(LEFT + inner_width * tick / 5, CURVE_HEIGHT - 12, f"{tick / 5:g}"))
    parts.append(_text(LEFT + inner_width / 2, CURVE_HEIGHT - 2, "threshold on the heat"))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    parts.append(f'<polyline points="{points}" fill="none" stroke="{INK}" stroke-width="1.4"/>')
    mark_x, mark_y = LEFT + threshold * inner_width, TOP + inner_height * (1 - chosen / top_value)
    parts.append(_line(mark_x, TOP, mark_x, bar + 6, LESION))
    parts.append(f'<circle cx="{mark_x:.1f}" cy="{mark_y:.1f}" r="3" fill="{LESION}"/>')
    anchor, side = ("start", 5) if threshold < 0.6 else ("end", -5)
    parts.append(_text(mark_x + side, TOP + 8, f"{chosen:.3g} mL at {threshold:.3g}", anchor, LESION))
    return _svg(parts, CURVE_HEIGHT, "Lesion volume against threshold")


def axis_chart(heights_mm: np.ndarray, lung_cm2: np.ndarray, lesion_cm2: np.ndarray) -> str:
    """Draw lung and lesion area of each axial slice, superior on top as in a coronal picture.

    :param heights_mm: ``(n,)`` RAS superior coordinate of each slice, rising.
    :param lung_cm2, lesion_cm2: ``(n,)``.
    """
    held = np.flatnonzero(lung_cm2)
    first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, len(lung_cm2))
    heights, lung, lesion = heights_mm[first:last], lung_cm2[first:last], lesion_cm2[first:last]
    step, top_value = round_scale(float(lung.max(initial=0.0)))
    low, high = float(heights[0]), float(heights[-1])
    inner_width, inner_height = WIDTH - LEFT - RIGHT, AXIS_HEIGHT - TOP - BOTTOM
    y = TOP + inner_height * (high - heights) / max(high - low, 1e-6)
    parts = [_text(LEFT, 10, "Area in each axial slice (cm²)", "start", INK)]
    for value in np.arange(0, top_value + step / 2, step):
        across = LEFT + inner_width * value / top_value
        parts += [_line(across, TOP, across, TOP + inner_height, RULE), _text(across, AXIS_HEIGHT - 18, f"{value:g}")]
    for areas, color in ((lung, LUNG), (lesion, LESION)):
        x = LEFT + inner_width * areas / top_value
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polygon points="{LEFT},{y[0]:.1f} {points} {LEFT},{y[-1]:.1f}" fill="{color}"/>')
    for value in (low, (low + high) / 2, high):
        level = TOP + inner_height * (high - value) / max(high - low, 1e-6)
        parts.append(_text(LEFT - 4, level + 3, f"{'SI'[value < 0]} {abs(value):.0f}", "end"))
    for key, color, name in ((LEFT + 40, LUNG, "lung"), (LEFT + 110, LESION, "lesion")):
        parts.append(f'<rect x="{key}" y="{AXIS_HEIGHT - 10}" width="9" height="9" fill="{color}"/>')
        parts.append(_text(key + 13, AXIS_HEIGHT - 2, name, "start"))
    parts.append(_text(LEFT - 4, AXIS_HEIGHT - 2, "mm", "end"))
    return _svg(parts, AXIS_HEIGHT, "Lung and lesion area along the body axis")


def round_scale(highest: float) -> tuple[float, float]:
    """A round step and a round end for an axis from 0 to at least ``highest``, with two to five steps."""
    if highest <= 0:
        return 1.0, 1.0
    power = 10.0 ** np.floor(np.log10(highest))
    step = next(power * f for f in (0.2, 0.5, 1.0, 2.0) if highest <= 5 * power * f)
    return float(step), float(step * np.ceil(highest / step))


def _svg(parts: list[str], height: int, name: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}" font-size="10" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="0.8"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", color: str = FAINT) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{text}</text>'
