"""How a result is shown: the CT in a lung window, the heatmap over it, lesions outlined, slices through the disease."""

from __future__ import annotations

import numpy as np
import slicer

from .input_nodes import world_matrix
from .result_nodes import ResultNodes
from .scene_nodes import nodes_of_class

LUNG_WINDOW, LUNG_LEVEL = 1400.0, -500.0  # HU
HEAT_OPACITY = 0.5
LESION_OPACITY = 1.0
FIELD_OF_VIEW_MARGIN = 1.05


def show_result(nodes: ResultNodes, *, set_window: bool = True) -> None:
    """Show a result in all slice views of its scene and jump to where there is most lesion.

    :param set_window: bring the CT into a lung window as well.
    """
    scene = nodes.ct.GetScene()
    if set_window and nodes.ct.GetDisplayNode() is not None:
        display = nodes.ct.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(LUNG_WINDOW, LUNG_LEVEL)
    set_overlay_visible(nodes, True)
    center = lesion_center(nodes)
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        view.SetUseLabelOutline(True)
        if center is not None:
            view.JumpSliceByOffsetting(*center)


def set_overlay_visible(nodes: ResultNodes, visible: bool) -> None:
    """Show or hide heatmap and lesion outline over the CT in all slice views."""
    for composite in nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceCompositeNode"):
        composite.SetBackgroundVolumeID(nodes.ct.GetID())
        composite.SetForegroundVolumeID(nodes.heatmap.GetID() if visible else None)
        composite.SetForegroundOpacity(HEAT_OPACITY)
        composite.SetLabelVolumeID(nodes.lesions.GetID() if visible else None)
        composite.SetLabelOpacity(LESION_OPACITY)


def lesion_center(nodes: ResultNodes) -> tuple[float, float, float] | None:
    """Middle of the lesion in the slice that holds most of it, RAS mm in the world; None without lesion."""
    lesions = slicer.util.arrayFromVolume(nodes.lesions)
    area = np.count_nonzero(lesions.reshape(len(lesions), -1), axis=1)
    if not area.any():
        return None
    k = int(area.argmax())
    rows, columns = np.nonzero(lesions[k])
    r, a, s, _ = world_matrix(nodes.lesions) @ (columns.mean(), rows.mean(), k, 1.0)
    return float(r), float(a), float(s)


def add_slice_views(ct, application_logic) -> None:
    """Make the views of Slicer's four-up layout, fitted to a CT, in a scene that no application has given any.

    :param application_logic: of the CT's scene.
    """
    scene = ct.GetScene()
    layout_logic = slicer.vtkMRMLLayoutLogic()
    layout_logic.SetMRMLApplicationLogic(application_logic)
    layout_logic.SetMRMLScene(scene)
    # The logic makes the layout's view nodes, tagged so that Slicer takes them over for its own views.
    layout_logic.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    bounds = np.zeros(6)
    ct.GetRASBounds(bounds)
    low, high = bounds[::2], bounds[1::2]
    field_of_view = float((high - low).max()) * FIELD_OF_VIEW_MARGIN
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        view.SetFieldOfView(field_of_view, field_of_view, view.GetFieldOfView()[2])
        view.JumpSliceByCentering(*(low + high) / 2)
        composite = slicer.vtkMRMLSliceCompositeNode()
        composite.SetName(view.GetName())
        composite.SetSingletonTag(view.GetSingletonTag())
        composite.SetLayoutName(view.GetLayoutName())
        scene.AddNode(composite)
