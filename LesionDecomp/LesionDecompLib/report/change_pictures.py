"""Slices of two scans side by side: the earlier one aligned, the later one with its change in color."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

from ..measurement.change.definitions import COLORS
from ..measurement.change.labels import Change
from ..measurement.change.motion import Motion
from ..measurement.change.scan import Scan
from .panels import representative_slices, write
from .picture import LUNG_WINDOW

COUNT = 4
WIDTH = 420  # px of one slice
AROUND_MM = 15.0
OPACITY = 0.75
AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class ChangePicture:
    """One axial level: the picture, and where it lies (``"S 12.5 mm"``)."""

    picture: Image.Image
    position: str


def change_pictures(earlier: Scan, later: Scan, labels: np.ndarray, motion: Motion) -> list[ChangePicture]:
    """Draw up to four axial levels of the later CT that show most change, from the top down.

    :param labels: ``(k, j, i)`` on the later grid.
    :param motion: from the later to the earlier scan.
    :return: none where a CT is not at hand.
    """
    if earlier.hu is None or later.hu is None:
        return []
    view = later.view
    hu, lungs, marked = (view.to_axial(array) for array in (later.hu, later.lungs, labels))
    counts = [np.array([np.count_nonzero(plane) for plane in stack]) for stack in (marked, lungs)]
    levels = representative_slices(counts[0], counts[1], COUNT)[::-1]
    shadow = (lungs != 0).any(axis=0)
    rows, columns = (_reach(shadow.any(axis=1 - axis), view.spacing[1 + axis]) for axis in (0, 1))
    pictures = []
    for z in levels:
        aligned = _aligned(earlier, later, motion, z, rows, columns)
        now, change = hu[z, rows, columns], marked[z, rows, columns]
        sides = [_picture(aligned, None, later), _picture(now, change, later)]
        position = _position(later, z)
        picture = Image.new("RGB", (2 * WIDTH + 4, sides[0].height))
        for number, (side, title) in enumerate(zip(sides, ("earlier, aligned", "later"), strict=True)):
            picture.paste(side, (number * (WIDTH + 4), 0))
            write(ImageDraw.Draw(picture), (number * (WIDTH + 4) + 8, 8), title, 19, anchor="lt", halo=True)
        write(ImageDraw.Draw(picture), (picture.width - 8, 8), position, 19, anchor="rt", halo=True)
        pictures.append(ChangePicture(picture, position))
    return pictures


def _reach(held: np.ndarray, mm: float) -> slice:
    found, around = np.flatnonzero(held), round(AROUND_MM / mm)
    return slice(max(0, int(found[0]) - around), min(len(held), int(found[-1]) + 1 + around))


def _aligned(earlier: Scan, later: Scan, motion: Motion, z: int, rows: slice, columns: slice) -> np.ndarray:
    """HU of the earlier CT where the tissue of a slice of the later one was."""
    assert earlier.hu is not None
    y, x = np.mgrid[rows, columns]
    index = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=-1)
    matrix = later.view.axial_to_ras
    places = motion.earlier(index @ matrix[:3, :3].T + matrix[:3, 3])
    to_index = np.linalg.inv(earlier.ijk_to_ras)
    voxels = (places @ to_index[:3, :3].T + to_index[:3, 3]).T[::-1]
    values = map_coordinates(earlier.hu, voxels, np.float32, order=1, mode="constant", cval=AIR_HU)
    return values.reshape(x.shape)


def _picture(hu: np.ndarray, change: np.ndarray | None, later: Scan) -> Image.Image:
    low, high = LUNG_WINDOW
    height = max(1, round(WIDTH * hu.shape[0] * later.view.spacing[1] / (hu.shape[1] * later.view.spacing[2])))
    gray = np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1) * 255
    image = Image.fromarray(gray.astype(np.uint8)).resize((WIDTH, height), Image.Resampling.BICUBIC).convert("RGB")
    if change is None:
        return image
    for label in Change:
        mask = Image.fromarray(((change == label) * 255).astype(np.uint8)).resize((WIDTH, height))
        color = tuple(round(255 * part) for part in COLORS[label])
        image.paste(color, mask=mask.point(lambda value: round(value * OPACITY)))
    return image


def _position(later: Scan, z: int) -> str:
    _, rows, columns = later.view.shape
    value = float(later.view.axial_to_ras[2] @ [(columns - 1) / 2, (rows - 1) / 2, z, 1.0])
    return f"{'S' if value >= 0 else 'I'} {abs(value):.1f} mm"
