"""Widget wiring of the panel's second part, Look: what follows the sliders; see panel_fixtures."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer.qt_panel import cells, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import expected_lesions, lesions_of  # noqa: E402


@pytest.mark.slow
def test_dragging_the_threshold_moves_lesions_and_figures_at_once_and_the_table_after(panel, result):
    panel.ui.minimumVolumeSlider.value = 0.0
    table = result.table.GetMTime()
    voxel_ml = np.prod(result.ct.GetSpacing()) / 1000.0
    for threshold in (0.45, 0.43, 0.41):
        drag(panel, threshold)
        lesions = lesions_of(result)
        np.testing.assert_array_equal(lesions != 0, expected_lesions(result, threshold))
        assert f"Lesions: {np.count_nonzero(lesions) * voxel_ml:.2f} mL" in text_of(panel.ui.figuresLabel)
    assert result.table.GetMTime() == table
    wait_for(lambda: panel.panel.look.is_settled)
    column = result.table.GetColumnIndex("Lesion volume (mL)")
    milliliters = np.count_nonzero(lesions_of(result)) * voxel_ml
    assert float(result.table.GetCellText(0, column)) == pytest.approx(milliliters, rel=1e-5)


@pytest.mark.slow
def test_smallest_lesion_slider_leaves_out_what_is_smaller(panel, result):
    from scipy.ndimage import label

    drag(panel, 0.45)
    panel.ui.minimumVolumeSlider.value = 2.0
    panel.panel.look.steps.flush()
    labels, count = label(lesions_of(result), np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * np.prod(result.ct.GetSpacing()) / 1000.0
    assert count > 0
    assert sizes.min() >= 2.0
    words = f"{count} lesions, the largest {sizes.max():.2f} mL" if count > 1 else "; one lesion."
    assert words in text_of(panel.ui.figuresLabel)


@pytest.mark.slow
def test_segment_follows_while_seen_and_otherwise_when_the_slider_rests(panel, ct_node, lung_node):
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.panel.look.show(nodes, 0.4, 0.1)

    def segment() -> np.ndarray:
        return slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node)

    # The labelmap outlines the lesions here; the segment does in Segment Editor, and wherever somebody shows it.
    display = nodes.segmentation.GetDisplayNode()
    assert not display.GetSegmentVisibility2DOutline("lesion")
    display.SetSegmentVisibility2DOutline("lesion", True)
    for threshold in (0.45, 0.41, 0.47):
        drag(panel, threshold)
        np.testing.assert_array_equal(segment(), lesions_of(nodes))
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    drag(panel, 0.42)
    assert (segment() != lesions_of(nodes)).any()
    wait_for(lambda: panel.panel.look.is_settled)
    np.testing.assert_array_equal(segment(), lesions_of(nodes))


def test_segment_editor_can_undo_what_the_slider_did(panel, ct_node, lung_node):
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.panel.look.show(nodes, 0.4, 0.1)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node).copy()
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(nodes.segmentation.GetSegmentation())
    history.SaveState()
    nodes.segmentation.GetDisplayNode().SetSegmentVisibility2DOutline("lesion", True)
    for threshold in (0.45, 0.46, 0.42):
        drag(panel, threshold)
        assert (slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node) != before).any()
    assert history.RestorePreviousState()
    np.testing.assert_array_equal(
        slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node), before
    )


def add_view(panel, name: str = "Red"):
    """A slice view as a change of the layout makes it: (slice node, composite node); closing a scene keeps views."""
    nodes = []
    for kind in ("vtkMRMLSliceCompositeNode", "vtkMRMLSliceNode"):
        if slicer.mrmlScene.GetSingletonNode(name, kind) is not None:
            nodes.append(slicer.mrmlScene.GetSingletonNode(name, kind))
            continue
        node = slicer.mrmlScene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetSingletonTag(name)
        node.SetLayoutName(name)
        nodes.append(slicer.mrmlScene.AddNode(node))
    panel.panel.watch.changed.flush()
    composite, view = nodes
    return view, composite


def test_overlay_outline_opacity_and_legend_follow_their_controls(panel, result):
    _view, composite = add_view(panel)
    panel.ui.opacitySlider.value = 0.8
    assert composite.GetForegroundOpacity() == pytest.approx(0.8)
    assert composite.GetForegroundVolumeID() == result.heatmap.GetID()
    assert composite.GetBackgroundVolumeID() == result.ct.GetID()
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(result.heatmap)
    assert legend.GetVisibility()
    panel.ui.overlayCheckBox.click()
    assert composite.GetForegroundVolumeID() is None
    assert not legend.GetVisibility()
    assert composite.GetLabelVolumeID() == result.lesions.GetID()
    panel.ui.outlineCheckBox.click()
    assert composite.GetLabelVolumeID() is None
    panel.ui.overlayCheckBox.click()
    panel.ui.legendCheckBox.click()
    assert composite.GetForegroundVolumeID() == result.heatmap.GetID()
    assert not legend.GetVisibility()


def test_the_legend_is_one_small_bar_in_one_view(panel, result):
    legend = slicer.vtkSlicerColorLogic.GetColorLegendDisplayNode(result.heatmap)
    assert [legend.GetNthViewNodeID(n) for n in range(legend.GetNumberOfViewNodeIDs())] == ["vtkMRMLSliceNodeRed"]
    assert legend.GetNumberOfLabels() == 3
    assert (legend.GetSize(), legend.GetPosition()) == ((0.08, 0.35), (0.99, 0.85))  # its title stands above


def test_heat_hidden_elsewhere_unticks_its_box_and_opacity_does_not_show_it_again(panel, result):
    composites = [add_view(panel, name)[1] for name in ("Red", "Green")]
    for composite in composites:
        assert composite.GetForegroundVolumeID() == result.heatmap.GetID()
        composite.SetForegroundVolumeID(None)  # what the Data module's eye does
    panel.panel.watch.views.flush()
    assert not panel.ui.overlayCheckBox.property("checked")
    assert panel.ui.outlineCheckBox.property("checked")
    panel.ui.opacitySlider.value = 0.9
    assert [composite.GetForegroundVolumeID() for composite in composites] == [None, None]
    assert composites[0].GetLabelVolumeID() == result.lesions.GetID()
    composites[1].SetBackgroundVolumeID(result.heatmap.GetID())  # its eye again: it shows a volume as background
    panel.panel.watch.views.flush()
    assert panel.ui.overlayCheckBox.property("checked")
    panel.ui.overlayCheckBox.click()
    assert composites[1].GetBackgroundVolumeID() == result.ct.GetID()


def test_views_of_another_layout_show_the_result_as_the_boxes_state(panel, result):
    panel.ui.outlineCheckBox.click()
    panel.ui.opacitySlider.value = 0.3
    view, composite = add_view(panel, "Compare1")
    assert composite.GetBackgroundVolumeID() == result.ct.GetID()
    assert composite.GetForegroundVolumeID() == result.heatmap.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.3)
    assert composite.GetLabelVolumeID() is None
    assert view.GetUseLabelOutline()


def test_the_outline_box_outlines_the_lesions_after_a_comparison_was_shown_filled(panel, result):
    from LesionDecompMrml.change_nodes import CLASSES, ChangeNodes, show_change

    view, composite = add_view(panel)
    nodes = ChangeNodes(**{role: slicer.mrmlScene.AddNewNodeByClass(name) for role, name in CLASSES.items()})
    slicer.util.updateVolumeFromArray(nodes.labels, lesions_of(result).copy())
    show_change(nodes, result, 1.0)
    panel.panel.watch.views.flush()
    assert not view.GetUseLabelOutline()
    assert not panel.ui.outlineCheckBox.property("checked")
    panel.ui.outlineCheckBox.click()
    assert composite.GetLabelVolumeID() == result.lesions.GetID()
    assert view.GetUseLabelOutline()


@pytest.mark.slow
def test_leaving_the_module_during_a_run_keeps_the_outline_that_was_chosen(panel, ct_node, lung_node):
    _view, composite = add_view(panel)
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.panel.look.show(nodes, 0.4, 0.1)
    panel.panel.watch.views.flush()
    panel.ui.applyButton.click()
    assert panel.panel.run.is_running
    panel.parent.isEntered = False
    panel.exit()
    panel.panel.watch.views.flush()
    assert panel.logic.getParameterNode().outlineVisible
    panel.parent.isEntered = True
    panel.enter()
    panel.panel.watch.views.flush()
    assert panel.ui.outlineCheckBox.property("checked")
    assert composite.GetLabelVolumeID() == nodes.lesions.GetID()
    panel.ui.applyButton.click()
    assert not panel.panel.run.is_running


def test_the_lesions_are_outlined_once_by_the_labelmap_here_by_the_segment_elsewhere(panel, ct_node, lung_node):
    _view, composite = add_view(panel)
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.panel.look.show(nodes, 0.4, 0.1)

    def outlined() -> tuple[bool, bool]:
        by_segment = nodes.segmentation.GetDisplayNode().GetSegmentVisibility2DOutline("lesion")
        return composite.GetLabelVolumeID() == nodes.lesions.GetID(), bool(by_segment)

    assert outlined() == (True, False)
    panel.exit()
    assert outlined() == (False, True)
    panel.enter()
    panel.panel.watch.views.flush()
    assert outlined() == (True, False)
    assert panel.ui.outlineCheckBox.property("checked")


def test_a_ct_that_leaves_the_scene_takes_its_result_out_of_the_panel(panel, result):
    panel.panel.watch.changed.flush()
    assert panel.ui.resultSelector.offered() == ["CT heatmap"]
    slicer.mrmlScene.RemoveNode(result.ct)
    panel.panel.watch.changed.flush()
    assert panel.ui.resultSelector.offered() == []
    assert text_of(panel.ui.figuresLabel) == "'CT' was removed from the scene: its result can no longer be shown."
    assert cells(panel.ui.measurementsTable) == []
    assert not panel.ui.nextLesionButton.property("enabled")
    assert text_of(panel.ui.statusLabel) == "'CT' was removed from the scene."
    slicer.mrmlScene.Clear(False)
    assert text_of(panel.ui.statusLabel) == ""
    assert text_of(panel.ui.figuresLabel) == "No result is selected."


def test_outputs_are_not_offered_as_chest_ct_nor_a_ct_as_heatmap(panel, result, chest_case):
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MyHeat")
    panel.panel.watch.changed.flush()
    panel.ui.heatmapSelector.setCurrentNode(mine)
    assert panel.ui.inputSelector.offered() == ["CT"]
    assert panel.ui.heatmapSelector.offered() == ["CT heatmap", "MyHeat"]
    volume, _ = chest_case
    slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Another CT")
    panel.panel.watch.changed.flush()
    assert panel.ui.inputSelector.offered() == ["CT", "Another CT"]
    assert panel.ui.heatmapSelector.offered() == ["CT heatmap", "MyHeat"]
    assert panel.ui.resultSelector.offered() == ["CT heatmap"]


@pytest.mark.slow
def test_the_tables_have_words_for_headers_and_sensible_digits(panel, result):
    shown = cells(panel.ui.measurementsTable)
    assert [row[0] for row in shown[:3]] == ["both lungs", "right lung", "left lung"]
    assert len(shown) == 18  # both lungs and each: whole, three zones, two halves
    lung_ml = float(result.table.GetCellText(0, result.table.GetColumnIndex("Lung volume (mL)")))
    assert shown[0][1] == f"{lung_ml:.0f}"
    assert result.table.GetUseColumnTitleAsColumnHeader() and result.table.GetUseFirstColumnAsRowHeader()
    assert result.table.GetColumnTitle("Lung volume (mL)") == "Lung volume"
    panel.ui.fullTableButton.click()
    table = result.heatmap.GetNodeReference("LesionDecomp.readableTable")
    names = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())]
    assert names[:3] == ["Measurement", "both lungs", "right lung"]
    assert table.GetCellText(0, 0) == "Lung volume (mL)" and table.GetCellText(0, 1) == f"{lung_ml:.0f}"
    hu = next(n for n in range(table.GetNumberOfRows()) if table.GetCellText(n, 0) == "Lung mean (HU)")
    assert table.GetCellText(hu, 1).startswith("\N{MINUS SIGN}")
    slicer.util.arrayFromVolume(result.heatmap)[:] = 0.0  # nothing is lesion any more
    slicer.util.arrayFromVolumeModified(result.heatmap)
    drag(panel, 0.9)
    wait_for(lambda: panel.panel.look.is_settled)
    lesion = next(n for n in range(table.GetNumberOfRows()) if table.GetCellText(n, 0) == "Lesion mean (HU)")
    assert table.GetCellText(lesion, 1) == "–"
    assert cells(panel.ui.measurementsTable)[0][2:] == ["0.00", "0.0"]


@pytest.mark.slow
def test_a_step_of_the_slider_waits_for_the_frame_and_several_are_one(panel, result, monkeypatch):
    panel.ui.minimumVolumeSlider.value = 0.0
    panel.panel.look.steps.flush()
    steps = []
    follow = panel.panel.look.steps.callback
    monkeypatch.setattr(panel.panel.look.steps, "callback", lambda: steps.append(1) or follow())
    for threshold in (0.45, 0.46, 0.47):
        panel.ui.thresholdSlider.value = threshold
    assert steps == []
    wait_for(lambda: panel.panel.look.is_settled)
    assert steps == [1]
    np.testing.assert_array_equal(lesions_of(result) != 0, expected_lesions(result, 0.47))


@pytest.mark.slow
def test_surfaces_are_made_on_demand_and_follow_when_the_slider_rests(panel, result):
    import vtk

    panel.ui.surfacesCheckBox.click()
    nodes = panel.panel.look.nodes()
    assert nodes.segmentation is not None
    assert nodes.segmentation.GetDisplayNode().GetVisibility3D()
    lungs = nodes.segmentation.GetSegmentation().GetSegment("right-lung")
    surface_of_lung = lungs.GetRepresentation("Closed surface")

    def points() -> int:
        surface = vtk.vtkPolyData()
        assert nodes.segmentation.GetClosedSurfaceRepresentation("lesion", surface)
        return surface.GetNumberOfPoints()

    before = points()
    assert before > 0
    drag(panel, 0.45)
    assert points() == before
    wait_for(lambda: panel.panel.look.is_settled)
    assert points() != before
    assert lungs.GetRepresentation("Closed surface") is surface_of_lung  # as before, not made anew
    panel.ui.surfacesCheckBox.click()
    assert not nodes.segmentation.GetDisplayNode().GetVisibility3D()


def test_next_lesion_goes_through_the_lesions_by_size(panel, result):
    from scipy.ndimage import label

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetOrientationToAxial()
    drag(panel, 0.45)
    panel.ui.minimumVolumeSlider.value = 0.1
    labels, count = label(lesions_of(result), np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * np.prod(result.ct.GetSpacing()) / 1000.0
    expected = sorted(sizes, reverse=True)
    matrix = slicer.util.arrayFromVTKMatrix(ras_matrix(result.lesions))
    assert count > 1
    crosshair = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLCrosshairNode")
    across = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(2)]
    for n in range(2):
        panel.ui.nextLesionButton.click()
        # The slice changes, the image is not panned; the crosshair lies on the lesion.
        assert [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(2)] == across
        assert crosshair.GetCrosshairMode() != crosshair.NoCrosshair
        place = np.linalg.solve(matrix, [*crosshair.GetCrosshairRAS(), 1.0])[:3]
        i, j, k = np.rint(place).astype(int)
        assert sizes[labels[k, j, i] - 1] == pytest.approx(expected[n])
        assert text_of(panel.ui.lesionLabel) == f"Lesion {n + 1} of {count}: {expected[n]:.2f} mL"
        # The view stands in a slice of that very lesion.
        k = round((view.GetSliceOffset() - matrix[2, 3]) / matrix[2, 2])
        here = np.unique(labels[k])
        assert any(sizes[value - 1] == pytest.approx(expected[n]) for value in here if value)
    panel.ui.previousLesionButton.click()
    assert text_of(panel.ui.lesionLabel).startswith("Lesion 1 of")
    panel.ui.previousLesionButton.click()
    assert text_of(panel.ui.lesionLabel).startswith(f"Lesion {count} of")
    # A heatmap that was changed meanwhile is looked at anew.
    slicer.util.arrayFromVolume(result.heatmap)[:] = 0.0
    slicer.util.arrayFromVolumeModified(result.heatmap)
    drag(panel, 0.5)
    panel.ui.nextLesionButton.click()
    assert text_of(panel.ui.lesionLabel) == "There is no lesion at this threshold."


def ras_matrix(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


@pytest.mark.slow
def test_plots_show_the_figures_and_mark_the_threshold(panel, result):
    panel.ui.minimumVolumeSlider.value = 0.0
    panel.ui.volumePlotButton.click()
    chart = result.heatmap.GetNodeReference("LesionDecomp.volumeChart")
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    curve, mark = (chart.GetNthPlotSeriesNode(n).GetTableNode() for n in range(2))
    voxel_ml = np.prod(result.ct.GetSpacing()) / 1000.0

    def columns(table) -> list[np.ndarray]:
        return [slicer.util.arrayFromTableColumn(table, table.GetColumnName(n)) for n in range(2)]

    thresholds, volumes = columns(curve)
    assert thresholds[0] == pytest.approx(0.05)  # below, nearly all lung is lesion
    for n in (1, 35, 45):
        assert volumes[n] == pytest.approx(expected_lesions(result, thresholds[n]).sum() * voxel_ml)
    drag(panel, 0.45)
    wait_for(lambda: panel.panel.look.is_settled)
    x, y = columns(mark)
    assert list(x) == pytest.approx([0.45, 0.45])  # two points: a line of one is complained about at each painting
    assert list(y) == pytest.approx([0.0, volumes[40]])
    panel.ui.areaPlotButton.click()
    series = result.heatmap.GetNodeReference("LesionDecomp.areaChart").GetNthPlotSeriesNode(0)
    heights, areas = columns(series.GetTableNode())
    assert areas.sum() * result.ct.GetSpacing()[2] / 10.0 == pytest.approx(lesions_of(result).sum() * voxel_ml)
    matrix = slicer.util.arrayFromVTKMatrix(ras_matrix(result.ct))
    k = int(lesions_of(result).sum(axis=(1, 2)).argmax())
    assert heights[areas.argmax()] == pytest.approx(matrix[2, 2] * k + matrix[2, 3])
    count = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.volumePlotButton.click()
    assert slicer.mrmlScene.GetNumberOfNodes() == count


def test_choosing_another_result_takes_over_its_threshold(panel, result, ct_node, lung_node):
    other = panel.logic.process(ct_node, lung_node, threshold=0.44, minimumVolumeMl=0.5)
    before = lesions_of(other)
    panel.ui.resultSelector.setCurrentNode(other.heatmap)
    assert panel.ui.thresholdSlider.value == pytest.approx(0.44)
    assert panel.ui.minimumVolumeSlider.value == pytest.approx(0.5)
    np.testing.assert_array_equal(lesions_of(other), before)
    assert cells(panel.ui.measurementsTable)[0][2] == f"{float(other.table.GetCellText(0, 2)):.0f}"
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    assert panel.ui.thresholdSlider.value == pytest.approx(0.4)
