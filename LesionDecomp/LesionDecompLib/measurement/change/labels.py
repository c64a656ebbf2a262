"""Every lesion voxel of two scans labeled by what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt, find_objects
from scipy.spatial import cKDTree

from ...segmentation.components import find_components
from .motion import Motion
from .overlap import overlap_most
from .scan import Scan

MEETING_MM = 3.0  # what the registration may be off by
MOST_SCALED = 1.5  # times larger or smaller; beyond that a lesion was cut, or torn
AROUND_VOXELS = 4  # around the lungs, where registration may leave an earlier lesion


class Change(IntEnum):
    """Labels of the change labelmap."""

    NEW = 1
    GROWN = 2
    PERSISTENT = 3
    RESOLVED = 4
    SHRUNK = 5


@dataclass(frozen=True, eq=False)
class ChangeLabels:
    """What became of the lesions.

    :param labels: ``(k, j, i)`` uint8 on the later scan's grid, 0 or one of :class:`Change`.
    :param box: outside of which they are 0.
    :param earlier_ml: of the box, float32: the volume that each voxel's tissue had in the earlier scan, mL; 0 where
        there was no lesion. The voxels of a lesion share its volume there.
    :param new, resolved, later_kept, earlier_kept: lesions of the later scan that meet none of the earlier one, the
        reverse, and those of each scan that meet one of the other.
    :param earlier_not_seen: earlier lesions without a voxel on the later grid; they have no label, and are none of the
        resolved ones.
    :param lost_ml: their volume, mL of the earlier scan.
    :param unseen_ml: later lesions where the earlier CT has no voxel, mL.
    """

    labels: np.ndarray
    box: tuple[slice, slice, slice]
    earlier_ml: np.ndarray
    new: int
    resolved: int
    later_kept: int
    earlier_kept: int
    earlier_not_seen: int
    lost_ml: float
    unseen_ml: float

    @property
    def boxed(self) -> np.ndarray:
        """The labels inside the box."""
        return self.labels[self.box]

    @property
    def counts(self) -> dict[str, int]:
        """How many lesions of each scan became what, by the names of the fields."""
        return {
            "new": self.new,
            "resolved": self.resolved,
            "later_kept": self.later_kept,
            "earlier_kept": self.earlier_kept,
            "earlier_not_seen": self.earlier_not_seen,
        }


def label_change(earlier: Scan, later: Scan, motion: Motion) -> ChangeLabels:
    """Label the lesions of both scans on the grid of the later one.

    Lesions are 26-connected. Two of them meet where they share a voxel or come within 3 mm of each other, which the
    registration may be off by. Registration places an earlier lesion, its volume stays that which it had:
    what is stretched or squeezed over a few centimeters is as likely an error as a motion. For the same reason it is
    moved by up to 3 mm to where it overlaps most with the later lesions.
    """
    box = _grown(later.box, later.lungs.shape)
    now, now_count = _numbered(later.lesions[box] != 0)
    numbered, before_count = _numbered(earlier.lesions != 0)
    before = motion.pull(numbered, earlier.ijk_to_ras, later.ijk_to_ras, box)
    corner = (box[0].start, box[1].start, box[2].start)
    sizes = np.bincount(numbered.ravel(order="K"), minlength=before_count + 1)[1:] * earlier.voxel_ml
    voxels = np.rint(sizes / later.voxel_ml).astype(int)
    grids = earlier.ijk_to_ras, later.ijk_to_ras
    overlap_most(before, now, numbered, motion, *grids, corner, voxels, MEETING_MM)
    keep_volumes(before, voxels, later.ijk_to_ras)
    now_met, before_met = _meetings(now, now_count, before, before_count, later.ijk_to_ras)
    labels = np.zeros(later.lungs.shape, np.uint8)
    inside, had = now > 0, before > 0
    boxed = labels[box]
    boxed[inside] = np.where(now_met[now[inside]], Change.GROWN, Change.NEW)
    boxed[had] = np.where(before_met[before[had]], Change.SHRUNK, Change.RESOLVED)
    boxed[inside & had] = Change.PERSISTENT
    pulled = np.bincount(before[had], minlength=before_count + 1)[1:]
    share = np.divide(sizes, pulled, out=np.zeros(before_count), where=pulled > 0)
    return ChangeLabels(
        labels=labels,
        box=box,
        earlier_ml=np.append(0.0, share).astype(np.float32)[before],
        new=int(np.count_nonzero(~now_met[1:])),
        resolved=int(np.count_nonzero(~before_met[1:] & (pulled > 0))),
        later_kept=int(np.count_nonzero(now_met[1:])),
        earlier_kept=int(np.count_nonzero(before_met[1:])),
        earlier_not_seen=int(np.count_nonzero(pulled == 0)),
        lost_ml=float(sizes[pulled == 0].sum()),
        unseen_ml=_unseen_voxels(earlier, later, motion, now, box) * later.voxel_ml,
    )


def keep_volumes(numbers: np.ndarray, voxels: np.ndarray, ijk_to_ras: np.ndarray) -> None:
    """Grow or shrink lesions evenly, in place, until each has its number of voxels.

    :param numbers: ``(k, j, i)`` int32, each lesion's voxels numbered from 1; lesions do not grow into each other.
    :param voxels: ``(count,)`` wanted of each.
    :param ijk_to_ras: for distances in mm.
    """
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)[::-1]
    for number, found in enumerate(find_objects(numbers), start=1):
        if found is None:
            continue
        around = tuple(
            slice(max(0, part.start - AROUND_VOXELS), min(n, part.stop + AROUND_VOXELS))
            for part, n in zip(found, numbers.shape, strict=True)
        )
        part = numbers[around]
        own = part == number
        held, wanted = int(np.count_nonzero(own)), int(voxels[number - 1])
        if held == wanted or not held / MOST_SCALED <= wanted <= held * MOST_SCALED:
            continue
        places = np.argwhere(own | (part == 0)) if wanted > held else np.argwhere(own)
        depth = distance_transform_edt(own, sampling=spacing) - distance_transform_edt(~own, sampling=spacing)
        from_middle = (((places - np.argwhere(own).mean(axis=0)) * spacing) ** 2).sum(axis=1)
        # The deepest first; of those as deep, the nearest to the middle.
        order = np.lexsort((from_middle, -depth[tuple(places.T)]))
        part[own] = 0
        part[tuple(places[order[:wanted]].T)] = number


def _grown(box: tuple[slice, slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    k, j, i = (
        slice(max(0, part.start - AROUND_VOXELS), min(n, part.stop + AROUND_VOXELS))
        for part, n in zip(box, shape, strict=True)
    )
    return k, j, i


def _numbered(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Each lesion's voxels numbered, int32, from 1; how many there are."""
    components = find_components(mask)
    numbers = np.zeros(mask.shape, np.int32)
    if components.count:
        numbers[components.voxels()] = np.repeat(components.labels + 1, components.lengths)
    return numbers, components.count


def _meetings(
    now: np.ndarray, now_count: int, before: np.ndarray, before_count: int, ijk_to_ras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which lesions of each scan meet one of the other, by number; the first entry stands for no lesion."""
    now_met, before_met = np.zeros(now_count + 1, bool), np.zeros(before_count + 1, bool)
    both = (now > 0) & (before > 0)
    now_met[now[both]] = True
    before_met[before[both]] = True
    if now_count and before_count:
        now_edge, before_edge = (_edge(numbers, ijk_to_ras) for numbers in (now, before))
        for (own, own_met), (other, other_met) in (
            ((now_edge, now_met), (before_edge, before_met)),
            ((before_edge, before_met), (now_edge, now_met)),
        ):
            lonely = ~own_met[own[1]]
            if not lonely.any() or not len(other[0]):
                continue
            distances, nearest = cKDTree(other[0]).query(own[0][lonely], distance_upper_bound=MEETING_MM)
            near = np.isfinite(distances)
            own_met[own[1][lonely][near]] = True
            other_met[other[1][nearest[near]]] = True
    return now_met, before_met


def _edge(numbers: np.ndarray, ijk_to_ras: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places ``(n, 3)``, mm, and numbers ``(n,)`` of the voxels at the lesions' surfaces."""
    inside = numbers > 0
    k, j, i = np.nonzero(inside & ~binary_erosion(inside))
    return np.stack([i, j, k], axis=-1) @ ijk_to_ras[:3, :3].T, numbers[k, j, i]


def _unseen_voxels(earlier: Scan, later: Scan, motion: Motion, now: np.ndarray, box: tuple[slice, slice, slice]) -> int:
    """Voxels of later lesions whose tissue lay beyond the earlier CT."""
    k, j, i = (axis + part.start for axis, part in zip(np.nonzero(now), box, strict=True))
    places = motion.earlier(np.stack([i, j, k], axis=-1) @ later.ijk_to_ras[:3, :3].T + later.ijk_to_ras[:3, 3])
    to_index = np.linalg.inv(earlier.ijk_to_ras)
    index = places @ to_index[:3, :3].T + to_index[:3, 3]
    limits = np.array(earlier.lungs.shape)[::-1] - 0.5
    return int(np.count_nonzero(((index < -0.5) | (index > limits)).any(axis=1)))
