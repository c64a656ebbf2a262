"""The panel's second part: the result in the views, and the sliders that its lesions follow while they are dragged."""

from __future__ import annotations

from typing import Any

import slicer
from LesionDecompMrml import views
from LesionDecompMrml.result_nodes import RUN, ResultNodes
from LesionDecompMrml.segments import let_segments_overlap
from slicer.i18n import tr as _

from . import slicer_views
from .errors import errors_shown
from .lesion_walk import LesionWalk
from .measured_regions import MeasuredRegions
from .signals import Later, connect

# A view draws 1000/60 ms after it was asked to; a step later than that comes after the frame, so that none is in vain.
STEP_MS = 20
SETTLED_MS = 300  # after the last move of a slider: table, plots, surfaces and hidden segmentation follow
# Controls that need a result.
RESULT_CONTROLS = (
    "overlayCheckBox",
    "outlineCheckBox",
    "legendCheckBox",
    "surfacesCheckBox",
    "opacitySlider",
    "previousLesionButton",
    "nextLesionButton",
    "fullTableButton",
    "volumePlotButton",
    "areaPlotButton",
    "regionsSelector",
)
SLIDERS = ("threshold", "minimumVolumeMl")
# Parameters that lesions and views depend on.
LOOK_PARAMETERS = (
    *SLIDERS,
    "overlayVisible",
    "outlineVisible",
    "legendVisible",
    "surfacesVisible",
    "overlayOpacity",
    "regions",
)


class LookSection:
    """Threshold, smallest lesion, overlay, outline, legend, surfaces, table and plots; a ``LesionWalk`` is part of it.

    :param ui: the panel's controls.
    :param logic: of the module.
    """

    def __init__(self, ui, logic) -> None:
        self._ui, self._logic = ui, logic
        self._parameters: Any = None
        self._shown: Any = None  # the state (see _state) that the scene shows
        self._with_surfaces = False  # of the result shown, by this panel
        self._unsettled: Any = None  # the result that a slider has moved, until everything has followed
        self._lost = ""  # why the result shown is gone
        self._views: list[str] = []  # IDs of the slice views that have been given the result
        self._measured = MeasuredRegions(ui)
        self._walk = LesionWalk(ui, self._followed_result)
        self.listener: Any = lambda result: None  # called with the result, or None, whenever its lesions are shown
        self.take_edits: Any = lambda: None  # called before a result is shown
        self.steps = Later(self._follow, STEP_MS)
        self._settling = Later(self.settle, SETTLED_MS, restart=True)
        for button, slot in (
            ("fullTableButton", self._on_full_table),
            ("volumePlotButton", self._on_volume_plot),
            ("areaPlotButton", self._on_area_plot),
        ):
            connect(getattr(ui, button), "clicked(bool)", slot)

    @property
    def is_settled(self) -> bool:
        """Whether everything has followed the sliders."""
        return not (self.steps.is_pending or self._settling.is_pending)

    def nodes(self) -> ResultNodes | None:
        """Nodes of the result shown, or None."""
        return self._logic.resultNodes(self._parameters.heatmap) if self._parameters is not None else None

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none; the scene shows what it holds already."""
        self.steps.flush()
        self._settling.flush()
        self._parameters = parameters
        self._shown = self._state()
        self._with_surfaces = parameters is not None and parameters.surfacesVisible
        self._walk.forget()
        if self.nodes() is not None:
            with errors_shown(_("The result could not be shown.")):
                self._show_result()
        self._show_warnings()

    def enter(self) -> None:
        """The panel is being looked at: its labelmap outlines the lesions, and its boxes follow what the views show."""
        nodes = self.nodes()
        self._views = [view.GetID() for view in slicer_views.slice_nodes()]
        if nodes is not None and self._parameters.outlineVisible and not self._shows_change(nodes):
            views.outline_by_segmentation(nodes, False)
        self.views_changed()

    @staticmethod
    def _shows_change(nodes: ResultNodes) -> bool:
        """Whether a comparison, which may have ended meanwhile, is in the views in place of the lesions."""
        from LesionDecompMrml.change_nodes import change_of  # not before: Slicer starts without it

        change = change_of(nodes.heatmap)
        return change is not None and views.shows_labels(nodes.ct.GetScene(), change.labels)

    def exit(self) -> None:
        """Another module is being looked at: a segmentation, which it may edit, outlines the lesions itself."""
        nodes = self.nodes()
        if nodes is not None and nodes.segmentation is not None:
            let_segments_overlap(slicer.mrmlScene)
        if nodes is not None and nodes.segmentation is not None and self._parameters.outlineVisible:
            views.outline_by_segmentation(nodes, True)

    def scene_closed(self) -> None:
        """Nothing of the old scene is shown any longer; the next surfaces are centered anew."""
        slicer_views.forget_centered()
        self.steps.cancel()
        self._settling.cancel()
        self._lost = ""

    def cleanup(self) -> None:
        """The panel goes."""
        self.steps.cancel()
        self._settling.cancel()

    def node_removed(self, node) -> None:
        """A node leaves the scene; where the result shown needs it, the panel reports it."""
        nodes = self.nodes()
        if nodes is None or node not in (nodes.ct, nodes.heatmap, nodes.lungs, nodes.lesions, nodes.table):
            return
        self.steps.cancel()
        self._settling.cancel()
        self._lost = _("'{name}' was removed from the scene: its result can no longer be shown.").format(
            name=node.GetName()
        )

    def scene_changed(self) -> None:
        """Nodes were added or removed: new views of another layout show the result, too."""
        parameters, nodes = self._parameters, self.nodes()
        new = [view for view in slicer_views.slice_nodes() if view.GetID() not in self._views]
        self._views += [view.GetID() for view in new]
        if nodes is not None:
            for view in new:
                views.show_in_view(
                    nodes,
                    view,
                    heat=parameters.overlayVisible,
                    outline=parameters.outlineVisible,
                    opacity=parameters.overlayOpacity,
                )
                slicer_views.fit(view)
            if new and parameters.legendVisible and parameters.overlayVisible:
                self._result().set_look(legend=True, legend_view=slicer_views.legend_view())
        self.refresh()

    def views_changed(self) -> None:
        """Something else is shown in the views, as when the heatmap was hidden in the Data module."""
        parameters, nodes = self._parameters, self.nodes()
        shown = views.shown_overlay(nodes) if nodes is not None else None
        state = self._state()
        if shown is None or self._shown is None or state is None or state["heatmap"] != self._shown["heatmap"]:
            return
        heat, outline = shown
        # The layout may have changed, and with it the view that has room for the legend.
        self._result().set_look(legend=heat and parameters.legendVisible, legend_view=slicer_views.legend_view())
        if (heat, outline) == (parameters.overlayVisible, parameters.outlineVisible):
            return
        # The views are as they are: the panel follows them.
        self._shown = {**self._shown, "overlayVisible": heat, "outlineVisible": outline}
        modified = parameters.StartModify()
        try:
            parameters.overlayVisible, parameters.outlineVisible = heat, outline
        finally:
            parameters.EndModify(modified)

    def show(self, nodes: ResultNodes, threshold: float, minimum_ml: float) -> None:
        """Show a new result; the sliders may have moved since it was asked for."""
        self._settling.flush()
        parameters, before = self._parameters, self.nodes()
        self._lost = ""
        # Regions are parts of one CT: those chosen for another patient's must not be measured in this one.
        same_ct = before is not None and before.ct == nodes.ct
        regions = parameters.regions if same_ct else self._logic.result(nodes.heatmap).regions_node
        # The node's own changes must not count as a choice of the user's.
        chosen = {"overlayVisible": True, "outlineVisible": True, "regions": regions}
        self._shown = {**self._state(nodes.heatmap), **chosen}
        modified = parameters.StartModify()
        try:
            parameters.overlayVisible, parameters.outlineVisible = True, True
            parameters.heatmap, parameters.regions = nodes.heatmap, regions
        finally:
            parameters.EndModify(modified)
        self._result().set_regions(regions)
        self._show_anew()
        if (parameters.threshold, parameters.minimumVolumeMl) != (threshold, minimum_ml):
            self._follow()
        self._result().update_plots()
        self.refresh()

    def refresh(self) -> None:
        """Bring lesions, views and controls in line with the parameter node."""
        nodes = self.nodes()
        for name in RESULT_CONTROLS:
            getattr(self._ui, name).enabled = nodes is not None
        if nodes is None:
            self._show_nothing()
            return
        state, shown = self._state(), self._shown
        if state == shown:
            return
        self._shown = state
        if shown is None or state["heatmap"] != shown["heatmap"]:
            self._choose_result(nodes)
            return
        changed = {key for key in state if state[key] != shown[key]}
        if changed & set(SLIDERS):
            self.steps.request()
        if "regions" in changed:
            self._result().set_regions(self._parameters.regions)
            self._measured.show(self._result())
            self._show_warnings()
        if changed - set(SLIDERS) - {"regions"}:
            self._apply_look(changed)

    def settle(self) -> None:
        """Write what waited while a slider was dragged: table, plots, surfaces, segmentation."""
        moved, self._unsettled = self._unsettled, None
        shown = self._parameters.heatmap if self._parameters is not None else None
        if moved is not None and moved.heatmap != shown:  # another result was chosen meanwhile
            if self._logic.resultNodes(moved.heatmap) is not None:
                with errors_shown(_("The statistics could not be updated.")):
                    moved.set_threshold()
                    moved.update_plots()
            return
        if self.nodes() is None:
            return
        with errors_shown(_("The statistics could not be updated.")):
            result = self._result()
            result.set_threshold()
            result.update_plots()
            self._show_measured(result)
            self._show_warnings()

    def _result(self):
        return self._logic.result(self._parameters.heatmap)

    def _state(self, heatmap=None):
        """What lesions and views depend on, for the result shown or that of another heatmap."""
        parameters = self._parameters
        heatmap = heatmap or (parameters.heatmap if parameters is not None else None)
        if heatmap is None:
            return None
        identity = (heatmap.GetID(), heatmap.GetAttribute(RUN))  # another run may have written into the same node
        return {"heatmap": identity, **{name: getattr(parameters, name) for name in LOOK_PARAMETERS}}

    def _choose_result(self, nodes: ResultNodes) -> None:
        """Another result was chosen: the sliders go where it stands, the views show it."""
        self._settling.flush()
        parameters = self._parameters
        self._lost = ""
        threshold, minimum_ml = nodes.on_sliders
        regions = self._result().regions_node
        chosen = {"threshold": threshold, "minimumVolumeMl": minimum_ml, "regions": regions}
        self._shown = {**self._state(), **chosen}
        modified = parameters.StartModify()
        try:
            parameters.threshold, parameters.minimumVolumeMl = threshold, minimum_ml
            parameters.regions = regions
        finally:
            parameters.EndModify(modified)
        with errors_shown(_("The result could not be shown.")):
            self._show_anew()

    def _show_anew(self) -> None:
        result = self._result()
        show_as_chosen(result, self._parameters)
        self._views = [view.GetID() for view in slicer_views.slice_nodes()]
        self._with_surfaces = False
        self._apply_look({"surfacesVisible"})
        self._shown = self._state()
        self._walk.forget()
        self._show_result()
        self._show_warnings()

    def _follow(self) -> None:
        """The lesions at the slider's place."""
        parameters, nodes = self._parameters, self.nodes()
        if nodes is None:
            return
        with errors_shown(_("The lesions could not be updated.")):
            self._walk.forget()
            result = self._unsettled = self._result()
            place = (parameters.threshold, parameters.minimumVolumeMl)
            # A script may have taken a threshold beyond the sliders' ends, where they stand for it.
            place = (nodes.threshold, nodes.minimum_volume_ml) if place == nodes.on_sliders else place
            lesions = result.set_threshold(*place, with_statistics=False, settled=False)
            self._show_summary(result.summary(lesions))
            self._settling.request()

    def lesions_changed(self) -> None:
        """The lesions are others at the same threshold: a reader has decided."""
        if self.nodes() is not None:
            self._walk.forget()
            with errors_shown(_("The measurements could not be shown.")):
                self._show_result()
                self._show_warnings()

    def _show_result(self) -> None:
        self.take_edits()
        result = self._result()
        self._show_summary(result.summary())
        self._show_measured(result)

    def _show_measured(self, result) -> None:
        self._measured.show(result)
        self.listener(result)

    def _show_summary(self, summary) -> None:
        text = _("Lesions: {volume:.2f} mL, {share:.2f} % of the lungs ({lungs:.0f} mL); ")
        text += _("one lesion.") if summary.count == 1 else _("{count} lesions, the largest {largest:.2f} mL.")
        self._ui.figuresLabel.text = text.format(
            volume=summary.lesion_ml,
            share=summary.involvement_percent,
            lungs=summary.lung_ml,
            count=summary.count,
            largest=summary.largest_ml,
        )

    def _show_nothing(self) -> None:
        nothing = self._lost or _("No result is selected.")
        self._ui.figuresLabel.text = nothing if self._parameters is not None else ""
        self._walk.forget()
        self._show_measured(None)
        self._show_warnings()
        self._shown = None  # whichever result is chosen next is shown anew

    def _show_warnings(self) -> None:
        """What looked wrong about the CT, the lungs, the heat or the review, shown with the measurements."""
        found = self._result().warnings() if self.nodes() is not None else []
        warnings = [_("Warning: {text}").format(text=text) for text in found]
        label = self._ui.warningsLabel
        label.text, label.visible = "\n".join(warnings), bool(warnings)

    def _apply_look(self, changed: set[str]) -> None:
        """Bring the views in line with the boxes that have changed, and leave everything else in them alone."""
        parameters, result = self._parameters, self._result()
        look: dict = {}
        if "overlayVisible" in changed:
            look["heat"] = parameters.overlayVisible
        if "outlineVisible" in changed:
            look["outline"] = parameters.outlineVisible
        if changed & {"overlayOpacity", "overlayVisible"}:
            look["opacity"] = parameters.overlayOpacity
        if changed & {"legendVisible", "overlayVisible"}:
            look["legend"] = parameters.legendVisible and parameters.overlayVisible
            look["legend_view"] = slicer_views.legend_view()
        # Surfaces that the user has made elsewhere are left alone.
        if parameters.surfacesVisible != self._with_surfaces:
            look["surfaces"] = parameters.surfacesVisible
        result.set_look(**look)
        if look.get("surfaces"):
            slicer_views.center_surfaces()
        self._with_surfaces = parameters.surfacesVisible

    def _followed_result(self):
        """The result shown, once its lesions are those at the slider's place; None where there is none."""
        if self.nodes() is None:
            return None
        self.steps.flush()
        return self._result()

    def _on_full_table(self, _checked: bool = False) -> None:
        if self.nodes() is not None:
            with errors_shown(_("The table could not be shown.")):
                self._settling.flush()
                self._result().show_table()

    def _on_volume_plot(self, _checked: bool = False) -> None:
        self._plot("volume")

    def _on_area_plot(self, _checked: bool = False) -> None:
        self._plot("area")

    def _plot(self, which: str) -> None:
        if self.nodes() is not None:
            with errors_shown(_("The plot could not be shown.")):
                self._result().show_plot(which)


def show_as_chosen(result, parameters) -> None:
    """Show a result in the views, with what the parameter node holds of heat, outline and legend.

    :raises LesionDecompError: nodes that no longer fit together.
    """
    result.show()
    result.set_look(
        heat=parameters.overlayVisible,
        outline=parameters.outlineVisible,
        opacity=parameters.overlayOpacity,
        legend=parameters.legendVisible and parameters.overlayVisible,
        legend_view=slicer_views.legend_view(),
    )
