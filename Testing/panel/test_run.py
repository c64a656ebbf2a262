"""Widget wiring of the panel's first part, Run, and of what the whole panel promises; see panel_fixtures."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from LesionDecompLib.models.bundle import find_bundle

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer import qt_panel  # noqa: E402
from headless_slicer.qt_panel import cells, choose, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import expected_lesions, lesions_of  # noqa: E402


def node_count() -> int:
    return slicer.mrmlScene.GetNumberOfNodes()


def temporary_folders() -> list[str]:
    return [entry.name for entry in Path(slicer.app.temporaryPath).glob("lesiondecomp-*")]


def start(panel) -> None:
    panel.ui.applyButton.click()
    assert panel.panel.run.is_running, text_of(panel.ui.statusLabel)


def finish(panel) -> None:
    wait_for(lambda: not panel.panel.run.is_running)
    assert temporary_folders() == []


@pytest.mark.slow
def test_panel_opens_ready_with_the_ct_and_the_default_model(ct_node, open_panel):
    panel = open_panel()
    assert panel.ui.inputSelector.currentNode() == ct_node
    box = panel.ui.modelComboBox
    assert box.itemData(box.property("currentIndex")) == "lesions-decomposition"
    words = text_of(panel.ui.modelDescriptionLabel)
    bundle = find_bundle(None, "lesions")
    steps = bundle.metadata["training"]["configuration"]["schedule"]["steps"]
    precision = bundle.metadata["metrics"]["val"]["mean_average_precision"]
    assert words.startswith(f"{steps} training steps; data: slices released with Yang et al.")
    assert f"AP {precision:.2f}" in words
    assert panel.ui.thresholdSlider.value == pytest.approx(0.4)
    assert panel.ui.applyButton.property("enabled")
    assert panel.ui.applyButton.property("toolTip") == "Find lesions in 'CT'."
    assert not panel.ui.overlayCheckBox.property("enabled")


def test_choosing_a_model_takes_its_threshold_until_there_is_a_result(panel, result):
    panel.ui.resultSelector.setCurrentNode(None)
    choose(panel.ui.modelComboBox, "lesions-decomposition")
    assert panel.ui.thresholdSlider.value == pytest.approx(0.4)
    choose(panel.ui.modelComboBox, panel.ui.modelComboBox.itemData(1))
    assert panel.ui.thresholdSlider.value == pytest.approx(0.5)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    choose(panel.ui.modelComboBox, panel.ui.modelComboBox.itemData(0))
    assert panel.ui.thresholdSlider.value == pytest.approx(result.threshold)


@pytest.mark.slow
def test_apply_states_what_is_missing(panel, ct_node):
    def tooltip() -> str:
        assert not panel.ui.applyButton.property("enabled")
        return panel.ui.applyButton.property("toolTip")

    panel.ui.inputSelector.setCurrentNode(None)
    assert tooltip() == "Choose a chest CT first."
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    panel.ui.inputSelector.setCurrentNode(empty)
    assert tooltip() == "'Nothing' has no voxels. Choose a chest CT."
    panel.ui.inputSelector.setCurrentNode(ct_node)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    panel.ui.lungMaskSelector.setCurrentNode(segmentation)
    assert tooltip() == "Choose at least one segment of 'Mine' as lung."
    panel.ui.lungMaskSelector.setCurrentNode(None)
    panel.logic.getParameterNode().model = "of another computer"
    assert "'of another computer', is not installed" in tooltip()


@pytest.mark.slow
def test_apply_runs_in_a_worker_and_shows_the_result(panel, ct_node):
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.segmentationCheckBox.click()
    start(panel)
    assert text_of(panel.ui.applyButton) == "Cancel"
    assert panel.ui.progressBar.isVisibleTo(panel.parent)
    assert not panel.ui.inputsCollapsibleButton.property("enabled")
    texts = set()
    wait_for(lambda: texts.add(text_of(panel.ui.statusLabel)) or not panel.panel.run.is_running)
    assert temporary_folders() == []
    assert "Loading the models" in texts
    warnings = panel.panel.look.nodes().warnings
    assert any("Pixels are 5.0 mm wide" in text for text in warnings)
    assert text_of(panel.ui.statusLabel) == f"Done. Warnings: {len(warnings)}, shown with the measurements."
    assert text_of(panel.ui.warningsLabel) == "\n".join(f"Warning: {text}" for text in warnings)
    assert panel.ui.warningsLabel.isVisibleTo(panel.ui.resultCollapsibleButton)
    assert text_of(panel.ui.applyButton) == "Apply"
    assert not panel.ui.progressBar.isVisibleTo(panel.parent)
    nodes = panel.panel.look.nodes()
    assert nodes.ct == ct_node
    assert nodes.segmentation is not None
    assert cells(panel.ui.measurementsTable)[0][0] == "both lungs"
    assert composite.GetForegroundVolumeID() == nodes.heatmap.GetID()
    np.testing.assert_allclose(
        lesions_of(nodes).sum() * np.prod(ct_node.GetSpacing()) / 1000.0,
        float(nodes.table.GetCellText(0, nodes.table.GetColumnIndex("Lesion volume (mL)"))),
        rtol=1e-4,
    )


@pytest.mark.slow
def test_cancel_ends_the_worker_and_leaves_the_scene_as_it_was(panel):
    before = node_count()
    start(panel)
    process = panel.panel.run.current.job.process
    wait_for(lambda: panel.panel.run.current.job.step.stage != "start")
    panel.ui.applyButton.click()
    assert process.poll() is not None
    assert not panel.panel.run.is_running
    assert temporary_folders() == []
    assert text_of(panel.ui.statusLabel) == "Canceled; nothing was changed."
    assert text_of(panel.ui.applyButton) == "Apply"
    assert panel.panel.look.nodes() is None
    assert node_count() == before


@pytest.mark.slow
@pytest.mark.parametrize("event", ["scene closed", "CT removed", "panel deleted"])
def test_what_users_do_during_a_run_is_safe(panel, ct_node, event):
    start(panel)
    process = panel.panel.run.current.job.process
    if event == "scene closed":
        slicer.mrmlScene.Clear(False)
    elif event == "CT removed":
        slicer.mrmlScene.RemoveNode(ct_node)
    else:
        panel.cleanup()
    assert process.poll() is not None
    assert not panel.panel.run.is_running
    assert temporary_folders() == []
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0
    if event != "panel deleted":
        assert not panel.ui.applyButton.property("enabled")
        why = {"scene closed": "The scene was closed", "CT removed": "'CT' was removed from the scene"}[event]
        assert text_of(panel.ui.statusLabel) == f"{why}: the run was ended."


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_worker_that_is_killed_is_reported_once(panel, shown_errors):
    before = node_count()
    start(panel)
    os.kill(panel.panel.run.current.job.process.pid, signal.SIGKILL)
    finish(panel)
    assert len(shown_errors) == 1
    assert "SIGKILL" in shown_errors[0]
    assert text_of(panel.ui.statusLabel) == "Stopped; nothing was changed."
    assert panel.ui.applyButton.property("enabled")
    assert node_count() == before


@pytest.mark.slow
def test_unusable_input_ends_in_one_message(panel, ct_node, shown_errors):
    slicer.util.updateVolumeFromArray(ct_node, np.zeros((9, 9, 9), np.uint8))
    panel.ui.applyButton.click()  # refused before a worker is started: the mask does not fit
    assert not panel.panel.run.is_running
    assert len(shown_errors) == 1
    assert "expected" in shown_errors[0]
    assert panel.ui.applyButton.property("enabled")


def test_running_again_takes_the_outputs_of_the_same_ct_and_another_ct_gets_its_own(panel, result, chest_case):
    outputs = panel.panel.run.outputs()
    assert (outputs.heatmap, outputs.lesions) == (result.heatmap, result.lesions)
    assert outputs.report == result.report
    volume, _ = chest_case
    other = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Another CT")
    panel.ui.inputSelector.setCurrentNode(other)
    assert not any(panel.panel.run.outputs().nodes().values())
    # Back to the first CT: its own result is found again, whichever is shown.
    panel.ui.inputSelector.setCurrentNode(result.ct)
    assert panel.panel.run.outputs().table == result.table
    # A chosen heatmap is another result, which shares no node with the earlier one.
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Mine")
    panel.ui.heatmapSelector.setCurrentNode(mine)
    outputs = panel.panel.run.outputs().nodes()
    assert outputs.pop("heatmap") == mine
    assert not any(outputs.values())


def test_sliders_moved_during_a_run_take_effect_when_the_result_is_there(panel, ct_node, lung_node):
    panel.ui.minimumVolumeSlider.value = 0.0
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, minimumVolumeMl=0.0)
    drag(panel, 0.44)
    panel.panel.look.show(nodes, 0.4, 0.0)
    assert nodes.threshold == pytest.approx(0.44)
    np.testing.assert_array_equal(lesions_of(nodes) != 0, expected_lesions(nodes, 0.44))


def test_segments_of_a_segmentation_serve_as_lung_mask(panel, ct_node, lung_node):
    from LesionDecompMrml.input_nodes import lung_mask_from_node
    from PySide6.QtCore import Qt

    lungs = slicer.util.arrayFromVolume(lung_node)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct_node)
    for name, mask in (("Right lung", lungs == 1), ("LEFT lung", lungs == 2), ("heart", lungs == 0)):
        segment_id = segmentation.GetSegmentation().AddEmptySegment(name, name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation, segment_id, ct_node)
    assert not panel.ui.lungSegmentsList.isVisibleTo(panel.parent)
    panel.ui.lungMaskSelector.setCurrentNode(segmentation)
    box = panel.ui.lungSegmentsList
    assert box.isVisibleTo(panel.parent)
    items = [box.item(row) for row in range(3)]
    assert [item.checkState() == Qt.Checked for item in items] == [True, True, False]
    assert not panel.ui.lungSegmentsHintLabel.isVisibleTo(panel.parent)
    np.testing.assert_array_equal(lung_mask_from_node(segmentation, ct_node).array, lungs)
    items[1].setCheckState(Qt.Unchecked)
    assert panel.panel.run.options().lung_segments == ["Right lung"]
    np.testing.assert_array_equal(lung_mask_from_node(segmentation, ct_node, ["Right lung"]).array, lungs == 1)
    # The scene remembers it.
    panel.exit()
    panel.enter()
    assert [box.item(row).checkState() == Qt.Checked for row in range(3)] == [True, False, False]


def test_ticked_segments_are_those_of_their_segmentation_alone(panel):
    from PySide6.QtCore import Qt

    def segmentation(name, segments):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        for segment_id, segment in segments.items():
            node.GetSegmentation().AddEmptySegment(segment_id, segment)
        return node

    def choice(mask):
        panel.ui.lungMaskSelector.setCurrentNode(mask)
        items = [box.item(row) for row in range(box.property("count"))]
        ticked = [item.text() for item in items if item.checkState() == Qt.Checked]
        return ticked, panel.panel.run.options().lung_segments, panel.ui.applyButton.property("enabled")

    box, parameters = panel.ui.lungSegmentsList, panel.logic.getParameterNode()
    first = segmentation("First", {"Segment_1": "lungs", "Segment_2": "heart"})
    second = segmentation("Second", {"Segment_1": "heart", "Segment_2": "lungs"})
    third = segmentation("Third", {"right": "right lung", "left": "left lung"})
    choice(first)
    box.item(1).setCheckState(Qt.Checked)
    assert choice(first) == (["lungs", "heart"], ["Segment_1", "Segment_2"], True)
    assert choice(second) == (["lungs"], ["Segment_2"], True)
    assert choice(third) == (["right lung", "left lung"], ["right", "left"], True)
    assert not panel.ui.lungSegmentsHintLabel.isVisibleTo(panel.parent)
    assert choice(first) == (["lungs", "heart"], ["Segment_1", "Segment_2"], True)
    for row in range(2):
        box.item(row).setCheckState(Qt.Unchecked)
    assert choice(first) == ([], [], False)
    assert text_of(panel.ui.lungSegmentsHintLabel) == "Tick the segments that are lung."
    box.item(0).setCheckState(Qt.Checked)
    for segment_id in ("Segment_1", "Segment_2"):
        first.GetSegmentation().RemoveSegment(segment_id)
    first.GetSegmentation().AddEmptySegment("Segment_3", "lung")
    assert choice(first)[1] == ["Segment_3"]  # what was ticked is gone
    parameters.lungSegments = '["Segment_1"]'  # as scenes were saved before
    assert choice(second)[1] == ["Segment_1"]
    assert choice(third)[1] == ["right", "left"]


@pytest.mark.slow
def test_a_segmentation_without_a_lung_segment_ticks_nothing_and_states_so(panel):
    from PySide6.QtCore import Qt

    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    for name in ("heart", "liver"):
        segmentation.GetSegmentation().AddEmptySegment(name, name)
    panel.ui.lungMaskSelector.setCurrentNode(segmentation)
    box = panel.ui.lungSegmentsList
    assert [box.item(row).checkState() for row in range(2)] == [Qt.Unchecked] * 2
    assert text_of(panel.ui.lungSegmentsHintLabel) == "No segment is called lung. Tick those that are lung."
    assert panel.ui.lungSegmentsHintLabel.isVisibleTo(panel.parent)
    assert not panel.ui.applyButton.property("enabled")
    box.item(1).setCheckState(Qt.Checked)
    assert not panel.ui.lungSegmentsHintLabel.isVisibleTo(panel.parent)
    assert panel.ui.applyButton.property("enabled")


@pytest.mark.slow
def test_an_unsuitable_ct_is_refused_before_any_process_or_model(panel, module, ct_node, shown_errors, monkeypatch):
    monkeypatch.setattr(module.LesionDecompLogic, "createSegmenter", lambda *_arguments: pytest.fail("models loaded"))
    panel.ui.lungMaskSelector.setCurrentNode(None)
    slicer.util.updateVolumeFromArray(ct_node, np.full((60, 64, 64), 100, np.int16))
    panel.ui.applyButton.click()
    assert not panel.panel.run.is_running and temporary_folders() == []
    assert len(shown_errors) == 1 and "Hounsfield units" in shown_errors[0]
    from LesionDecompLib.errors import LesionDecompError

    with pytest.raises(LesionDecompError, match="Hounsfield units"):
        panel.logic.process(ct_node)


def test_the_console_leaves_the_panel_as_apply_does(panel, ct_node, lung_node):
    panel.ui.inputSelector.setCurrentNode(None)
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.43)
    assert panel.ui.inputSelector.currentNode() == ct_node
    assert panel.ui.resultSelector.currentNode() == nodes.heatmap
    assert panel.ui.thresholdSlider.value == pytest.approx(0.43)
    assert cells(panel.ui.measurementsTable)[0][0] == "both lungs"
    before = text_of(panel.ui.figuresLabel)
    outputs = {f"{name}Node": getattr(nodes, name) for name in ("heatmap", "lungs", "lesions", "table")}
    assert panel.logic.process(ct_node, lung_node, threshold=0.47, **outputs).heatmap == nodes.heatmap
    assert panel.ui.thresholdSlider.value == pytest.approx(0.47)
    assert text_of(panel.ui.figuresLabel) != before
    panel.logic.updateThreshold(nodes.heatmap, 0.45)
    assert panel.ui.thresholdSlider.value == pytest.approx(0.45)


def test_progress_is_one_bar_that_never_goes_back_with_one_time_left():
    from LesionDecompPanel.run_progress import RunProgress

    now = [0.0]
    progress = RunProgress(lambda: now[0])
    fractions = []
    for at, left in ((1, None), (2, 18.0), (6, 14.0), (10, 12.0), (14, 5.0), (18, None), (18.5, None)):
        now[0] = at
        progress.update(left)
        fractions.append(progress.fraction)
    assert fractions == sorted(fractions) and 0 < fractions[0] < 0.1 and fractions[-1] <= 0.99
    assert fractions[2] == pytest.approx(0.3)
    assert progress.seconds_left == pytest.approx(0.5)  # stages that know nothing let the last estimate run on


def test_recompute_takes_the_edited_lungs_and_writes_the_same_nodes(panel, result, monkeypatch):
    from LesionDecompMrml.segmentation_run import Request

    taken = {}

    def start_process(inputVolume, options, **_callbacks):
        taken.update(options=options, request=Request.read(inputVolume, options))

    edited = slicer.util.arrayFromVolume(result.lungs)
    edited[:30] = 0
    slicer.util.arrayFromVolumeModified(result.lungs)
    monkeypatch.setattr(panel.logic, "startProcess", start_process)
    assert f"'{result.lungs.GetName()}'" in panel.ui.recomputeButton.property("toolTip")
    panel.ui.recomputeButton.click()
    options = taken["options"]
    assert options.lung_mask == result.lungs == options.outputs.lungs
    assert options.lungs_are_edited
    np.testing.assert_array_equal(taken["request"].mask, edited)


def test_recompute_updates_the_result_shown_and_no_other_of_the_ct(panel, result, ct_node, lung_node, monkeypatch):
    taken = []
    new = {f"{name}Node": None for name in ("heatmap", "lungs", "lesions", "table")}
    later = panel.logic.process(ct_node, lung_node, threshold=0.5, **new)
    monkeypatch.setattr(panel.logic, "startProcess", lambda _ct, options, **_: taken.append(options.outputs))
    panel.ui.heatmapSelector.setCurrentNode(later.heatmap)  # where Apply would write
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    panel.ui.recomputeButton.click()
    panel.ui.applyButton.click()
    names = ("heatmap", "lungs", "lesions", "table", "report")
    for outputs, nodes in zip(taken, (result, later), strict=True):
        assert [getattr(outputs, name) for name in names] == [getattr(nodes, name) for name in names]


@pytest.mark.slow
def test_recompute_is_gray_while_nothing_can_run(panel, result, ct_node, monkeypatch):
    button = panel.ui.recomputeButton
    assert button.property("enabled")
    start(panel)
    assert not button.property("enabled") and "run has ended" in button.property("toolTip")
    panel.ui.applyButton.click()
    finish(panel)
    assert button.property("enabled")
    monkeypatch.setattr(panel.panel.run.models, "has", lambda _key: False)
    panel.panel.run.refresh()
    assert not button.property("enabled") and "not installed" in button.property("toolTip")


@pytest.mark.slow
def test_packages_are_asked_for_once_and_a_no_ends_it(panel, module, monkeypatch):
    from LesionDecompPanel import packages

    asked = []
    monkeypatch.setattr(module.LesionDecompLogic, "missingPackages", lambda self: ["torch", "scikit-image"])
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: asked.append(text))
    monkeypatch.setattr(packages, "PYTORCH_EXTENSION_MODULE", "json")  # it is installed
    panel.ui.applyButton.click()
    assert len(asked) == 1
    assert "torch: about" in asked[0] and "scikit-image: about 15 MB" in asked[0]
    assert not panel.panel.run.is_running
    assert "missing" in text_of(panel.ui.statusLabel)


@pytest.mark.parametrize("meanwhile", ["Apply again", "CT removed", "module left", "failure"])
def test_while_packages_are_installed_nothing_starts_and_afterwards_only_what_was_asked_for(
    panel, module, ct_node, shown_errors, monkeypatch, meanwhile
):
    started, seen, logic = [], [], module.LesionDecompLogic

    def install(_logic):
        button = panel.ui.applyButton
        seen.append((button.property("enabled"), button.property("toolTip"), text_of(panel.ui.statusLabel)))
        assert not panel.ui.inputsCollapsibleButton.property("enabled")
        panel.panel.run.start()
        if meanwhile == "CT removed":
            slicer.mrmlScene.RemoveNode(ct_node)
        elif meanwhile == "module left":
            panel.exit()
        elif meanwhile == "failure":
            raise RuntimeError("no connection")
        return True

    monkeypatch.setattr(logic, "missingPackages", lambda self: ["torch"])
    monkeypatch.setattr(logic, "installMissingPackages", install)
    monkeypatch.setattr(logic, "startProcess", lambda self, ct, **_k: started.append(ct))
    panel.ui.applyButton.click()
    assert seen == [(False, "Python packages are being installed. Wait until this has ended.", "Installing...")]
    assert started == ([ct_node] if meanwhile == "Apply again" else [])
    status = text_of(panel.ui.statusLabel)
    if meanwhile == "failure":
        assert "no connection" in shown_errors[0] and "packages are missing" in status
    elif not started:
        assert "press Apply again" in status
    if meanwhile == "module left":
        panel.enter()
    assert panel.ui.inputsCollapsibleButton.property("enabled")
    assert panel.ui.applyButton.property("enabled") == (meanwhile != "CT removed")


def test_installing_packages_never_replaces_what_slicer_ships(panel, monkeypatch):
    import importlib.metadata

    from LesionDecompPanel.packages import install_missing_packages

    missing = [["scikit-image"], []]
    installed = []

    def pip_install(names, *, completedCallback, blocking, **_options):
        assert not blocking
        installed.append(names)
        completedCallback(0)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: True)
    monkeypatch.setattr(slicer.packaging, "pip_install", pip_install)
    assert install_missing_packages(lambda: missing.pop(0))
    pins = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "SimpleITK", "scipy", "pydicom")]
    assert installed == [["scikit-image", *pins]]


@pytest.mark.parametrize(
    ("reported", "words"),
    [
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407'))", "HTTPS_PROXY"),
        ("NewConnectionError: Failed to establish: [Errno -3] Temporary failure in name resolution", "reached"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for scikit-image", "update Slicer"),
        ("ERROR: something nobody foresaw", "something nobody foresaw"),
    ],
)
def test_a_failing_pip_is_reported_in_words_with_the_next_step(panel, monkeypatch, reported, words):
    from LesionDecompPanel.packages import install_missing_packages

    def pip_install(names, *, logCallback, completedCallback, **_options):
        logCallback("Collecting scikit-image")
        logCallback(reported)
        completedCallback(1)

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: True)
    monkeypatch.setattr(slicer.packaging, "pip_install", pip_install)
    with pytest.raises(RuntimeError) as failure:
        install_missing_packages(lambda: ["scikit-image"])
    text = str(failure.value)
    assert words in text and "scikit-image could not be installed" in text and "Python console" in text
    assert "==" not in text and "-m pip" not in text


def test_without_the_pytorch_extension_nothing_is_asked_and_the_message_states_what_to_install(panel, monkeypatch):
    from LesionDecompPanel.packages import install_missing_packages

    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, *_a, **_k: asked.append(text))
    with pytest.raises(RuntimeError, match="Extensions Manager"):
        install_missing_packages(lambda: ["torch"])
    assert asked == []


def test_added_model_folders_are_remembered_and_a_wrong_one_is_refused(
    panel, untrained_segmenter, tmp_path, shown_errors
):
    import qt
    from LesionDecompPanel.model_choice import remember_folders, remembered_folders

    remember_folders([])
    panel.panel.run.models.refill("")
    assert panel.ui.modelComboBox.property("count") == 1
    chosen = [str(tmp_path), str(untrained_segmenter.lesion_bundle.path)]
    original = qt.QFileDialog.getExistingDirectory
    qt.QFileDialog.getExistingDirectory = lambda *_arguments: chosen.pop(0)
    try:
        panel.ui.addModelButton.click()
        assert "no bundle.json" in shown_errors[0]
        assert remembered_folders() == []
        panel.ui.addModelButton.click()
    finally:
        qt.QFileDialog.getExistingDirectory = original
    assert remembered_folders() == [str(untrained_segmenter.lesion_bundle.path)]
    assert panel.ui.modelComboBox.property("currentText") == "untrained-lesions"
    assert panel.logic.getParameterNode().model == str(untrained_segmenter.lesion_bundle.path)
    assert text_of(panel.ui.modelDescriptionLabel) == "No validation score."


@pytest.mark.slow
def test_device_selector_states_what_automatic_takes_and_why(open_panel):
    import torch

    panel = open_panel(ask_devices=True)
    wait_for(lambda: text_of(panel.ui.deviceInfoLabel))
    box = panel.ui.deviceComboBox
    devices = [box.itemData(n) for n in range(box.property("count"))]
    gpus = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    assert sorted(devices) == sorted(["auto", "cpu", *gpus, *mps])
    assert "automatic:" in text_of(panel.ui.deviceInfoLabel)
    choose(box, "cpu")
    assert panel.logic.getParameterNode().device == "cpu"
    assert text_of(panel.ui.deviceInfoLabel).startswith("CPU, ")


# Everywhere


def test_leaving_and_entering_the_module_keeps_the_result(panel, result):
    panel.ui.thresholdSlider.value = 0.43
    panel.exit()
    panel.enter()
    assert panel.panel.look.nodes() == result
    assert cells(panel.ui.measurementsTable)[0][0] == "both lungs"
    assert panel.ui.thresholdSlider.value == pytest.approx(0.43)
    assert "mL" in text_of(panel.ui.figuresLabel)
    drag(panel, 0.46)
    assert result.threshold == pytest.approx(0.46)


@pytest.mark.slow
def test_a_reloaded_scene_shows_the_same_state(panel, result, tmp_path):
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.thresholdSlider.value = 0.43
    panel.ui.minimumVolumeSlider.value = 0.25
    panel.ui.opacitySlider.value = 0.7
    panel.ui.batchSizeSpinBox.setProperty("value", 3)
    panel.ui.outlineCheckBox.click()
    panel.ui.volumePlotButton.click()
    wait_for(lambda: panel.panel.look.is_settled)
    figures, lesions = text_of(panel.ui.figuresLabel), lesions_of(result)
    name = result.heatmap.GetName()
    del composite
    assert slicer.util.saveScene(str(tmp_path / "study.mrb"))
    slicer.mrmlScene.Clear(False)
    assert panel.panel.look.nodes() is None
    slicer.util.loadScene(str(tmp_path / "study.mrb"))
    ui = panel.ui
    assert ui.resultSelector.currentNode().GetName() == name
    values = [control.value for control in (ui.thresholdSlider, ui.minimumVolumeSlider, ui.opacitySlider)]
    assert values == pytest.approx([0.43, 0.25, 0.7])
    assert ui.batchSizeSpinBox.property("value") == 3
    assert not ui.outlineCheckBox.property("checked")
    assert text_of(ui.figuresLabel) == figures
    np.testing.assert_array_equal(lesions_of(panel.panel.look.nodes()), lesions)
    drag(panel, 0.46)
    wait_for(lambda: panel.panel.look.is_settled)
    nodes = panel.panel.look.nodes()
    mark = nodes.heatmap.GetNodeReference("LesionDecomp.volumeMark")
    assert slicer.util.arrayFromTableColumn(mark, "Threshold")[1] == pytest.approx(0.46)
    assert nodes.threshold == pytest.approx(0.46)


def test_reload_takes_every_file_of_the_module_anew(panel, module):
    from LesionDecompLib.processes.training_run import session_runs

    ours = {name: sys.modules[name] for name in sys.modules if name.partition(".")[0] in module.PACKAGES}
    training = SimpleNamespace(folder=Path("run"), is_running=False)
    session_runs[Path("run")] = training  # it goes on meanwhile
    try:
        panel.onReload()
        assert panel.logic.trainings() == [training]
        from LesionDecompLib.ct import grid as geometry
        from LesionDecompPanel import look_section

        assert look_section is not ours["LesionDecompPanel.look_section"]
        assert geometry is not ours["LesionDecompLib.ct.grid"]
        # The panel that goes was let go of its parts first or can still be: nothing raised.
        assert panel.panel.Observations == []
    finally:
        del session_runs[Path("run")]
        for name in [name for name in sys.modules if name.partition(".")[0] in module.PACKAGES]:
            del sys.modules[name]
        sys.modules.update(ours)


def test_warnings_stand_beside_the_figures_of_their_result_and_go_with_it(panel, result, tmp_path):
    def shown() -> str:
        return text_of(panel.ui.warningsLabel)

    warnings, figures = "\n".join(f"Warning: {text}" for text in result.warnings), text_of(panel.ui.figuresLabel)
    assert "Pixels are 5.0 mm wide" in warnings
    assert shown() == warnings
    panel.ui.resultSelector.setCurrentNode(None)
    assert shown() == ""
    assert not panel.ui.warningsLabel.isVisibleTo(panel.ui.resultCollapsibleButton)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    assert (shown(), text_of(panel.ui.figuresLabel)) == (warnings, figures)
    assert slicer.util.saveScene(str(tmp_path / "study.mrb"))
    slicer.mrmlScene.Clear(False)
    assert shown() == ""
    slicer.util.loadScene(str(tmp_path / "study.mrb"))
    assert shown() == warnings


@pytest.mark.slow
def test_no_observer_is_left_behind(panel, result):
    observed = len(panel.panel.Observations)
    for _ in range(3):
        panel.exit()
        panel.enter()
    assert len(panel.panel.Observations) == observed == 4  # scene closing, closed, loaded; parameter node
    start(panel)
    panel.ui.applyButton.click()
    node = panel.logic.getParameterNode().parameterNode
    assert node.HasObserver("ModifiedEvent")
    panel.cleanup()
    assert panel.panel.Observations == []
    assert not node.HasObserver("ModifiedEvent")


def test_every_control_has_a_tooltip_and_can_be_reached_by_keyboard(panel):
    from PySide6.QtCore import Qt
    from PySide6.QtWidgets import QLabel, QProgressBar, QWidget

    for name, control in vars(panel.ui).items():
        if not isinstance(control, QWidget) or name.startswith("qt_") or isinstance(control, QLabel):
            continue
        assert control.property("toolTip"), name
        holds_others = type(control) is QWidget or isinstance(control, qt_panel.CollapsibleButton)
        takes_input = not holds_others and not isinstance(control, qt_panel.MRMLWidget)
        if takes_input and not isinstance(control, QProgressBar):
            focus = control.focusProxy() or control
            assert focus.property("focusPolicy") & Qt.TabFocus, name
