"""Widget wiring of the panel's sections Export and Train: real Qt controls (PySide6, offscreen) around real nodes."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from LesionDecompLib.measurement.statistics import read_statistics_csv
from LesionDecompLib.models.bundle import ModelBundle
from tiny_training import SETTINGS, write_training_set

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer import qt_panel  # noqa: E402
from headless_slicer.qt_panel import choose, click, text_of, wait_for  # noqa: E402

pytestmark = pytest.mark.slow

PATIENCE_S = 300.0


@pytest.fixture(autouse=True)
def own_trainings(monkeypatch):
    """The session has no training yet, and what a test starts ends with it."""
    import LesionDecompLib.processes.training_run as training_run

    monkeypatch.setattr(training_run, "session_runs", {})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the trainer: more threads than free cores make it crawl
    yield
    for run in training_run.trainings():
        run.kill()


@pytest.fixture
def tiny_training(module, monkeypatch):
    """What the panel starts is a training of few, small steps."""
    start = module.LesionDecompLogic.startTraining
    monkeypatch.setattr(
        module.LesionDecompLogic,
        "startTraining",
        lambda self, **arguments: start(self, **arguments, settings=(*SETTINGS, "seed=3")),
    )


def start_training(panel, out: Path, steps: int):
    """Press Start with what the panel learns from; the run."""
    ui = panel.ui
    ui.trainOutputEdit.setProperty("text", str(out))
    choose(ui.lengthComboBox, "steps")
    ui.stepsSpinBox.setProperty("value", steps)
    choose(ui.trainDeviceComboBox, "cpu")
    click(ui.startTrainingButton)
    return panel.panel.train.run


def value(control, name: str):
    return control.property(name)


def test_figures_are_copied_and_saved_and_without_a_result_nothing_can_be(
    panel, ct_node, lung_node, tmp_path, monkeypatch
):
    from LesionDecompPanel import export_section

    opened, answers, proposed = [], [], []
    monkeypatch.setattr(export_section, "open_in_browser", opened.append)

    def ask(_parent, _title, start, _kind):
        proposed.append(Path(start))
        return answers.pop(0), _kind

    monkeypatch.setattr(qt_panel.QtWidgets.QFileDialog, "getSaveFileName", ask)
    replaced = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *_a, **_k: replaced.append(text))
    buttons = [getattr(panel.ui, name) for name in export_section.BUTTONS]
    assert not any(value(button, "enabled") for button in buttons)
    result = panel.logic.process(ct_node, lung_node, threshold=0.4, minimumVolumeMl=0.0)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    assert all(value(button, "enabled") for button in buttons)

    click(panel.ui.copyButton)
    text = qt_panel.QtWidgets.QApplication.clipboard().text()
    assert text.startswith("Region\tLung volume (mL)\t") and len(text.splitlines()) == 13
    answers += [str(tmp_path / "figures"), str(tmp_path / "report.html"), str(tmp_path / "run.json"), ""]
    click(panel.ui.saveCsvButton)
    assert len(read_statistics_csv(tmp_path / "figures.csv")) == 12  # the ending was left out
    assert proposed == [Path.home() / "CT statistics.csv"]
    click(panel.ui.saveReportButton)
    assert opened == [tmp_path / "report.html"] and opened[0].read_text("utf-8").startswith("<!DOCTYPE html>")
    click(panel.ui.saveManifestButton)
    assert json.loads((tmp_path / "run.json").read_text("utf-8"))["report"] == "LesionDecomp"
    assert value(panel.ui.exportLabel, "text") == f"Saved run.json in {tmp_path}."
    click(panel.ui.saveCsvButton)  # canceled
    assert answers == []
    assert proposed[1] == tmp_path / "CT report.html"  # the folder is remembered
    # What the dialog did not ask about, since the ending was missing, is asked here.
    (tmp_path / "figures.csv").write_text("mine")
    answers.append(str(tmp_path / "figures"))
    click(panel.ui.saveCsvButton)
    assert replaced == ["'figures.csv' is already there. Replace it?"]
    assert (tmp_path / "figures.csv").read_text("utf-8") == "mine"
    assert not value(panel.ui.saveDicomButton, "enabled")  # this CT does not come from DICOM
    assert "DICOM module" in value(panel.ui.saveDicomButton, "toolTip")

    slicer.mrmlScene.RemoveNode(result.report)
    panel.panel.export.refresh()
    assert not value(panel.ui.saveReportButton, "enabled") and value(panel.ui.saveCsvButton, "enabled")


def test_start_states_what_is_missing_and_marks_are_read_as_they_are_shown(panel, ct_node, tmp_path):
    ui = panel.ui
    assert not value(ui.startTrainingButton, "enabled")
    assert "output folder" in value(ui.startTrainingButton, "toolTip")
    ui.trainOutputEdit.setProperty("text", str(tmp_path / "run"))
    assert "training folder" in value(ui.startTrainingButton, "toolTip")
    ui.trainDataEdit.setProperty("text", str(tmp_path))
    assert value(ui.startTrainingButton, "enabled")

    choose(ui.trainSourceComboBox, "marked")
    assert ui.rangesWidget.isVisibleTo(ui.trainCollapsibleButton)
    assert not ui.trainDataWidget.isVisibleTo(ui.trainCollapsibleButton)
    assert "Mark some slices" in value(ui.startTrainingButton, "toolTip")
    click(ui.addRangeButton)
    click(ui.addRangeButton)
    panel.panel.train.marks.set(0, first=3, last=20)
    panel.panel.train.marks.set(1, first=21, label="lesion")
    assert not value(ui.startTrainingButton, "enabled")  # nothing is called normal before somebody states so
    assert "Choose the label" in value(ui.startTrainingButton, "toolTip")
    panel.panel.train.marks.set(0, label="normal")
    assert panel.panel.train.marks.marks() == [(ct_node, 3, 20, "normal", ""), (ct_node, 21, 60, "lesion", "")]
    assert value(ui.startTrainingButton, "enabled")

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    slicer.mrmlScene.RemoveNode(view)
    view = slicer.vtkMRMLSliceNode()
    view.SetSingletonTag("Red")
    view.SetLayoutName("Red")
    view = slicer.mrmlScene.AddNode(view)
    assert view.GetID() == "vtkMRMLSliceNodeRed"
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix_of(ct_node))
    view.JumpSliceByCentering(*(ijk_to_ras @ [32, 32, 40, 1])[:3])
    ui.rangesTable.setCurrentCell(1, 0)
    click(ui.fromViewButton)
    assert panel.panel.train.marks.marks()[1][1] == 40
    click(ui.removeRangeButton)
    assert len(panel.panel.train.marks.marks()) == 1


def test_marked_slices_never_pass_to_another_patient(panel, ct_node, chest_case):
    volume, _ = chest_case
    ui, marks = panel.ui, panel.panel.train.marks
    choose(ui.trainSourceComboBox, "marked")
    marks.add(ct_node)
    marks.set(0, first=10, last=20, label="lesion")
    assert marks.marks() == [(ct_node, 10, 20, "lesion", "")]
    identity = ct_node.GetID()

    # The next patient's CT gets the ID that the last one's had.
    slicer.mrmlScene.Clear(False)
    assert marks.marks() == [] and value(ui.rangesTable, "rowCount") == 0
    second = slicer.util.addVolumeFromArray(volume.array[:40], volume.ijk_to_ras, "Second")
    assert second.GetID() == identity
    panel.panel.watch.changed.flush()
    assert marks.marks() == []

    third = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Third")
    click(ui.addRangeButton)
    assert marks.marks() == [(second, 0, 39, "", "")]
    panel.panel.watch.changed.flush()
    box = ui.rangesTable.cellWidget(0, 0)
    assert [box.itemText(n) for n in range(box.count)] == ["Second", "Third"]
    marks.set(0, first=5, last=9, label="normal")
    box.setProperty("currentIndex", 1)  # slices of one patient mean nothing in the other
    assert marks.marks() == [(third, 0, 60, "normal", "")]
    marks.add(second)
    slicer.mrmlScene.RemoveNode(third)
    assert [mark[0] for mark in marks.marks()] == [second]
    panel.panel.watch.changed.flush()
    assert value(ui.rangesTable, "rowCount") == 1


def matrix_of(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_training_outlives_the_panel_resumes_and_its_model_is_offered(open_panel, tiny_training, tmp_path):
    data, out = write_training_set(tmp_path / "slices"), tmp_path / "my model"
    panel = open_panel()
    ui = panel.ui
    ui.trainDataEdit.setProperty("text", str(data))
    run = start_training(panel, out, steps=24)
    assert run.is_running and not value(ui.startTrainingButton, "enabled")
    assert not value(ui.trainOutputEdit, "enabled")
    wait_for(lambda: run.step is not None and run.step.done >= 2, PATIENCE_S)

    # The panel is closed and opened again: the training is still there.
    panel.cleanup()
    assert run.poll() == "running"
    panel = open_panel()
    ui = panel.ui
    assert panel.panel.train.run is run
    assert value(ui.trainOutputEdit, "text") == str(out)
    click(ui.stopTrainingButton)
    wait_for(lambda: not run.is_running, PATIENCE_S)
    panel.panel.train.watch()
    assert run.state == "stopped", run.error
    assert "Resume continues from there" in value(ui.trainStatusLabel, "text")
    assert not value(ui.startTrainingButton, "enabled")

    click(ui.resumeTrainingButton)
    resumed = panel.panel.train.run
    wait_for(lambda: not resumed.is_running, PATIENCE_S)
    panel.panel.train.watch()
    assert resumed.state == "finished", resumed.error
    assert ModelBundle.load(resumed.bundle, "lesions").name == "my model"
    choose(ui.modelComboBox, str(resumed.bundle))
    assert text_of(ui.modelDescriptionLabel).startswith("24 training steps; data: slices;")
    offered = [ui.modelComboBox.itemData(n) for n in range(value(ui.modelComboBox, "count"))]
    assert str(resumed.bundle) in offered
    from LesionDecompPanel.model_choice import remembered_folders

    assert str(resumed.bundle) in remembered_folders()
    table = slicer.util.getNode("Training my model log")
    assert slicer.util.arrayFromTableColumn(table, "step")[-1] == 24
    chart = table.GetNodeReference("LesionDecomp.trainingChart")
    names = [chart.GetNthPlotSeriesNode(n).GetYColumnName() for n in range(chart.GetNumberOfPlotSeriesNodes())]
    assert {"L_g", "L_r", "heat_lesion", "heat_normal"} <= set(names)
    assert "examples.png" in value(ui.examplesLabel, "text")
    assert np.isfinite(slicer.util.arrayFromTableColumn(table, "L_g")).all()


def test_slices_marked_in_loaded_volumes_become_a_model_that_finds_lesions_in_them(
    panel, tiny_training, ct_node, chest_case, tmp_path
):
    volume, _ = chest_case
    second = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Second CT")
    ui, out = panel.ui, tmp_path / "from my volumes"
    choose(ui.trainSourceComboBox, "marked")
    rows = [
        (ct_node, 18, 24, "normal", "train"),
        (ct_node, 34, 40, "lesion", "train"),
        (second, 20, 23, "normal", "val"),
        (second, 36, 39, "lesion", "val"),
    ]
    for row, (node, first, last, label, split) in enumerate(rows):
        assert panel.panel.train.marks.add(node) == row
        panel.panel.train.marks.set(row, first=first, last=last, label=label)
        choose(ui.rangesTable.cellWidget(row, 4), split)
    assert panel.panel.train.marks.marks() == rows
    run = start_training(panel, out, steps=6)
    reported = set()
    wait_for(lambda: reported.add(text_of(ui.trainStatusLabel)) or not run.is_running, PATIENCE_S)
    panel.panel.train.watch()
    assert run.state == "finished", run.error
    assert any(text.startswith("Making the training set") for text in reported)
    with open(out / "slices" / "index.csv", encoding="utf-8", newline="") as stream:
        found = Counter((row["split"], row["label"]) for row in csv.DictReader(stream))
    assert found == {("train", "normal"): 7, ("train", "lesion"): 7, ("val", "normal"): 4, ("val", "lesion"): 4}

    choose(ui.modelComboBox, str(run.bundle))
    assert "from my volumes" in panel.logic.getParameterNode().model
    click(ui.applyButton)
    wait_for(lambda: not panel.panel.run.is_running, PATIENCE_S)
    assert text_of(ui.statusLabel).startswith("Done."), text_of(ui.statusLabel)
    manifest = json.loads(panel.panel.look.nodes().report.GetText())
    assert "from my volumes" in json.dumps(manifest["models"])


def test_a_training_that_cannot_start_or_fails_states_stage_and_advice(panel, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *_a, **_k: shown.append(text))
    panel.ui.trainDataEdit.setProperty("text", str(tmp_path))
    panel.ui.trainOutputEdit.setProperty("text", str(tmp_path / "run"))
    click(panel.ui.startTrainingButton)
    assert panel.panel.train.run is None
    assert len(shown) == 1 and "Training: found no readable index.csv" in shown[0] and "Choose another" in shown[0]


@pytest.mark.parametrize("changes", [False, True], ids=["inputs kept", "inputs changed"])
def test_while_packages_are_installed_no_second_training_starts(panel, module, tmp_path, monkeypatch, changes):
    started, shown, ui, logic = [], [], panel.ui, module.LesionDecompLogic

    def install(_logic):
        shown.append((value(ui.startTrainingButton, "enabled"), value(ui.applyButton, "enabled")))
        assert value(ui.trainStatusLabel, "text") == "Installing..."
        panel.panel.train.start()
        if changes:
            ui.trainOutputEdit.setProperty("text", str(tmp_path / "elsewhere"))
        return True

    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *_a, **_k: shown.append(text))
    monkeypatch.setattr(logic, "missingPackages", lambda self: ["torch"])
    monkeypatch.setattr(logic, "installMissingPackages", install)
    monkeypatch.setattr(logic, "startTraining", lambda self, **arguments: started.append(arguments["outputFolder"]))
    ui.trainDataEdit.setProperty("text", str(tmp_path))
    ui.trainOutputEdit.setProperty("text", str(tmp_path / "run"))
    click(ui.startTrainingButton)
    assert shown[0] == (False, False)
    assert started == ([] if changes else [tmp_path / "run"])
    assert len(shown) == (2 if changes else 1)
    assert value(ui.startTrainingButton, "enabled")


def test_highdicom_is_installed_under_the_same_guard(panel, module, ct_node, lung_node, monkeypatch):
    import LesionDecompMrml.dicom_export
    from LesionDecompPanel import export_section

    seen, saved, ui = [], [], panel.ui

    def install() -> bool:
        seen.append((value(ui.saveDicomButton, "enabled"), value(ui.applyButton, "enabled")))
        panel.panel.run.start()
        return True

    monkeypatch.setattr(LesionDecompMrml.dicom_export, "is_from_dicom", lambda _ct: True)
    monkeypatch.setattr(export_section, "can_write_dicom_seg", lambda: False)
    monkeypatch.setattr(export_section, "install_for_dicom_seg", install)
    monkeypatch.setattr(panel.panel.export, "_save", lambda title, *_rest: saved.append(title))
    monkeypatch.setattr(module.LesionDecompLogic, "startProcess", lambda *_a, **_k: saved.append("run"))
    result = panel.logic.process(ct_node, lung_node, threshold=0.4)
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    click(ui.saveDicomButton)
    assert seen == [(False, False)] and saved == ["Save the DICOM segmentation"]
    assert value(ui.saveDicomButton, "enabled") and value(ui.applyButton, "enabled")
