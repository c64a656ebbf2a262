"""The overview of a segmented CT on one page: axial and coronal slices, heat, outlines and the key measurements."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from ..ct.grid import AxialView
from ..measurement.definitions import AMOUNTS, measurement
from ..measurement.statistics import SIDES, THIRDS, RegionStatistics
from ..segmentation.lesions import volume_curve
from .colors import heat_color_table
from .panels import AXIAL_CELL, CORONAL_CELL, TEXT, plain, slice_panels, write
from .picture import LESION_COLOR, LUNG_COLOR, LUNG_WINDOW

if TYPE_CHECKING:
    from ..ct.volume import Volume
    from ..models.bundle import ModelBundle
    from ..pipeline import SegmentResult

RESEARCH_USE = "Research use only - not a medical device"
SIZE = (1920, 1200)
MARGIN, GAP = 24, 8
AXIAL_COLUMNS, AXIAL_ROWS = 3, 2
PANELS_TOP = 72
MEASUREMENTS_TOP = PANELS_TOP + AXIAL_ROWS * (AXIAL_CELL[1] + GAP) + 20
CURVE_TOP, BAR_TOP = MEASUREMENTS_TOP + 196, MEASUREMENTS_TOP + 300
BACKGROUND, PANEL_EDGE, RULE = (11, 13, 17), (44, 50, 60), (58, 64, 76)
FAINT, WARNING = (150, 160, 174), (255, 190, 90)
KEY_MEASUREMENTS = (*AMOUNTS, "lesion_hu_mean", "lung_hu_mean")


def draw_overview(volume: Volume, result: SegmentResult, title: str = "") -> Image.Image:
    """Draw the overview picture of one case.

    Slices follow the radiological convention (patient's right on the left, anterior or superior on top), each set to
    one scale. Nothing but ``title`` reveals whose CT it is: neither the volume's name nor a path is shown.

    :param volume: the CT.
    :param result: of segmenting it; its arrays lie on the CT's grid.
    :param title: a heading of the caller's choice; may be empty.
    :return: RGB image, 1920 by 1200 pixels.
    """
    view = volume.view
    stacks = [view.to_axial(a) for a in (volume.array, result.heat, result.lungs, result.lesions)]
    ml = volume.voxel_volume_ml
    page = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(page)
    _draw_heading(draw, title)
    _draw_slices(page, view, stacks, result.threshold)
    right = _draw_measurements(draw, MARGIN, MEASUREMENTS_TOP, result.statistics)
    left, right = right + 56, _draw_thirds(draw, right + 56, MEASUREMENTS_TOP, result)
    _draw_curve(draw, (left, CURVE_TOP, right, BAR_TOP), *volume_curve(result.heat, result.lungs, ml), result.threshold)
    _draw_color_bar(page, (left, BAR_TOP, right, BAR_TOP + 22), result.threshold)
    _draw_legend(draw, left, BAR_TOP + 70)
    _draw_run(draw, right + 56, MEASUREMENTS_TOP, volume, view, result)
    return page


def _draw_heading(draw: ImageDraw.ImageDraw, title: str) -> None:
    write(draw, (MARGIN, 40), _shortened(title, 90) or "Lung lesions in chest CT", 30, anchor="lm")
    write(draw, (SIZE[0] - MARGIN, 40), RESEARCH_USE, 22, WARNING, anchor="rm")


def _draw_slices(page: Image.Image, view: AxialView, stacks: list[np.ndarray], threshold: float) -> None:
    axial, coronal = slice_panels(view, stacks, threshold)
    for number, panel in enumerate(axial):
        row, column = divmod(number, AXIAL_COLUMNS)
        corner = (MARGIN + column * (AXIAL_CELL[0] + GAP), PANELS_TOP + row * (AXIAL_CELL[1] + GAP))
        _place(page, panel.picture, corner)
    for number, panel in enumerate(coronal):
        left = MARGIN + AXIAL_COLUMNS * (AXIAL_CELL[0] + GAP) + GAP
        _place(page, panel.picture, (left, PANELS_TOP + number * (CORONAL_CELL[1] + GAP)))


def _place(page: Image.Image, panel: Image.Image, corner: tuple[int, int]) -> None:
    page.paste(panel, corner)
    edge = (corner[0] - 1, corner[1] - 1, corner[0] + panel.width, corner[1] + panel.height)
    ImageDraw.Draw(page).rectangle(edge, outline=PANEL_EDGE)


def _draw_measurements(draw: ImageDraw.ImageDraw, left: int, top: int, statistics: list[RegionStatistics]) -> int:
    """The table of key measurements; returns its right edge."""
    values = {row.region: row.values for row in statistics}
    columns = [left + 370, left + 490, left + 610]
    write(draw, (left, top + 20), "Key measurements", 22)
    for x, side in zip(columns, SIDES, strict=True):
        write(draw, (x, top + 20), side.capitalize(), 17, FAINT, anchor="rs")
    draw.line([(left, top + 32), (columns[-1], top + 32)], fill=RULE)
    for number, key in enumerate(KEY_MEASUREMENTS):
        y = top + 58 + number * 35
        measured = measurement(key)
        write(draw, (left, y), measured.header, 19, FAINT, anchor="ls")
        for x, side in zip(columns, SIDES, strict=True):
            write(draw, (x, y), measured.text(values[side][key]), 21, anchor="rs")
    return columns[-1]


def _draw_thirds(draw: ImageDraw.ImageDraw, left: int, top: int, result: SegmentResult) -> int:
    """The table of involvement by third; returns its right edge."""
    values = {row.region: row.values for row in result.statistics}
    measured = measurement("involvement_percent")
    columns = [left + 225, left + 335, left + 445]
    write(draw, (left, top + 20), measured.header, 22)
    for x, side in zip(columns, SIDES, strict=True):
        write(draw, (x, top + 20), side.split()[0].capitalize(), 17, FAINT, anchor="rs")
    draw.line([(left, top + 32), (columns[-1], top + 32)], fill=RULE)
    for number, third in enumerate(THIRDS):
        y = top + 58 + number * 35
        write(draw, (left, y), third.capitalize(), 19, FAINT, anchor="ls")
        for x, side in zip(columns, SIDES, strict=True):
            write(draw, (x, y), measured.text(values[f"{side}, {third}"][measured.key]), 21, anchor="rs")
    return columns[-1]


def _draw_curve(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    thresholds: np.ndarray,
    volumes_ml: np.ndarray,
    threshold: float,
) -> None:
    """Volume of heat above each threshold, over the color bar as its axis."""
    left, top, right, bottom = box
    chosen = float(np.interp(threshold, thresholds, volumes_ml))
    # At threshold 0 the curve is the whole lung: the scale is that of the stretch where lesions are.
    highest = max(float(np.interp(0.1, thresholds, volumes_ml)), 1.25 * chosen)
    write(draw, (left, top - 14), "Volume with heat from the threshold up (mL)", 17, FAINT)
    draw.line([(left, top), (right, top)], fill=RULE)
    if highest == 0:
        write(draw, (left, bottom - 30), "no heat in the lungs", 17, FAINT)
        return
    seen = volumes_ml <= highest * (1 + 1e-9)
    across = left + thresholds[seen] * (right - left - 1)
    down = bottom - 2 - volumes_ml[seen] / highest * (bottom - top - 4)
    draw.line(np.stack([across, down], axis=-1).ravel().tolist(), fill=TEXT, width=2)
    write(draw, (right, top + 4), f"{highest:.0f}" if highest >= 10 else f"{highest:.2g}", 16, FAINT, anchor="rt")
    x, y = left + threshold * (right - left - 1), bottom - 2 - chosen / highest * (bottom - top - 4)
    draw.line([(x, top), (x, bottom)], fill=LESION_COLOR, width=1)
    draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=LESION_COLOR)


def _draw_color_bar(page: Image.Image, box: tuple[int, int, int, int], threshold: float) -> None:
    left, top, right, bottom = box
    draw = ImageDraw.Draw(page)
    bar = Image.fromarray(heat_color_table(right - left)[None]).resize((right - left, bottom - top))
    page.paste(bar, (left, top))
    draw.rectangle((left - 1, top - 1, right, bottom), outline=RULE)
    for tick in range(6):
        x = left + (right - left - 1) * tick / 5
        draw.line([(x, bottom + 1), (x, bottom + 6)], fill=FAINT)
        anchor = "lt" if tick == 0 else "rt" if tick == 5 else "mt"
        write(draw, (x, bottom + 10), "heat 0" if tick == 0 else f"{tick / 5:.1f}", 16, FAINT, anchor=anchor)
    x = left + (right - left - 1) * min(max(threshold, 0.0), 1.0)
    draw.line([(x, top), (x, bottom)], fill=LESION_COLOR, width=3)
    name, to_left = f"threshold {threshold:.3g}", x > (left + right) / 2
    write(draw, (x - 10 if to_left else x + 10, top - 86), name, 17, LESION_COLOR, "rs" if to_left else "ls", halo=True)


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, y: int) -> None:
    for x, color, text in ((left, LESION_COLOR, "lesion outline"), (left + 235, LUNG_COLOR, "lung outline")):
        draw.line([(x, y), (x + 34, y)], fill=color, width=3)
        write(draw, (x + 44, y), text, 17, FAINT, anchor="lm")


def _draw_run(
    draw: ImageDraw.ImageDraw, left: int, top: int, volume: Volume, view: AxialView, result: SegmentResult
) -> None:
    """Models, settings and warnings."""
    write(draw, (left, top + 20), "Run", 22)
    draw.line([(left, top + 32), (SIZE[0] - MARGIN, top + 32)], fill=RULE)
    low, high = LUNG_WINDOW
    spacing = " x ".join(f"{mm:.3g}" for mm in volume.spacing)
    size = " x ".join(str(n) for n in reversed(volume.shape))
    lines = [
        ("Lesion model", _bundle_text(result.lesion_bundle, "not named")),
        ("Lung model", _bundle_text(result.lung_bundle, "none: lung mask supplied")),
        ("Threshold", f"{result.threshold:.3g}, lesions below {result.min_volume_ml:.3g} mL left out"),
        ("CT", f"{size} voxels of {spacing} mm"),
        ("Window", f"width {high - low:.0f}, level {(low + high) / 2:.0f} HU"),
    ]
    y = top + 58
    for name, text in lines:
        write(draw, (left, y), name, 17, FAINT, anchor="ls")
        for part in textwrap.wrap(plain(text), 58)[:2]:
            write(draw, (left + 130, y), part, 17, anchor="ls")
            y += 26
    warnings = list(result.warnings)
    if view.turn_degrees > 5:
        warnings.append(
            f"Slices lie {view.turn_degrees:.0f} degrees from the body axes; positions are of their middle."
        )
    y += 10
    wrapped = [line for warning in warnings for line in textwrap.wrap(f"Warning: {plain(warning)}", 72)]
    room = (SIZE[1] - 14 - y) // 23
    if len(wrapped) > room:
        wrapped = [*wrapped[: room - 1], "... more in the report"]
    for line in wrapped:
        write(draw, (left, y), line, 16, WARNING, anchor="ls")
        y += 23


def _bundle_text(bundle: ModelBundle | None, missing: str) -> str:
    return f"{bundle.name} {bundle.version}" if bundle is not None else missing


def _shortened(text: str, longest: int) -> str:
    text = " ".join(plain(text).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
