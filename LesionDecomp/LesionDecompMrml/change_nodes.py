"""What changed between two results as nodes of a scene: labelmap, table, trend, and the motion as a transform."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.anatomy import ALTERED_STRUCTURE, LESION, LUNG, Structure
from LesionDecompLib.measurement.change.definitions import COLORS, IN_EARLIER_ML, NAMES, OF_LABELS, OF_SCANS
from LesionDecompLib.measurement.change.labels import Change
from LesionDecompLib.measurement.change.motion import Motion
from LesionDecompLib.measurement.change.table import ChangeRow
from LesionDecompLib.measurement.statistics import REGION_HEADER
from LesionDecompLib.processes.change import FoundChange
from vtk.util.numpy_support import numpy_to_vtk

from .color_nodes import label_colors
from .comparison_state import COMPARED, EARLIER
from .input_nodes import world_matrix
from .plots import draw_as_line, set_texts
from .result_nodes import ResultNodes, prepare_volume
from .scene_nodes import OUTPUT, nodes_of_class, remove_with_displays
from .statistics_table import fill_with_texts, readable
from .table_columns import set_columns

STRUCTURES = tuple(
    Structure(f"lesion-{NAMES[c]}", f"{NAMES[c]} lesion", int(c), COLORS[c], ALTERED_STRUCTURE, LESION, region=LUNG)
    for c in Change
)
SCAN_COLUMN, VOLUME_COLUMN, SHARE_COLUMN = "Scan", "Lesion volume (mL)", "Involvement (%)"
LINE_COLOR, SHARE_COLOR = (0.76, 0.21, 0.17), (0.17, 0.42, 0.69)
CLASSES = {
    "labels": "vtkMRMLLabelMapVolumeNode",
    "table": "vtkMRMLTableNode",
    "transform": "vtkMRMLGridTransformNode",
    "trend": "vtkMRMLTableNode",
    "volume_series": "vtkMRMLPlotSeriesNode",
    "share_series": "vtkMRMLPlotSeriesNode",
    "chart": "vtkMRMLPlotChartNode",
    "record": "vtkMRMLTextNode",
}
TITLES = {
    "labels": "change",
    "table": "change table",
    "transform": "motion from the earlier CT",
    "trend": "trend",
    "volume_series": "Lesion volume (mL)",
    "share_series": "Involvement (%)",
    "chart": "trend chart",
    "record": "change record",
}


@dataclass
class ChangeNodes:
    """The nodes of one comparison; ``labels`` lies under the later CT's transform, ``transform`` brings the earlier
    scan's nodes onto the later one's."""

    labels: Any
    table: Any
    transform: Any
    trend: Any
    volume_series: Any
    share_series: Any
    chart: Any
    record: Any


def write_change_nodes(earlier: ResultNodes, later: ResultNodes, found: FoundChange, compared: str) -> ChangeNodes:
    """Write a comparison into the scene; an earlier comparison of the later one is replaced.

    Both results stay as they are. Where it fails, no new node stays.

    :param compared: what they were when they were compared, see :func:`~.comparison_state.compared_states`.
    """
    scene, heatmap = later.heatmap.GetScene(), later.heatmap
    name = f"{later.ct.GetName()} against {earlier.ct.GetName()}"
    added: list[Any] = []
    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        nodes = ChangeNodes(**{role: _node(heatmap, role, name, added) for role in CLASSES})
        _write_labels(nodes.labels, later.ct, found.labels)
        _write_table(nodes.table, found.rows)
        write_motion(nodes.transform, found.motion)
        _write_trend(nodes, (earlier, later), found.rows[0])
        nodes.record.SetText(json.dumps(found.record, indent=2, ensure_ascii=False))
        nodes.record.SetAttribute(COMPARED, compared)
        for role in CLASSES:
            node = getattr(nodes, role)
            heatmap.SetNodeReferenceID(_role(role), node.GetID())
            # The legend of the chart shows the series' names.
            node.SetName(TITLES[role] if role.endswith("series") else f"{name}: {TITLES[role]}")
        heatmap.SetNodeReferenceID(EARLIER, earlier.heatmap.GetID())
    except BaseException:
        remove_with_displays(scene, added)
        raise
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)
    return nodes


def change_of(heatmap) -> ChangeNodes | None:
    """The comparison that a result was the later one of; None where there is none, or not all of it."""
    if heatmap is None:
        return None
    found = {role: heatmap.GetNodeReference(_role(role)) for role in CLASSES}
    return None if None in found.values() else ChangeNodes(**found)


def _role(name: str) -> str:
    return f"LesionDecomp.change.{name}"


def _node(heatmap, role: str, name: str, added: list[Any]):
    node = heatmap.GetNodeReference(_role(role))
    if node is None:
        scene = heatmap.GetScene()
        node = scene.AddNewNodeByClass(CLASSES[role], scene.GenerateUniqueName(f"{name}: {TITLES[role]}"))
        added.append(node)
    return node


def _write_labels(node, ct, labels: np.ndarray) -> None:
    modified = node.StartModify()
    try:
        prepare_volume(node, ct, np.uint8)[...] = labels
        slicer.util.arrayFromVolumeModified(node)
        node.SetAttribute(OUTPUT, "change")
    finally:
        node.EndModify(modified)
    if node.GetDisplayNode() is None:
        scene = node.GetScene()
        display = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeDisplayNode")
        display.SetAndObserveColorNodeID(label_colors(scene, "LesionDecomp change", STRUCTURES).GetID())
        node.SetAndObserveDisplayNodeID(display.GetID())


def _write_table(node, rows: Sequence[ChangeRow]) -> None:
    """Measurements as rows, regions as columns: as the table of one result."""
    shown = (*OF_LABELS, *OF_SCANS, *IN_EARLIER_ML)
    columns = {REGION_HEADER: [m.header for m in shown]}
    for row in rows:
        columns[row.region] = [readable(m, row.values[m.key]) for m in shown]
    fill_with_texts(node, columns)


def write_motion(node, motion: Motion) -> None:
    """A grid transform whose direction from its parent maps the later scan's world to the earlier one's."""
    grid, shape = motion.grid, motion.grid.shape
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(shape))
    image.SetOrigin(*(float(value) for value in grid.origin))
    image.SetSpacing(*[float(grid.spacing)] * 3)
    vectors = np.ascontiguousarray(np.moveaxis(motion.displacement, 0, -1), dtype=np.float64).reshape(-1, 3)
    scalars = numpy_to_vtk(vectors, deep=True)
    scalars.SetNumberOfComponents(3)
    image.GetPointData().SetScalars(scalars)
    transform = slicer.vtkOrientedGridTransform()
    transform.SetDisplacementGridData(image)
    transform.SetInterpolationModeToLinear()
    node.SetAndObserveTransformFromParent(transform)


def _write_trend(nodes: ChangeNodes, results: tuple[ResultNodes, ResultNodes], row: ChangeRow) -> None:
    values = row.values
    nodes.trend.SetLocked(True)
    set_columns(
        nodes.trend,
        {
            SCAN_COLUMN: np.array([1.0, 2.0]),
            VOLUME_COLUMN: np.array([values[f"{which}_lesion_volume_ml"] for which in ("earlier", "later")]),
            SHARE_COLUMN: np.array([values[f"{which}_involvement_percent"] for which in ("earlier", "later")]),
        },
    )
    for series, column, color in (
        (nodes.volume_series, VOLUME_COLUMN, LINE_COLOR),
        (nodes.share_series, SHARE_COLUMN, SHARE_COLOR),
    ):
        draw_as_line(series, nodes.trend, SCAN_COLUMN, column, color)
        series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
        series.SetMarkerSize(9)
    nodes.chart.RemoveAllPlotSeriesNodeIDs()
    for series in (nodes.volume_series, nodes.share_series):
        nodes.chart.AddAndObservePlotSeriesNodeID(series.GetID())
    set_texts(nodes.chart, "Lesions: earlier and later scan", "scan (1 earlier, 2 later)", "mL, %")
    nodes.chart.SetLegendVisibility(True)


def change_in_words(change: ChangeNodes) -> str:
    """The volume of each label in both lungs, and what looked wrong."""
    try:
        record = json.loads(change.record.GetText() or "")
        row = record["rows"][0]
        parts = [f"{NAMES[c].capitalize()} {row[f'{NAMES[c]}_ml']:.2f} mL" for c in Change]
        text = ", ".join(parts) + "."
        return " ".join([text, *(str(warning) for warning in record["warnings"])])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""


def show_change(change: ChangeNodes, later: ResultNodes, opacity: float) -> None:
    """Show the change in color over the later CT in all slice views, in place of heat and outline, at most of it."""
    scene = later.heatmap.GetScene()
    for composite in nodes_of_class(scene, "vtkMRMLSliceCompositeNode"):
        modified = composite.StartModify()
        composite.SetBackgroundVolumeID(later.ct.GetID())
        if composite.GetForegroundVolumeID() == later.heatmap.GetID():
            composite.SetForegroundVolumeID(None)
        composite.SetLabelVolumeID(change.labels.GetID())
        composite.SetLabelOpacity(opacity)
        composite.EndModify(modified)
    place = _middle(change.labels)
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        view.SetUseLabelOutline(False)
        if place is not None:
            view.JumpSliceByOffsetting(*place)


def _middle(labels) -> tuple[float, float, float] | None:
    """Middle of what changed in the slice that has most of it, persistent lesions aside; RAS mm in the world."""
    array = slicer.util.arrayFromVolume(labels)
    changed = (array != 0) & (array != Change.PERSISTENT)
    chosen = changed if changed.any() else array != 0
    if not chosen.any():
        return None
    k = int(np.count_nonzero(chosen.reshape(len(chosen), -1), axis=1).argmax())
    rows, columns = np.nonzero(chosen[k])
    r, a, s, _ = world_matrix(labels) @ (columns.mean(), rows.mean(), k, 1.0)
    return float(r), float(a), float(s)
