"""How a result is shown: the CT in a lung window, the heatmap over it, lesions outlined, slices through the disease."""

from __future__ import annotations

import numpy as np
import slicer
from LesionDecompLib.ct.anatomy import LUNG_LESION, LUNGS
from LesionDecompLib.report.picture import LUNG_WINDOW

from .input_nodes import world_matrix
from .result_nodes import ResultNodes, results_of_scene
from .scene_nodes import nodes_of_class
from .surfaces import LUNG_OPACITY, closed_surface_name, has_surfaces, make_surfaces

HEAT_OPACITY = 0.5
LESION_OPACITY = 1.0
RED_VIEW = "vtkMRMLSliceNodeRed"
# Of the view: width and height, and where the legend stands in the room that these leave.
LEGEND_SIZE, LEGEND_POSITION, LEGEND_FONT = (0.08, 0.35), (0.99, 0.85), 12
FIELD_OF_VIEW_MARGIN = 1.05
HIDDEN = "LesionDecomp.hidden"  # attribute of a segmentation's display that was hidden for another result's


def show_result(nodes: ResultNodes, *, set_window: bool = True) -> None:
    """Show a result in all slice views of its scene and jump to where there is most lesion.

    :param set_window: bring the CT, and its healthy version, into a lung window as well.
    """
    scene = nodes.ct.GetScene()
    for volume in (nodes.ct, nodes.healthy) if set_window else ():
        if volume is not None and volume.GetDisplayNode() is not None:
            volume.GetDisplayNode().SetAutoWindowLevel(False)
            volume.GetDisplayNode().SetWindowLevelMinMax(*LUNG_WINDOW)
    set_overlay(nodes, heat=True, outline=True, opacity=HEAT_OPACITY)
    _show_segmentation_alone(nodes)
    center = lesion_center(nodes)
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        if center is not None:
            view.JumpSliceByOffsetting(*center)


def _show_segmentation_alone(nodes: ResultNodes) -> None:
    """Hide segmentations of other results, this CT's and others', whose lines nobody could tell apart; show this one's
    where it was hidden so. What a reader has hidden stays hidden."""
    for result in results_of_scene(nodes.ct.GetScene()):
        display = result.segmentation.GetDisplayNode() if result.segmentation is not None else None
        if display is None:
            continue
        if result.segmentation == nodes.segmentation:
            if display.GetAttribute(HIDDEN):
                display.SetVisibility(True)
                display.RemoveAttribute(HIDDEN)
        elif display.GetVisibility():
            display.SetVisibility(False)
            display.SetAttribute(HIDDEN, "1")


def set_overlay(
    nodes: ResultNodes, *, heat: bool | None = None, outline: bool | None = None, opacity: float | None = None
) -> None:
    """Show or hide heatmap and lesion outline in all slice views, over the CT; what is None stays as it is.

    :param opacity: of the heatmap, 0 to 1; where another volume is shown instead, that one's opacity is left alone.
    """
    for composite in nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceCompositeNode"):
        modified = composite.StartModify()
        if heat or outline:
            composite.SetBackgroundVolumeID(nodes.ct.GetID())
        if heat is False and composite.GetBackgroundVolumeID() == nodes.heatmap.GetID():
            composite.SetBackgroundVolumeID(nodes.ct.GetID())
        if heat is not None and (heat or _shows_heat(composite, nodes)):
            composite.SetForegroundVolumeID(nodes.heatmap.GetID() if heat else None)
        if opacity is not None and _shows_heat(composite, nodes):
            composite.SetForegroundOpacity(opacity)
        if outline is not None and (outline or _shows_outline(composite, nodes)):
            composite.SetLabelVolumeID(nodes.lesions.GetID() if outline else None)
            composite.SetLabelOpacity(LESION_OPACITY)
        composite.EndModify(modified)
    if outline:  # a comparison fills its labels
        for view in nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceNode"):
            view.SetUseLabelOutline(True)


def show_in_view(nodes: ResultNodes, view, *, heat: bool, outline: bool, opacity: float) -> None:
    """Show a result in a slice view that is new, as after a change of the layout, where the other views stand.

    :param view: its slice node.
    """
    scene = nodes.ct.GetScene()
    for composite in nodes_of_class(scene, "vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == view.GetLayoutName():
            modified = composite.StartModify()
            composite.SetBackgroundVolumeID(nodes.ct.GetID())
            composite.SetForegroundVolumeID(nodes.heatmap.GetID() if heat else None)
            composite.SetForegroundOpacity(opacity)
            composite.SetLabelVolumeID(nodes.lesions.GetID() if outline else None)
            composite.SetLabelOpacity(LESION_OPACITY)
            composite.EndModify(modified)
    view.SetUseLabelOutline(True)
    center = lesion_center(nodes)
    if center is not None:
        view.JumpSliceByOffsetting(*center)


def shows_labels(scene, labels) -> bool:
    """Whether any slice view shows a labelmap."""
    return any(one.GetLabelVolumeID() == labels.GetID() for one in nodes_of_class(scene, "vtkMRMLSliceCompositeNode"))


def shown_overlay(nodes: ResultNodes) -> tuple[bool, bool] | None:
    """Whether any slice view shows the heatmap, and the lesions' outline; None where there is no slice view."""
    composites = nodes_of_class(nodes.ct.GetScene(), "vtkMRMLSliceCompositeNode")
    if not composites:
        return None
    return any(_shows_heat(one, nodes) for one in composites), any(_shows_outline(one, nodes) for one in composites)


def _shows_heat(composite, nodes: ResultNodes) -> bool:
    # The Data module shows a volume as background.
    return nodes.heatmap.GetID() in (composite.GetForegroundVolumeID(), composite.GetBackgroundVolumeID())


def _shows_outline(composite, nodes: ResultNodes) -> bool:
    return composite.GetLabelVolumeID() == nodes.lesions.GetID()


def outline_by_segmentation(nodes: ResultNodes, by_segmentation: bool) -> None:
    """Have the lesions outlined by their segment, which Segment Editor edits, or by the labelmap that follows the
    slider; by both they would be drawn twice. A result without segmentation stays as it is."""
    if nodes.segmentation is None or nodes.segmentation.GetDisplayNode() is None:
        return
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility2DOutline(LUNG_LESION.segment_id, by_segmentation)
    set_overlay(nodes, outline=not by_segmentation)


def set_legend_visible(nodes: ResultNodes, visible: bool, view_id: str = RED_VIEW) -> None:
    """Show or hide the color legend of the heatmap: a small bar at the top right of one slice view, beside the body.

    :param view_id: of that view's node.
    """
    logic = slicer.vtkSlicerColorLogic
    legend = logic.GetColorLegendDisplayNode(nodes.heatmap)
    if legend is None:
        if not visible:
            return
        legend = logic.AddDefaultColorLegendDisplayNode(nodes.heatmap)
        if legend is None:
            return
        legend.SetTitleText("Heat")
        legend.SetLabelFormat("%.1f")
        legend.SetNumberOfLabels(3)
        legend.SetMaxNumberOfColors(256)
        legend.SetSize(*LEGEND_SIZE)
        legend.SetPosition(*LEGEND_POSITION)
        for text in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            text.SetFontSize(LEGEND_FONT)
    if legend.GetNumberOfViewNodeIDs() != 1 or legend.GetNthViewNodeID(0) != view_id:
        legend.RemoveAllViewNodeIDs()
        legend.AddViewNodeID(view_id)
    legend.SetVisibility(visible)


def set_surfaces_visible(nodes: ResultNodes, visible: bool) -> None:
    """Show or hide the surfaces of a result's segmentation in 3-D; they are made the first time they are shown."""
    display = nodes.segmentation.GetDisplayNode()
    if visible:
        if not has_surfaces(nodes.segmentation):
            make_surfaces(nodes)
        display.SetVisibility(True)
        # The lungs are glass, or they would hide what lies in them.
        for structure in LUNGS:
            display.SetSegmentVisibility(structure.segment_id, True)
            display.SetSegmentOpacity3D(structure.segment_id, LUNG_OPACITY)
        display.SetSegmentVisibility(LUNG_LESION.segment_id, True)
        display.SetPreferredDisplayRepresentationName3D(closed_surface_name())
    else:
        nodes.segmentation.RemoveClosedSurfaceRepresentation()
    display.SetVisibility3D(visible)


def jump_to_voxel(nodes: ResultNodes, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
    """Bring all slice views to the slice of a voxel (k, j, i) of the CT, the crosshair on it; no view is panned.

    :return: its RAS, mm, in the world.
    """
    r, a, s, _ = (float(n) for n in world_matrix(nodes.ct) @ (*reversed(voxel), 1.0))
    return jump_to_point(nodes, (r, a, s))


def jump_to_point(nodes: ResultNodes, ras: tuple[float, float, float]) -> tuple[float, float, float]:
    """Bring all slice views to the slice of a point of the world, RAS mm, the crosshair on it; no view is panned.

    :return: the point.
    """
    r, a, s = ras
    scene = nodes.ct.GetScene()
    for view in nodes_of_class(scene, "vtkMRMLSliceNode"):
        view.JumpSliceByOffsetting(r, a, s)
    for crosshair in nodes_of_class(scene, "vtkMRMLCrosshairNode")[:1]:
        if crosshair.GetCrosshairMode() == crosshair.NoCrosshair:
            crosshair.SetCrosshairMode(crosshair.ShowBasic)  # the small one is lost on hot lesions
        crosshair.SetCrosshairRAS(r, a, s)
    return r, a, s


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
