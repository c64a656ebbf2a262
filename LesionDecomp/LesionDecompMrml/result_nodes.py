"""The pipeline's result as nodes of a scene, on the CT's grid and under the CT's transform."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.anatomy import LESIONS, LUNG_LESION, LUNGS, Structure
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from vtk.util.numpy_support import get_vtk_array_type

from .color_nodes import heat_colors, label_colors
from .lesion_edits import is_edited, remember_written
from .review import REVIEW
from .scene_nodes import OUTPUT, THRESHOLD, nodes_of_class
from .segments import write_segment
from .statistics_table import fill_table, show_readable_table

if TYPE_CHECKING:
    from LesionDecompLib.pipeline import SegmentResult
    from LesionDecompLib.processes.segmentation import WorkerResult

UPDATING = "Updating the lesions"
OUTPUTS = "Output nodes"
OUTPUT_CLASSES = {
    "heatmap": "vtkMRMLScalarVolumeNode",
    "lungs": "vtkMRMLLabelMapVolumeNode",
    "lesions": "vtkMRMLLabelMapVolumeNode",
    "table": "vtkMRMLTableNode",
    "segmentation": "vtkMRMLSegmentationNode",
    "report_node": "vtkMRMLTextNode",
    "healthy": "vtkMRMLScalarVolumeNode",
}
HEAT_SHOWN_FROM = 0.1  # lower heat is transparent, so that the CT stays readable
MINIMUM_VOLUME = "LesionDecomp.minimumVolumeMl"
RUN = "LesionDecomp.run"  # attribute of a heatmap: which run has written it


@dataclass
class ResultNodes:
    """The nodes of one result; ``segmentation``, ``report`` and ``healthy`` may be None."""

    ct: Any
    heatmap: Any
    lungs: Any
    lesions: Any
    table: Any
    segmentation: Any = None
    report: Any = None
    healthy: Any = None

    @property
    def threshold(self) -> float:
        """Threshold on the heat that the lesions were made with."""
        return float(self.heatmap.GetAttribute(THRESHOLD))

    @property
    def minimum_volume_ml(self) -> float:
        """Components smaller than this were left out, mL."""
        return float(self.heatmap.GetAttribute(MINIMUM_VOLUME))

    @property
    def warnings(self) -> list[str]:
        """Warnings of the run; none where the result has lost its report."""
        try:
            return [str(text) for text in json.loads(self.report.GetText())["warnings"]]
        except (AttributeError, ValueError, KeyError, TypeError):
            return []


def add_ct_node(scene, volume: Volume):
    """Add a CT to a scene that the application did not load it into.

    :return: a scalar volume node with a display node.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", volume.name or "CT")
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.ijk_to_ras))
    slicer.util.updateVolumeFromArray(node, volume.array)
    node.CreateDefaultDisplayNodes()
    return node


def check_outputs(outputs: Mapping[str, Any], inputs: Sequence[Any] = ()) -> None:
    """Refuse output nodes that cannot hold what is to be written, before any work is done.

    :param outputs: keyword of :func:`write_result` -> node or None.
    :param inputs: nodes that must stay as they are.
    :raises LesionDecompError: a node of the wrong type, in two roles, or an input.
    """
    seen = [node for node in inputs if node is not None]
    for name, node in outputs.items():
        if node is None:
            continue
        class_name = OUTPUT_CLASSES[name]
        if node.GetClassName() != class_name:
            found, wanted = (c.removeprefix("vtkMRML") for c in (node.GetClassName(), class_name))
            raise LesionDecompError(OUTPUTS, f"'{node.GetName()}' ({found}) for the {name}", f"a {wanted}")
        if node in seen:
            raise LesionDecompError(
                OUTPUTS, f"'{node.GetName()}' for more than one purpose", "a node of its own for each output"
            )
        seen.append(node)


def write_result(
    ct,
    result: SegmentResult | WorkerResult,
    *,
    heatmap=None,
    lungs=None,
    lesions=None,
    table=None,
    segmentation=None,
    with_segmentation: bool = False,
    report: str = "",
    report_node=None,
    healthy=None,
) -> ResultNodes:
    """Write a result into the scene of its CT: all of it, or nothing.

    :param ct: the CT's volume node, which is left as it is.
    :param result: on its grid.
    :param heatmap: scalar volume node to write into, and so on; None makes a new node named after the CT.
    :param segmentation: segmentation node to write into.
    :param with_segmentation: make one where None is given.
    :param report: JSON text for the report node; empty writes no report.
    :param healthy: scalar volume node for the healthy version of the CT, where the result has one.
    :return: the nodes, which also refer to one another (:func:`result_of`).
    """
    scene, name = ct.GetScene(), ct.GetName()
    with _new_nodes(scene) as add:
        heatmap = heatmap if heatmap is not None else add("heatmap", f"{name} heatmap")
        lungs = lungs if lungs is not None else add("lungs", f"{name} lungs")
        lesions = lesions if lesions is not None else add("lesions", f"{name} lesions")
        table = table if table is not None else add("table", f"{name} lesion statistics")
        if with_segmentation and segmentation is None:
            segmentation = add("segmentation", f"{name} lesion segmentation")
        if report and report_node is None:
            report_node = add("report_node", f"{name} lesion report")
        if result.has_healthy and healthy is None:
            healthy = add("healthy", f"{name} healthy")
        nodes = ResultNodes(ct, heatmap, lungs, lesions, table, segmentation, report_node, healthy)

        _write_volume(heatmap, result, "heat", ct, np.float32)
        _display_heat(heatmap)
        _write_volume(lungs, result, "lungs", ct, np.uint8)
        _display_labels(lungs, "LesionDecomp lungs", LUNGS)
        _write_volume(lesions, result, "lesions", ct, np.uint8)
        _display_labels(lesions, "LesionDecomp lesions", LESIONS)
        if result.has_healthy:
            _write_healthy(healthy, result, ct)
        fill_table(table, result.statistics)
        show_readable_table(heatmap, result.statistics, make=False)
        for name, node in (("heatmap", heatmap), ("lungs", lungs), ("lesions", lesions)):
            node.SetAttribute(OUTPUT, name)
        heatmap.RemoveAttribute(REVIEW)  # it was about the lesions of the run before
        heatmap.SetAttribute(RUN, uuid.uuid4().hex)
        heatmap.SetAttribute(THRESHOLD, repr(float(result.threshold)))
        heatmap.SetAttribute(MINIMUM_VOLUME, repr(float(result.min_volume_ml)))
        if segmentation is not None:
            _write_segmentation(segmentation, ct, result.boxed("lungs"), result.boxed("lesions"), result.box)
        if report_node is not None:
            report_node.SetText(report)
        for field in fields(nodes):
            node = getattr(nodes, field.name)
            heatmap.SetNodeReferenceID(_role(field.name), node.GetID() if node is not None else None)
    remember_written(nodes)
    _place_beside(ct, nodes)
    return nodes


def result_of(heatmap) -> ResultNodes:
    """Find the nodes that belong to a heatmap node, also after the scene was saved and loaded again.

    :raises LesionDecompError: the node is not a heatmap of LesionDecomp, or nodes it needs were removed.
    """
    wanted = "a heatmap made by LesionDecomp"
    if heatmap is None or heatmap.GetAttribute(THRESHOLD) is None:
        found = "no node" if heatmap is None else f"'{heatmap.GetName()}'"
        raise LesionDecompError(UPDATING, found, wanted, "Run LesionDecomp first.")
    nodes = {field.name: heatmap.GetNodeReference(_role(field.name)) for field in fields(ResultNodes)}
    nodes["heatmap"] = heatmap
    for needed in ("ct", "lungs", "lesions", "table"):
        if nodes[needed] is None:
            raise LesionDecompError(
                UPDATING, f"'{heatmap.GetName()}' whose {needed} node was removed", wanted, "Run LesionDecomp again."
            )
    return ResultNodes(**nodes)


def complete_result(heatmap) -> ResultNodes | None:
    """The nodes that belong to a heatmap node, or None where there is no complete result."""
    try:
        return result_of(heatmap)
    except LesionDecompError:
        return None


def results_of_ct(ct) -> list[ResultNodes]:
    """Complete results of a CT in its scene, the latest last."""
    scene = ct.GetScene() if ct is not None else None
    results = []
    for heatmap in nodes_of_class(scene, "vtkMRMLScalarVolumeNode") if scene is not None else []:
        if heatmap.GetAttribute(THRESHOLD) is not None and heatmap.GetNodeReference(_role("ct")) == ct:
            results.append(complete_result(heatmap))
    return [nodes for nodes in results if nodes is not None]


def add_segmentation(nodes: ResultNodes) -> ResultNodes:
    """Make the segmentation of a result that has none yet: right lung, left lung and lesion.

    :return: the nodes, with the segmentation; as they are if they had one.
    """
    if nodes.segmentation is not None:
        return nodes
    edited = is_edited(nodes)
    with _new_nodes(nodes.ct.GetScene()) as add:
        segmentation = add("segmentation", f"{nodes.ct.GetName()} lesion segmentation")
        lungs, lesions = (slicer.util.arrayFromVolume(node) for node in (nodes.lungs, nodes.lesions))
        _write_segmentation(segmentation, nodes.ct, lungs, lesions)
        nodes.heatmap.SetNodeReferenceID(_role("segmentation"), segmentation.GetID())
    nodes = result_of(nodes.heatmap)
    if not edited:
        remember_written(nodes)
    _place_beside(nodes.ct, nodes)
    return nodes


@contextmanager
def _new_nodes(scene) -> Iterator[Any]:
    """Offer a function that adds nodes, in one batch; if the block fails they are removed again."""
    added: list[Any] = []

    def add(output: str, name: str):
        added.append(scene.AddNewNodeByClass(OUTPUT_CLASSES[output], scene.GenerateUniqueName(name)))
        return added[-1]

    scene.StartState(slicer.vtkMRMLScene.BatchProcessState)
    try:
        yield add
    except BaseException:
        for node in added:
            for index in range(node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0):
                scene.RemoveNode(node.GetNthDisplayNode(index))
            scene.RemoveNode(node)
        raise
    finally:
        scene.EndState(slicer.vtkMRMLScene.BatchProcessState)


def _role(field: str) -> str:
    return f"LesionDecomp.{field}"


def prepare_volume(node, ct, dtype: type) -> np.ndarray:
    """Give a volume node the CT's grid and transform, and voxels to be filled in.

    :return: ``(k, j, i)``, the node's own array, whose voxels may be anything: fill all of it, and then report
        ``arrayFromVolumeModified``.
    """
    shape = slicer.util.arrayFromVolume(ct).shape
    # Copied part by part: taking the matrix apart and together again would round it.
    node.CopyOrientation(ct)
    node.SetAndObserveTransformNodeID(ct.GetTransformNodeID())
    image = node.GetImageData()
    if image is not None and image.GetPointData().GetScalars() is not None:
        held = slicer.util.arrayFromVolume(node)
        if held.shape == shape and held.dtype == dtype:
            return held
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(shape))
    image.AllocateScalars(get_vtk_array_type(dtype), 1)
    node.SetAndObserveImageData(image)
    return slicer.util.arrayFromVolume(node)


def _write_volume(node, result: SegmentResult | WorkerResult, name: str, ct, dtype: type) -> None:
    modified = node.StartModify()
    try:
        array, box = prepare_volume(node, ct, dtype), result.box
        for axis, part in enumerate(box):  # what lies around the box: six slabs that do not overlap
            array[(*box[:axis], slice(part.start))] = 0
            array[(*box[:axis], slice(part.stop, None))] = 0
        array[box] = result.boxed(name)
        slicer.util.arrayFromVolumeModified(node)
        node.StorableModified()
    finally:
        node.EndModify(modified)


def _write_healthy(node, result: SegmentResult | WorkerResult, ct) -> None:
    """The CT with its healthy version in the lungs' box, int16 HU, in the CT's window."""
    modified, limits = node.StartModify(), np.iinfo(np.int16)
    try:
        array, hu = prepare_volume(node, ct, np.int16), slicer.util.arrayFromVolume(ct)
        for k in range(len(array)):  # a copy of one slice at a time
            array[k] = hu[k] if hu.dtype == np.int16 else np.rint(np.clip(hu[k], limits.min, limits.max))
        array[result.box] = result.boxed("healthy")
        slicer.util.arrayFromVolumeModified(node)
        node.StorableModified()
        node.SetAttribute(OUTPUT, "healthy")
    finally:
        node.EndModify(modified)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
        if ct.GetDisplayNode() is not None:
            node.GetDisplayNode().CopyContent(ct.GetDisplayNode())


def _display_heat(node) -> None:
    if node.GetDisplayNode() is not None:
        return  # the user's own settings survive a second run
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(heat_colors(node.GetScene()).GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetAutoThreshold(False)
    display.SetThreshold(HEAT_SHOWN_FROM, 1.0)
    display.SetApplyThreshold(True)


def _display_labels(node, table_name: str, structures: tuple[Structure, ...]) -> None:
    if node.GetDisplayNode() is not None:
        return
    scene = node.GetScene()
    # Not the default display node: that looks for colors from a file, which a scene without the application lacks.
    display = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeDisplayNode")
    display.SetAndObserveColorNodeID(label_colors(scene, table_name, structures).GetID())
    node.SetAndObserveDisplayNodeID(display.GetID())


def _write_segmentation(
    node, ct, lungs: np.ndarray, lesions: np.ndarray, box: tuple[slice, slice, slice] | None = None
) -> None:
    """Write right lung, left lung and lesion; arrays of the CT's grid, or of the part of it that ``box`` names."""
    # Geometry and transform first: voxels written before would be taken for lying elsewhere.
    node.SetAndObserveTransformNodeID(ct.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    is_new = node.GetDisplayNode() is None
    if is_new:
        node.CreateDefaultDisplayNodes()
    for lung in LUNGS:
        write_segment(node, ct, lung, lungs == lung.label, box)
    write_segment(node, ct, LUNG_LESION, lesions, box)
    if is_new:
        display = node.GetDisplayNode()
        # Outlines only, so that the heatmap underneath stays visible; the lesions' own is drawn by their labelmap.
        for structure in (*LUNGS, LUNG_LESION):
            display.SetSegmentVisibility2DFill(structure.segment_id, False)
        display.SetSegmentVisibility2DOutline(LUNG_LESION.segment_id, False)


def _place_beside(ct, nodes: ResultNodes) -> None:
    """Put what is new under the CT's study in the subject hierarchy, where DICOM export looks for it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(ct.GetScene())
    item = hierarchy.GetItemByDataNode(ct) if hierarchy is not None else 0
    parent = hierarchy.GetItemParent(item) if item else 0
    if not parent:
        return
    for node in (
        nodes.heatmap,
        nodes.lungs,
        nodes.lesions,
        nodes.segmentation,
        nodes.table,
        nodes.report,
        nodes.healthy,
    ):
        if node is None:
            continue
        held = hierarchy.GetItemByDataNode(node)
        if not held:
            hierarchy.CreateItem(parent, node)
        elif hierarchy.GetItemParent(held) == hierarchy.GetSceneItemID():
            hierarchy.SetItemParent(held, parent)
