"""A finished result whose lesions follow a slider: labelmap, segment and measurements at any threshold, at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import slicer
from LesionDecompLib.ct.anatomy import LUNG_LESION
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import Lesions, LiveLesions
from LesionDecompLib.measurement.statistics import Tally

from .ct_change import image_state
from .input_nodes import world_matrix
from .lesion_edits import remember_written
from .result_nodes import MINIMUM_VOLUME, UPDATING, ResultNodes, follow_ct, prepare_volume
from .review import REVIEW, LiveReview, review_of
from .scene_nodes import THRESHOLD
from .segments import draw_segment, write_segment
from .statistics_table import fill_table, show_readable_table
from .surfaces import has_surfaces, kept_surfaces, make_lesion_surface, put_surface

_handed: dict[tuple, Tally] = {}  # of the latest run


@dataclass(frozen=True, eq=False)
class LiveResult:
    """What is computed once for a result: the list of voxels that may become lesion, and where the axial slices are.

    :param nodes: of the result.
    :param live: of its arrays, seen as axial stacks.
    :param view: from array to stack.
    :param box: of the lungs in the array.
    :param _state: of the nodes it was made from.
    """

    nodes: ResultNodes
    live: LiveLesions
    view: AxialView
    box: tuple[slice, slice, slice]
    _state: tuple

    @classmethod
    def of(cls, nodes: ResultNodes) -> LiveResult:
        """Prepare a result; takes a fraction of a second.

        :raises LesionDecompError: nodes whose grids have become different, or labels that are not lungs.
        """
        hu, heat, lungs = (_array_of(node) for node in (nodes.ct, nodes.heatmap, nodes.lungs))
        if not hu.shape == heat.shape == lungs.shape:
            raise LesionDecompError(
                UPDATING,
                "a heatmap or lung mask that no longer fits the CT",
                "the CT's grid",
                "Run LesionDecomp again.",
            )
        world = world_matrix(nodes.ct, UPDATING)
        view = AxialView.of(hu.shape, world)
        voxel_ml = float(abs(np.linalg.det(world[:3, :3]))) / 1000.0
        tally = _handed.get(_voxels_of(nodes))
        live = LiveLesions.of(view.to_axial(hu), view.to_axial(lungs), view.to_axial(heat), voxel_ml, tally)
        return cls(nodes, live, view, view.array_box(live.box), _state_of(nodes))

    def is_of(self, nodes: ResultNodes) -> bool:
        """Whether it still holds for these nodes: the same ones, their voxels and places unchanged."""
        return self._state == _state_of(nodes)

    @cached_property
    def review(self) -> LiveReview:
        """A reader's decisions on this heat."""
        return LiveReview(self.live, self.view)

    def lesions(self, threshold: float, min_volume_ml: float) -> Lesions:
        """The lesions at a threshold, as the reader has left them.

        :raises LesionDecompError: a number out of range.
        """
        if self.nodes.heatmap.GetAttribute(REVIEW) is None:
            return self.live.at(threshold, min_volume_ml)
        return self.review.at(review_of(self.nodes), threshold, min_volume_ml)

    def mask(self, lesions: Lesions) -> np.ndarray:
        """Lesions as a labelmap of the CT's grid, ``(k, j, i)`` uint8, 0 / 1."""
        mask = np.empty(slicer.util.arrayFromVolume(self.nodes.ct).shape, np.uint8)
        lesions.paint(self.view.to_axial(mask))
        return mask

    def update(
        self,
        threshold: float,
        min_volume_ml: float,
        *,
        with_statistics: bool = True,
        settled: bool = True,
        with_segment: bool = True,
    ) -> Lesions:
        """Make labelmap and segment show the lesions at a threshold.

        :param threshold: on the heat, 0 to 1.
        :param min_volume_ml: smaller lesions are left out, mL.
        :param with_statistics: write the table too.
        :param settled: False while a slider is dragged: a segmentation that nobody sees, or whose surface would have to
            be made anew, then waits.
        :param with_segment: False leaves the segment, as it shows these lesions already.
        :return: the lesions, with their volume, components (along the array's axes, since VTK stores k, j, i) and
            statistics.
        :raises LesionDecompError: a number out of range.
        """
        nodes = self.nodes
        lesions = self.lesions(threshold, min_volume_ml)
        rows = lesions.statistics() if with_statistics else None
        # Everything is computed; from here on nodes change.
        follow_ct(nodes)
        modified = nodes.lesions.StartModify()
        try:
            labelmap = prepare_volume(nodes.lesions, nodes.ct, np.uint8)
            lesions.paint(self.view.to_axial(labelmap))
            slicer.util.arrayFromVolumeModified(nodes.lesions)
            nodes.lesions.StorableModified()
        finally:
            nodes.lesions.EndModify(modified)
        # Silently: the heat itself is as it was, and no view has to draw it anew.
        silent = nodes.heatmap.GetDisableModifiedEvent()
        nodes.heatmap.SetDisableModifiedEvent(True)
        nodes.heatmap.SetAttribute(THRESHOLD, repr(float(threshold)))
        nodes.heatmap.SetAttribute(MINIMUM_VOLUME, repr(float(min_volume_ml)))
        nodes.heatmap.SetDisableModifiedEvent(silent)
        if nodes.segmentation is not None and with_segment:
            self._update_segment(labelmap[self.box], settled)
        remember_written(nodes)
        if rows is not None:
            fill_table(nodes.table, rows)
            show_readable_table(nodes.heatmap, rows, make=False)
        return lesions

    def _update_segment(self, part: np.ndarray, settled: bool) -> None:
        """Make the segment show the lesions: at once where it is seen in slices, else once the slider rests."""
        nodes = self.nodes
        if not settled:
            if follows_live(nodes.segmentation) and not draw_segment(
                nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box
            ):
                write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box)
            return
        surfaces = kept_surfaces(nodes.segmentation)
        if surfaces:  # or Slicer would make all of them anew, which takes ten seconds
            nodes.segmentation.RemoveClosedSurfaceRepresentation()
        write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box)
        for segment_id, surface in surfaces.items():
            if segment_id != LUNG_LESION.segment_id:
                put_surface(nodes.segmentation, segment_id, surface)
        if surfaces:
            make_lesion_surface(nodes)


def with_painted_lesions(lungs: np.ndarray, nodes: ResultNodes) -> np.ndarray:
    """Lungs as a reader has edited them, with the lesions that the reader painted: painting may have cut them out.

    :param lungs: ``(k, j, i)`` uint8 on the CT's grid: 1 right, 2 left, or 1 where no side is known; changed in place.
    :param nodes: of the result that the lungs are those of.
    """
    if nodes.heatmap.GetAttribute(REVIEW) is None:
        return lungs
    live = LiveResult.of(nodes)
    placed = live.review.placed(review_of(nodes))
    if placed is not None and len(placed.painted):
        cut = (live.mask(placed.painted_lesions(live.live)) != 0) & (lungs == 0)
        lungs[cut] = slicer.util.arrayFromVolume(nodes.lungs)[cut] if (lungs == 2).any() else 1
    return lungs


def hand_over(nodes: ResultNodes, lung_tally: Tally | None) -> None:
    """Take over what a run has counted, for the slider of its result; that of the latest run is kept."""
    _handed.clear()
    if lung_tally is not None:
        _handed[_voxels_of(nodes)] = lung_tally


def follows_live(segmentation) -> bool:
    """Whether a segmentation is worth updating at every step of a slider: its lesion is seen in the slice views, and it
    has no surface to remake."""
    display = segmentation.GetDisplayNode()
    segment = LUNG_LESION.segment_id
    if display is None or not (display.GetVisibility() and display.GetVisibility2D()):
        return False
    drawn = display.GetVisibility2DOutline() and display.GetSegmentVisibility2DOutline(segment)
    drawn = drawn or (display.GetVisibility2DFill() and display.GetSegmentVisibility2DFill(segment))
    return bool(drawn and display.GetSegmentVisibility(segment)) and not has_surfaces(segmentation)


def _array_of(node) -> np.ndarray:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise LesionDecompError(UPDATING, f"'{node.GetName()}' without voxels", "a result", "Run LesionDecomp again.")
    return slicer.util.arrayFromVolume(node)


def _voxels_of(nodes: ResultNodes) -> tuple:
    """What changes whenever voxels of CT, heat or lungs do, or their place; none of them is held."""
    states = (image_state(node) for node in (nodes.ct, nodes.heatmap, nodes.lungs))
    return (*states, world_matrix(nodes.ct, UPDATING).tobytes())


def _state_of(nodes: ResultNodes) -> tuple:
    state: list[Any] = [node.GetID() if node is not None else None for node in vars(nodes).values()]
    for node in (nodes.ct, nodes.heatmap, nodes.lungs):
        image = node.GetImageData()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        state += [image, scalars.GetMTime() if scalars is not None else None, image and image.GetDimensions()]
    return (*state, world_matrix(nodes.ct, UPDATING).tobytes())
