"""The pipeline's result as nodes of a scene, on the CT's grid and under the CT's transform."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
import vtk
from LesionDecompLib.ct.anatomy import LESIONS, LUNG_LESION, LUNGS, Structure
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from vtk.util.numpy_support import get_vtk_array_type, vtk_to_numpy

from .color_nodes import heat_colors, label_colors
from .lesion_edits import is_edited, lungs_kept_known, remember_lungs, remember_written
from .review import REVIEW, keep_review, review_of, seen_before
from .scene_nodes import OUTPUT, THRESHOLD, nodes_of_class, remove_with_displays
from .segments import let_segments_overlap, move_segments, write_segment
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
VOXELS: dict[str, type] = {"heatmap": np.float32, "lungs": np.uint8, "lesions": np.uint8}
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
    def on_sliders(self) -> tuple[float, float]:
        """Both as the panel's sliders can show them; a script may have taken any."""
        return min(max(self.threshold, 0.01), 1.0), min(max(self.minimum_volume_ml, 0.0), 10.0)

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

    All voxels are ready before the first node is touched. Should a later step fail, new nodes are taken out again and
    volumes that were written into hold again what they held.

    :param ct: the CT's volume node, which is left as it is.
    :param result: on its grid.
    :param heatmap: scalar volume node to write into, and so on; None makes a new node named after the CT.
    :param segmentation: segmentation node to write into.
    :param with_segmentation: make one where None is given.
    :param report: JSON text for the report node; empty writes no report.
    :param healthy: scalar volume node for the healthy version of the CT, where the result has one.
    :return: the nodes, which also refer to one another (:func:`result_of`).

    A reader's decisions about the lesions that ``heatmap`` held are gone. Slices that were seen stay so, also in a new
    result of the same CT.
    """
    scene, name, shape = ct.GetScene(), ct.GetName(), slicer.util.arrayFromVolume(ct).shape
    images = {output: _image_of(result, output, shape, dtype) for output, dtype in VOXELS.items()}
    if result.has_healthy:
        images["healthy"] = _healthy_image(result, ct)
    results = [complete_result(heatmap)] if heatmap is not None else results_of_ct(ct)
    seen = seen_before(results[-1] if results else None, report)
    with _new_nodes(scene) as add, ExitStack() as undo:
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

        if segmentation is not None:  # first, as it is what most likely fails
            lung_part, lesion_part = (_voxels_of(images[output])[result.box] for output in ("lungs", "lesions"))
            _write_segmentation(segmentation, ct, lung_part, lesion_part, result.box)
        for output, image in images.items():
            node = getattr(nodes, output)
            undo.callback(_put_image(node, ct, image))
            node.SetAttribute(OUTPUT, output)
        _display_heat(heatmap)
        _display_labels(lungs, "LesionDecomp lungs", LUNGS)
        _display_labels(lesions, "LesionDecomp lesions", LESIONS)
        if result.has_healthy and healthy.GetDisplayNode() is None:
            healthy.CreateDefaultDisplayNodes()
            if ct.GetDisplayNode() is not None:
                healthy.GetDisplayNode().CopyContent(ct.GetDisplayNode())
        fill_table(table, result.statistics)
        show_readable_table(heatmap, result.statistics, make=False)
        if report_node is not None:
            report_node.SetText(report)
        heatmap.RemoveAttribute(REVIEW)  # it was about the lesions of the run before
        heatmap.SetAttribute(RUN, uuid.uuid4().hex)
        heatmap.SetAttribute(THRESHOLD, repr(float(result.threshold)))
        heatmap.SetAttribute(MINIMUM_VOLUME, repr(float(result.min_volume_ml)))
        for field in fields(nodes):
            node = getattr(nodes, field.name)
            heatmap.SetNodeReferenceID(_role(field.name), node.GetID() if node is not None else None)
        if seen:
            keep_review(nodes, replace(review_of(nodes), slices=seen))
        undo.pop_all()  # it is written: nothing is put back
    remember_written(nodes)
    remember_lungs(nodes)
    _place_beside(ct, nodes)
    if segmentation is not None:
        let_segments_overlap(scene)
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
    return [nodes for nodes in results_of_scene(scene) if nodes.ct == ct] if scene is not None else []


def results_of_scene(scene) -> list[ResultNodes]:
    """Complete results of a scene, the latest last."""
    heatmaps = nodes_of_class(scene, "vtkMRMLScalarVolumeNode")
    results = [complete_result(node) for node in heatmaps if node.GetAttribute(THRESHOLD) is not None]
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
    remember_lungs(nodes)
    _place_beside(nodes.ct, nodes)
    let_segments_overlap(nodes.ct.GetScene())
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
        remove_with_displays(scene, added)
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
    node.SetAndObserveImageData(_new_image(shape, dtype))
    return slicer.util.arrayFromVolume(node)


def follow_ct(nodes: ResultNodes) -> None:
    """Have all outputs lie where the CT lies; it may have been moved since the run."""
    ct, now = nodes.ct, _ijk_to_ras(nodes.ct)
    before = _ijk_to_ras(nodes.heatmap)
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions, nodes.healthy):
        if node is not None and not np.array_equal(_ijk_to_ras(node), now):
            node.CopyOrientation(ct)
    if nodes.segmentation is not None and not np.array_equal(before, now):
        with lungs_kept_known(nodes):
            move_segments(nodes.segmentation, before, now)
        nodes.segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions, nodes.healthy, nodes.segmentation):
        if node is not None and node.GetTransformNodeID() != ct.GetTransformNodeID():
            node.SetAndObserveTransformNodeID(ct.GetTransformNodeID())


def _ijk_to_ras(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def _new_image(shape: Sequence[int], dtype: type):
    image = vtk.vtkImageData()
    image.SetDimensions(*reversed(shape))
    image.AllocateScalars(get_vtk_array_type(dtype), 1)
    return image


def _voxels_of(image) -> np.ndarray:
    """``(k, j, i)``, the image's own."""
    voxels: np.ndarray = vtk_to_numpy(image.GetPointData().GetScalars())
    return voxels.reshape(image.GetDimensions()[::-1])


def _image_of(result: SegmentResult | WorkerResult, output: str, shape: Sequence[int], dtype: type):
    """An output of a result as an image of the CT's size, 0 around the result's box."""
    part = result.boxed("heat" if output == "heatmap" else output)
    image, box = _new_image(shape, dtype), result.box
    array = _voxels_of(image)
    for axis, inside in enumerate(box):  # what lies around the box: six slabs that do not overlap
        array[(*box[:axis], slice(inside.start))] = 0
        array[(*box[:axis], slice(inside.stop, None))] = 0
    array[box] = part
    return image


def _healthy_image(result: SegmentResult | WorkerResult, ct):
    """The CT with its healthy version in the lungs' box, int16 HU."""
    hu, limits = slicer.util.arrayFromVolume(ct), np.iinfo(np.int16)
    part, image = result.boxed("healthy"), _new_image(hu.shape, np.int16)
    array = _voxels_of(image)
    for k in range(len(array)):  # a copy of one slice at a time
        array[k] = hu[k] if hu.dtype == np.int16 else np.rint(np.clip(hu[k], limits.min, limits.max))
    array[result.box] = part
    return image


def _put_image(node, ct, image) -> Callable[[], None]:
    """Have a volume node hold an image, on the CT's grid and under its transform.

    :return: what has it hold again what it held.
    """
    held, held_grid, held_transform = node.GetImageData(), slicer.vtkMRMLScalarVolumeNode(), node.GetTransformNodeID()
    held_grid.CopyOrientation(node)

    def put(image, grid, transform: str | None) -> None:
        modified = node.StartModify()
        try:
            # Copied part by part: taking the matrix apart and together again would round it.
            node.CopyOrientation(grid)
            node.SetAndObserveTransformNodeID(transform)
            node.SetAndObserveImageData(image)
            node.StorableModified()
        finally:
            node.EndModify(modified)

    put(image, ct, ct.GetTransformNodeID())
    return lambda: put(held, held_grid, held_transform)


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
