"""A finished result whose lesions follow a slider: labelmap, segment and figures at any threshold, at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from LesionDecompLib.ct.anatomy import LUNG_LESION
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import Lesions, LiveLesions
from LesionDecompLib.segmentation.lesions import lung_box

from .input_nodes import world_matrix
from .result_nodes import MINIMUM_VOLUME, UPDATING, ResultNodes, prepare_volume
from .scene_nodes import THRESHOLD
from .segments import draw_segment, write_segment
from .statistics_table import fill_table


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

        :raises LesionDecompError: nodes whose grids have become different, or labels that are no lungs.
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
        live = LiveLesions.of(*(view.to_axial(array) for array in (hu, lungs, heat)), voxel_ml)
        return cls(nodes, live, view, lung_box(lungs), _state_of(nodes))

    def is_of(self, nodes: ResultNodes) -> bool:
        """Whether it still holds for these nodes: the same ones, their voxels and places unchanged."""
        return self._state == _state_of(nodes)

    def update(
        self, threshold: float, min_volume_ml: float, *, with_statistics: bool = True, settled: bool = True
    ) -> Lesions:
        """Make labelmap and segment show the lesions at a threshold.

        :param threshold: on the heat, 0 to 1.
        :param min_volume_ml: smaller lesions are left out, mL.
        :param with_statistics: write the table too.
        :param settled: False while a slider is dragged: a segmentation that nobody sees, or whose surface would have to
            be made anew, then waits.
        :return: the lesions, with their volume, components (along the array's axes, since VTK stores k, j, i) and
            statistics.
        :raises LesionDecompError: a number out of range.
        """
        nodes = self.nodes
        lesions = self.live.at(threshold, min_volume_ml)
        rows = lesions.statistics() if with_statistics else None
        # Everything is computed; from here on nodes change.
        modified = nodes.lesions.StartModify()
        try:
            labelmap = prepare_volume(nodes.lesions, nodes.ct, np.uint8)
            lesions.paint(self.view.to_axial(labelmap))
            slicer.util.arrayFromVolumeModified(nodes.lesions)
            nodes.lesions.StorableModified()
        finally:
            nodes.lesions.EndModify(modified)
        nodes.heatmap.SetAttribute(THRESHOLD, repr(float(threshold)))
        nodes.heatmap.SetAttribute(MINIMUM_VOLUME, repr(float(min_volume_ml)))
        if nodes.segmentation is not None:
            part = labelmap[self.box]
            if settled:
                write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box)
            elif follows_live(nodes.segmentation):
                drawn = draw_segment(nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box)
                if not drawn:
                    write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, part, self.box)
        if rows is not None:
            fill_table(nodes.table, rows)
        return lesions


def follows_live(segmentation) -> bool:
    """Whether a segmentation is worth updating at every step of a slider: it is seen, and has no surface to remake."""
    display = segmentation.GetDisplayNode()
    seen = display is not None and display.GetVisibility() and display.GetSegmentVisibility(LUNG_LESION.segment_id)
    surface = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return bool(seen) and not segmentation.GetSegmentation().ContainsRepresentation(surface)


def _array_of(node) -> np.ndarray:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise LesionDecompError(UPDATING, f"'{node.GetName()}' without voxels", "a result", "Run LesionDecomp again.")
    return slicer.util.arrayFromVolume(node)


def _state_of(nodes: ResultNodes) -> tuple:
    state: list[Any] = [node.GetID() if node is not None else None for node in vars(nodes).values()]
    for node in (nodes.ct, nodes.heatmap, nodes.lungs):
        image = node.GetImageData()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        state += [image, scalars.GetMTime() if scalars is not None else None, image and image.GetDimensions()]
    return (*state, world_matrix(nodes.ct, UPDATING).tobytes())
