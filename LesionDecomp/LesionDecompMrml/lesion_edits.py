"""Lesions that a reader has edited by hand, as in Segment Editor: found by what differs from what was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from LesionDecompLib.ct.anatomy import LUNG_LESION, LUNGS, Structure
from LesionDecompLib.measurement.review import Runs

from .ct_change import image_state
from .scene_nodes import keep_latest
from .segments import labelmap_state

if TYPE_CHECKING:
    from .result_nodes import ResultNodes

# Of heatmap nodes by ID: the states of labelmap, lesion segment and lung segments as this module left them. A segment
# may lag behind the labelmap while a slider is dragged; as long as its state is this one, nobody has edited it.
_written: dict[str, tuple[tuple, tuple, tuple]] = {}

# Of heatmap nodes by ID: the states of the lungs' labelmap and segments, and by how many voxels these differed then.
_compared: dict[str, tuple[tuple, int]] = {}


@dataclass(frozen=True, eq=False)
class Edit:
    """What a reader has changed by hand.

    :param painted, erased: ``(k, j, i)`` bool, inside the lungs.
    :param beside: voxels that were painted outside the lungs, which do not count.
    :param covered: voxels of the lesion segment that went as a lung was painted over them; they stay lesion, since
        lesions are part of the lungs.
    """

    painted: np.ndarray
    erased: np.ndarray
    beside: int
    covered: int = 0

    @property
    def is_none(self) -> bool:
        """Whether nothing inside the lungs has changed."""
        return not (self.painted.any() or self.erased.any())


def remember_written(nodes: ResultNodes) -> None:
    """Labelmap and segment are as this module wants them: what differs from now on is an edit."""
    segments = _segment_state(nodes.segmentation), _lungs_state(nodes.segmentation)
    keep_latest(_written, nodes.heatmap, (_labelmap_state(nodes.lesions), *segments))


def is_edited(nodes: ResultNodes) -> bool:
    """Whether labelmap or segment may have been edited; quick. True for what this module has not written yet."""
    return _changed(nodes) != (False, False)


def find_edit(nodes: ResultNodes, shown: np.ndarray) -> Edit:
    """What differs from the lesions that the heat gives.

    :param shown: ``(k, j, i)`` uint8, the lesions at the present threshold after all decisions so far.
    """
    labelmap_changed, segment_changed = _changed(nodes)
    wanted = shown != 0
    edited = slicer.util.arrayFromVolume(nodes.lesions) != 0 if labelmap_changed else wanted
    covered = 0
    if segment_changed and (drawn := _segment_mask(nodes, LUNG_LESION)) is not None:
        if _lungs_changed(nodes):
            gone = wanted & ~drawn & _in_lung_segments(nodes)
            covered = int(np.count_nonzero(gone))
            drawn |= gone
        edited = np.where(drawn != wanted, drawn, edited)
    changed = edited != wanted
    lungs = slicer.util.arrayFromVolume(nodes.lungs) != 0
    beside = int(np.count_nonzero(changed & edited & ~lungs))
    return Edit(changed & edited & lungs, changed & ~edited, beside, covered)


def edited_lung_voxels(nodes: ResultNodes) -> int:
    """How many voxels of the lung segments differ from the lungs that were measured in; none where there is no
    segmentation, or where CT, heat and lungs no longer fit.

    Lesions are part of the lungs: where a painted one has cut a lung segment, nothing differs. Voxels are compared only
    where a lung has changed since this was last known.
    """
    if nodes.segmentation is None or not _fits(nodes):
        return 0
    known = _compared.get(nodes.heatmap.GetID())
    if known is not None and known[0] == _all_lungs_state(nodes):
        return known[1]
    return _keep_compared(nodes, _differing_lung_voxels(nodes))


def remember_lungs(nodes: ResultNodes) -> None:
    """The lung segments hold the lungs that were measured in: they were made of them just now."""
    _keep_compared(nodes, 0)


@contextmanager
def lungs_kept_known(nodes: ResultNodes) -> Iterator[None]:
    """How much of the lung segments was edited is known behind the block as it was before: they are moved in it."""
    known = _compared.get(nodes.heatmap.GetID())
    known = known if known is not None and known[0] == _all_lungs_state(nodes) else None
    yield
    if known is not None:
        _keep_compared(nodes, known[1])


def runs_of(mask: np.ndarray) -> Runs:
    """Voxels of a mask ``(k, j, i)`` as runs, in the order of its flat index."""
    flat = np.flatnonzero(mask)
    if not len(flat):
        return ()
    starts = np.flatnonzero(np.diff(flat, prepend=flat[0] - 2) != 1)
    counts = np.diff(np.append(starts, len(flat)))
    return tuple(zip(flat[starts].tolist(), counts.tolist(), strict=True))


def _changed(nodes: ResultNodes) -> tuple[bool, bool]:
    labelmap, segment, _ = _written.get(nodes.heatmap.GetID(), ((), (), ()))
    segment_now = _segment_state(nodes.segmentation)
    return _labelmap_state(nodes.lesions) != labelmap, bool(segment_now) and segment_now != segment


def _lungs_changed(nodes: ResultNodes) -> bool:
    """Whether a lung segment has changed since this module wrote; False where that is not known."""
    lungs = _written.get(nodes.heatmap.GetID(), ((), (), ()))[2]
    return bool(lungs) and _lungs_state(nodes.segmentation) != lungs


def _labelmap_state(node) -> tuple[Any, ...]:
    image = node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    return (node.GetID(), scalars.GetMTime()) if scalars is not None else ()


def _lungs_state(segmentation) -> tuple[Any, ...]:
    """The same of the lung segments."""
    states = (_segment_state(segmentation, lung) for lung in LUNGS)
    return tuple(state for state in states if state)


def _segment_state(segmentation, structure: Structure = LUNG_LESION) -> tuple[Any, ...]:
    """Changes whenever the voxels of a segment do; empty where it has none."""
    segment = segmentation.GetSegmentation().GetSegment(structure.segment_id) if segmentation is not None else None
    state = labelmap_state(segment) if segment is not None else ()
    return (segmentation.GetID(), *state) if state else ()


def _in_lung_segments(nodes: ResultNodes) -> np.ndarray:
    """What the lung segments hold, ``(k, j, i)`` bool."""
    inside = np.zeros(slicer.util.arrayFromVolume(nodes.lungs).shape, bool)
    for lung in LUNGS:
        if _segment_state(nodes.segmentation, lung) and (drawn := _segment_mask(nodes, lung)) is not None:
            inside |= drawn
    return inside


def _fits(nodes: ResultNodes) -> bool:
    """Whether CT, heat and lungs have voxels, on one grid."""
    states = [image_state(node) for node in (nodes.ct, nodes.heatmap, nodes.lungs)]
    return all(states) and len({state[-1] for state in states}) == 1


def _keep_compared(nodes: ResultNodes, voxels: int) -> int:
    keep_latest(_compared, nodes.heatmap, (_all_lungs_state(nodes), voxels))
    return voxels


def _all_lungs_state(nodes: ResultNodes) -> tuple[Any, ...]:
    """Of labelmap and segments."""
    return _labelmap_state(nodes.lungs), _lungs_state(nodes.segmentation)


def _differing_lung_voxels(nodes: ResultNodes) -> int:
    measured = slicer.util.arrayFromVolume(nodes.lungs)
    differs = np.zeros(measured.shape, bool)
    for lung in LUNGS:
        drawn = _segment_mask(nodes, lung) if _segment_state(nodes.segmentation, lung) else None
        differs |= (measured == lung.label) != (False if drawn is None else drawn)
    if differs.any() and _segment_state(nodes.segmentation):
        lesion = _segment_mask(nodes, LUNG_LESION)
        if lesion is not None:  # that of the model cuts no lung
            differs &= ~lesion | (slicer.util.arrayFromVolume(nodes.heatmap) >= nodes.threshold)
    return int(np.count_nonzero(differs))


def _segment_mask(nodes: ResultNodes, structure: Structure) -> np.ndarray | None:
    """A segment on the CT's grid, ``(k, j, i)`` bool."""
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, structure.segment_id, nodes.ct)
    return drawn != 0 if drawn is not None else None
