"""Regions that a user has in the scene, as segmentation or labelmap: read for measuring, and their table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.lattice import as_labels, beyond_warnings, labels_on_grid
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.definitions import REGION_MEASUREMENTS
from LesionDecompLib.measurement.live import Lesions
from LesionDecompLib.measurement.region_rows import (
    REGION_CELLS,
    RegionMeasurements,
    RegionTallies,
    region_cells,
)
from LesionDecompLib.measurement.regions import STAGE, GivenRegions

from .input_nodes import called, segments_of, share_beyond, volume_from_node, world_matrix
from .live_result import LiveResult
from .result_nodes import ResultNodes
from .segments import labelmap_state
from .statistics_table import fill_with_texts, result_table

REGIONS_ROLE = "LesionDecomp.regions"  # the heatmap's reference to the node that its regions are from
TABLE_ROLE = "LesionDecomp.regionTable"
# Slicer's own color tables number or name whatever labels there are: those are no names that a user gave.
NAMELESS_COLORS = ("GenericColors", "GenericAnatomyColors", "Labels", "Random")
NO_NAMES = ("(none)", "invalid")  # that a color table gives to labels it does not know


def chosen_regions(heatmap) -> Any:
    """The segmentation or labelmap that a result's regions are from, or None."""
    return heatmap.GetNodeReference(REGIONS_ROLE)


def choose_regions(heatmap, node) -> None:
    """Have a result measured in the regions of a segmentation or labelmap; None leaves zones and halves alone."""
    heatmap.SetNodeReferenceID(REGIONS_ROLE, node.GetID() if node is not None else None)


def given_regions(node, ct) -> GivenRegions:
    """Regions of a node on the CT's grid, with a warning where they reach beyond the CT; segments may overlap.

    :param node: a segmentation of any geometry, or a labelmap on the CT's lattice.
    :raises LesionDecompError: nothing in it, or a labelmap on another lattice.
    """
    shape = slicer.util.arrayFromVolume(ct).shape
    if node.IsA("vtkMRMLSegmentationNode"):
        if not segments_of(node):
            raise LesionDecompError(STAGE, f"'{node.GetName()}' without segments", "at least one segment")
        beyond = share_beyond(node, [segment_id for segment_id, _ in segments_of(node)], ct)
        given = GivenRegions.of_masks(_masks(node, ct), shape, _sha256)
        return replace(given, warnings=tuple(beyond_warnings(called(node), beyond)))
    if node.GetImageData() is None or node.GetImageData().GetPointData().GetScalars() is None:
        raise LesionDecompError(STAGE, f"'{node.GetName()}' without voxels", "a labelmap of regions")
    labels = as_labels(slicer.util.arrayFromVolume(node), STAGE)
    array, beyond = labels_on_grid(labels, world_matrix(node, STAGE), volume_from_node(ct, copy=False), STAGE)
    warnings = tuple(beyond_warnings(called(node), beyond))
    return GivenRegions(array, _color_names(node, array), _sha256(array), warnings=warnings)


class LiveRegions:
    """The regions of a result, counted once for all thresholds.

    :param live: of the result.
    :raises LesionDecompError: as :func:`given_regions`.
    """

    def __init__(self, live: LiveResult) -> None:
        nodes, node = live.nodes, chosen_regions(live.nodes.heatmap)
        self._live, self._state = live, _state_of(node)
        self.given = given_regions(node, nodes.ct) if node is not None else None
        labels = live.view.to_axial(self.given.labels) if self.given is not None else None
        self.tallies = RegionTallies.of(live.live, labels, self.given)

    def is_of(self, live: LiveResult) -> bool:
        """Whether it still holds: the same result, the same regions, unchanged."""
        return self._live is live and self._state == _state_of(chosen_regions(live.nodes.heatmap))

    def at(self, lesions: Lesions) -> RegionMeasurements:
        """What is measured of these lesions."""
        return self.tallies.at(lesions)


def show_region_table(nodes: ResultNodes, measured: RegionMeasurements, *, make: bool) -> Any:
    """Make or update the table node of the regions: a row for each, the columns of ``regions.csv``.

    :param make: make it where there is none.
    :return: the table node, or None.
    """
    table = result_table(nodes.heatmap, TABLE_ROLE, f"{nodes.ct.GetName()} lesion regions", make=make)
    if table is not None:
        lines = region_cells(measured.rows, measured.severity)
        columns = {header: [line[n] for line in lines] for n, header in enumerate(REGION_CELLS)}
        fill_with_texts(table, columns, REGION_MEASUREMENTS, names_rows=False)
    return table


def _masks(segmentation, ct) -> Iterator[tuple[str, np.ndarray]]:
    for segment_id, name in segments_of(segmentation):
        inside = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, ct)
        yield name, inside if inside is not None else np.zeros(slicer.util.arrayFromVolume(ct).shape, np.uint8)


def _color_names(node, labels: np.ndarray) -> dict[int, str]:
    display = node.GetDisplayNode()
    colors = display.GetColorNode() if display is not None else None
    if colors is None or any(word in (colors.GetID() or "") for word in NAMELESS_COLORS):
        return {}
    present = [int(value) for value in np.flatnonzero(np.bincount(labels.ravel())) if value]
    names = {value: colors.GetColorName(value) or "" for value in present}
    return {value: "" if name in NO_NAMES else name for value, name in names.items()}


def _sha256(labels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(labels)).hexdigest()


def _state_of(node) -> tuple:
    """What regions depend on: the node, its voxels or segments, and where it lies."""
    if node is None:
        return ()
    matrix = vtk.vtkMatrix4x4()
    parent = node.GetParentTransformNode()
    if parent is not None and parent.IsTransformToWorldLinear():
        parent.GetMatrixTransformToWorld(matrix)
    place = (parent.GetID() if parent is not None else None, *slicer.util.arrayFromVTKMatrix(matrix).ravel().tolist())
    if node.IsA("vtkMRMLSegmentationNode"):
        inside = node.GetSegmentation()
        segments = [inside.GetSegment(i) for i in inside.GetSegmentIDs()]
        times = [(segment.GetMTime(), labelmap_state(segment)) for segment in segments]
        return (node.GetID(), inside.GetMTime(), *times, *place)
    image = node.GetImageData()
    return (node.GetID(), node.GetMTime(), image and image.GetMTime(), *place)
