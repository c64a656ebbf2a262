"""The panel's first part: what to run on, Apply that becomes Cancel, and how far the run is."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from .device_choice import DeviceChoice
from .lung_choice import LungChoice, chosen_segments
from .model_choice import ModelChoice
from .signals import connect

# Node selector -> keyword of the logic's ``startProcess``, and the field of the earlier result it stands for.
OUTPUTS = {
    "heatmapSelector": ("heatmapNode", "heatmap"),
    "lungsSelector": ("lungsNode", "lungs"),
    "lesionsSelector": ("lesionsNode", "lesions"),
    "tableSelector": ("tableNode", "table"),
    "segmentationSelector": ("segmentationNode", "segmentation"),
}


class RunSection:
    """Input, model, lungs and device; Apply and Cancel.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param finished: called as ``finished(nodes, threshold, minimumVolumeMl)`` with a new result.
    """

    def __init__(self, ui, logic, finished) -> None:
        from LesionDecompMrml.slicer_python import slicer_python

        self._ui, self._logic, self._finished = ui, logic, finished
        self._parameters = None
        self._run = None
        self.models = ModelChoice(ui, logic, self.choose_model)
        self.devices = DeviceChoice(ui, self._choose_device, logic.every, slicer_python())
        self.lungs = LungChoice(ui, self._choose_segments)
        ui.progressBar.visible = False
        ui.statusLabel.text = ""
        connect(ui.applyButton, "clicked(bool)", self._on_apply)

    @property
    def is_running(self) -> bool:
        """Whether a worker is at work."""
        return self._run is not None and self._run.is_running

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none; where it names no model, the default one is put in."""
        self._parameters = parameters
        if parameters is None:
            return
        if not parameters.model and self.models.default:
            self.choose_model(self.models.default)

    def enter(self) -> None:
        """The panel is being looked at."""
        if not self._logic.missingPackages():
            self.devices.ask()

    def cleanup(self) -> None:
        """End what is under way: the panel goes."""
        self.cancel()
        self.devices.close()

    def cancel(self) -> None:
        """End the run, if there is one; the scene stays as it was."""
        if self._run is not None:
            self._run.cancel()

    def refresh(self) -> None:
        """Bring the controls in line with the parameter node and the run."""
        parameters = self._parameters
        running = self.is_running
        self._ui.progressBar.visible = running
        for section in ("inputsCollapsibleButton", "outputsCollapsibleButton", "advancedCollapsibleButton"):
            getattr(self._ui, section).enabled = not running
        if parameters is not None:
            self.models.show(parameters.model)
            self.devices.show(parameters.device)
            self.lungs.show(parameters.lungMask, parameters.lungSegments)
        ready, words = self.readiness()
        button = self._ui.applyButton
        button.text = _("Cancel") if running else _("Apply")
        button.enabled = ready
        button.toolTip = words

    def readiness(self) -> tuple[bool, str]:
        """Whether the button can be pressed, and what it would do or what is missing."""
        parameters = self._parameters
        if self.is_running:
            return True, _("Stop the run; nothing in the scene is changed.")
        if parameters is None:
            return False, _("The scene is being closed.")
        if not self.models.default:
            return False, _("No model is installed. Add a model folder.")
        if not self.models.has(parameters.model):
            return False, _("The model of this scene, '{name}', is not installed. Choose another one.").format(
                name=parameters.model
            )
        ct, mask = parameters.inputVolume, parameters.lungMask
        if ct is None:
            return False, _("Choose a chest CT first.")
        if ct.GetImageData() is None:
            return False, _("'{name}' has no voxels. Choose a chest CT.").format(name=ct.GetName())
        is_segmentation = mask is not None and mask.IsA("vtkMRMLSegmentationNode")
        if is_segmentation and not chosen_segments(mask, parameters.lungSegments):
            return False, _("Choose at least one segment of '{name}' as lung.").format(name=mask.GetName())
        return True, _("Find lesions in '{name}'.").format(name=ct.GetName())

    def choose_model(self, key) -> None:
        """Take a model, and its threshold as long as there is no result that another threshold was chosen for."""
        if self._parameters is None:
            return
        self._parameters.model = key
        threshold = self.models.threshold(key)
        if threshold is not None and self._parameters.heatmap is None:
            self._parameters.threshold = threshold

    def start(self, edited_lungs=None) -> None:
        """Run on the chosen CT; its earlier result is updated.

        :param edited_lungs: lungs of the earlier result, edited since, to use instead of the chosen mask; the run
            updates them too.
        """
        parameters = self._parameters
        if self.is_running or parameters is None or not self.readiness()[0]:
            return
        from LesionDecompLib.errors import LesionDecompError

        complete, missing = False, self._logic.missingPackages()
        with slicer.util.tryWithErrorDisplay(_("The required Python packages could not be installed.")):
            complete = self._logic.installMissingPackages()
        if not complete:
            self._end(_("Not started: required Python packages are missing."))
            return
        # The sliders may move while the run goes on; the result then follows when it is there.
        threshold, minimum_ml = parameters.threshold, parameters.minimumVolumeMl
        mask, segments = parameters.lungMask, None
        if edited_lungs is not None:
            mask = edited_lungs
        elif mask is not None and mask.IsA("vtkMRMLSegmentationNode"):
            segments = chosen_segments(mask, parameters.lungSegments)
        try:
            self._run = self._logic.startProcess(
                parameters.inputVolume,
                lungMask=mask,
                lungSegments=segments,
                lungsAreEdited=edited_lungs is not None,
                model=parameters.model or None,
                threshold=threshold,
                minimumVolumeMl=minimum_ml,
                device=parameters.device,
                batchSize=parameters.batchSize,
                **self._outputs(),
                onProgress=self._on_progress,
                onDone=lambda nodes: self._on_done(nodes, threshold, minimum_ml),
                onFailed=self._on_failed,
                onCancelled=self._on_cancelled,
            )
        except (LesionDecompError, MemoryError) as error:
            self._on_failed(error)
            return
        installed = _("Installed {packages}. ").format(packages=", ".join(missing)) if missing else ""
        self._ui.statusLabel.text = installed + _("Starting...")
        self.refresh()

    def _outputs(self) -> dict:
        """Nodes to write into: those chosen; else those of the same result; else new ones (None)."""
        parameters = self._parameters
        if parameters.heatmapOutput is not None:
            # Another heatmap is another result: it must not share the nodes of the CT's earlier one.
            earlier = self._logic.resultNodes(parameters.heatmapOutput)
        else:
            earlier = self._logic.resultOf(parameters.inputVolume)
        outputs = {}
        for selector, (keyword, field) in OUTPUTS.items():
            chosen = getattr(parameters, selector.replace("Selector", "Output"))
            outputs[keyword] = chosen or (getattr(earlier, field) if earlier is not None else None)
        if outputs["segmentationNode"] is None:
            outputs["segmentationNode"] = parameters.makeSegmentation or None
        outputs["reportNode"] = earlier.report if earlier is not None else None
        return outputs

    def _on_apply(self, _checked: bool = False) -> None:
        if self.is_running:
            self.cancel()
        else:
            self.start()

    def _choose_device(self, name) -> None:
        if self._parameters is not None:
            self._parameters.device = name

    def _choose_segments(self, text) -> None:
        if self._parameters is not None:
            self._parameters.lungSegments = text

    def _on_progress(self, step) -> None:
        bar = self._ui.progressBar
        bar.maximum = max(step.total, 1) if step.stage != "start" else 0
        bar.value = step.done
        self._ui.statusLabel.text = step_in_words(step)

    def _on_done(self, nodes, threshold, minimum_ml) -> None:
        self._run = None
        count = len(nodes.warnings)
        told = _("Done. Warnings: {count}, shown with the measurements.").format(count=count)
        self._end(told if count else _("Done."))
        self._finished(nodes, threshold, minimum_ml)

    def _on_failed(self, error) -> None:
        self._end(_("Stopped; nothing was changed."))
        slicer.util.errorDisplay(str(error))

    def _on_cancelled(self) -> None:
        self._end(_("Cancelled; nothing was changed."))

    def _end(self, status: str) -> None:
        self._run = None
        self._ui.progressBar.maximum = 1
        self._ui.progressBar.value = 0
        self._ui.statusLabel.text = status
        self.refresh()


def step_in_words(step) -> str:
    """A step of the worker for the status line: stage, slice n of N, time left."""
    stages = {
        "start": _("Loading the models"),
        "lungs": _("Finding the lungs"),
        "heat": _("Making the heatmap"),
        "lesions": _("Outlining lesions"),
        "statistics": _("Measuring"),
        "writing": _("Transferring the result"),
    }
    text = stages[step.stage]
    if step.total > 1:
        text = _("{stage}: slice {done} of {total}").format(stage=text, done=step.done, total=step.total)
    if step.seconds_left is not None:
        seconds = max(1, round(step.seconds_left))
        left = _("{n} s left").format(n=seconds) if seconds < 90 else _("{n} min left").format(n=round(seconds / 60))
        text = f"{text}, {left}"
    return text
