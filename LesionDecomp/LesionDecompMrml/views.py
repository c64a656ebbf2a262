"""How a result is shown: the CT in a lung window, the heatmap over it, lesions outlined, slices through the disease."""

from __future__ import annotations

import numpy as np
import slicer
from LesionDecompLib.ct.anatomy import LUNGS
from LesionDecompLib.report.picture import LUNG_WINDOW

from .input_nodes import world_matrix
from .result_nodes import ResultNodes
from .scene_nodes import nodes_of_class

HEAT_OPACITY = 0.5
LESION_OPACITY = 1.0
LUNG_SURFACE_OPACITY = 0.25
FIELD_OF_VIEW_MARGIN = 1.05


def show_result(nodes: ResultNodes, *, set_window: bool = True) -> None:
    """Show a result in all slice views of its scene and jump to where there is most lesion.

    :param set_window: bring the CT into a lung window as well.
    """
    scene = nodes.ct.GetScene()
    if set_window and nodes.ct.GetDisplayNode() is not None:
        display = nodes.ct.GetDisplayNode()
        display.SetAutoWindowLevel(False)
        display.SetWindowLevelMinMax(*LUNG_WINDOW)
    set_overlay(nodes, heat=True, outline=True)
    center = lesion_center(nodes)
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        view.SetUseLabelOutline(True)
        if center is not None:
            view.JumpSliceByOffsetting(*center)


def set_overlay(nodes: ResultNodes, *, heat: bool, outline: bool, opacity: float = HEAT_OPACITY) -> None:
    """Show the CT in all slice views, with or without the heatmap and the lesions' outline over it.

    :param opacity: of the heatmap, 0 to 1.
    """
    for composite in nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceCompositeNode"):
        modified = composite.StartModify()
        composite.SetBackgroundVolumeID(nodes.ct.GetID())
        composite.SetForegroundVolumeID(nodes.heatmap.GetID() if heat else None)
        composite.SetForegroundOpacity(opacity)
        composite.SetLabelVolumeID(nodes.lesions.GetID() if outline else None)
        composite.SetLabelOpacity(LESION_OPACITY)
        composite.EndModify(modified)


def set_legend_visible(nodes: ResultNodes, visible: bool) -> None:
    """Show or hide the color legend of the heatmap in the slice views."""
    logic = slicer.vtkSlicerColorLogic
    legend = logic.GetColorLegendDisplayNode(nodes.heatmap)
    if legend is None:
        if not visible:
            return
        legend = logic.AddDefaultColorLegendDisplayNode(nodes.heatmap)
        if legend is None:
            return
        legend.SetTitleText("Lesion heat")
        legend.SetLabelFormat("%.1f")
        legend.SetNumberOfLabels(6)
        legend.SetMaxNumberOfColors(256)
    legend.SetVisibility(visible)


def set_surfaces_visible(segmentation, visible: bool) -> None:
    """Show or hide a segmentation's surfaces in 3-D; they are computed the first time they are shown."""
    if visible:
        segmentation.CreateClosedSurfaceRepresentation()
        display = segmentation.GetDisplayNode()
        # The lungs are glass, or they would hide what lies in them.
        for structure in LUNGS:
            display.SetSegmentOpacity3D(structure.segment_id, LUNG_SURFACE_OPACITY)
    else:
        segmentation.RemoveClosedSurfaceRepresentation()
    segmentation.GetDisplayNode().SetVisibility3D(visible)


def jump_to_voxel(nodes: ResultNodes, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    """Move all slice views to a voxel (k, j, i) of the CT.

    :return: its RAS, mm, in the world.
    """
    r, a, s, _ = world_matrix(nodes.ct) @ (*reversed(voxel), 1.0)
    for view in nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceNode"):
        view.JumpSliceByCentering(float(r), float(a), float(s))
    return float(r), float(a), float(s)


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
