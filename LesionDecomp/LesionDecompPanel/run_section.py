"""The panel's first part: what to run on, Apply that becomes Cancel, and how far the run is; and running a result again
with its edited lungs."""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import module_panel
from .device_choice import DeviceChoice
from .installation import install_packages, installing_in_words, is_installing
from .job_section import JobSection
from .lung_choice import LungChoice, chosen_segments
from .model_choice import ModelChoice
from .signals import connect

INPUT_SECTIONS = ("inputsCollapsibleButton", "outputsCollapsibleButton", "advancedCollapsibleButton")

# Outputs that may be chosen: fields of OutputNodes, and of the earlier result they stand for.
OUTPUTS = ("heatmap", "lungs", "lesions", "table", "segmentation")


class RunSection(JobSection):
    """Input, model, lungs and device; Apply and Cancel; Recompute.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param finished: called as ``finished(nodes, threshold, minimumVolumeMl)`` with a new result.
    :param shown: called for the result shown, or None.
    """

    def __init__(self, ui, logic, finished, shown) -> None:
        from LesionDecompMrml.slicer_python import slicer_python  # not before: Slicer starts without it

        super().__init__(ui, logic, ui.applyButton, ui.progressBar)
        self._finished, self._shown = finished, shown
        self.take_edits: Any = lambda: None  # called before a result's edited lungs are read
        self._ended_by_closing = False
        self.models = ModelChoice(ui, logic, self.choose_model)
        self.devices = DeviceChoice(ui, self._choose_device, logic.every, slicer_python())
        self.lungs = LungChoice(ui, self._choose_segments)
        ui.statusLabel.text = ""
        connect(ui.recomputeButton, "clicked(bool)", self._on_recompute)

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none; where it names no model, the default one is put in."""
        super().set_parameter_node(parameters)
        if parameters is None:
            return
        if not parameters.model and self.models.default:
            self.choose_model(self.models.default)

    def enter(self) -> None:
        """The panel is being looked at."""
        if not self._logic.missingPackages():
            self.devices.ask()

    def scene_closing(self) -> None:
        """The scene goes, and with it what a run would write."""
        self._ended_by_closing = self.is_running
        super().scene_closing()

    def scene_closed(self) -> None:
        """Nothing of the old scene is reported any more, and the panel begins at its top again."""
        self._ui.statusLabel.text = _("The scene was closed: the run was ended.") if self._ended_by_closing else ""
        self._ended_by_closing = False
        self._ui.inputsCollapsibleButton.setProperty("collapsed", False)

    def node_removed(self, node) -> None:
        """The CT of the last run leaves the scene: "Done." would be a lie from now on."""
        parameters = self._parameters
        if parameters is not None and not self.is_running and node == parameters.inputVolume:
            self._ui.statusLabel.text = _("'{name}' was removed from the scene.").format(name=node.GetName())

    def cleanup(self) -> None:
        """End what is under way: the panel goes."""
        super().cleanup()
        self.devices.close()

    def refresh(self) -> None:
        """Bring the controls in line with the parameter node and the run."""
        parameters = self._parameters
        running = self.is_running
        self._ui.progressBar.visible = running
        for section in INPUT_SECTIONS:
            getattr(self._ui, section).enabled = not (running or is_installing())
        if parameters is not None:
            self.models.show(parameters.model)
            self.devices.show(parameters.device)
            self.lungs.show(parameters.lungMask, parameters.lungSegments)
        ready, words = self.readiness()
        button = self._ui.applyButton
        button.text = _("Cancel") if running else _("Apply")
        button.enabled = ready
        button.toolTip = words
        self._ui.recomputeButton.enabled, self._ui.recomputeButton.toolTip = self._recompute_readiness()

    def readiness(self) -> tuple[bool, str]:
        """Whether the button can be pressed, and what it would do or what is missing."""
        if self.is_running:
            return True, _("Stop the run; nothing in the scene is changed.")
        possible, words = self._runs_are_possible()
        if not possible:
            return False, words
        ct, mask = self._parameters.inputVolume, self._parameters.lungMask
        if ct is None:
            return False, _("Choose a chest CT first.")
        if ct.GetImageData() is None:
            return False, _("'{name}' has no voxels. Choose a chest CT.").format(name=ct.GetName())
        is_segmentation = mask is not None and mask.IsA("vtkMRMLSegmentationNode")
        if is_segmentation and not chosen_segments(mask, self._parameters.lungSegments):
            return False, _("Choose at least one segment of '{name}' as lung.").format(name=mask.GetName())
        return True, _("Find lesions in '{name}'.").format(name=ct.GetName())

    def _recompute_readiness(self) -> tuple[bool, str]:
        """The same for "Recompute"; a result without a segmentation has a labelmap."""
        nodes = self._shown()
        if nodes is None:
            return False, _("There is no result with lungs to edit.")
        if self.is_running:
            return False, _("Wait until the run has ended.")
        possible, words = self._runs_are_possible()
        if not possible:
            return False, words
        return True, _(
            "Run again on '{ct}' with the lungs of '{lungs}' as they are now. Edit them in Segment Editor first."
        ).format(ct=nodes.ct.GetName(), lungs=_lungs_of(nodes).GetName())

    def _runs_are_possible(self) -> tuple[bool, str]:
        """Whether a run could start, whatever its CT; and what is missing."""
        parameters = self._parameters
        if parameters is None:
            return False, _("The scene is being closed.")
        if is_installing():
            return False, installing_in_words()
        if not self.models.default:
            return False, _("No model is installed. Add a model folder.")
        if not self.models.has(parameters.model):
            return False, _("The model of this scene, '{name}', is not installed. Choose another one.").format(
                name=parameters.model
            )
        return True, ""

    def choose_model(self, key) -> None:
        """Take a model, and its threshold as long as there is no result that another threshold was chosen for."""
        if self._parameters is None:
            return
        self._parameters.model = key
        threshold = self.models.threshold(key)
        if threshold is not None and self._parameters.heatmap is None:
            self._parameters.threshold = threshold

    def start(self, edited=None) -> None:
        """Run on the chosen CT; its earlier result is updated.

        :param edited: nodes of the earlier result of this CT to be updated, with its lungs as they have been edited
            since in place of the chosen mask.
        """
        if self.is_running or not self._can_start(edited):
            return
        from LesionDecompLib.errors import LesionDecompError  # not before: Slicer starts without it

        missing, asked = self._logic.missingPackages(), self._inputs(edited)
        if missing:
            self._ui.statusLabel.text = _("Installing...")
            if not install_packages(self._logic):
                self._end(_("Not started: required Python packages are missing."))
                return
            if self._inputs(edited) != asked or not self._can_start(edited):  # it took minutes
                self._end(_("The packages are installed. The inputs have changed meanwhile: press Apply again."))
                return
        self.devices.ask()  # packages that were installed just now may know more devices
        # The sliders may move while the run goes on; the result then follows when it is there.
        options = self._with_reviews_kept(self.options(edited))
        if options is not None:
            options = self._with_edited_lungs(options)
        if options is None:
            self._end(_("Not started; the earlier result is as it was."))
            return
        try:
            self.current = self._logic.startProcess(
                self._parameters.inputVolume,
                options=options,
                onProgress=self._on_progress,
                onDone=lambda nodes: self._on_done(nodes, options),
                onFailed=self._on_failed,
                onCancelled=self._on_cancelled,
            )
        except (LesionDecompError, MemoryError) as error:
            self._on_failed(error)
            return
        self._begin()
        installed = _("Installed {packages}. ").format(packages=", ".join(missing)) if missing else ""
        self._ui.statusLabel.text = installed + _("Starting...")
        self.refresh()

    def _can_start(self, edited) -> bool:
        # Of the edited result the mask that is chosen for other runs does not matter.
        return (self._runs_are_possible() if edited is not None else self.readiness())[0]

    def _inputs(self, edited) -> tuple | None:
        """The nodes that a run would read; None where the panel shows none, or one of them has left the scene."""
        parameters = self._parameters
        if parameters is None or (edited is not None and self._logic.resultNodes(edited.heatmap) != edited):
            return None
        return parameters.inputVolume, parameters.lungMask, edited

    def options(self, edited=None):
        """The ``RunOptions`` that the panel shows; ``edited`` as for :meth:`start`."""
        from LesionDecompMrml.run_options import RunOptions  # not before: Slicer starts without it

        parameters = self._parameters
        mask, segments = parameters.lungMask, None
        if edited is not None:
            mask = _lungs_of(edited)
        elif mask is not None and mask.IsA("vtkMRMLSegmentationNode"):
            segments = chosen_segments(mask, parameters.lungSegments)
        return RunOptions(
            lung_mask=mask,
            lung_segments=segments,
            lungs_are_edited=edited is not None,
            model=parameters.model or None,
            threshold=parameters.threshold,
            minimum_volume_ml=parameters.minimumVolumeMl,
            device=parameters.device,
            batch_size=parameters.batchSize,
            healthy=parameters.makeHealthy,
            outputs=self.outputs(edited),
        )

    def outputs(self, edited=None):
        """The ``OutputNodes`` to write into: those of the ``edited`` result; else those chosen; else those of the same
        CT's latest result; else new ones."""
        from LesionDecompMrml.result_nodes import results_of_ct  # not before: Slicer starts without it
        from LesionDecompMrml.run_options import OutputNodes

        parameters = self._parameters
        if edited is not None:
            earlier = edited
        elif parameters.heatmapOutput is not None:
            # Another heatmap is another result: it must not share the nodes of the CT's earlier one.
            earlier = self._logic.resultNodes(parameters.heatmapOutput)
        else:
            results = results_of_ct(parameters.inputVolume)
            earlier = results[-1] if results else None
        chosen = {name: getattr(parameters, f"{name}Output") if edited is None else None for name in OUTPUTS}
        nodes = {name: node or getattr(earlier, name, None) for name, node in chosen.items()}
        if nodes["segmentation"] is None:
            nodes["segmentation"] = parameters.makeSegmentation or None
        kept = {"healthy": getattr(earlier, "healthy", None)} if parameters.makeHealthy else {}
        return OutputNodes(**nodes, report=getattr(earlier, "report", None), **kept)

    def _with_reviews_kept(self, options):
        """Options with new nodes where a reader wants to keep a reviewed result; None where not to start at all."""
        from LesionDecompLib.errors import LesionDecompError  # not before: Slicer starts without it

        outputs = options.outputs
        reviewed = self._logic.resultNodes(outputs.heatmap)
        if reviewed is None or reviewed.report is None:
            return options
        result = self._logic.result(reviewed.heatmap)
        with contextlib.suppress(LesionDecompError):  # nodes that no longer fit: the decisions so far count
            result.take_edits()
        count = len(result.recorded_review.lesions)
        if not count:
            return options
        question = _(
            "The result '{name}' was reviewed; decisions: {count}. Keep it, and write a new result beside it?\n\n"
            "Yes: keep it.\nNo: replace it; the decisions are lost.\nCancel: do not run."
        ).format(name=reviewed.heatmap.GetName(), count=count)
        answer = _ask(question)
        if answer == qt.QMessageBox.Cancel:
            return None
        return options if answer == qt.QMessageBox.No else replace(options, outputs=_beside(outputs, reviewed))

    def _with_edited_lungs(self, options):
        """Options with lungs that a reader has edited since, where they are to be used; None where not to start."""
        from LesionDecompMrml.lesion_edits import edited_lung_voxels  # not before: Slicer starts without it

        outputs = options.outputs
        nodes = self._logic.resultNodes(outputs.heatmap)
        if nodes is None or options.lungs_are_edited or outputs.segmentation in (None, True, options.lung_mask):
            return options
        if outputs.segmentation != nodes.segmentation or not edited_lung_voxels(nodes):
            return options
        question = _(
            "The lung segments of '{name}' were edited by hand. Run with them?\n\n"
            "Yes: use the edited lungs.\nNo: replace them; the edits are lost.\nCancel: do not run."
        ).format(name=nodes.segmentation.GetName())
        answer = _ask(question)
        if answer == qt.QMessageBox.Cancel:
            return None
        if answer == qt.QMessageBox.No:
            return options
        return replace(options, lung_mask=nodes.segmentation, lung_segments=None, lungs_are_edited=True)

    def _on_recompute(self, _checked: bool = False) -> None:
        """Run again on the CT of the result shown, with its lungs as the user has edited them."""
        nodes = self._shown()
        if nodes is None or not self._recompute_readiness()[0]:
            return
        self._parameters.inputVolume = nodes.ct
        self.take_edits()  # what was painted is lung, too
        self.start(edited=nodes)

    def _choose_device(self, name) -> None:
        if self._parameters is not None:
            self._parameters.device = name

    def _choose_segments(self, text) -> None:
        if self._parameters is not None:
            self._parameters.lungSegments = text

    def _on_progress(self, step) -> None:
        self._advance(step)
        self._ui.statusLabel.text = step_in_words(step, self._progress.seconds_left)

    def _on_done(self, nodes, options) -> None:
        self.current = None
        words, count = [_("Done.")], len(nodes.warnings)
        if options.outputs.heatmap is not None and nodes.heatmap != options.outputs.heatmap:
            words.append(_("The earlier result was edited meanwhile: it is kept, the new one is beside it."))
        if count:
            words.append(_("Warnings: {count}, shown with the measurements.").format(count=count))
        self._end(" ".join(words))
        self._finished(nodes, options.threshold, options.minimum_volume_ml)
        # What comes next is below: the input makes room for it.
        self._ui.inputsCollapsibleButton.setProperty("collapsed", True)
        self._ui.resultCollapsibleButton.setProperty("collapsed", False)
        module_panel.scroll_to(self._ui.resultCollapsibleButton)

    def _on_failed(self, error) -> None:
        self._end(_("Stopped; nothing was changed."))
        slicer.util.errorDisplay(str(error))

    def _on_cancelled(self) -> None:
        lost = self.current.lost if self.current is not None else ""
        if lost:
            self._end(_("'{name}' was removed from the scene: the run was ended.").format(name=lost))
        else:
            self._end(_("Canceled; nothing was changed."))

    def _end(self, status: str) -> None:
        self.current = None
        self._ui.progressBar.value = 0
        self._ui.statusLabel.text = status
        self.refresh()


def _lungs_of(nodes):
    """The node that a reader edits the lungs of a result in."""
    return nodes.segmentation or nodes.lungs


def _ask(question: str) -> int:
    """Yes, No or Cancel, as ``qt.QMessageBox`` counts them."""
    box = qt.QMessageBox
    return slicer.util.messageBox(
        question,
        windowTitle=_("LesionDecomp"),
        icon=box.Question,
        standardButtons=box.Yes | box.No | box.Cancel,
    )


def _beside(outputs, reviewed):
    """Outputs without the nodes of a reviewed result, in whose place there will be new ones."""
    from LesionDecompMrml.run_options import without_nodes_of  # not before: Slicer starts without it

    kept = {field.name: getattr(outputs, field.name) for field in fields(outputs)}
    new = without_nodes_of(kept, reviewed)
    if kept["segmentation"] is not None:
        new["segmentation"] = new["segmentation"] or True
    return replace(outputs, **new)


def step_in_words(step, seconds_left: float | None) -> str:
    """A step of the worker for the status line: stage, slice n of N, time left of the whole run."""
    stages = {
        "start": _("Loading the models"),
        "lungs": _("Finding the lungs"),
        "heat": _("Making the heatmap"),
        "healthy": _("Making the healthy version"),
        "lesions": _("Outlining lesions"),
        "statistics": _("Measuring"),
        "writing": _("Transferring the result"),
    }
    text = stages[step.stage]
    if step.total > 1:
        text = _("{stage}: slice {done} of {total}").format(stage=text, done=step.done, total=step.total)
    if seconds_left is not None and seconds_left >= 1:
        seconds = round(seconds_left)
        left = _("{n} s left").format(n=seconds) if seconds < 90 else _("{n} min left").format(n=round(seconds / 60))
        text = f"{text}, {left}"
    return text
