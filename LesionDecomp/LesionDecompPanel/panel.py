"""The panel as a whole: its sections, the parameter node that they share, and what happens in the scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk
from LesionDecompMrml.scene_nodes import chest_volumes
from slicer.util import VTKObservationMixin

from .export_section import ExportSection
from .follow_section import FollowSection
from .look_section import LookSection
from .module_panel import scroll_to
from .node_filters import NodeFilters
from .review_section import ReviewSection
from .run_section import RunSection
from .scene_watch import SceneWatch
from .seen_slices import SeenSlices
from .train_section import TrainSection


class Panel(VTKObservationMixin):
    """Sections, each with ``set_parameter_node(parameters or None)``, ``refresh()`` and ``cleanup()``.

    :param ui: the controls.
    :param logic: of the module.
    :param is_entered: whether the panel is being looked at.
    """

    def __init__(self, ui, logic, is_entered: Callable[[], bool]) -> None:
        VTKObservationMixin.__init__(self)
        self.ui, self.logic, self._is_entered = ui, logic, is_entered
        self._parameters: Any = None
        self._gui_tag = None
        self.filters = NodeFilters(ui)
        self.look = LookSection(ui, logic)
        self.run = RunSection(ui, logic, self.look.show, self.look.nodes)
        self.review = ReviewSection(ui, logic, self.look.nodes, self.look.lesions_changed)
        self.follow = FollowSection(ui, logic, self.look.nodes)
        self.export = ExportSection(ui, logic, self.look.nodes)
        self.train = TrainSection(ui, logic, self.run.models)
        self.seen = SeenSlices(ui, logic, self.look.nodes, self.train)
        self.look.listener = self._on_lesions_shown
        self.look.take_edits = self.review.count_edits
        self.run.take_edits = self.review.take_edits
        # The review before the look, which reports edits there.
        reading = [self.review, self.look, self.seen, self.follow]
        self.sections: list[Any] = [self.run, *reading, self.export, self.train]
        scene = slicer.mrmlScene
        self.watch = SceneWatch(
            scene,
            removed=self._on_node_removed,
            changed=self._on_scene_changed,
            views_changed=self._on_views_changed,
        )
        self.addObserver(scene, scene.StartCloseEvent, self._on_start_close)
        self.addObserver(scene, scene.EndCloseEvent, self._on_end_close)
        self.addObserver(scene, scene.EndImportEvent, self._on_end_import)
        self.take_parameter_node()

    def cleanup(self) -> None:
        """The module's widget is deleted."""
        self.set_parameter_node(None)
        self.watch.close()
        for section in self.sections:
            section.cleanup()
        self.removeObservers()

    def enter(self) -> None:
        """The panel is being looked at."""
        self.take_parameter_node()
        self.run.enter()
        self.look.enter()
        # The panel's place is otherwise that of the module before.
        shown = self.look.nodes() is not None
        scroll_to(self.ui.resultCollapsibleButton if shown else self.ui.inputsCollapsibleButton)

    def exit(self) -> None:
        """Another module is being looked at; a run goes on."""
        self.look.exit()
        self.review.exit()
        if not (self.run.is_running or self.follow.is_running):
            self.set_parameter_node(None)

    def take_parameter_node(self) -> None:
        """Take the scene's parameter node; where no CT is selected yet, select the scene's first one."""
        self.set_parameter_node(self.logic.getParameterNode())
        volumes = chest_volumes(slicer.mrmlScene)
        if volumes and self._parameters.inputVolume is None:
            self._parameters.inputVolume = volumes[0]

    def set_parameter_node(self, parameters) -> None:
        """Disconnect from the present parameter node, and connect to another one or to none."""
        if self._parameters is not None:
            self._parameters.disconnectGui(self._gui_tag)
            self.removeObserver(self._parameters, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._parameters = parameters
        self.filters.refresh(parameters)
        for section in self.sections:
            section.set_parameter_node(parameters)
        if parameters is not None:
            self._gui_tag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self._on_modified)
        self._on_modified()

    def _on_lesions_shown(self, result) -> None:
        self.review.show(result)
        self.seen.show(result)
        self.follow.refresh()

    def _on_modified(self, _caller=None, _event=None) -> None:
        """Update panel, lesions and views from the parameter node."""
        if slicer.mrmlScene.IsImporting():  # its nodes and references are not what they will be
            return
        if self._parameters is not None and (
            self._parameters.heatmapOutput is not None or self.filters.is_outdated(self._parameters)
        ):
            self.filters.refresh(self._parameters)
        for section in self.sections:
            section.refresh()

    def _on_start_close(self, _caller, _event) -> None:
        """The scene goes: end the run, and let go of its nodes."""
        self.run.scene_closing()
        self.follow.scene_closing()
        self.look.cleanup()
        self.set_parameter_node(None)
        self.logic.forgetResult()

    def _on_end_close(self, caller, event) -> None:
        for section in (self.run, self.look, self.review, self.follow, self.train):
            section.scene_closed()
        self._on_end_import(caller, event)

    def _on_end_import(self, _caller, _event) -> None:
        """A scene was loaded or closed: its parameter node may be another one, with a result."""
        self.watch.observe_views()
        self.train.scene_changed()
        if self._is_entered():
            self.take_parameter_node()

    def _on_scene_changed(self) -> None:
        """Nodes were added or removed, outside of closing and loading a scene."""
        self.filters.refresh(self._parameters)
        self.train.scene_changed()
        if self._parameters is not None:
            self.look.scene_changed()
            self.review.views_changed()
            self._on_modified()

    def _on_node_removed(self, node) -> None:
        for section in (self.run, self.look):
            section.node_removed(node)

    def _on_views_changed(self) -> None:
        # Elsewhere nobody chooses by the boxes, and the panel itself has changed the views as it was left.
        if self._parameters is not None and self._is_entered():
            self.look.views_changed()
