"""From the positions of DICOM slices to one regular voxel grid, or to the reason why there is none.

Slices that are missing, or so unevenly spaced that no grid fits, leave gaps; small ones are filled from the slices
beside them, with a warning. A gap that could hide a lesion of some size is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ct.oddity import Oddity
from ...errors import InputError
from ..stored_image import check_spacing, lps_to_ras

ROUNDING_MM = 0.02  # positions are decimal text, often of three digits
ROUNDING_SHARE = 0.01  # of the slice distance
SAME_PLACE = 0.01  # of the slice distance
MISSING = 1.5  # a gap this many times the usual one lacks a slice
UNEVEN = 0.25  # of the slice distance: farther than that from its place on the grid, a slice is in the wrong place
LARGEST_GAP_MM = 20.0  # between slices that are there; what could hide in a larger one is not interpolated
MOST_FILLED = 0.25  # of the slices
DRIFT_MM = 0.1  # sideways over the whole stack; beyond it, slices are sheared (gantry tilt)
WARNED_SHEAR_DEGREES = 0.1


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The grid of a sorted series.

    :param order: ``(n,)`` indices that sort the slices along their normal.
    :param ijk_to_ras: ``(4, 4)`` mm; sheared where the gantry was tilted.
    :param distance: between slice planes, mm.
    :param slices: of the grid.
    :param places: ``(n,)`` increasing, where on the grid the sorted slices lie; None: slice k at place k.
    """

    order: np.ndarray
    ijk_to_ras: np.ndarray
    distance: float
    warnings: list[str]
    slices: int
    places: np.ndarray | None = None

    def sources(self) -> list[int | None]:
        """For each slice of the grid, the number of the sorted slice that lies there; None for an interpolated one."""
        if self.places is None:
            return list(range(self.slices))
        nearest = np.abs(np.arange(self.slices)[:, None] - self.places[None, :]).argmin(axis=1)
        return [int(n) if abs(self.places[n] - k) <= SAME_PLACE else None for k, n in enumerate(nearest)]

    @property
    def filled(self) -> int:
        """How many slices of the grid are interpolated."""
        return self.sources().count(None)


def slice_grid(
    positions: np.ndarray, orientation: tuple[float, ...], pixel_spacing: tuple[float, ...], stage: str
) -> SliceGrid:
    """Sort slices along their normal and fit the grid.

    :param positions: ``(n, 3)`` LPS mm of each slice's first pixel (Image Position Patient), n >= 2.
    :param orientation: six cosines (Image Orientation Patient): along a row, along a column.
    :param pixel_spacing: distance between rows, between columns, mm (Pixel Spacing).
    :raises LesionDecompError: an impossible orientation or spacing, two slices in one place, or too much missing.
    """
    if len(pixel_spacing) != 2:
        raise InputError(
            stage, "DICOM slices without a pixel spacing", "a CT series with its pixel spacing", code="no_pixel_spacing"
        )
    check_spacing(stage, pixel_spacing)
    if not np.isfinite(positions).all():
        raise InputError(stage, "a DICOM slice position that is not a number", "positions in mm", code="position")
    row, column, normal = _axes(orientation, stage)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    gaps = np.diff(along)
    step = float(np.median(gaps))
    _check_together(gaps, step, stage)
    steps = np.maximum(1, np.rint(gaps / step)).astype(int)
    missing = int((steps[gaps >= MISSING * step] - 1).sum())
    places = np.concatenate([[0.0], np.cumsum(steps)]) if missing else np.arange(len(along), dtype=float)
    slices = int(places[-1]) + 1
    regular = float(along[-1] - along[0]) / (slices - 1)
    off = float(np.abs(along - (along[0] + regular * places)).max())
    warnings: list[str] = []
    if off > UNEVEN * regular:  # no grid puts every slice near its place: all are interpolated
        limit, regular = UNEVEN * regular, step
        slices = int(np.floor((along[-1] - along[0]) / step + 1e-6)) + 1
        places = (along - along[0]) / step
        text = (
            f"Slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm); they were interpolated to "
            f"{step:.3g} mm apart."
        )
        warnings.append(Oddity(text, "slices_interpolated", off, limit))
    elif off > max(ROUNDING_MM, ROUNDING_SHARE * regular):
        text = f"Slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm); taken as {regular:.3g} mm apart."
        warnings.append(Oddity(text, "uneven_slices", off, max(ROUNDING_MM, ROUNDING_SHARE * regular)))
    if missing:
        warnings.append(_check_missing(gaps, step, missing, slices, stage))
    matrix = np.eye(4)
    matrix[:3, 0] = row * pixel_spacing[1]
    matrix[:3, 1] = column * pixel_spacing[0]
    matrix[:3, 3] = positions[0]
    travel = positions[-1] - positions[0]
    sideways = travel - (travel @ normal) * normal
    if np.linalg.norm(sideways) <= DRIFT_MM:
        matrix[:3, 2] = normal * regular
    else:
        matrix[:3, 2] = travel / (travel @ normal) * regular
        warnings += _shear_warning(positions, matrix[:3, 2], normal, pixel_spacing, stage)
    whole = slices == len(places) and bool(np.array_equal(places, np.arange(slices)))
    return SliceGrid(order, lps_to_ras(matrix), regular, warnings, slices, None if whole else places)


def fill_gaps(array: np.ndarray, grid: SliceGrid) -> np.ndarray:
    """Put slices in their places on the grid, and interpolate linearly where there is none.

    :param array: ``(n, y, x)`` int16 or float32, sorted.
    :return: ``(slices, y, x)`` of the same type.
    """
    if grid.places is None:
        return array
    full = np.empty((grid.slices, *array.shape[1:]), array.dtype)
    for k in range(grid.slices):
        above = int(np.clip(np.searchsorted(grid.places, k), 1, len(array) - 1))
        low, high = grid.places[above - 1], grid.places[above]
        weight = float(np.clip((k - low) / (high - low), 0.0, 1.0))
        if weight in (0.0, 1.0):
            full[k] = array[above - 1 + int(weight)]
        else:
            mean = (1 - weight) * array[above - 1].astype(np.float32) + weight * array[above].astype(np.float32)
            full[k] = np.rint(mean) if array.dtype.kind == "i" else mean
    return full


def _axes(orientation: tuple[float, ...], stage: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    # Written so that NaN fails the test too.
    if not (np.abs(lengths - 1) < 0.01).all() or not abs(row @ column) < 0.01:
        raise InputError(
            stage, "a DICOM orientation that is not two unit vectors at right angles", "a valid one", code="orientation"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return row + 0.0, column + 0.0, np.cross(row, column) + 0.0


def _check_together(gaps: np.ndarray, step: float, stage: str) -> None:
    together = int(np.count_nonzero(gaps <= max(SAME_PLACE * step, 1e-4)))
    if together:
        raise InputError(
            stage,
            f"{together} slice position{'s' if together > 1 else ''} with more than one image",
            "one image at each position",
            "Export one phase and one reconstruction.",
            code="several_images_at_one_position",
        )


def _check_missing(gaps: np.ndarray, step: float, missing: int, slices: int, stage: str) -> str:
    """Refuse what is too much to interpolate; return the warning."""
    wide = gaps[gaps >= MISSING * step]
    gaps_text = f"a gap of {wide[0]:.3g} mm" if wide.size == 1 else f"{wide.size} gaps of up to {wide.max():.3g} mm"
    gaps_text += f" between slices {step:.3g} mm apart ({missing} missing)"
    if wide.max() > LARGEST_GAP_MM or missing > MOST_FILLED * slices:
        raise InputError(
            stage,
            gaps_text,
            f"gaps of at most {LARGEST_GAP_MM:g} mm and {100 * MOST_FILLED:.0f} % of the slices",
            "Export the series again.",
            code="too_many_slices_missing",
        )
    text = f"Slices are missing: {gaps_text}; they were interpolated from their neighbors."
    return Oddity(text, "missing_slices", missing, 0)


def _shear_warning(
    positions: np.ndarray, step: np.ndarray, normal: np.ndarray, pixel_spacing: tuple[float, ...], stage: str
) -> list[str]:
    # Every slice must lie on the straight line from the first to the last, or no affine grid holds them.
    ahead = (positions - positions[0]) @ normal / (step @ normal)
    straight = positions[0] + ahead[:, None] * step
    off = float(np.linalg.norm(positions - straight, axis=1).max())
    if off > max(pixel_spacing):
        raise InputError(
            stage,
            f"slices shifted sideways by up to {off:.3g} mm against each other",
            "slices in one straight stack",
            code="slices_shifted",
        )
    degrees = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if degrees < WARNED_SHEAR_DEGREES:
        return []
    text = f"Gantry tilt: slices are sheared by {degrees:.1f}°; the voxel grid follows them."
    return [Oddity(text, "gantry_tilt", degrees, WARNED_SHEAR_DEGREES)]
