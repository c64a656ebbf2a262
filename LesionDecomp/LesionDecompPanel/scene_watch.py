"""What happens in the scene while the panel is there: nodes that come and go, views that show something else."""

from __future__ import annotations

from collections.abc import Callable

import vtk
from LesionDecompMrml.scene_nodes import nodes_of_class

from .signals import Later

COMPOSITE, LAYOUT = "vtkMRMLSliceCompositeNode", "vtkMRMLLayoutNode"


class SceneWatch:
    """Observes the scene.

    :param scene: the application's.
    :param removed: called as ``removed(node)`` at once, before a node is removed (not while the scene is closed).
    :param changed: called once from the event loop after nodes were added or removed.
    :param views_changed: called once from the event loop after what a slice view shows, or the layout, has changed.
    """

    def __init__(
        self,
        scene,
        *,
        removed: Callable[..., object],
        changed: Callable[[], object],
        views_changed: Callable[[], object],
    ) -> None:
        self._scene, self._removed, self._views_changed = scene, removed, views_changed
        self.changed = Later(lambda: self._show_changed(changed))
        self.views = Later(views_changed)
        self._observed: dict[str, tuple] = {}  # ID of a composite node -> (node, tag)
        self._tags = [
            scene.AddObserver(scene.NodeAddedEvent, self._on_added),
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, self._on_removed),
        ]
        self.observe_views()

    def close(self) -> None:
        """Observe nothing any more."""
        self.changed.cancel()
        self.views.cancel()
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []
        for node, tag in self._observed.values():
            node.RemoveObserver(tag)
        self._observed = {}

    def observe_views(self) -> None:
        """Observe the views that are there now, and no others."""
        nodes = [node for kind in (COMPOSITE, LAYOUT) for node in nodes_of_class(self._scene, kind)]
        present = {node.GetID(): node for node in nodes}
        for identity, (node, tag) in list(self._observed.items()):
            if present.get(identity) != node:
                node.RemoveObserver(tag)
                del self._observed[identity]
        for identity, node in present.items():
            if identity not in self._observed:
                self._observed[identity] = (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_view))

    def _show_changed(self, changed: Callable[[], object]) -> None:
        if self._tags:
            self.observe_views()
            changed()

    def _on_view(self, _node, _event) -> None:
        self.views.request()

    def _on_added(self, _scene, _event) -> None:
        if not self._scene.IsImporting():
            self.changed.request()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_removed(self, _scene, _event, node) -> None:
        if not self._scene.IsClosing():
            self._removed(node)
            self.changed.request()
