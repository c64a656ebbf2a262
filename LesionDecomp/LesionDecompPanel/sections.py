"""The parts of the panel, put together."""

from __future__ import annotations

import slicer

from .export_section import ExportSection
from .look_section import LookSection
from .node_filters import NodeFilters
from .run_section import RunSection
from .scene_watch import SceneWatch
from .train_section import TrainSection


def add_sections(widget) -> None:
    """Give the module's widget its sections, which share its controls, logic and parameter node.

    Each has ``set_parameter_node(parameters or None)``, ``refresh()`` and ``cleanup()``.

    :param widget: with ``ui``, ``logic`` and the slots of the scene's watch.
    """

    def recompute(nodes) -> None:
        """Run again on a result's CT, with its lungs as the user has edited them."""
        widget._parameterNode.inputVolume = nodes.ct
        widget.run.start(edited_lungs=nodes.segmentation or nodes.lungs)

    ui, logic = widget.ui, widget.logic
    widget.filters = NodeFilters(ui)
    widget.look = LookSection(ui, logic, recompute)
    widget.run = RunSection(ui, logic, widget.look.show)
    widget.export = ExportSection(ui, logic, widget.look.nodes)
    widget.train = TrainSection(ui, logic, widget.run.models)
    widget.sections = [widget.run, widget.look, widget.export, widget.train]
    widget.watch = SceneWatch(
        slicer.mrmlScene,
        removed=widget.onNodeRemoved,
        changed=widget.onSceneChanged,
        views_changed=widget.onViewsChanged,
    )
