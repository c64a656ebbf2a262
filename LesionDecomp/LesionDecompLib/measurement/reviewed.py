"""The lesions at any threshold as a reader has left them: rejected ones out, added ones in, voxels painted or erased.

A decision is about the connected heat around its place, from the threshold that the reader saw. Raised, the threshold
leaves parts of it: they stay rejected. Lowered, it lets lesions grow together: each voxel then goes with the lesion
that reaches it first as the threshold falls (watershed on the heat), so that a rejected lesion takes no other with it.
Voxels that were painted are lesion at any threshold, those that were erased are none at any; no smallest volume counts
for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..ct.grid import AxialView
from ..ct.oddity import Oddity
from ..segmentation.components import components_of_positions
from .live import Lesions, LiveLesions
from .review import ADD, PAINT, REJECT, Decision, Review, Runs
from .tally import ListedVoxels

LPS = np.array([-1.0, -1.0, 1.0])  # of RAS


@dataclass(frozen=True, eq=False)
class PlacedLesion:
    """A decision and the lesion that it is about, as the heat has it.

    :param places: flat indices in the stored stack, rising; of the connected heat around the place.
    """

    decision: Decision
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class PlacedReview:
    """A review on one result's heat: what holds after all decisions, of which a later one takes an earlier one's place.

    :param rejected, added: lesions.
    :param painted: voxels that are lesion whatever their heat.
    :param erased: places of voxels that are none, ``(n,)`` rising.
    :param lost: decisions at whose place there is no heat of their threshold in the lungs.
    :param beside: how many painted voxels lie outside the lungs; they are left out.
    """

    rejected: tuple[PlacedLesion, ...]
    added: tuple[PlacedLesion, ...]
    painted: ListedVoxels
    erased: np.ndarray
    lost: tuple[Decision, ...]
    beside: int

    @classmethod
    def of(cls, live: LiveLesions, view: AxialView, review: Review) -> PlacedReview:
        """Find the voxels that a review is about.

        :param view: of the result's arrays.
        """
        placing = _Placing(live, view)
        for decision in review.lesions:
            placing.take(decision)
        painted = live.voxels_at(placing.painted)
        beside = len(np.unique(placing.painted)) - len(painted.places)
        return cls(tuple(placing.rejected), tuple(placing.added), painted, placing.erased, tuple(placing.lost), beside)

    @property
    def warnings(self) -> list[str]:
        """What of the review could not be applied."""
        found: list[str] = []
        if count := len(self.lost):
            text = f"Left out of the reader's decisions, as there is no heat at their places: {count}."
            found.append(Oddity(text, "review_not_applied", count, 0))
        if self.beside:
            text = f"Painted by the reader, but outside the lungs and left out: {self.beside} voxels."
            found.append(Oddity(text, "review_outside_lungs", self.beside, 0))
        return found

    def added_lesion(self, live: LiveLesions, one: PlacedLesion) -> Lesions:
        """An added lesion alone."""
        return _joined(live, _listed(live, one))

    def painted_lesions(self, live: LiveLesions) -> Lesions:
        """What was painted, alone."""
        return _joined(live, self.painted)

    def at(self, live: LiveLesions, threshold: float, min_volume_ml: float) -> Lesions:
        """The lesions at a threshold, after the decisions.

        :raises LesionDecompError: as :meth:`.live.LiveLesions.at`.
        """
        lesions = live.at(threshold, min_volume_ml)
        voxels = lesions.voxels
        for one in self.rejected:
            voxels = _without(live, voxels, one, min_volume_ml)
        for one in self.added:
            voxels = _union(voxels, _listed(live, one))
        voxels = _union(voxels, self.painted)
        if len(self.erased):
            voxels = voxels.where(~np.isin(voxels.places, self.erased))
        return lesions if voxels is lesions.voxels else _joined(live, voxels)


class _Placing:
    """Takes one decision after the other."""

    def __init__(self, live: LiveLesions, view: AxialView) -> None:
        self._live, self._view = live, view
        self.rejected: list[PlacedLesion] = []
        self.added: list[PlacedLesion] = []
        self.painted = self.erased = np.zeros(0, np.int64)
        self.lost: list[Decision] = []

    def take(self, decision: Decision) -> None:
        """One decision more."""
        if decision.decision == PAINT:
            self._paint(decision)
            return
        live = self._live
        place = stored_place(live, voxel_at(self._view, decision.lps_mm))
        found = _around(live, place, decision.threshold) if place is not None else None
        attached = (
            self._attached(place, found) if decision.decision == REJECT and place is not None else self.painted[:0]
        )
        # What was painted onto a rejected lesion goes with it.
        self.painted = np.setdiff1d(self.painted, attached, assume_unique=True)
        if place is None or found is None:
            if not len(attached):
                self.lost.append(decision)
            return
        self.rejected = [one for one in self.rejected if not _same(one, place, found)]
        if decision.decision != ADD:  # accepted is a lesion as the model has it
            self.added = [one for one in self.added if not _same(one, place, found)]
        if decision.decision == REJECT:
            self.rejected.append(PlacedLesion(decision, found))
            return
        self.erased = np.setdiff1d(self.erased, found, assume_unique=True)
        if decision.decision == ADD:
            self.added.append(PlacedLesion(decision, found))

    def _paint(self, decision: Decision) -> None:
        painted, erased = (places_of_runs(self._live, self._view, runs) for runs in (decision.painted, decision.erased))
        if painted is None or erased is None:
            self.lost.append(decision)
            return
        # Painted back where the heat makes it lesion, or wiped out again where it does not: as it was.
        back = np.intersect1d(painted, self.erased, assume_unique=True)
        gone = np.intersect1d(erased, self.painted, assume_unique=True)
        back, gone = back[self._warm(back, decision)], gone[~self._warm(gone, decision)]
        kept = np.setdiff1d(self.painted, erased, assume_unique=True)
        self.painted = np.union1d(kept, np.setdiff1d(painted, back, assume_unique=True))
        kept = np.setdiff1d(self.erased, painted, assume_unique=True)
        self.erased = np.union1d(kept, np.setdiff1d(erased, gone, assume_unique=True))

    def _warm(self, places: np.ndarray, decision: Decision) -> np.ndarray:
        """Where the heat reaches a decision's threshold, ``(n,)`` bool."""
        heat = self._live.order(self._live.heat)
        return np.asarray(heat[np.unravel_index(places, heat.shape)] >= heat.dtype.type(decision.threshold))

    def _attached(self, place: int, found: np.ndarray | None) -> np.ndarray:
        """Painted places that are connected with a place, alone or through the lesion that is found there."""
        if not len(self.painted):
            return self.painted
        voxels = self._live.voxels_at(self.painted if found is None else np.union1d(self.painted, found))
        index = int(np.searchsorted(voxels.places, place))
        if index >= len(voxels) or voxels.places[index] != place:
            return self.painted[:0]
        components = components_of_positions(voxels.positions, self._live.order(self._live.lungs).shape)
        labels = np.repeat(components.labels, components.lengths)
        return np.intersect1d(self.painted, voxels.places[labels == labels[index]], assume_unique=True)


def voxel_at(view: AxialView, lps_mm: Sequence[float]) -> tuple[int, int, int] | None:
    """The voxel (z, y, x) of the axial stack that holds a place; None beside the stack."""
    point = np.append(np.asarray(lps_mm, float) * LPS, 1.0)
    x, y, z = np.rint(np.linalg.solve(view.axial_to_ras, point)[:3]).astype(int)
    inside = all(0 <= n < size for n, size in zip((z, y, x), view.shape, strict=True))
    return (int(z), int(y), int(x)) if inside else None


def lps_of_voxel(view: AxialView, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    """Where the middle of a voxel (z, y, x) of the axial stack lies, mm."""
    left, posterior, superior = (view.axial_to_ras @ (*voxel[::-1], 1.0))[:3] * LPS
    return float(left), float(posterior), float(superior)


def lps_of_array_voxel(view: AxialView, voxel: Sequence[int]) -> tuple[float, float, float]:
    """Where the middle of a voxel (k, j, i) of the array lies, mm."""
    z, y, x = (
        size - 1 - int(voxel[axis]) if flip else int(voxel[axis])
        for size, axis, flip in zip(view.shape, view.axes, view.flips, strict=True)
    )
    return lps_of_voxel(view, (z, y, x))


def stored_place(live: LiveLesions, voxel: tuple[int, int, int] | None) -> int | None:
    """Flat index of a voxel (z, y, x) in the stored stack."""
    return int(_stored(live, np.array(voxel))) if voxel is not None else None


def places_of_runs(live: LiveLesions, view: AxialView, runs: Runs) -> np.ndarray | None:
    """Flat indices in the stored stack, rising, of runs of voxels of the array; None where they reach beyond it."""
    if not runs:
        return np.zeros(0, np.int64)
    first, counts = np.array(runs, np.int64).T
    if first[-1] + counts[-1] > live.lungs.size:
        return None
    flat = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    shape = [0, 0, 0]
    for size, axis in zip(view.shape, view.axes, strict=True):
        shape[axis] = size
    index = np.unravel_index(flat, shape)
    voxels = [
        size - 1 - index[axis] if flip else index[axis]
        for size, axis, flip in zip(view.shape, view.axes, view.flips, strict=True)
    ]
    return np.sort(_stored(live, np.stack(voxels)))


def _stored(live: LiveLesions, voxels: np.ndarray) -> np.ndarray:
    """Flat indices in the stored stack of voxels ``(3, ...)`` of the axial one."""
    shape, order = live.lungs.shape, live.order
    there = [
        shape[axis] - 1 - voxels[axis] if step < 0 else voxels[axis]
        for axis, step in zip(order.axes, order.steps, strict=True)
    ]
    return np.asarray(np.ravel_multi_index(there, order(live.lungs).shape))


def _around(live: LiveLesions, place: int, threshold: float) -> np.ndarray | None:
    """Places of the connected heat of at least ``threshold`` around a place; None where it is colder or no lung."""
    lesions = live.at(threshold, 0.0)
    index = int(np.searchsorted(lesions.voxels.places, place))
    if index >= len(lesions.voxels) or lesions.voxels.places[index] != place:
        return None
    labels = np.repeat(lesions.components.labels, lesions.components.lengths)
    return lesions.voxels.places[labels == labels[index]]


def _same(one: PlacedLesion, place: int, found: np.ndarray) -> bool:
    """Whether an earlier decision is about the lesion of a later one: either holds the other's place, or all of it."""
    return bool(np.isin(place, one.places)) or bool(np.isin(one.places, found, assume_unique=True).all())


def _listed(live: LiveLesions, one: PlacedLesion) -> ListedVoxels:
    voxels = live.at(one.decision.threshold, 0.0).voxels
    return voxels.where(np.isin(voxels.places, one.places, assume_unique=True))


def _joined(live: LiveLesions, voxels: ListedVoxels) -> Lesions:
    return Lesions(voxels, components_of_positions(voxels.positions, live.order(live.lungs).shape), live)


def _union(first: ListedVoxels, second: ListedVoxels) -> ListedVoxels:
    """Voxels of either, in the order of memory."""
    more = second.where(~np.isin(second.places, first.places, assume_unique=True))
    if not len(more):
        return first
    joined = [np.concatenate([getattr(part, field.name) for part in (first, more)]) for field in fields(ListedVoxels)]
    order = np.argsort(joined[0], kind="stable")
    return ListedVoxels(*(part[order] for part in joined))


def _without(live: LiveLesions, voxels: ListedVoxels, one: PlacedLesion, min_volume_ml: float) -> ListedVoxels:
    """The voxels less those that belong to a rejected lesion."""
    if not len(voxels):
        return voxels
    components = components_of_positions(voxels.positions, live.order(live.lungs).shape)
    labels = np.repeat(components.labels, components.lengths)
    hit = np.unique(labels[np.isin(voxels.places, one.places, assume_unique=True)])
    if not len(hit):
        return voxels
    touched = np.isin(labels, hit)
    grown = voxels.where(touched)
    others = live.at(one.decision.threshold, min_volume_ml).voxels
    others = others.where(~np.isin(others.places, one.places, assume_unique=True))
    seeds = np.isin(grown.places, others.places, assume_unique=True)
    gone = np.ones(len(grown), bool) if not seeds.any() else _basin(live, grown, one.places, seeds)
    out = np.zeros(len(voxels), bool)
    out[np.flatnonzero(touched)[gone]] = True
    return voxels.where(~out)


def _basin(live: LiveLesions, grown: ListedVoxels, rejected: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Which voxels of lesions that have grown together belong to the rejected one: a mask ``(n,)``.

    :param seeds: mask of the voxels of the other lesions.
    """
    from skimage.segmentation import watershed  # not before: it takes time to import

    places = np.stack(np.unravel_index(grown.places, live.order(live.lungs).shape))
    places -= places.min(axis=1, keepdims=True)
    inside = tuple(places)
    shape = tuple(places.max(axis=1) + 1)
    heat, mask, markers = np.zeros(shape, np.float32), np.zeros(shape, bool), np.zeros(shape, np.int8)
    heat[inside], mask[inside] = -grown.heat, True
    markers[inside] = np.where(np.isin(grown.places, rejected, assume_unique=True), 1, np.where(seeds, 2, 0))
    basins = watershed(heat, markers, mask=mask, connectivity=np.ones((3, 3, 3), bool))
    return np.asarray(basins[inside] == 1)
