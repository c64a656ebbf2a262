"""Which lung is which: a mask of both lungs is parted into the patient's right and left lung.

Everything here looks at axial stacks ``(z, y, x)`` whose x runs from the patient's right to the left, so that a side
is a matter of patient coordinates whatever the order of the scan's axes was.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy import ndimage
from skimage.segmentation import watershed

from ...ct.anatomy import LEFT_LUNG, RIGHT_LUNG
from ...ct.grid import resampling_matrix
from ...ct.steps import SAME_MM, steps_within
from ...threads import in_threads

RIGHT, LEFT = RIGHT_LUNG.label, LEFT_LUNG.label
WORKING_MM = 4.0
# The two lungs' middles are 100-160 mm apart in adults; lobes of one lung are not 45 mm apart from right to left.
LEAST_GAP_MM = 45.0
EROSIONS_MM = (2.0, 3.5, 5.0, 7.0, 9.0, 12.0, 15.0, 20.0)
LEAST_SHARE = 0.08


def split_right_left(mask: np.ndarray, spacing: tuple[float, float, float], midline: float | None = None) -> np.ndarray:
    """Label the right lung 1 and the left lung 2 in a mask of the lungs.

    :param mask: ``(z, y, x)`` axial stack (:class:`LesionDecompLib.ct.grid.AxialView`), non-zero = lung.
    :param spacing: of (z, y, x), mm.
    :param midline: column of the body's middle; decides the side of a patient with one lung. Default: the stack's
        middle.
    :return: ``(z, y, x)`` uint8, 0 / 1 / 2.
    """
    labels = np.zeros(mask.shape, dtype=np.uint8)
    box = bounding_box(mask)
    if box is None:
        return labels
    middle = (mask.shape[2] - 1) / 2 if midline is None else midline
    part, out = mask[box], labels[box]
    for z, side in side_planes(part, spacing, middle - box[2].start):
        out[z] = np.where(part[z] != 0, np.where(side > 0, LEFT, RIGHT), 0)
    return labels


def side_planes(
    mask: np.ndarray, spacing: tuple[float, float, float], midline: float, evidence: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """The field of :func:`side_field` slice by slice, on the mask's own grid: pairs of z and ``(y, x)`` float32.

    Found on blocks of about 4 mm, so that a fine mask takes no longer than a coarse one.
    """
    steps = [max(1, steps_within(WORKING_MM, s)) for s in spacing]
    coarse = _any_in_block(mask, steps)
    coarse_spacing = (steps[0] * spacing[0], steps[1] * spacing[1], steps[2] * spacing[2])
    opinion = None if evidence is None else evidence[tuple(slice(n // 2 if n > 1 else 0, None, n) for n in steps)]
    if opinion is not None and opinion.shape != coarse.shape:
        opinion = np.pad(opinion, [(0, c - o) for c, o in zip(coarse.shape, opinion.shape, strict=True)])
    field = torch.from_numpy(side_field(coarse, coarse_spacing, (midline + 0.5) / steps[2] - 0.5, opinion))
    rows, columns = (
        torch.from_numpy(
            resampling_matrix(
                coarse.shape[a], float(steps[a]), mask.shape[a], 1.0, (mask.shape[a] / 2) / steps[a] - 0.5
            )
        )
        for a in (1, 2)
    )
    for z in range(mask.shape[0]):
        position = (z + 0.5) / steps[0] - 0.5
        low = min(max(math.floor(position), 0), coarse.shape[0] - 1)
        high = min(low + 1, coarse.shape[0] - 1)
        plane = torch.lerp(field[low], field[high], min(max(position - low, 0.0), 1.0))
        yield z, (rows @ plane @ columns.T).numpy()


def side_field(
    mask: np.ndarray,
    spacing: tuple[float, float, float],
    midline: float,
    evidence: np.ndarray | None = None,
) -> np.ndarray:
    """A smooth field that is negative nearer to the right lung and positive nearer to the left one.

    Lungs that touch are parted where they touch least: the mask is eroded until two plausible lungs are left, which
    then grow back to a watershed of the distance from the edge.

    :param mask: ``(z, y, x)`` bool, lungs.
    :param spacing: of (z, y, x), mm; about 2-4 mm keeps this quick.
    :param midline: column of the body's middle.
    :param evidence: ``(z, y, x)`` float, > 0 where a network takes the place for left lung, < 0 for right; asked
        only where the shape of the mask does not state.
    :return: ``(z, y, x)`` float32, mm: distance to the right lung minus distance to the left one; +-1 everywhere when
        there is one lung only.
    """
    seeds = _two_lungs(mask, spacing, evidence)
    if seeds is None:
        return np.full(mask.shape, 1.0 if _lies_left(mask, midline, evidence) else -1.0, dtype=np.float32)

    def distance(side: int) -> np.ndarray:
        return ndimage.distance_transform_edt(seeds != side, sampling=spacing).astype(np.float32)

    right, left = in_threads(distance, (RIGHT, LEFT))
    return right - left


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, slice, slice] | None:
    """Slices around the non-zero voxels of a 3-D mask, or None when there are none."""
    box = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if hit.size == 0:
            return None
        box.append(slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, mask.shape[axis])))
    return box[0], box[1], box[2]


def _two_lungs(mask: np.ndarray, spacing: tuple[float, float, float], evidence: np.ndarray | None) -> np.ndarray | None:
    """Labels 1 / 2 of the two lungs covering all of ``mask``, or None when it looks like one lung."""
    pieces, _ = ndimage.label(mask)
    sides = _grouped_by_side(pieces, spacing, evidence)
    if sides is not None:
        return sides
    # Touching: most often a few voxels at the anterior junction line or behind the esophagus.
    edge_distance = ndimage.distance_transform_edt(mask, sampling=spacing)
    for radius in EROSIONS_MM:
        core, _ = ndimage.label(edge_distance > radius + SAME_MM)
        seeds = _grouped_by_side(core, spacing, evidence)
        if seeds is not None:
            return watershed(-edge_distance, seeds, mask=mask).astype(np.uint8)
    if evidence is not None:
        sides = np.where(mask, np.where(evidence > 0, LEFT, RIGHT), 0).astype(np.uint8)
        if _are_two_lungs(sides, spacing):
            return sides
    return None


def _grouped_by_side(
    pieces: np.ndarray, spacing: tuple[float, float, float], evidence: np.ndarray | None
) -> np.ndarray | None:
    """Pieces (labels 1, 2, ...) parted at a gap between their middles, as 1 / 2, or None.

    Of several gaps the one that agrees best with the evidence, without it the widest.
    """
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    large = np.flatnonzero(sizes >= 0.02 * sizes.sum())
    if large.size < 2:
        return None
    # One pass over the columns gives all middles.
    columns = np.broadcast_to(np.arange(pieces.shape[2], dtype=np.float32), pieces.shape)
    middles = ndimage.mean(columns, pieces, large) * spacing[2]
    order = np.argsort(middles)
    gaps = np.diff(middles[order])
    found: list[np.ndarray] = []
    for cut in np.argsort(-gaps):
        if gaps[cut] < LEAST_GAP_MM - SAME_MM:
            break
        side_of = np.zeros(sizes.size, dtype=np.uint8)
        side_of[large[order[: cut + 1]]] = RIGHT
        side_of[large[order[cut + 1 :]]] = LEFT
        sides = side_of[pieces]
        if _are_two_lungs(sides, spacing):
            found.append(sides)
    if evidence is None or len(found) < 2:
        return found[0] if found else None
    return max(found, key=lambda sides: float(evidence[sides == LEFT].sum() - evidence[sides == RIGHT].sum()))


def _are_two_lungs(sides: np.ndarray, spacing: tuple[float, float, float]) -> bool:
    """Whether labels 1 / 2 lie side by side, with little overlap from right to left, and neither is a crumb."""
    right, left = (np.count_nonzero(sides == side, axis=(0, 1)).astype(np.float64) for side in (RIGHT, LEFT))
    total = right.sum() + left.sum()
    if total == 0 or min(right.sum(), left.sum()) < LEAST_SHARE * total:
        return False
    columns = np.arange(sides.shape[2])
    gap = (columns @ left / left.sum() - columns @ right / right.sum()) * spacing[2]
    if gap < LEAST_GAP_MM - SAME_MM:
        return False
    first_quarter_left = int(np.searchsorted(np.cumsum(left), 0.25 * left.sum()))
    last_quarter_right = int(np.searchsorted(np.cumsum(right), 0.75 * right.sum()))
    return (
        right[first_quarter_left:].sum() < 0.1 * right.sum() and left[: last_quarter_right + 1].sum() < 0.1 * left.sum()
    )


def _lies_left(mask: np.ndarray, midline: float, evidence: np.ndarray | None) -> bool:
    if evidence is not None and mask.any():
        opinion = float(np.mean(np.sign(evidence[mask])))
        if abs(opinion) > 0.6:
            return opinion > 0
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    if columns.size == 0:
        return False
    weight = np.count_nonzero(mask, axis=(0, 1))
    return float(np.arange(mask.shape[2]) @ weight / weight.sum()) > midline


def _any_in_block(mask: np.ndarray, steps: list[int]) -> np.ndarray:
    """A coarser mask: a block is in when any of the voxels looked at (every other one of large blocks) is."""
    shape = [-(-n // s) for n, s in zip(mask.shape, steps, strict=True)]
    out = np.zeros(shape, dtype=bool)
    offsets = [sorted({0, s // 2}) for s in steps]
    for dz in offsets[0]:
        for dy in offsets[1]:
            for dx in offsets[2]:
                part = mask[dz :: steps[0], dy :: steps[1], dx :: steps[2]]
                out[: part.shape[0], : part.shape[1], : part.shape[2]] |= part != 0
    return out
