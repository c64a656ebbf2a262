"""The application's views, where there is an application: which slice views there are, fitting, the 3-D camera."""

from __future__ import annotations

import slicer
from LesionDecompMrml.scene_nodes import nodes_of_class
from LesionDecompMrml.views import RED_VIEW


def slice_nodes() -> list:
    """Nodes of the slice views, hidden ones of other layouts included."""
    return nodes_of_class(slicer.mrmlScene, "vtkMRMLSliceNode")


def legend_view() -> str:
    """ID of the slice view that has the color legend: the Red one, or the first one that the layout shows."""
    layout = slicer.app.layoutManager()
    names = [str(name) for name in layout.sliceViewNames()] if layout is not None else []
    shown = [name for name in names if layout.sliceWidget(name).visible]
    if not shown or "Red" in shown:
        return RED_VIEW
    return layout.sliceWidget(shown[0]).mrmlSliceNode().GetID()


def fit(view) -> None:
    """Fit a slice view to what it shows."""
    layout = slicer.app.layoutManager()
    widget = layout.sliceWidget(view.GetLayoutName()) if layout is not None else None
    if widget is not None:
        offset = view.GetSliceOffset()
        widget.sliceLogic().FitSliceToAll()
        view.SetSliceOffset(offset)


_centered: set[str] = set()  # IDs of the 3-D views that have been centered once


def center_surfaces() -> None:
    """Have the 3-D views look at what they show, each the first time only; afterwards the user's view is kept."""
    layout = slicer.app.layoutManager()
    if layout is None:
        return
    for n in range(layout.threeDViewCount):
        view = layout.threeDWidget(n).threeDView()
        identity = view.mrmlViewNode().GetID()
        if identity not in _centered:
            _centered.add(identity)
            view.resetFocalPoint()
            view.resetCamera()


def forget_centered() -> None:
    """Center the next surfaces again, as after the scene was closed."""
    _centered.clear()
