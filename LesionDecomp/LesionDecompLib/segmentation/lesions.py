"""From a heatmap to the lesion labelmap, and the volume of lesion at every threshold."""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError
from ..threads import over_slices
from .components import find_components

STAGE = "Lesions"
# Thresholds of the volume curve: 0, 0.001, ... 1; a slider with two or three decimals always stands on one of them.
CURVE_STEPS = 1000


def lesion_labelmap(
    heat: np.ndarray,
    lungs: np.ndarray,
    threshold: float,
    min_volume_ml: float,
    voxel_volume_ml: float,
) -> np.ndarray:
    """Label the lesions: heat ≥ threshold inside the lungs, without 26-connected components below a minimum volume.

    :param heat: ``(k, j, i)`` float32 in [0, 1].
    :param lungs: ``(k, j, i)`` uint8, lung where not 0.
    :param threshold: on the heat; compared in the heat's own precision.
    :param min_volume_ml: components smaller than this are removed, mL; 0 keeps all.
    :param voxel_volume_ml: volume of a voxel, mL.
    :return: ``(k, j, i)`` uint8, 0 or 1, C-contiguous or in the memory order of ``lungs``.
    :raises LesionDecompError: shapes that differ; a threshold or minimum volume that is not a number from 0 up.

    >>> heat = np.array([[[0.9, 0.5, 0.1, 0.7]]], dtype=np.float32)
    >>> lungs = np.array([[[1, 1, 1, 2]]], dtype=np.uint8)
    >>> lesion_labelmap(heat, lungs, threshold=0.4, min_volume_ml=0.0, voxel_volume_ml=0.01).tolist()
    [[[1, 1, 0, 1]]]
    >>> lesion_labelmap(heat, lungs, threshold=0.4, min_volume_ml=0.02, voxel_volume_ml=0.01).tolist()
    [[[1, 1, 0, 0]]]
    """
    _check_shapes(heat, lungs)
    check_number("threshold", threshold)
    check_number("minimum lesion volume (mL)", min_volume_ml)
    lesions = np.zeros_like(lungs, dtype=np.uint8, subok=False)
    order = memory_order(lungs)
    box = lung_box(lungs)
    heat_box, lungs_box, lesions_box = (a[box].transpose(order) for a in (heat, lungs, lesions))
    limit = heat.dtype.type(threshold)
    mask = lesions_box.view(bool)

    def choose(part: slice) -> None:
        for z in range(part.start, part.stop):
            np.greater_equal(heat_box[z], limit, out=mask[z])
            mask[z] &= lungs_box[z] != 0

    over_slices(choose, len(mask))
    min_voxels = smallest_count(min_volume_ml, voxel_volume_ml)
    if min_voxels > 1:
        components = find_components(mask)
        small = components.sizes < min_voxels
        if small.any():
            mask[components.voxels(small[components.labels])] = False
    return lesions


def volume_curve(
    heat: np.ndarray, lungs: np.ndarray, voxel_volume_ml: float, box: tuple[slice, slice, slice] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Volume of lesion against threshold, from one histogram of the heat inside the lungs.

    Each number is the volume of :func:`lesion_labelmap` at that threshold with a minimum volume of 0, exactly.

    :param heat: ``(k, j, i)`` float32 in [0, 1].
    :param lungs: ``(k, j, i)`` uint8, lung where not 0.
    :param voxel_volume_ml: volume of a voxel, mL.
    :param box: of the lungs, where already known.
    :return: thresholds ``(1001,)`` float64 from 0 to 1, and lesion volumes ``(1001,)`` float64, mL, never rising.
    :raises LesionDecompError: shapes that differ.

    >>> heat = np.array([[[0.9, 0.5, 0.1, 0.7]]], dtype=np.float32)
    >>> thresholds, volumes_ml = volume_curve(heat, np.ones(heat.shape, np.uint8), voxel_volume_ml=0.01)
    >>> float(thresholds[400]), float(volumes_ml[400])
    (0.4, 0.03)
    """
    _check_shapes(heat, lungs)
    thresholds = np.arange(CURVE_STEPS + 1) / CURVE_STEPS
    # Bin b holds limits[b] <= heat < limits[b + 1]; the last one all heat from 1 up, and heat below 0 is in none.
    limits = np.append(thresholds, np.inf).astype(heat.dtype)
    counts = np.zeros(CURVE_STEPS + 1, dtype=np.int64)
    order, box = memory_order(lungs), lung_box(lungs) if box is None else box
    for heat_slice, lung_slice in zip(heat[box].transpose(order), lungs[box].transpose(order), strict=True):
        inside = heat_slice[lung_slice != 0]
        inside = inside[inside >= 0]
        bins = np.minimum(inside * CURVE_STEPS, CURVE_STEPS).astype(np.int16)
        # The product is rounded, so the bin may be one off: compare with the very limits the labelmap compares with.
        bins += inside >= limits[bins + 1]
        bins -= inside < limits[bins]
        counts += np.bincount(bins, minlength=CURVE_STEPS + 1)
    return thresholds, np.cumsum(counts[::-1])[::-1] * voxel_volume_ml


def lung_box(lungs: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box that holds all lung, as slices along the array's axes; an empty box where there is none.

    :param lungs: ``(k, j, i)`` uint8, lung where not 0.
    """
    order = memory_order(lungs)
    stack = lungs.transpose(order)
    planes = stack.reshape(len(stack), -1) if stack.flags.c_contiguous else stack
    held = [int(plane.max(initial=0)) > 0 for plane in planes]
    bounds = [_extent(np.asarray(held))]
    # In uint8 throughout: a maximum of bytes is many times as fast as `any` along an axis.
    shadow = np.maximum.reduce(stack[bounds[0]], axis=0, initial=0)
    bounds += [_extent(shadow.any(axis=1)), _extent(shadow.any(axis=0))]
    k, j, i = (bounds[order.index(axis)] for axis in range(3))
    return k, j, i


def memory_order(array: np.ndarray) -> tuple[int, int, int]:
    """The array's axes from the farthest apart to the nearest in memory: ``array.transpose`` of it runs fastest."""
    first, second, third = np.argsort([-abs(stride) for stride in array.strides], kind="stable").tolist()
    return first, second, third


def smallest_count(min_volume_ml: float, voxel_volume_ml: float) -> int:
    """Smallest number of voxels whose volume is not below ``min_volume_ml``; at least 1."""
    # The tolerance keeps a component of exactly the minimum volume in spite of rounding.
    return max(1, math.ceil(min_volume_ml / voxel_volume_ml * (1 - 1e-9)))


def _extent(held: np.ndarray) -> slice:
    found = np.flatnonzero(held)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def _check_shapes(heat: np.ndarray, lungs: np.ndarray) -> None:
    if heat.shape != lungs.shape or heat.ndim != 3:
        found = f"a heatmap of shape {heat.shape} and a lung mask of shape {lungs.shape}"
        raise ConfigError(STAGE, found, "two 3-D arrays of the same shape", code="arrays_differ")


def check_number(name: str, value: float) -> None:
    """Refuse what is not a number from 0 up.

    :raises LesionDecompError: naming the number.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(STAGE, f"a {name} of {value}", "a number from 0 up", code="not_a_number")
