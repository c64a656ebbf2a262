"""From the positions of DICOM slices to one regular voxel grid, or to the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import LesionDecompError
from .stored_image import check_spacing, lps_to_ras

ROUNDING_MM = 0.02  # positions are decimal text, often of three digits
ROUNDING_SHARE = 0.01  # of the slice distance
SAME_PLACE = 0.01  # of the slice distance
MISSING = 1.5  # a gap this many times the usual one lacks a slice
UNEVEN = 0.25  # of the slice distance: farther than that from its place on the grid, a slice is in the wrong place
DRIFT_MM = 0.1  # sideways over the whole stack; beyond it, slices are sheared (gantry tilt)
WARNED_SHEAR_DEGREES = 0.1


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The grid of a sorted series.

    :param order: ``(n,)`` indices that sort the slices along their normal.
    :param ijk_to_ras: ``(4, 4)`` mm; sheared where the gantry was tilted.
    :param distance: between slice planes, mm.
    """

    order: np.ndarray
    ijk_to_ras: np.ndarray
    distance: float
    warnings: list[str]


def slice_grid(
    positions: np.ndarray, orientation: tuple[float, ...], pixel_spacing: tuple[float, ...], stage: str
) -> SliceGrid:
    """Sort slices along their normal and fit the grid.

    :param positions: ``(n, 3)`` LPS mm of each slice's first pixel (Image Position Patient), n >= 2.
    :param orientation: six cosines (Image Orientation Patient): along a row, along a column.
    :param pixel_spacing: distance between rows, between columns, mm (Pixel Spacing).
    :raises LesionDecompError: an impossible orientation or spacing, two slices in one place, missing slices, or slices
        too unevenly spaced for any one grid.
    """
    if len(pixel_spacing) != 2:
        raise LesionDecompError(stage, "DICOM slices without a pixel spacing", "a CT series with its pixel spacing")
    check_spacing(stage, pixel_spacing)
    if not np.isfinite(positions).all():
        raise LesionDecompError(stage, "a DICOM slice position that is not a number", "positions in mm")
    row, column, normal = _axes(orientation, stage)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    along, positions = along[order], positions[order]
    gaps = np.diff(along)
    step = float(np.median(gaps))
    _check_gaps(gaps, step, stage)
    count = len(along)
    regular = float(along[-1] - along[0]) / (count - 1)
    off = float(np.abs(along - (along[0] + regular * np.arange(count))).max())
    warnings = []
    if off > UNEVEN * regular:
        raise LesionDecompError(
            stage,
            f"slices {gaps.min():.3g} to {gaps.max():.3g} mm apart, up to {off:.3g} mm from a regular grid",
            "evenly spaced slices",
            "Reconstruct the series evenly or resample it first.",
        )
    if off > max(ROUNDING_MM, ROUNDING_SHARE * regular):
        warnings.append(
            f"Slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm); taken as {regular:.3g} mm apart."
        )
    matrix = np.eye(4)
    matrix[:3, 0] = row * pixel_spacing[1]
    matrix[:3, 1] = column * pixel_spacing[0]
    matrix[:3, 3] = positions[0]
    travel = positions[-1] - positions[0]
    sideways = travel - (travel @ normal) * normal
    if np.linalg.norm(sideways) <= DRIFT_MM:
        matrix[:3, 2] = normal * regular
    else:
        matrix[:3, 2] = travel / (count - 1)
        warnings += _shear_warning(positions, matrix[:3, 2], normal, pixel_spacing, stage)
    return SliceGrid(order, lps_to_ras(matrix), regular, warnings)


def _axes(orientation: tuple[float, ...], stage: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    # Written so that NaN fails the test too.
    if not (np.abs(lengths - 1) < 0.01).all() or not abs(row @ column) < 0.01:
        raise LesionDecompError(
            stage, "a DICOM orientation that is not two unit vectors at right angles", "a valid one"
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column /= np.linalg.norm(column)
    return row + 0.0, column + 0.0, np.cross(row, column) + 0.0


def _check_gaps(gaps: np.ndarray, step: float, stage: str) -> None:
    together = int(np.count_nonzero(gaps <= max(SAME_PLACE * step, 1e-4)))
    if together:
        raise LesionDecompError(
            stage,
            f"{together} slice position{'s' if together > 1 else ''} with more than one image",
            "one image at each position",
            "Export one phase and one reconstruction.",
        )
    wide = gaps[gaps >= MISSING * step]
    if wide.size:
        missing = int(np.rint(wide / step - 1).clip(1).sum())
        gaps_text = f"a gap of {wide[0]:.3g} mm" if wide.size == 1 else f"{wide.size} gaps of up to {wide.max():.3g} mm"
        raise LesionDecompError(
            stage,
            f"{gaps_text} between slices {step:.3g} mm apart ({missing} missing)",
            "a series without missing slices",
            "Export the series again.",
        )


def _shear_warning(
    positions: np.ndarray, step: np.ndarray, normal: np.ndarray, pixel_spacing: tuple[float, ...], stage: str
) -> list[str]:
    # Every slice must lie on the straight line from the first to the last, or no affine grid holds them.
    straight = positions[0] + np.arange(len(positions))[:, None] * step
    off = positions - straight
    off = float(np.linalg.norm(off - (off @ normal)[:, None] * normal, axis=1).max())
    if off > max(pixel_spacing):
        raise LesionDecompError(
            stage, f"slices shifted sideways by up to {off:.3g} mm against each other", "slices in one straight stack"
        )
    degrees = float(np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1))))
    if degrees < WARNED_SHEAR_DEGREES:
        return []
    return [f"Gantry tilt: slices are sheared by {degrees:.1f}°; the voxel grid follows them."]
