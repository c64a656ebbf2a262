"""Earlier lesions moved by no more than registration may be off by, to where they overlap most with the later ones.

What is left of a wrong registration would otherwise count twice: as growth on one side of a lesion that stayed as it
was, and as shrinkage on the other.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects, maximum_filter

from ...ct.steps import steps_covering
from .motion import HALF, Motion, label_shares

STEPS_MM = (1.5, 0.75, 0.375)
MOST_PLACES = 20_000  # of a lesion that are compared; of a larger one each n-th
MOST_AT_ONCE = 200_000  # places, which keeps memory small
LEAST_GAIN = 0.002  # of the overlap; less is rounding
Box = tuple[slice, slice, slice]


def overlap_most(
    before: np.ndarray,
    now: np.ndarray,
    numbered: np.ndarray,
    motion: Motion,
    earlier_to_ras: np.ndarray,
    later_to_ras: np.ndarray,
    corner: tuple[int, int, int],
    voxels: np.ndarray,
    reach_mm: float,
) -> None:
    """Move the lesions of ``before``, in place, each by itself.

    :param before: ``(k, j, i)`` earlier lesions where registration has brought them, numbered from 1.
    :param now: of that shape, later lesions where not 0.
    :param numbered: the earlier lesions on their own scan's grid, by the same numbers.
    :param earlier_to_ras, later_to_ras: ``(4, 4)`` index to RAS of both grids.
    :param corner: where ``before`` begins in the later scan, (k, j, i).
    :param voxels: ``(count,)`` what each lesion's volume amounts to on the later grid; more overlap than that is none.
    :param reach_mm: how far a lesion may be moved.
    """
    spacing = np.linalg.norm(later_to_ras[:3, :3], axis=0)[::-1]
    margin = np.array([steps_covering(reach_mm, float(step)) for step in spacing]) + 1
    own = find_objects(numbered)
    to_index = np.linalg.inv(earlier_to_ras)

    def index_at(voxels: np.ndarray) -> np.ndarray:
        """Voxels ``(n, 3)`` of ``before``, (k, j, i), as places ``(n, 3)``, (i, j, k), in the earlier scan."""
        ras = (voxels + corner)[:, ::-1] @ later_to_ras[:3, :3].T + later_to_ras[:3, 3]
        return motion.earlier(ras) @ to_index[:3, :3].T + to_index[:3, 3]

    for number, found in enumerate(find_objects(before), start=1):
        if found is None:
            continue
        box = _grown(found, margin, before.shape)
        inside = np.argwhere(now[box] != 0)
        if not len(inside):
            continue
        start = np.array([part.start for part in box])
        part = own[number - 1]
        lesion = (numbered[part] == number).astype(np.uint8)
        first = np.array([side.start for side in reversed(part)])
        every = -(-len(inside) // MOST_PLACES)
        index = index_at(inside[::every] + start) - first
        offset = _best_offset(lesion, index, voxels[number - 1] / every, to_index[:3, :3], reach_mm)
        if not offset.any():
            continue
        was = before[box] == number
        before[box][was] = 0
        near = np.argwhere(maximum_filter(was, size=tuple(2 * margin + 1)) & (before[box] == 0))
        for places in np.array_split(near, 1 + len(near) // MOST_AT_ONCE):
            share, _ = label_shares(lesion, index_at(places + start) - first + to_index[:3, :3] @ offset)
            before[box][tuple(places[share >= HALF].T)] = number


def _best_offset(
    lesion: np.ndarray, index: np.ndarray, most_places: float, to_index: np.ndarray, reach_mm: float
) -> np.ndarray:
    """The motion, RAS mm, that lets most of some places lie in a lesion; none where that gains nothing.

    :param lesion: ``(k, j, i)`` uint8, 0 / 1.
    :param index: places ``(n, 3)``, (i, j, k), in there.
    :param most_places: that the lesion can hold.
    :param to_index: ``(3, 3)`` from mm to index.
    """

    def overlap(offset: np.ndarray) -> float:
        share, _ = label_shares(lesion, index + to_index @ offset)
        # Places that lie in it; how deep they lie decides among equals.
        return float(min(np.count_nonzero(share >= HALF), most_places) + share.mean())

    best, most = np.zeros(3), overlap(np.zeros(3))
    if most >= most_places:  # all that there can be
        return best
    needed = most * (1.0 + LEAST_GAIN)
    for step in STEPS_MM:
        for _ in range(int(2 * reach_mm / step)):
            around = [best + step * sign * axis for axis in np.eye(3) for sign in (1, -1)]
            near = [offset for offset in around if np.linalg.norm(offset) <= reach_mm]
            overlaps = [overlap(offset) for offset in near]
            if not overlaps or max(overlaps) <= max(most, needed):
                break
            most = max(overlaps)
            best = near[overlaps.index(most)]
    return best


def _grown(box: Box, margin: np.ndarray, shape: tuple[int, ...]) -> Box:
    k, j, i = (
        slice(max(0, part.start - int(more)), min(n, part.stop + int(more)))
        for part, more, n in zip(box, margin, shape, strict=True)
    )
    return k, j, i
