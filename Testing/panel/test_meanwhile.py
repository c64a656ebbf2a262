"""What users do meanwhile: during a run, before a slider has settled, with another result, model or transform."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer.qt_panel import QtCore, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import lesions_of  # noqa: E402
from LesionDecompLib.ct.anatomy import LUNG_LESION, LUNGS  # noqa: E402
from LesionDecompLib.report.manifest import build_manifest, manifest_text  # noqa: E402
from LesionDecompMrml.result_nodes import add_segmentation, results_of_ct  # noqa: E402
from LesionDecompMrml.segmentation_run import Request  # noqa: E402
from LesionDecompMrml.segments import write_segment  # noqa: E402
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

pytestmark = pytest.mark.slow
NEW = {f"{name}Node": None for name in ("heatmap", "lungs", "lesions", "table")}


@pytest.fixture
def other(panel, result, chest_case):
    """The result of another CT, at another threshold; the first one is shown."""
    volume, lungs = chest_case
    ct = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Another patient")
    mask = slicer.util.addVolumeFromArray(lungs, volume.ijk_to_ras, "Lungs", "vtkMRMLLabelMapVolumeNode")
    nodes = panel.logic.process(ct, mask, threshold=0.45)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    return nodes


def _reject_the_largest(panel) -> None:
    panel.ui.lesionsTable.item(0, 0).setCheckState(QtCore.Qt.CheckState.Unchecked)


def _cut_a_lung(nodes) -> None:
    lung = slicer.util.arrayFromVolume(nodes.lungs) == LUNGS[0].label
    write_segment(nodes.segmentation, nodes.ct, LUNGS[0], lung & (np.arange(len(lung)) < 20)[:, None, None])


def _paint_a_lesion(nodes) -> None:
    mask = lesions_of(nodes) != 0
    mask[tuple(np.argwhere((slicer.util.arrayFromVolume(nodes.lungs) > 0) & ~mask)[:30].T)] = True
    write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, mask)


@pytest.mark.parametrize(
    "meanwhile",
    ["nothing", "threshold", "slices seen", "decision", "decision, segments made", "lung cut", "lesion painted"],
)
def test_what_a_reader_did_during_a_run_is_kept_and_the_new_result_is_beside_it(panel, result, monkeypatch, meanwhile):
    nodes = result if "segments" in meanwhile else add_segmentation(result)
    shown = panel.logic.result(nodes.heatmap)
    run = nodes.heatmap.GetAttribute("LesionDecomp.run")

    def start_process(ct, options, onDone, **_callbacks):
        request = Request.read(ct, options)
        if meanwhile == "threshold":
            shown.set_threshold(0.47)
        elif meanwhile == "slices seen":
            shown.mark_slices(3, 5, True)
        elif meanwhile.startswith("decision"):
            _reject_the_largest(panel)
            if "segments" in meanwhile:  # the result has other nodes than when the run began
                add_segmentation(nodes)
        elif meanwhile == "lung cut":
            _cut_a_lung(nodes)
        elif meanwhile == "lesion painted":
            _paint_a_lesion(nodes)
        found = panel.logic.createSegmenter(None, "cpu", 8).run(request.volume, threshold=0.4)
        report = manifest_text(build_manifest(request.volume, found, parameters={}))
        ended.append(lambda: onDone(request.write(found, report)))

    ended = []
    monkeypatch.setattr(panel.logic, "startProcess", start_process)
    panel.ui.applyButton.click()
    ended[0]()
    kept = meanwhile not in ("nothing", "threshold", "slices seen")
    results = results_of_ct(nodes.ct)
    assert len(results) == 1 + kept
    assert (nodes.heatmap.GetAttribute("LesionDecomp.run") == run) == kept
    assert ("kept, the new one is beside it" in text_of(panel.ui.statusLabel)) == kept
    if kept:
        first, second = results
        assert first.heatmap == nodes.heatmap and (second.segmentation is None) == (nodes.segmentation is None)
        assert not [
            node for node in vars(second).values() if node and node in vars(first).values() and node != nodes.ct
        ]
        assert panel.logic.getParameterNode().heatmap == results[1].heatmap
    if meanwhile == "slices seen":
        assert panel.logic.result(nodes.heatmap).review.seen == (3, 4, 5)


def test_a_result_that_is_left_before_its_slider_rests_is_settled_itself(panel, result, other):
    nodes = add_segmentation(result)
    segment = LUNG_LESION.segment_id
    drag(panel, 0.47)
    panel.panel.look.steps.flush()
    assert not panel.panel.look.is_settled
    panel.ui.resultSelector.setCurrentNode(other.heatmap)
    assert panel.logic.getParameterNode().threshold == 0.45
    assert (nodes.threshold, other.threshold) == (0.47, 0.45)
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, segment, nodes.ct)
    np.testing.assert_array_equal(drawn != 0, lesions_of(nodes) != 0)
    lesion_ml = np.count_nonzero(lesions_of(nodes)) * np.prod(nodes.ct.GetSpacing()) / 1000.0
    rows = panel.logic.result(nodes.heatmap).measurements()
    assert rows[0].values["lesion_volume_ml"] == pytest.approx(lesion_ml, rel=1e-5)


def test_a_threshold_beyond_the_sliders_stays_what_a_script_made_it(panel, result):
    panel.logic.updateThreshold(result.heatmap, 0.005, minimumVolumeMl=20.0)
    wait_for(lambda: panel.panel.look.is_settled)
    assert (result.threshold, result.minimum_volume_ml) == (0.005, 20.0)
    drag(panel, 0.3)
    wait_for(lambda: panel.panel.look.is_settled)
    assert result.threshold == 0.3


def test_segmentations_of_another_ct_do_not_lie_over_this_one(panel, result, other):
    mine, theirs = (add_segmentation(nodes).segmentation for nodes in (result, other))
    for shown, hidden in ((theirs, mine), (mine, theirs)):
        heatmap = other.heatmap if shown is theirs else result.heatmap
        panel.ui.resultSelector.setCurrentNode(heatmap)
        assert shown.GetDisplayNode().GetVisibility() and not hidden.GetDisplayNode().GetVisibility()


def test_under_a_transform_that_is_not_linear_another_result_can_be_chosen(panel, result, other, shown_errors):
    """What cannot be shown is reported, and the panel goes on."""
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    result.ct.SetAndObserveTransformNodeID(grid.GetID())
    panel.exit()
    panel.enter()
    assert any("could not be shown" in text for text in shown_errors)
    panel.ui.resultSelector.setCurrentNode(other.heatmap)
    assert panel.logic.getParameterNode().heatmap == other.heatmap
    assert "% of the lungs" in text_of(panel.ui.figuresLabel)
    result.ct.SetAndObserveTransformNodeID(None)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    assert "% of the lungs" in text_of(panel.ui.figuresLabel)


def test_a_ct_under_such_a_transform_warns_of_nothing_that_cannot_be_known(panel, result):
    from LesionDecompMrml import ct_change

    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    result.ct.SetAndObserveTransformNodeID(grid.GetID())
    ct_change._known.clear()  # as in a new session
    assert panel.logic.result(result.heatmap).warnings() == result.warnings


def test_a_decision_that_cannot_be_made_leaves_the_list_as_it_is(panel, result, shown_errors, monkeypatch):
    from LesionDecompMrml.result import Result

    def fail(*_arguments):
        raise MemoryError("no memory for a decision")

    monkeypatch.setattr(Result, "decide", fail)
    _reject_the_largest(panel)
    assert "no memory" in shown_errors[0]
    assert panel.ui.lesionsTable.item(0, 0).checkState() == QtCore.Qt.CheckState.Checked


def test_a_file_that_cannot_be_written_is_not_called_saved(panel, result, tmp_path, shown_errors, monkeypatch):
    from LesionDecompPanel import export_section

    places = [tmp_path / "fine.csv", tmp_path / "missing" / "statistics.csv"]
    monkeypatch.setattr(export_section, "ask_save_path", lambda *_arguments: places.pop(0))
    panel.ui.saveCsvButton.click()
    assert "Saved fine.csv" in text_of(panel.ui.exportLabel)
    panel.ui.saveCsvButton.click()
    assert "could not be written" in shown_errors[0] and text_of(panel.ui.exportLabel) == ""


def test_of_a_model_that_is_not_there_another_can_be_chosen_though_it_is_the_only_one(panel, result):
    parameters, box = panel.logic.getParameterNode(), panel.ui.modelComboBox
    known = parameters.model
    parameters.model = "a colleague's"
    assert not panel.ui.applyButton.property("enabled") and box.property("currentIndex") == -1
    box.setProperty("currentIndex", next(n for n in range(box.property("count")) if box.itemData(n) == known))
    assert parameters.model == known and panel.ui.applyButton.property("enabled")


def test_a_result_of_a_script_is_found_as_it_stands_when_the_panel_is_opened(panel, result, ct_node, lung_node):
    parameters = panel.logic.getParameterNode()
    parameters.overlayVisible = parameters.outlineVisible = False
    panel.exit()
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.3, minimumVolumeMl=1.0, **NEW)
    panel.enter()
    assert parameters.heatmap == nodes.heatmap
    assert (parameters.threshold, parameters.minimumVolumeMl) == (0.3, 1.0)
    assert parameters.overlayVisible and parameters.outlineVisible
    assert (nodes.threshold, nodes.minimum_volume_ml) == (0.3, 1.0)


def test_regions_that_are_edited_again_and_again_are_measured_anew(panel, result):
    lungs = slicer.util.arrayFromVolume(result.lungs)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Regions")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(result.ct)
    segment = node.GetSegmentation().AddEmptySegment("", "mine")
    slicer.util.updateSegmentBinaryLabelmapFromArray((lungs == 1).astype(np.uint8), node, segment, result.ct)
    panel.ui.regionsSelector.setCurrentNode(node)
    shown, voxel_ml = panel.logic.result(result.heatmap), np.prod(result.ct.GetSpacing()) / 1000.0
    for last in (30, 20, 10):  # in place, as by painting: neither the segment nor the segmentation is modified
        image = node.GetSegmentation().GetSegment(segment).GetRepresentation("Binary labelmap")
        scalars = image.GetPointData().GetScalars()
        voxels = vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1])
        voxels[last:] = 0
        scalars.Modified()
        (row,) = [row for row in shown.regions().of_set("given") if row.region == "mine"]
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(node, segment, result.ct)
        assert row.values["lung_volume_ml"] == pytest.approx(np.count_nonzero(drawn) * voxel_ml)


def test_a_comparison_that_a_removed_node_has_ended_says_so(panel, result, other):
    name = other.lesions.GetName()
    panel.ui.earlierSelector.setCurrentNode(other.heatmap)
    panel.ui.compareButton.click()
    assert panel.panel.follow.is_running
    slicer.mrmlScene.RemoveNode(other.lesions)
    assert not panel.panel.follow.is_running
    assert f"'{name}' was removed from the scene" in text_of(panel.ui.compareLabel)


def test_labels_for_a_name_that_two_volumes_have_are_refused(panel, ct_node, chest_case, tmp_path):
    from LesionDecompLib.errors import LesionDecompError
    from LesionDecompMrml.training_volumes import training_input_of_csv

    volume, _ = chest_case
    names = (ct_node.GetName(), f"{ct_node.GetName()}-2")
    nodes = [ct_node, *(slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, name) for name in names)]
    table = tmp_path / "labels.csv"
    table.write_text(f"case,slice,label\n{names[1]},3,normal\n{names[1]},20,lesion\n", "utf-8")
    nodes[2].SetSpacing(2.0, 2.0, 3.0)
    (chosen,), labels = training_input_of_csv(nodes, table)
    assert len(labels) == 1 and chosen.spacing[2] == pytest.approx(3.0)
    table.write_text(f"case,slice,label\n{names[0]},3,normal\n{names[0]},20,lesion\n", "utf-8")
    with pytest.raises(LesionDecompError, match="as 2 volumes are called"):
        training_input_of_csv(nodes, table)
