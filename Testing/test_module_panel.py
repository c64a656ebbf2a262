"""Widget wiring: the panel's Python, driven through stand-ins for its controls. Looks and feel are tried in Slicer."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")

MODELS = [("careful", "The default.", 0.4), ("eager", "Finds more.", 0.3)]


@pytest.fixture
def panel(module, mrml_scene, untrained_segmenter, ct_node, lung_node, monkeypatch):
    """The panel beside a loaded CT and lung mask."""
    from headless_slicer.panel import open_panel

    monkeypatch.setattr(module.LesionDecompLogic, "models", lambda self: MODELS)
    monkeypatch.setattr(module.LesionDecompLogic, "createSegmenter", lambda self, *_arguments: untrained_segmenter)
    panel = open_panel(module, monkeypatch)
    panel.ui.lungMaskSelector.edit(lung_node)
    yield panel
    panel.cleanup()


@pytest.fixture
def result(panel):
    """The panel after a run."""
    panel.ui.applyButton.click()
    return panel.resultNodes()


def lesions_of(nodes) -> np.ndarray:
    return slicer.util.arrayFromVolume(nodes.lesions).copy()


def expected_lesions(nodes, threshold: float) -> np.ndarray:
    heat, lungs = (slicer.util.arrayFromVolume(node) for node in (nodes.heatmap, nodes.lungs))
    return (heat >= np.float32(threshold)) & (lungs != 0)


def test_panel_opens_ready_with_the_ct_the_default_model_and_its_threshold(panel, ct_node):
    assert panel.ui.inputSelector.node == ct_node
    assert panel.ui.modelComboBox.itemData(panel.ui.modelComboBox.currentIndex) == "careful"
    assert panel.ui.thresholdSlider.value == 0.4
    assert panel.ui.applyButton.enabled
    assert not panel.ui.overlayCheckBox.enabled
    panel.ui.modelComboBox.choose("eager")
    assert panel.ui.thresholdSlider.value == 0.3


def test_apply_says_what_is_missing(panel):
    panel.ui.inputSelector.edit(None)
    assert not panel.ui.applyButton.enabled
    assert panel.ui.applyButton.toolTip == "Choose a chest CT first."


def test_apply_shows_the_result_and_its_table(panel, ct_node):
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.segmentationCheckBox.edit(True)
    panel.ui.applyButton.click()
    nodes = panel.resultNodes()
    assert nodes.ct == ct_node
    assert nodes.segmentation is not None
    assert panel.ui.statisticsTableView.node == nodes.table
    assert panel.ui.statusLabel.text == "Done."
    assert panel.ui.progressBar.value == 0
    assert not panel.ui.progressBar.visible
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() == nodes.heatmap.GetID()
    panel.ui.overlayCheckBox.edit(False)
    assert composite.GetForegroundVolumeID() is None
    assert composite.GetBackgroundVolumeID() == ct_node.GetID()
    panel.ui.overlayCheckBox.edit(True)
    assert composite.GetForegroundVolumeID() == nodes.heatmap.GetID()


def test_dragging_the_threshold_moves_the_lesions_at_once_and_the_table_after(panel, result):
    panel.ui.minimumVolumeSlider.edit(0.0)
    table = result.table.GetMTime()
    for threshold in (0.45, 0.43, 0.41):
        panel.ui.thresholdSlider.edit(threshold)
        np.testing.assert_array_equal(lesions_of(result) != 0, expected_lesions(result, threshold))
    assert result.table.GetMTime() == table
    panel._statisticsTimer.ring()
    column = result.table.GetColumnIndex("Lesion volume (mL)")
    milliliters = np.count_nonzero(lesions_of(result)) * np.prod(result.ct.GetSpacing()) / 1000.0
    assert float(result.table.GetCellText(0, column)) == pytest.approx(milliliters, rel=1e-5)


def test_running_again_on_the_same_ct_updates_its_nodes_and_another_ct_gets_its_own(panel, result, chest_case):
    panel.ui.applyButton.click()
    assert panel.resultNodes() == result
    volume, _ = chest_case
    other = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Another CT")
    panel.ui.inputSelector.edit(other)
    panel.ui.applyButton.click()
    nodes = panel.resultNodes()
    assert nodes.ct == other
    assert nodes.heatmap != result.heatmap
    assert result.heatmap.GetScene() is not None


def during_run(panel, monkeypatch, action) -> None:
    """Do something while the first slices are computed, when Slicer handles what the user does."""
    done = []

    def process_events():
        if not done:
            done.append(True)
            action()

    monkeypatch.setattr(slicer.app, "processEvents", process_events)
    panel.ui.applyButton.click()
    assert done


def test_cancel_stops_the_run_and_leaves_nothing(panel, monkeypatch):
    count = slicer.mrmlScene.GetNumberOfNodes()
    during_run(panel, monkeypatch, panel.ui.cancelButton.click)
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert panel.resultNodes() is None
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert panel.ui.applyButton.enabled


def test_apply_pressed_twice_runs_once(panel, monkeypatch):
    def press_again():
        assert not panel.ui.applyButton.enabled
        panel.onApplyButton()

    during_run(panel, monkeypatch, press_again)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1


def test_sliders_moved_during_a_run_take_effect_after_it(panel, monkeypatch):
    panel.ui.minimumVolumeSlider.edit(0.0)
    during_run(panel, monkeypatch, lambda: panel.ui.thresholdSlider.edit(0.44))
    nodes = panel.resultNodes()
    assert nodes.threshold == 0.44
    np.testing.assert_array_equal(lesions_of(nodes) != 0, expected_lesions(nodes, 0.44))


def test_closing_the_scene_during_a_run_is_safe(panel, monkeypatch):
    during_run(panel, monkeypatch, lambda: slicer.mrmlScene.Clear(False))
    assert panel.ui.statusLabel.text == "Cancelled; nothing was changed."
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert not panel.ui.applyButton.enabled


def test_unusable_input_ends_in_one_message(panel, monkeypatch, ct_node):
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", shown.append)
    slicer.util.updateVolumeFromArray(ct_node, np.zeros((9, 9, 9), np.uint8))
    panel.ui.lungMaskSelector.edit(None)
    panel.ui.applyButton.click()
    assert len(shown) == 1
    assert "found" in shown[0]
    assert panel.ui.applyButton.enabled


def test_packages_are_asked_for_once_and_a_no_ends_it(panel, module, monkeypatch):
    asked = []
    monkeypatch.setattr(module.LesionDecompLogic, "missingPackages", lambda self: ["torch", "scikit-image"])
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: asked.append(text))
    panel.ui.applyButton.click()
    assert len(asked) == 1
    assert "torch, scikit-image" in asked[0]
    assert panel.resultNodes() is None


def test_installing_packages_never_replaces_numpy(logic, monkeypatch):
    missing = [["scikit-image"], []]
    installed = []
    monkeypatch.setattr(logic, "missingPackages", lambda: missing.pop(0))
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: True)
    monkeypatch.setattr(slicer.util, "pip_install", installed.append)
    assert logic.installMissingPackages()
    assert installed == [["scikit-image", f"numpy=={np.__version__}"]]


def test_leaving_and_entering_the_module_keeps_the_result(panel, result):
    panel.exit()
    panel.enter()
    assert panel.resultNodes() == result
    assert panel.ui.statisticsTableView.node == result.table
    panel.ui.thresholdSlider.edit(0.46)
    assert result.threshold == 0.46


def test_no_observer_is_left_behind(panel):
    for _ in range(3):
        panel.exit()
        panel.enter()
    observed = [observation[0] for observation in panel.Observations]
    assert len(observed) == 3  # scene closing, scene closed, parameter node
    panel.cleanup()
    assert panel.Observations == []
    assert not panel.logic.getParameterNode().parameterNode.HasObserver("ModifiedEvent")
