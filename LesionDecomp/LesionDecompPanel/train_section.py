"""The panel's last part: training a model of one's own, watched while it goes on. The training outlives the panel."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from LesionDecompMrml.result import show_chart
from LesionDecompMrml.scene_nodes import chest_volumes
from LesionDecompMrml.training import show_curves
from slicer.i18n import tr as _

from .combo_box import fill, index_of
from .errors import errors_shown
from .file_dialogs import ask_folder, ask_open_path
from .installation import install_packages, installing_in_words, is_installing
from .marked_slices import MarkedSlicesTable
from .module_panel import scroll_to
from .signals import connect

WATCH_MS = 500
FOLDER, MARKED, LABEL_FILE = "folder", "marked", "file"
PRESET_STEPS, STEPS, HOURS = "preset", "steps", "hours"
PICTURE_MARGIN = 30  # pixels of the panel beside the picture of the examples
# Text field -> where Slicer's settings keep what was in it when a training was last started.
REMEMBERED = {"trainDataEdit": "LesionDecomp/TrainingFolder", "trainOutputEdit": "LesionDecomp/TrainingOutput"}
INPUTS = (
    "trainSourceComboBox",
    "trainDataEdit",
    "trainDataButton",
    "rangesTable",
    "addRangeButton",
    "removeRangeButton",
    "fromViewButton",
    "toViewButton",
    "labelsEdit",
    "labelsButton",
    "presetComboBox",
    "lengthComboBox",
    "stepsSpinBox",
    "hoursSpinBox",
    "trainDeviceComboBox",
    "trainOutputEdit",
    "trainOutputButton",
)


class TrainSection:
    """Training set, preset, length, device and output folder; Start, Stop and Resume; curves and examples.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param models: the panel's model selector, which offers a finished model.
    """

    def __init__(self, ui, logic, models) -> None:
        self._ui, self._logic, self._models = ui, logic, models
        self._parameters: Any = None
        self._rows = 0  # of the log that the curves show
        self._picture = None  # time of the examples that are shown
        self._watched: Any = None  # the run whose end is still to be reported
        runs = logic.trainings()
        self._run: Any = runs[-1] if runs else None
        self.marks = MarkedSlicesTable(ui, self.refresh)
        self._fill_choices()
        for name, setting in REMEMBERED.items():
            getattr(ui, name).text = str(qt.QSettings().value(setting) or "")
        self._connect_controls()
        self._timer = qt.QTimer()
        self._timer.interval = WATCH_MS
        connect(self._timer, "timeout()", self.watch)
        if self._run is not None:
            # Found again, after the panel was closed and opened: shown as it stands.
            ui.trainOutputEdit.text = str(self._run.folder)
            ui.trainCollapsibleButton.setProperty("collapsed", False)
            if self._run.is_running:
                self._watched = self._run
                self._timer.start()
        self.refresh()

    @property
    def run(self):
        """The training that is shown, or None."""
        return self._run

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none; the training does not depend on it."""
        self._parameters = parameters

    def scene_closed(self) -> None:
        """The marked volumes are gone."""
        self.marks.clear()

    def scene_changed(self) -> None:
        """Volumes were added or removed."""
        self.marks.scene_changed()

    def cleanup(self) -> None:
        """The panel goes; the training goes on."""
        self._timer.stop()

    def refresh(self) -> None:
        """Bring the controls in line with what is chosen and with the run."""
        ui, running = self._ui, self._run is not None and self._run.is_running
        for name in INPUTS:
            getattr(ui, name).enabled = not (running or is_installing())
        source, length = (box.itemData(box.currentIndex) for box in (ui.trainSourceComboBox, ui.lengthComboBox))
        for names, visible in (
            (("trainDataLabel", "trainDataWidget"), source == FOLDER),
            (("rangesLabel", "rangesWidget"), source == MARKED),
            (("labelsLabel", "labelsWidget"), source == LABEL_FILE),
            (("stepsSpinBox",), length == STEPS),
            (("hoursSpinBox",), length == HOURS),
            (("trainProgressBar",), running),
            (("trainStatusLabel",), self._run is not None or is_installing()),
            (("examplesLabel",), self._picture is not None),
        ):
            for name in names:
                getattr(ui, name).visible = visible
        ready, words = self.readiness()
        ui.startTrainingButton.enabled, ui.startTrainingButton.toolTip = ready, words
        ui.stopTrainingButton.enabled = running and self._run.state != "stopping"
        ready, words = self.readiness(resume=True)
        ui.resumeTrainingButton.enabled, ui.resumeTrainingButton.toolTip = ready, words
        ui.curvesButton.enabled = self._run is not None and bool(self._run.log)
        self._show_run()

    def readiness(self, resume: bool = False) -> tuple[bool, str]:
        """Whether training can start (or go on), and what it would do or what is missing."""
        if self._run is not None and self._run.is_running:
            return False, _("A training is running. Stop it first.")
        if is_installing():
            return False, installing_in_words()
        output = self._output()
        if output is None:
            return False, _("Choose an output folder first.")
        there = (output / "checkpoint.pt").is_file()
        if there and not resume:
            return False, _("There is a training in this folder: resume it, or choose another folder.")
        if resume and not there:
            return False, _("There is no stopped training in this folder.")
        source = self._ui.trainSourceComboBox.itemData(self._ui.trainSourceComboBox.currentIndex)
        if resume:
            if self._data(resume=True) is None:
                return False, _("Choose the training folder that it was started with.")
            return True, _("Resume from the last checkpoint, with the settings the training was started with.")
        if source == FOLDER and self._data() is None:
            return False, _("Choose a training folder: one with slices and index.csv.")
        labels = {mark[3] for mark in self.marks.marks()}
        if source == MARKED and "" in labels:
            return False, _("Choose the label of each range: normal or lesion.")
        if source == MARKED and labels != {"normal", "lesion"}:
            return False, _("Mark some slices as normal and some as lesion.")
        if source == LABEL_FILE and not self._ui.labelsEdit.text.strip():
            return False, _("Choose a label file.")
        return True, _("Start the training. Slicer stays free for other work.")

    def take_labels(self, node, ranges: Sequence[tuple[int, int, str]]) -> None:
        """Learn from slices of a loaded volume: first, last (included) and label of each range."""
        self._choose_source(MARKED)
        self.marks.replace(node, ranges)
        self._open()

    def take_folder(self, folder: str) -> None:
        """Learn from a training folder."""
        self._choose_source(FOLDER)
        self._ui.trainDataEdit.text = folder
        self._open()

    def start(self, resume: bool = False) -> None:
        """Start the training, or resume the one in the output folder."""
        if not self.readiness(resume)[0]:
            return
        arguments = self._arguments(resume)
        if self._logic.missingPackages():
            if not install_packages(self._logic):
                return
            if not self.readiness(resume)[0] or self._arguments(resume) != arguments:  # it took minutes
                slicer.util.errorDisplay(
                    _("The packages are installed. The inputs have changed meanwhile: start the training again.")
                )
                return
        from LesionDecompLib.errors import LesionDecompError  # not before: Slicer starts without it

        try:
            self._run = self._logic.startTraining(**arguments)
        except LesionDecompError as error:
            slicer.util.errorDisplay(str(error))
            return
        self._rows, self._picture, self._watched = 0, None, self._run
        for name, setting in REMEMBERED.items():
            qt.QSettings().setValue(setting, getattr(self._ui, name).text)
        self._timer.start()
        self.refresh()

    def stop(self) -> None:
        """End the training at the next good moment; its checkpoint is written first."""
        if self._run is not None:
            self._run.stop()
            self.refresh()

    def watch(self) -> None:
        """Show how far the training is."""
        run = self._run
        if run is None:
            return
        run.poll()
        if len(run.log.get("step", ())) != self._rows:
            self._rows = len(run.log["step"])
            with errors_shown(_("The curves could not be shown.")):
                show_curves(run)
        self._show_examples()
        if not run.is_running:
            self._timer.stop()
            self._show_end()
        self.refresh()

    def _choose_source(self, source: str) -> None:
        box = self._ui.trainSourceComboBox
        box.currentIndex = index_of(box, source)

    def _open(self) -> None:
        self._ui.trainCollapsibleButton.setProperty("collapsed", False)
        self.refresh()
        scroll_to(self._ui.trainCollapsibleButton)

    def _show_end(self) -> None:
        run, reported = self._run, self._watched
        self._watched = None
        if run is not reported:
            return
        if run.bundle is not None:
            self._logic.offerModel(run)
            self._models.refill(self._parameters.model if self._parameters is not None else "")
        elif run.error is not None:
            slicer.util.errorDisplay(str(run.error))

    def _arguments(self, resume: bool) -> dict:
        ui = self._ui
        source = ui.trainSourceComboBox.itemData(ui.trainSourceComboBox.currentIndex)
        length = ui.lengthComboBox.itemData(ui.lengthComboBox.currentIndex)
        arguments = {
            "dataFolder": self._data(resume),
            "outputFolder": self._output(),
            "device": ui.trainDeviceComboBox.itemData(ui.trainDeviceComboBox.currentIndex),
        }
        if resume:
            return arguments | {"resume": True}
        if source == MARKED:
            arguments["markedSlices"] = self.marks.marks()
        elif source == LABEL_FILE:
            arguments |= {"labelsFile": ui.labelsEdit.text.strip(), "volumes": chest_volumes(slicer.mrmlScene)}
        arguments["preset"] = ui.presetComboBox.itemData(ui.presetComboBox.currentIndex)
        if length == STEPS:
            arguments["steps"] = ui.stepsSpinBox.value
        elif length == HOURS:
            arguments["hours"] = ui.hoursSpinBox.value
        return arguments

    def _output(self) -> Path | None:
        text = self._ui.trainOutputEdit.text.strip()
        return Path(text) if text else None

    def _data(self, resume: bool = False) -> Path | None:
        """The training folder: chosen, or for a run from volumes the one that it has made."""
        output = self._output()
        if resume and output is not None and (output / "slices" / "index.csv").is_file():
            return output / "slices"
        if resume and self._run is not None and self._run.folder == output:
            return self._run.settings.data
        text = self._ui.trainDataEdit.text.strip()
        return Path(text) if text else None

    def _show_run(self) -> None:
        run, ui = self._run, self._ui
        if is_installing():
            ui.trainStatusLabel.text = _("Installing...")
            return
        if run is None:
            return
        step = run.step
        ui.trainProgressBar.maximum = max(step.total, 1) if step is not None else 0  # 0 of 0: it moves, without an end
        ui.trainProgressBar.value = step.done if step is not None else 0
        ui.trainStatusLabel.text = state_in_words(run)

    def _show_examples(self) -> None:
        path = self._run.examples
        try:
            stamp = path.stat().st_mtime_ns if path is not None else None
        except OSError:
            return
        if stamp is None or stamp == self._picture:
            return
        self._picture = stamp
        # The comment makes it another text, or Qt would keep the old picture.
        # As wide as the panel is, which it must not widen.
        width = max(self._ui.trainCollapsibleButton.width - PICTURE_MARGIN, 100)
        picture = f'<p><img src="{escape(path.absolute().as_uri())}" width="{width}"><!-- {stamp} --></p>'
        self._ui.examplesLabel.text = picture

    def _fill_choices(self) -> None:
        ui = self._ui
        fill(
            ui.trainSourceComboBox,
            [
                (_("A training folder"), FOLDER, _("A folder with slices and index.csv.")),
                (_("Loaded volumes, slices marked here"), MARKED, _("Mark ranges of slices as normal or lesion.")),
                (_("Loaded volumes and a label file"), LABEL_FILE, _("A CSV file: case, slice, label.")),
            ],
            FOLDER,
        )
        fill(
            ui.presetComboBox,
            [
                (_("Default"), "default", _("To begin with; about half an hour on a CPU.")),
                (_("Paper"), "paper", _("The paper's equations and two decoders, reduced; about an hour on a CPU.")),
                (_("Paper, large"), "paper-large", _("The same at full width and resolution; minutes on a large GPU.")),
                (_("Paper, full size"), "paper-full", _("The paper's own constants; many hours on a GPU.")),
            ],
            "default",
        )
        fill(
            ui.lengthComboBox,
            [
                (_("As in the preset"), PRESET_STEPS, _("The number of steps of the preset.")),
                (_("Steps:"), STEPS, _("A number of updates of the network.")),
                (_("Hours:"), HOURS, _("As many steps as fit into this time.")),
            ],
            PRESET_STEPS,
        )
        devices = [
            (_("Automatic"), "auto", _("A GPU if PyTorch can use one, else the CPU.")),
            (_("CPU"), "cpu", _("Always works; slow.")),
            (_("CUDA GPU"), "cuda", _("An NVIDIA GPU.")),
            (_("Apple GPU (MPS)"), "mps", _("The GPU of an Apple computer.")),
        ]
        fill(ui.trainDeviceComboBox, devices, "auto")

    def _connect_controls(self) -> None:
        ui = self._ui
        for box in (ui.trainSourceComboBox, ui.lengthComboBox):
            connect(box, "currentIndexChanged(int)", self._on_choice)
        for edit in (ui.trainDataEdit, ui.labelsEdit, ui.trainOutputEdit):
            connect(edit, "textChanged(QString)", self._on_text)
        connect(ui.trainDataButton, "clicked(bool)", self._on_data)
        connect(ui.labelsButton, "clicked(bool)", self._on_labels)
        connect(ui.trainOutputButton, "clicked(bool)", self._on_output)
        connect(ui.startTrainingButton, "clicked(bool)", self._on_start)
        connect(ui.stopTrainingButton, "clicked(bool)", self._on_stop)
        connect(ui.resumeTrainingButton, "clicked(bool)", self._on_resume)
        connect(ui.curvesButton, "clicked(bool)", self._on_curves)

    def _on_choice(self, _index: int) -> None:
        self.refresh()

    def _on_text(self, _text: str) -> None:
        self.refresh()

    def _on_data(self, _checked: bool = False) -> None:
        edit = self._ui.trainDataEdit
        edit.text = ask_folder(_("Choose a training folder"), edit.text) or edit.text

    def _on_labels(self, _checked: bool = False) -> None:
        answer = ask_open_path(_("Choose a label file"), "CSV (*.csv)")
        self._ui.labelsEdit.text = answer or self._ui.labelsEdit.text

    def _on_output(self, _checked: bool = False) -> None:
        edit = self._ui.trainOutputEdit
        edit.text = ask_folder(_("Choose a folder for the training and its model"), edit.text) or edit.text

    def _on_start(self, _checked: bool = False) -> None:
        self.start()

    def _on_stop(self, _checked: bool = False) -> None:
        self.stop()

    def _on_resume(self, _checked: bool = False) -> None:
        self.start(resume=True)

    def _on_curves(self, _checked: bool = False) -> None:
        with errors_shown(_("The curves could not be shown.")):
            _table, chart = show_curves(self._run)
            if chart is not None:
                show_chart(chart)


def state_in_words(run) -> str:
    """How a training stands, for the status line."""
    step = run.step
    at = _("step {done} of {total}").format(done=step.done, total=step.total) if step is not None else ""
    if run.state == "failed":
        return _("Failed. {error}").format(error=run.error)
    if run.state == "finished":
        return _("Finished. The model is available in the model selector: {folder}").format(folder=run.bundle)
    if run.state == "stopped":
        if not run.can_resume:
            return _("Stopped before the first checkpoint.")
        if not at:  # before a resumed one has gone on
            return _("Stopped. Resume continues from the checkpoint.")
        return _("Stopped at {step}. Resume continues from there.").format(step=at)
    if run.state == "stopping":
        return _("Stopping; the checkpoint is being written.")
    if run.stage == "slices":
        if step is None or step.total == 0:
            return _("Making the training set...")
        return _("Making the training set: volume {done} of {total}").format(
            done=min(step.done + 1, step.total), total=step.total
        )
    if step is None or step.stage != "training":
        return _("Preparing the training...")
    if step.done >= step.total:
        return _("Trained. Calibrating the heat and writing the model...")
    text = _("Training: {step}").format(step=at)
    if step.seconds_left is not None:
        minutes = max(1, round(step.seconds_left / 60))
        left = _("{n} min left").format(n=minutes) if minutes < 90 else _("{n:.1f} h left").format(n=minutes / 60)
        text = f"{text}, {left}"
    heat = [run.log[name][-1] for name in ("heat_lesion", "heat_normal") if len(run.log.get(name, ()))]
    if len(heat) == 2:
        text += "\n" + _("Mean heat: {lesion:.3f} in lesion slices, {normal:.3f} in normal slices.").format(
            lesion=heat[0], normal=heat[1]
        )
    return text
