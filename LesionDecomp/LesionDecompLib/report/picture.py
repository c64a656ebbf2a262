"""One picture of one slice: CT in lung window, heat in color, the outlines of lesions and lungs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .colors import heat_color_table

LUNG_WINDOW = (-1350.0, 150.0)  # width 1500, level -600 HU
LESION_COLOR = (64, 240, 215)
LUNG_COLOR = (110, 140, 175)
HEAT_OPACITY = 0.6
# Everything is drawn at twice the size and averaged down: smooth lines and no aliasing.
FINER = 2


@dataclass(frozen=True, eq=False)
class Plane:
    """A slice as it is seen: rows downwards, columns to the right.

    :param ct: ``(r, c)`` HU.
    :param heat: ``(r, c)`` in [0, 1].
    :param lungs: ``(r, c)``, lung where not 0.
    :param lesions: ``(r, c)``, lesion where not 0.
    :param row_mm: distance of rows.
    :param column_mm: of columns.
    """

    ct: np.ndarray
    heat: np.ndarray
    lungs: np.ndarray
    lesions: np.ndarray
    row_mm: float
    column_mm: float


@dataclass(frozen=True)
class Frame:
    """The part of a plane that a picture shows, with square pixels.

    :param row, column: index (fractional) of the voxel under the middle of the picture.
    :param mm: size of a pixel.
    :param width, height: of the picture, pixels.
    """

    row: float
    column: float
    mm: float
    width: int
    height: int


def draw_panel(plane: Plane, frame: Frame, threshold: float) -> Image.Image:
    """Draw a slice.

    Heat is colored by :func:`heat_color_table`; its opacity rises with the heat up to the threshold, so that what lies
    below stays a hint.

    :return: RGB image of the frame's size.
    """
    low, high = LUNG_WINDOW
    gray = np.clip((plane.ct.astype(np.float32) - low) / (high - low), 0, 1)
    gray = np.clip(_resampled(gray, plane, frame, Image.Resampling.BICUBIC), 0, 1)[..., None] * 255
    heat = np.clip(_resampled(plane.heat.astype(np.float32), plane, frame, Image.Resampling.BILINEAR), 0, 1)
    opacity = HEAT_OPACITY * np.clip(heat / max(threshold, 0.05), 0, 1)[..., None]
    color = heat_color_table()[np.rint(heat * 255).astype(np.uint8)]
    picture = Image.fromarray(np.rint(gray * (1 - opacity) + color * opacity).astype(np.uint8))
    for mask, outline, width, strength in (
        (plane.lungs, LUNG_COLOR, FINER, 0.7),
        (plane.lesions, LESION_COLOR, round(1.5 * FINER), 1.0),
    ):
        stencil = _outline(mask != 0, plane, frame, width).point(lambda value, strength=strength: value * strength)
        picture.paste(outline, mask=stencil)
    return picture.reduce(FINER)


def _scales(plane: Plane, frame: Frame) -> tuple[float, float, float, float]:
    """Voxels for each fine pixel and voxel coordinate of the picture's corner, for columns and rows.

    A voxel's coordinate is that of its corner, as Pillow counts.
    """
    column_step, row_step = frame.mm / plane.column_mm / FINER, frame.mm / plane.row_mm / FINER
    column_start = frame.column + 0.5 - column_step * frame.width * FINER / 2
    row_start = frame.row + 0.5 - row_step * frame.height * FINER / 2
    return column_step, column_start, row_step, row_start


def _resampled(values: np.ndarray, plane: Plane, frame: Frame, how: Image.Resampling) -> np.ndarray:
    column_step, column_start, row_step, row_start = _scales(plane, frame)
    size = (frame.width * FINER, frame.height * FINER)
    affine = (column_step, 0, column_start, 0, row_step, row_start)
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.transform(size, Image.Transform.AFFINE, affine, how))


def _outline(mask: np.ndarray, plane: Plane, frame: Frame, width: int) -> Image.Image:
    from skimage.measure import find_contours  # slow to import; a run without a picture does without it

    column_step, column_start, row_step, row_start = _scales(plane, frame)
    stencil = Image.new("L", (frame.width * FINER, frame.height * FINER))
    draw = ImageDraw.Draw(stencil)
    # Padded, so that a mask cut by the edge of the image is outlined there too.
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        rows, columns = contour[:, 0] - 0.5, contour[:, 1] - 0.5
        points = np.stack([(columns - column_start) / column_step, (rows - row_start) / row_step], axis=-1)
        draw.line([tuple(p) for p in points], fill=255, width=width, joint="curve")
    return stencil
