"""Widget wiring of Follow-up: Compare with another result of the scene, cancel, and what it leaves in the scene."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import slicer
from headless_slicer.qt_panel import QtCore, drag, text_of
from headless_slicer.qt_panel import wait_for as settle
from LesionDecompLib.ct.anatomy import LUNGS
from LesionDecompMrml.change_nodes import change_of
from LesionDecompMrml.result_nodes import add_segmentation
from LesionDecompMrml.segments import write_segment

pytestmark = pytest.mark.slow


@pytest.fixture
def earlier(panel, result, ct_node, lung_node):
    """Another result of the same CT, with its own nodes, at a higher threshold: smaller lesions."""
    return panel.logic.process(
        ct_node,
        lung_node,
        threshold=0.5,
        **{f"{name}Node": None for name in ("heatmap", "lungs", "lesions", "table")},
    )


def wait_for(panel) -> None:
    end = time.monotonic() + 600
    while panel.panel.follow.is_running and time.monotonic() < end:
        panel.panel.follow.current.poll()
        time.sleep(0.02)


def choose(panel, earlier, result) -> None:
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    panel.ui.earlierSelector.setCurrentNode(earlier.heatmap)


def test_another_result_must_be_chosen(panel, result):
    assert not panel.ui.compareButton.enabled
    assert not panel.ui.changeShowButton.enabled


def test_compare_labels_what_changed_and_shows_it(panel, earlier, result, mrml_scene, shown_errors):
    choose(panel, earlier, result)
    assert panel.ui.compareButton.enabled
    before = slicer.util.arrayFromVolume(result.lesions).copy()
    panel.ui.compareButton.click()
    assert panel.ui.compareButton.text == "Cancel"
    wait_for(panel)
    assert shown_errors == []
    assert panel.ui.compareLabel.text.startswith(f"Against '{earlier.heatmap.GetName()}': New ")
    change = change_of(result.heatmap)
    labels = slicer.util.arrayFromVolume(change.labels)
    had = slicer.util.arrayFromVolume(earlier.lesions) != 0
    assert np.array_equal(labels == 3, had & (before != 0))
    assert set(np.unique(labels[~had])) <= {0, 1, 2}
    assert np.array_equal(slicer.util.arrayFromVolume(result.lesions), before)
    assert result.heatmap.GetNodeReference("LesionDecomp.change.earlier") == earlier.heatmap
    assert change.labels.GetTransformNodeID() == result.ct.GetTransformNodeID()
    assert change.table.GetNumberOfColumns() > 12
    assert panel.ui.earlierSelector.offered() == [earlier.heatmap.GetName()]  # no result is compared with itself


def test_a_comparison_with_another_scan_or_threshold_or_review_is_outdated(
    panel, earlier, result, ct_node, lung_node, shown_errors, tmp_path
):
    ui, first, name = panel.ui, earlier.heatmap.GetName(), result.heatmap.GetName()

    def shown() -> str:
        text, is_current = ui.compareLabel.text, not ui.compareLabel.text.startswith("Outdated")
        for button in (ui.changeShowButton, ui.changeTableButton, ui.changeTrendButton):
            assert button.enabled == is_current
        assert is_current == text.startswith(f"Against '{first}': New ") == ("New" in text)
        return text.removeprefix("Outdated: compare again. ")

    def drag_to(threshold: float) -> None:
        drag(panel, threshold)
        settle(lambda: panel.panel.look.is_settled)

    choose(panel, earlier, result)
    ui.compareButton.click()
    wait_for(panel)
    assert shown_errors == []
    current = shown()
    nodes = {f"{node}Node": None for node in ("heatmap", "lungs", "lesions", "table")}
    choose(panel, panel.logic.process(ct_node, lung_node, threshold=0.45, **nodes), result)
    assert shown() == f"It was made with '{first}'."
    choose(panel, earlier, result)
    assert shown() == current
    drag_to(0.45)
    assert shown() == f"The threshold of '{name}' was 0.4, and is 0.45."
    drag_to(0.4)
    assert shown() == current
    panel.logic.result(result.heatmap).mark_slices(3, 9, True)
    panel.panel.follow.refresh()
    assert shown() == current  # what was looked at changes no lesion
    panel.logic.updateThreshold(earlier.heatmap, 0.55)
    panel.panel.follow.refresh()
    outdated = f"The threshold of '{first}' was 0.5, and is 0.55."
    assert shown() == outdated
    ui.earlierSelector.setCurrentNode(None)  # what it was made with is known without
    assert shown() == outdated
    choose(panel, earlier, result)
    ui.compareButton.click()
    ui.compareButton.click()
    assert ui.compareLabel.text == f"Canceled; nothing was changed. Outdated: compare again. {outdated}"
    assert not ui.changeShowButton.enabled

    assert slicer.util.saveScene(str(tmp_path / "study.mrb"))
    slicer.mrmlScene.Clear(False)
    slicer.util.loadScene(str(tmp_path / "study.mrb"))
    assert shown() == f"The threshold of '{first}' was 0.5, and is 0.55."
    panel.logic.updateThreshold(ui.earlierSelector.currentNode(), 0.5)
    panel.panel.follow.refresh()
    assert shown() == current
    ui.lesionsTable.item(0, 0).setCheckState(QtCore.Qt.CheckState.Unchecked)
    assert shown() == f"The review of '{name}' has changed."


def test_a_comparison_says_whose_lungs_were_edited_by_hand(panel, earlier, result, shown_errors):
    nodes = add_segmentation(earlier)
    segment = LUNGS[0].segment_id
    lung = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, segment, nodes.ct)
    write_segment(nodes.segmentation, nodes.ct, LUNGS[0], lung * (np.arange(len(lung)) < 20)[:, None, None])
    choose(panel, earlier, result)
    panel.ui.compareButton.click()
    wait_for(panel)
    assert shown_errors == []
    text = text_of(panel.ui.compareLabel)
    assert f"The lung segments of '{earlier.heatmap.GetName()}' were edited by hand" in text
    assert f"'{result.heatmap.GetName()}'" not in text
    record = json.loads(change_of(result.heatmap).record.GetText())
    assert record["warning_codes"][0]["code"] == "lungs_edited_after_run"


def test_a_comparison_that_cannot_be_written_leaves_no_node(
    panel, earlier, result, mrml_scene, shown_errors, monkeypatch
):
    from LesionDecompMrml import change_nodes

    def fail(*_arguments):
        raise MemoryError("no memory for the trend")

    def held() -> list[int]:
        classes = [*change_nodes.CLASSES.values(), "vtkMRMLDisplayNode"]
        return [mrml_scene.GetNumberOfNodesByClass(one) for one in classes]

    monkeypatch.setattr(change_nodes, "_write_trend", fail)
    choose(panel, earlier, result)
    before = held()
    panel.ui.compareButton.click()
    wait_for(panel)
    assert "no memory" in shown_errors[0] and panel.ui.compareLabel.text == "Not compared."
    assert held() == before and change_of(result.heatmap) is None


def test_cancel_leaves_the_scene_as_it_was(panel, earlier, result, mrml_scene):
    choose(panel, earlier, result)
    nodes = mrml_scene.GetNumberOfNodes()
    panel.ui.compareButton.click()
    panel.ui.compareButton.click()
    assert not panel.panel.follow.is_running
    assert panel.ui.compareButton.text == "Compare"
    assert panel.ui.compareLabel.text == "Canceled; nothing was changed."
    assert mrml_scene.GetNumberOfNodes() == nodes
    choose(panel, result, earlier)  # nothing was canceled there
    assert panel.ui.compareLabel.text == ""


def test_a_transform_brings_the_earlier_scan_onto_the_later_one(mrml_scene):
    from LesionDecompLib.measurement.change.coarse import CoarseGrid
    from LesionDecompLib.measurement.change.motion import Motion
    from LesionDecompMrml.change_nodes import write_motion

    grid = CoarseGrid(np.array([-40.0, -40.0, -40.0]), 4.0, (21, 21, 21))
    displacement = np.zeros((3, 21, 21, 21), np.float32)
    displacement[0], displacement[2] = 5.0, -3.0  # later to earlier
    node = mrml_scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    write_motion(node, Motion(grid, displacement))
    place = node.GetTransformToParent().TransformPoint(15.0, 2.0, 7.0)  # of the earlier scan
    assert np.allclose(place, (10.0, 2.0, 10.0), atol=1e-3)
