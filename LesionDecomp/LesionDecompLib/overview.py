"""The overview of a segmented CT on one page: axial and coronal slices, heat, outlines and the key figures."""

from __future__ import annotations

import textwrap
import unicodedata
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .geometry import AxialView
from .heat_colors import heat_color_table
from .lesions import volume_curve
from .overview_panel import LESION_COLOR, LUNG_COLOR, LUNG_WINDOW, Frame, Plane, draw_panel
from .overview_slices import telling_slices
from .statistics import SIDES, THIRDS, measurement

if TYPE_CHECKING:
    from .pipeline import SegmentResult
    from .volume import Volume

RESEARCH_USE = "Research use only - not a medical device"
SIZE = (1920, 1200)
MARGIN, GAP = 24, 8
AXIAL_CELL, AXIAL_COLUMNS, AXIAL_ROWS = (464, 348), 3, 2
CORONAL_CELL, CORONAL_COUNT = (448, 348), 2
PANELS_TOP = 72
FIGURES_TOP = PANELS_TOP + AXIAL_ROWS * (AXIAL_CELL[1] + GAP) + 20
CURVE_TOP, BAR_TOP = FIGURES_TOP + 196, FIGURES_TOP + 300
TISSUE_MM = 20.0  # shown around the lungs
SCALE_BAR_MM = 50
BACKGROUND, PANEL_EDGE, RULE = (11, 13, 17), (44, 50, 60), (58, 64, 76)
TEXT, FAINT, WARNING = (232, 236, 242), (150, 160, 174), (255, 190, 90)
KEY_FIGURES = (
    "lung_volume_ml",
    "lesion_volume_ml",
    "involvement_percent",
    "ground_glass_ml",
    "consolidation_ml",
    "lesion_count",
    "largest_lesion_ml",
    "lesion_hu_mean",
    "lung_hu_mean",
)


def draw_overview(volume: Volume, result: SegmentResult, title: str = "") -> Image.Image:
    """Draw the overview picture of one case.

    Slices follow the radiological convention (patient's right on the left, anterior or superior on top), each set to
    one scale. Nothing but ``title`` tells whose CT it is: neither the volume's name nor a path is shown.

    :param volume: the CT. :param result: of segmenting it; its arrays lie on the CT's grid.
    :param title: a heading of the caller's choice; may be empty.
    :return: RGB image, 1920 by 1200 pixels.
    """
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    stacks = [view.to_axial(a) for a in (volume.array, result.heat, result.lungs, result.lesions)]
    ml = volume.voxel_volume_ml
    page = Image.new("RGB", SIZE, BACKGROUND)
    draw = ImageDraw.Draw(page)
    _draw_heading(draw, title)
    _draw_slices(page, view, stacks, result.threshold)
    right = _draw_figures(draw, MARGIN, FIGURES_TOP, result.statistics)
    left, right = right + 56, _draw_thirds(draw, right + 56, FIGURES_TOP, result)
    _draw_curve(draw, (left, CURVE_TOP, right, BAR_TOP), *volume_curve(result.heat, result.lungs, ml), result.threshold)
    _draw_color_bar(page, (left, BAR_TOP, right, BAR_TOP + 22), result.threshold)
    _draw_legend(draw, left, BAR_TOP + 70)
    _draw_run(draw, right + 56, FIGURES_TOP, volume, view, result)
    return page


def _draw_heading(draw: ImageDraw.ImageDraw, title: str) -> None:
    _write(draw, (MARGIN, 40), _shortened(title, 90) or "Lung lesions in chest CT", 30, anchor="lm")
    _write(draw, (SIZE[0] - MARGIN, 40), RESEARCH_USE, 22, WARNING, anchor="rm")


def _draw_slices(page: Image.Image, view: AxialView, stacks: list[np.ndarray], threshold: float) -> None:
    _, _, lungs, lesions = stacks
    z_mm, y_mm, x_mm = view.spacing
    lung_counts = [_counts(lungs, axis) for axis in range(3)]
    axial = telling_slices(_counts(lesions, 0), lung_counts[0], AXIAL_COLUMNS * AXIAL_ROWS)[::-1]
    coronal = telling_slices(_counts(lesions, 1), lung_counts[1], CORONAL_COUNT)
    z_range, y_range, x_range = (_extent(counts) for counts in lung_counts)

    frame = _frame(y_range, x_range, y_mm, x_mm, AXIAL_CELL)
    for number, z in enumerate(axial):
        row, column = divmod(number, AXIAL_COLUMNS)
        corner = (MARGIN + column * (AXIAL_CELL[0] + GAP), PANELS_TOP + row * (AXIAL_CELL[1] + GAP))
        panel = draw_panel(Plane(*(s[z] for s in stacks), y_mm, x_mm), frame, threshold)
        _label_panel(panel, f"{number + 1}", _position(view, z=z), frame.mm, 8)
        _place(page, panel, corner)

    top = lungs.shape[0] - 1
    frame = _frame((top - z_range[1], top - z_range[0]), x_range, z_mm, x_mm, CORONAL_CELL)
    for number, y in enumerate(coronal):
        corner = (MARGIN + AXIAL_COLUMNS * (AXIAL_CELL[0] + GAP) + GAP, PANELS_TOP + number * (CORONAL_CELL[1] + GAP))
        panel = draw_panel(Plane(*(s[::-1, y] for s in stacks), z_mm, x_mm), frame, threshold)
        _mark_levels(panel, frame, [(top - z - frame.row) * z_mm for z in axial])
        _label_panel(panel, "", _position(view, y=y), frame.mm, 36)
        _place(page, panel, corner)


def _counts(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of the mask in each slice along an axis."""
    return np.array([np.count_nonzero(plane) for plane in np.moveaxis(mask, axis, 0)])


def _extent(counts: np.ndarray) -> tuple[int, int]:
    held = np.flatnonzero(counts)
    return (int(held[0]), int(held[-1])) if len(held) else (0, len(counts) - 1)


def _frame(rows: tuple[int, int], columns: tuple[int, int], row_mm: float, column_mm: float, cell) -> Frame:
    """A frame for a cell that shows these rows and columns, with some tissue around them."""
    height_mm = (rows[1] - rows[0] + 1) * row_mm + 2 * TISSUE_MM
    width_mm = (columns[1] - columns[0] + 1) * column_mm + 2 * TISSUE_MM
    mm = max(width_mm / cell[0], height_mm / cell[1])
    return Frame(sum(rows) / 2, sum(columns) / 2, mm, *cell)


def _position(view: AxialView, z: int | None = None, y: int | None = None) -> str:
    """Where the middle of a slice lies in the patient, e.g. ``"S 12.5 mm"``, as Slicer and scanners name it."""
    middle = [(n - 1) / 2 for n in reversed(view.shape)]
    if z is not None:
        middle[2] = z
    else:
        middle[1] = y
    axis, names = (2, "SI") if z is not None else (1, "AP")
    value = float(view.axial_to_ras[axis] @ [*middle, 1.0])
    return f"{names[0] if value >= 0 else names[1]} {abs(value):.1f} mm"


def _place(page: Image.Image, panel: Image.Image, corner: tuple[int, int]) -> None:
    page.paste(panel, corner)
    edge = (corner[0] - 1, corner[1] - 1, corner[0] + panel.width, corner[1] + panel.height)
    ImageDraw.Draw(page).rectangle(edge, outline=PANEL_EDGE)


def _label_panel(panel: Image.Image, number: str, position: str, mm: float, inset: int) -> None:
    draw = ImageDraw.Draw(panel)
    width, height = panel.size
    _write(draw, (inset, height / 2), "R", 22, anchor="lm", halo=True)
    _write(draw, (width - inset, height / 2), "L", 22, anchor="rm", halo=True)
    if number:
        _write(draw, (8, 8), number, 20, anchor="lt", halo=True)
    _write(draw, (width - 8, 8), position, 17, anchor="rt", halo=True)
    length = SCALE_BAR_MM / mm
    y = height - 12
    draw.line([(10, y), (10 + length, y)], fill=TEXT, width=2)
    for x in (10, 10 + length):
        draw.line([(x, y - 4), (x, y + 4)], fill=TEXT, width=2)
    _write(draw, (10 + length / 2, y - 7), f"{SCALE_BAR_MM} mm", 14, anchor="mb", halo=True)


def _mark_levels(panel: Image.Image, frame: Frame, offsets_mm: list[float]) -> None:
    """Mark on a coronal panel where the numbered axial slices lie."""
    draw = ImageDraw.Draw(panel)
    lowest = 0.0
    for number, offset in enumerate(offsets_mm, start=1):
        y = frame.height / 2 + offset / frame.mm
        for start, stop in ((0, 14), (frame.width - 14, frame.width)):
            draw.line([(start, y), (stop, y)], fill=(0, 0, 0), width=3)
            draw.line([(start, y), (stop, y)], fill=TEXT, width=1)
        # Neighboring levels may be closer than their numbers are high.
        lowest = max(lowest + 15, y)
        _write(draw, (18, lowest), f"{number}", 14, anchor="lm", halo=True)


def _draw_figures(draw: ImageDraw.ImageDraw, left: int, top: int, statistics) -> int:
    """The table of key figures; returns its right edge."""
    values = {row.region: row.values for row in statistics}
    columns = [left + 370, left + 490, left + 610]
    _write(draw, (left, top + 20), "Key figures", 22)
    for x, side in zip(columns, SIDES, strict=True):
        _write(draw, (x, top + 20), side.capitalize(), 17, FAINT, anchor="rs")
    draw.line([(left, top + 32), (columns[-1], top + 32)], fill=RULE)
    for number, key in enumerate(KEY_FIGURES):
        y = top + 58 + number * 35
        figure = measurement(key)
        _write(draw, (left, y), figure.header, 19, FAINT, anchor="ls")
        for x, side in zip(columns, SIDES, strict=True):
            _write(draw, (x, y), figure.text(values[side][key]), 21, anchor="rs")
    return columns[-1]


def _draw_thirds(draw: ImageDraw.ImageDraw, left: int, top: int, result: SegmentResult) -> int:
    """The table of involvement by third; returns its right edge."""
    values = {row.region: row.values for row in result.statistics}
    figure = measurement("involvement_percent")
    columns = [left + 225, left + 335, left + 445]
    _write(draw, (left, top + 20), figure.header, 22)
    for x, side in zip(columns, SIDES, strict=True):
        _write(draw, (x, top + 20), side.split()[0].capitalize(), 17, FAINT, anchor="rs")
    draw.line([(left, top + 32), (columns[-1], top + 32)], fill=RULE)
    for number, third in enumerate(THIRDS):
        y = top + 58 + number * 35
        _write(draw, (left, y), third.capitalize(), 19, FAINT, anchor="ls")
        for x, side in zip(columns, SIDES, strict=True):
            _write(draw, (x, y), figure.text(values[f"{side}, {third}"][figure.key]), 21, anchor="rs")
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
    _write(draw, (left, top - 14), "Volume with heat from the threshold up (mL)", 17, FAINT)
    draw.line([(left, top), (right, top)], fill=RULE)
    if highest == 0:
        _write(draw, (left, bottom - 30), "no heat in the lungs", 17, FAINT)
        return
    seen = volumes_ml <= highest * (1 + 1e-9)
    x = left + thresholds[seen] * (right - left - 1)
    y = bottom - 2 - volumes_ml[seen] / highest * (bottom - top - 4)
    draw.line([tuple(p) for p in np.stack([x, y], axis=-1)], fill=TEXT, width=2)
    _write(draw, (right, top + 4), f"{highest:.0f}" if highest >= 10 else f"{highest:.2g}", 16, FAINT, anchor="rt")
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
        _write(draw, (x, bottom + 10), "heat 0" if tick == 0 else f"{tick / 5:.1f}", 16, FAINT, anchor=anchor)
    x = left + (right - left - 1) * min(max(threshold, 0.0), 1.0)
    draw.line([(x, top), (x, bottom)], fill=LESION_COLOR, width=3)
    name, to_left = f"threshold {threshold:.3g}", x > (left + right) / 2
    _write(
        draw, (x - 10 if to_left else x + 10, top - 86), name, 17, LESION_COLOR, "rs" if to_left else "ls", halo=True
    )


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, y: int) -> None:
    for x, color, text in ((left, LESION_COLOR, "lesion outline"), (left + 235, LUNG_COLOR, "lung outline")):
        draw.line([(x, y), (x + 34, y)], fill=color, width=3)
        _write(draw, (x + 44, y), text, 17, FAINT, anchor="lm")


def _draw_run(
    draw: ImageDraw.ImageDraw, left: int, top: int, volume: Volume, view: AxialView, result: SegmentResult
) -> None:
    """Models, settings and warnings."""
    _write(draw, (left, top + 20), "Run", 22)
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
        _write(draw, (left, y), name, 17, FAINT, anchor="ls")
        for part in textwrap.wrap(_plain(text), 58)[:2]:
            _write(draw, (left + 130, y), part, 17, anchor="ls")
            y += 26
    warnings = list(result.warnings)
    if view.turn_degrees > 5:
        warnings.append(
            f"Slices lie {view.turn_degrees:.0f} degrees from the body axes; positions are of their middle."
        )
    y += 10
    wrapped = [line for warning in warnings for line in textwrap.wrap(f"Warning: {_plain(warning)}", 72)]
    room = (SIZE[1] - 14 - y) // 23
    if len(wrapped) > room:
        wrapped = [*wrapped[: room - 1], "... more in the report"]
    for line in wrapped:
        _write(draw, (left, y), line, 16, WARNING, anchor="ls")
        y += 23


def _bundle_text(bundle, missing: str) -> str:
    return f"{bundle.name} {bundle.version}" if bundle is not None else missing


def _write(draw, place, text: str, size: int, color=TEXT, anchor: str = "ls", halo: bool = False) -> None:
    font = ImageFont.load_default(size)
    draw.text(
        place, _plain(text), fill=color, font=font, anchor=anchor, stroke_width=2 if halo else 0, stroke_fill=(0, 0, 0)
    )


def _plain(text: str) -> str:
    """The text in ASCII: Pillow's built-in font has no other letters and would draw boxes."""
    text = text.translate({0x2013: "-", 0x2014: "-", 0x2212: "-", 0xD7: "x", 0xDF: "ss", 0x2265: ">=", 0x2264: "<="})
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _shortened(text: str, longest: int) -> str:
    text = " ".join(_plain(text).split())
    return text if len(text) <= longest else text[: longest - 3] + "..."
