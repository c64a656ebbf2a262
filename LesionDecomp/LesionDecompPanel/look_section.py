"""The panel's second part: the result in the views, and the sliders that its lesions follow while they are dragged."""

from __future__ import annotations

import qt
import slicer
from LesionDecompMrml.scene_nodes import THRESHOLD
from slicer.i18n import tr as _

from .signals import connect

SETTLED_MS = 300  # after the last move of a slider: table, plots and hidden segmentation follow
# Controls that need a result.
RESULT_CONTROLS = (
    "overlayCheckBox",
    "outlineCheckBox",
    "legendCheckBox",
    "surfacesCheckBox",
    "opacitySlider",
    "previousLesionButton",
    "nextLesionButton",
    "volumePlotButton",
    "areaPlotButton",
    "recomputeButton",
)
# Parameters that lesions and views depend on.
LOOK_PARAMETERS = (
    "threshold",
    "minimumVolumeMl",
    "overlayVisible",
    "outlineVisible",
    "legendVisible",
    "surfacesVisible",
    "overlayOpacity",
)


class LookSection:
    """Threshold, smallest lesion, overlay, outline, legend, surfaces, plots, and the way from lesion to lesion.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param recompute: called as ``recompute(lungs)`` with the node of the edited lungs.
    """

    def __init__(self, ui, logic, recompute) -> None:
        self._ui, self._logic, self._recompute = ui, logic, recompute
        self._parameters = None
        self._shown = None  # the state (see _state) that the scene shows
        self._places: list | None = None
        self._place = -1
        self._with_surfaces = False  # of the result shown, by this panel
        self._settle_timer = qt.QTimer()
        self._settle_timer.setProperty("singleShot", True)
        self._settle_timer.interval = SETTLED_MS
        connect(self._settle_timer, "timeout()", self.settle)
        for button, slot in (
            ("nextLesionButton", self._on_next),
            ("previousLesionButton", self._on_previous),
            ("volumePlotButton", self._on_volume_plot),
            ("areaPlotButton", self._on_area_plot),
            ("recomputeButton", self._on_recompute),
        ):
            connect(getattr(ui, button), "clicked(bool)", slot)
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", THRESHOLD)

    @property
    def is_settled(self) -> bool:
        """Whether everything has followed the sliders."""
        return not self._settle_timer.active

    def nodes(self):
        """Nodes of the result shown, or None."""
        return self._logic.resultNodes(self._parameters.heatmap) if self._parameters is not None else None

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none; the scene shows what it says already."""
        if not self.is_settled:
            self.settle()
        self._parameters = parameters
        self._shown = self._state()
        self._with_surfaces = parameters is not None and parameters.surfacesVisible
        self._forget_places()
        if self.nodes() is not None:
            with slicer.util.tryWithErrorDisplay(_("The result could not be shown.")):
                self._tell_figures(self._lesions())
        self._tell_warnings()

    def cleanup(self) -> None:
        """The panel goes."""
        self._settle_timer.stop()

    def show(self, nodes, threshold, minimum_ml) -> None:
        """Show a new result; the sliders may have moved since it was asked for."""
        parameters = self._parameters
        parameters.overlayVisible, parameters.outlineVisible = True, True
        # The node's own changes must not count as a choice of the user's.
        self._shown = self._state(nodes.heatmap)
        parameters.heatmap = nodes.heatmap
        self._logic.showResult(nodes.heatmap)
        self._with_surfaces = False
        self._apply_look(nodes)
        self._shown = self._state()
        self._forget_places()
        if (parameters.threshold, parameters.minimumVolumeMl) != (threshold, minimum_ml):
            self._follow(nodes)
        self._tell_figures(self._lesions())
        self._tell_warnings()
        self._update_plots()
        self.refresh()

    def refresh(self) -> None:
        """Bring lesions, views and controls in line with the parameter node."""
        nodes = self.nodes()
        for name in RESULT_CONTROLS:
            getattr(self._ui, name).enabled = nodes is not None
        table = nodes.table if nodes is not None else None
        if self._ui.statisticsTableView.mrmlTableNode() != table:
            self._ui.statisticsTableView.setMRMLTableNode(table)
            self._ui.statisticsTableView.resizeColumnsToContents()
        if nodes is None:
            self._ui.figuresLabel.text = _("No result is selected.") if self._parameters is not None else ""
            self._ui.lesionLabel.text = ""
            self._tell_warnings()
            self._shown = None  # whichever result is chosen next is shown anew
            return
        state = self._state()
        shown = self._shown
        if state == shown:
            return
        self._shown = state
        if shown is None or state["heatmap"] != shown["heatmap"]:
            self._choose_result(nodes)
            return
        if any(state[key] != shown[key] for key in ("threshold", "minimumVolumeMl")):
            self._follow(nodes)
        if any(state[key] != shown[key] for key in state if key not in ("threshold", "minimumVolumeMl")):
            self._apply_look(nodes)

    def settle(self) -> None:
        """Write what waited while a slider was dragged: table, plots, segmentation."""
        self._settle_timer.stop()
        nodes = self.nodes()
        if nodes is None:
            return
        with slicer.util.tryWithErrorDisplay(_("The statistics could not be updated.")):
            self._logic.updateThreshold(nodes.heatmap)
            self._update_plots()

    def _state(self, heatmap=None) -> dict | None:
        """What lesions and views depend on, for the result shown or that of another heatmap."""
        parameters = self._parameters
        heatmap = heatmap or (parameters.heatmap if parameters is not None else None)
        if heatmap is None:
            return None
        return {"heatmap": heatmap.GetID(), **{name: getattr(parameters, name) for name in LOOK_PARAMETERS}}

    def _choose_result(self, nodes) -> None:
        """Another result was chosen: the sliders go where it stands, the views show it."""
        parameters = self._parameters
        threshold = min(max(nodes.threshold, 0.01), 1.0)
        minimum_ml = min(max(nodes.minimum_volume_ml, 0.0), 10.0)
        self._shown = {**self._state(), "threshold": threshold, "minimumVolumeMl": minimum_ml}
        modified = parameters.StartModify()
        try:
            parameters.threshold, parameters.minimumVolumeMl = threshold, minimum_ml
        finally:
            parameters.EndModify(modified)
        self._forget_places()
        with slicer.util.tryWithErrorDisplay(_("The result could not be shown.")):
            self._logic.showResult(nodes.heatmap)
            self._with_surfaces = False
            self._apply_look(nodes)
            self._tell_figures(self._lesions())
        self._tell_warnings()

    def _follow(self, nodes) -> None:
        """The lesions at the slider's place, at once."""
        parameters = self._parameters
        with slicer.util.tryWithErrorDisplay(_("The lesions could not be updated.")):
            self._forget_places()
            live = self._logic.liveResult(nodes.heatmap)
            lesions = live.update(
                parameters.threshold, parameters.minimumVolumeMl, with_statistics=False, settled=False
            )
            self._tell_figures(lesions)
            self._logic.markThreshold(nodes.heatmap, parameters.threshold, lesions.volume_ml)
            self._settle_timer.start()

    def _lesions(self):
        parameters = self._parameters
        live = self._logic.liveResult(parameters.heatmap)
        return live.live.at(parameters.threshold, parameters.minimumVolumeMl)

    def _tell_figures(self, lesions) -> None:
        live = self._logic.liveResult(self._parameters.heatmap).live
        lung_ml = float(live.lung_tally.voxels.sum()) * live.voxel_volume_ml
        sizes = lesions.components.sizes
        largest = float(sizes.max()) * live.voxel_volume_ml if len(sizes) else 0.0
        share = 100.0 * lesions.volume_ml / lung_ml if lung_ml else 0.0
        self._ui.figuresLabel.text = _(
            "Lesions: {volume:.2f} mL, {share:.2f} % of the lungs ({lungs:.0f} mL); {count} lesions, the largest "
            "{largest:.2f} mL."
        ).format(volume=lesions.volume_ml, share=share, lungs=lung_ml, count=len(sizes), largest=largest)

    def _tell_warnings(self) -> None:
        """What looked wrong to the run about the CT, the lungs or the heat, shown with the measurements."""
        nodes = self.nodes()
        warnings = [_("Warning: {text}").format(text=text) for text in (nodes.warnings if nodes is not None else [])]
        label = self._ui.warningsLabel
        label.text, label.visible = "\n".join(warnings), bool(warnings)

    def _apply_look(self, nodes) -> None:
        parameters = self._parameters
        self._logic.setLook(
            nodes.heatmap,
            heat=parameters.overlayVisible,
            outline=parameters.outlineVisible,
            opacity=parameters.overlayOpacity,
            legend=parameters.legendVisible and parameters.overlayVisible,
            # Surfaces that the user has made elsewhere are left alone.
            surfaces=parameters.surfacesVisible if parameters.surfacesVisible != self._with_surfaces else None,
        )
        self._with_surfaces = parameters.surfacesVisible

    def _forget_places(self) -> None:
        self._places, self._place = None, -1
        self._ui.lesionLabel.text = ""

    def _on_next(self, _checked: bool = False) -> None:
        self._go(1)

    def _on_previous(self, _checked: bool = False) -> None:
        self._go(-1)

    def _go(self, step: int) -> None:
        """To the next smaller (1) or next larger (-1) lesion, around the ends."""
        nodes = self.nodes()
        if nodes is None:
            return
        with slicer.util.tryWithErrorDisplay(_("The views could not be moved.")):
            if self._places is None:
                self._places = self._logic.lesionPlaces(nodes.heatmap)
            if not self._places:
                self._ui.lesionLabel.text = _("There is no lesion at this threshold.")
                return
            first = 0 if step > 0 else -1
            self._place = (self._place + step if self._place >= 0 else first) % len(self._places)
            place = self._places[self._place]
            self._logic.jumpToVoxel(nodes.heatmap, place.voxel)
            self._ui.lesionLabel.text = _("Lesion {n} of {count}: {volume:.2f} mL").format(
                n=self._place + 1, count=len(self._places), volume=place.volume_ml
            )

    def _on_volume_plot(self, _checked: bool = False) -> None:
        self._plot("volume")

    def _on_area_plot(self, _checked: bool = False) -> None:
        self._plot("area")

    def _plot(self, which: str) -> None:
        nodes = self.nodes()
        if nodes is not None:
            with slicer.util.tryWithErrorDisplay(_("The plot could not be shown.")):
                self._logic.showPlot(nodes.heatmap, which)

    def _update_plots(self) -> None:
        self._logic.updatePlots(self._parameters.heatmap)

    def _on_recompute(self, _checked: bool = False) -> None:
        nodes = self.nodes()
        if nodes is not None:
            self._recompute(nodes)
