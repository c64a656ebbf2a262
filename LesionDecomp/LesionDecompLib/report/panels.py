"""The slices of a case that show most, as pictures with sides, position and scale: for overview and report."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..ct.grid import AxialView
from .picture import Frame, Plane, draw_panel

AXIAL_CELL, AXIAL_COUNT = (464, 348), 6
CORONAL_CELL, CORONAL_COUNT = (448, 348), 2
TISSUE_MM = 20.0  # shown around the lungs
SCALE_BAR_MM = 50
TEXT = (232, 236, 242)


@dataclass(frozen=True, eq=False)
class SlicePanel:
    """One slice: its picture, and where its middle lies in the patient (``"S 12.5 mm"``)."""

    picture: Image.Image
    position: str


def slice_panels(
    view: AxialView, stacks: list[np.ndarray], threshold: float, letters: float = 1.0
) -> tuple[list[SlicePanel], list[SlicePanel]]:
    """Draw the axial and the coronal slices that show most of a case, each kind to one scale.

    Slices follow the radiological convention: patient's right on the left, anterior or superior on top.

    :param view: of the CT.
    :param stacks: CT (HU), heat, lungs and lesions as axial stacks ``(z, y, x)``.
    :param threshold: on the heat.
    :param letters: size of the lettering, for panels that will be shown smaller.
    :return: up to six axial slices, numbered from the top down, and up to two coronal ones with the levels of those.
    """
    _, _, lungs, lesions = stacks
    z_mm, y_mm, x_mm = view.spacing
    lung_counts = [_counts(lungs, axis) for axis in range(3)]
    axial = representative_slices(_counts(lesions, 0), lung_counts[0], AXIAL_COUNT)[::-1]
    coronal = representative_slices(_counts(lesions, 1), lung_counts[1], CORONAL_COUNT)
    z_range, y_range, x_range = (_extent(counts) for counts in lung_counts)

    axial_panels, coronal_panels = [], []
    frame = _frame(y_range, x_range, y_mm, x_mm, AXIAL_CELL)
    for number, z in enumerate(axial, start=1):
        hu, heat, lung, lesion = (stack[z] for stack in stacks)
        picture = draw_panel(Plane(hu, heat, lung, lesion, y_mm, x_mm), frame, threshold)
        panel = SlicePanel(picture, _position(view, z=z))
        _label_panel(picture, f"{number}", panel.position, frame.mm, 8, letters)
        axial_panels.append(panel)

    top = lungs.shape[0] - 1
    frame = _frame((top - z_range[1], top - z_range[0]), x_range, z_mm, x_mm, CORONAL_CELL)
    for y in coronal:
        hu, heat, lung, lesion = (stack[::-1, y] for stack in stacks)
        picture = draw_panel(Plane(hu, heat, lung, lesion, z_mm, x_mm), frame, threshold)
        panel = SlicePanel(picture, _position(view, y=y))
        _mark_levels(picture, frame, [(top - z - frame.row) * z_mm for z in axial], letters)
        _label_panel(picture, "", panel.position, frame.mm, round(28 + 8 * letters), letters)
        coronal_panels.append(panel)
    return axial_panels, coronal_panels


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    size: int,
    color: tuple[int, int, int] = TEXT,
    anchor: str = "ls",
    halo: bool = False,
) -> None:
    """Text in Pillow's built-in font, with a dark rim where it lies on a picture (``halo``)."""
    font = ImageFont.load_default(size)
    draw.text(
        place, plain(text), fill=color, font=font, anchor=anchor, stroke_width=2 if halo else 0, stroke_fill=(0, 0, 0)
    )


def plain(text: str) -> str:
    """The text in ASCII: Pillow's built-in font has no other letters and would draw boxes."""
    text = text.translate({0x2013: "-", 0x2014: "-", 0x2212: "-", 0xD7: "x", 0xDF: "ss", 0x2265: ">=", 0x2264: "<="})
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _counts(mask: np.ndarray, axis: int) -> np.ndarray:
    """Voxels of the mask in each slice along an axis."""
    return np.array([np.count_nonzero(plane) for plane in np.moveaxis(mask, axis, 0)])


def _extent(counts: np.ndarray) -> tuple[int, int]:
    held = np.flatnonzero(counts)
    return (int(held[0]), int(held[-1])) if len(held) else (0, len(counts) - 1)


def _frame(
    rows: tuple[int, int], columns: tuple[int, int], row_mm: float, column_mm: float, cell: tuple[int, int]
) -> Frame:
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
    elif y is not None:
        middle[1] = y
    axis, names = (2, "SI") if z is not None else (1, "AP")
    value = float(view.axial_to_ras[axis] @ [*middle, 1.0])
    return f"{names[0] if value >= 0 else names[1]} {abs(value):.1f} mm"


def _label_panel(panel: Image.Image, number: str, position: str, mm: float, inset: int, letters: float) -> None:
    draw = ImageDraw.Draw(panel)
    width, height = panel.size
    write(draw, (inset, height / 2), "R", round(22 * letters), anchor="lm", halo=True)
    write(draw, (width - inset, height / 2), "L", round(22 * letters), anchor="rm", halo=True)
    if number:
        write(draw, (8, 8), number, round(20 * letters), anchor="lt", halo=True)
    write(draw, (width - 8, 8), position, round(17 * letters), anchor="rt", halo=True)
    length = SCALE_BAR_MM / mm
    y = height - 12
    draw.line([(10, y), (10 + length, y)], fill=TEXT, width=2)
    for x in (10, 10 + length):
        draw.line([(x, y - 4), (x, y + 4)], fill=TEXT, width=2)
    write(draw, (10 + length / 2, y - 7), f"{SCALE_BAR_MM} mm", round(14 * letters), anchor="mb", halo=True)


def _mark_levels(panel: Image.Image, frame: Frame, offsets_mm: list[float], letters: float) -> None:
    """Mark on a coronal panel where the numbered axial slices lie."""
    draw = ImageDraw.Draw(panel)
    lowest = 0.0
    for number, offset in enumerate(offsets_mm, start=1):
        y = frame.height / 2 + offset / frame.mm
        for start, stop in ((0, 14), (frame.width - 14, frame.width)):
            draw.line([(start, y), (stop, y)], fill=(0, 0, 0), width=3)
            draw.line([(start, y), (stop, y)], fill=TEXT, width=1)
        # Neighboring levels may be closer than their numbers are high.
        lowest = max(lowest + 15 * letters, y)
        write(draw, (18, lowest), f"{number}", round(14 * letters), anchor="lm", halo=True)


def representative_slices(lesion_voxels: np.ndarray, lung_voxels: np.ndarray, count: int) -> list[int]:
    """Choose slices along one axis.

    The stretch that holds lung is cut into ``count`` equal bands; of each the slice with most lesion is taken, or the
    middle one where a band is free of lesion. Slices with next to no lung at the two ends are left out of the bands.

    :param lesion_voxels: ``(n,)`` lesion voxels of each slice.
    :param lung_voxels: ``(n,)`` lung voxels of each slice; all 0 when no lung was found, and the whole axis is then
        used.
    :return: indices, rising; fewer than ``count`` where there are fewer slices.
    """
    n = len(lung_voxels)
    worth = np.flatnonzero((lung_voxels > 0.15 * lung_voxels.max(initial=0)) | (lesion_voxels > 0))
    first, last = (int(worth[0]), int(worth[-1]) + 1) if len(worth) else (0, n)
    bounds = np.linspace(first, last, min(count, last - first) + 1).round().astype(int)
    chosen = []
    for start, stop in pairwise(bounds):
        middle = (start + stop - 1) / 2
        # Halved at the band's ends, so that two bands don't show the same lesion from both sides of their border.
        weight = 1 - 0.5 * np.abs(np.arange(start, stop) - middle) / max((stop - start) / 2, 1)
        area = lesion_voxels[start:stop] * weight
        chosen.append(int(start + np.argmax(area)) if area.any() else int(middle))
    return chosen
