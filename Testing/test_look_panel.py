"""Widget wiring of the panel's second part, Look: what follows the sliders; see panel_fixtures."""

from __future__ import annotations

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer.qt_panel import text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import expected_lesions, lesions_of  # noqa: E402


def test_dragging_the_threshold_moves_lesions_and_figures_at_once_and_the_table_after(panel, result):
    panel.ui.minimumVolumeSlider.value = 0.0
    table = result.table.GetMTime()
    voxel_ml = np.prod(result.ct.GetSpacing()) / 1000.0
    for threshold in (0.45, 0.43, 0.41):
        panel.ui.thresholdSlider.value = threshold
        lesions = lesions_of(result)
        np.testing.assert_array_equal(lesions != 0, expected_lesions(result, threshold))
        assert f"Lesions: {np.count_nonzero(lesions) * voxel_ml:.2f} mL" in text_of(panel.ui.figuresLabel)
    assert result.table.GetMTime() == table
    wait_for(lambda: panel.look.is_settled)
    column = result.table.GetColumnIndex("Lesion volume (mL)")
    milliliters = np.count_nonzero(lesions_of(result)) * voxel_ml
    assert float(result.table.GetCellText(0, column)) == pytest.approx(milliliters, rel=1e-5)


def test_smallest_lesion_slider_leaves_out_what_is_smaller(panel, result):
    from scipy.ndimage import label

    panel.ui.thresholdSlider.value = 0.45
    panel.ui.minimumVolumeSlider.value = 2.0
    labels, count = label(lesions_of(result), np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * np.prod(result.ct.GetSpacing()) / 1000.0
    assert count > 0
    assert sizes.min() >= 2.0
    assert f"{count} lesions, the largest {sizes.max():.2f} mL" in text_of(panel.ui.figuresLabel)


def test_segment_follows_while_seen_and_otherwise_when_the_slider_rests(panel, ct_node, lung_node):
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.look.show(nodes, 0.4, 0.1)

    def segment() -> np.ndarray:
        return slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node)

    for threshold in (0.45, 0.41, 0.47):
        panel.ui.thresholdSlider.value = threshold
        np.testing.assert_array_equal(segment(), lesions_of(nodes))
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    panel.ui.thresholdSlider.value = 0.42
    assert (segment() != lesions_of(nodes)).any()
    wait_for(lambda: panel.look.is_settled)
    np.testing.assert_array_equal(segment(), lesions_of(nodes))


def test_segment_editor_can_undo_what_the_slider_did(panel, ct_node, lung_node):
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4, segmentationNode=True)
    panel.look.show(nodes, 0.4, 0.1)
    before = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node).copy()
    history = slicer.vtkSegmentationHistory()
    history.SetSegmentation(nodes.segmentation.GetSegmentation())
    history.SaveState()
    for threshold in (0.45, 0.46, 0.42):
        panel.ui.thresholdSlider.value = threshold
        assert (slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node) != before).any()
    assert history.RestorePreviousState()
    np.testing.assert_array_equal(
        slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct_node), before
    )


def test_overlay_outline_opacity_and_legend_follow_their_controls(panel, result):
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
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


def test_surfaces_are_made_on_demand_and_follow_when_the_slider_rests(panel, result):
    import vtk

    panel.ui.surfacesCheckBox.click()
    nodes = panel.look.nodes()
    assert nodes.segmentation is not None
    assert nodes.segmentation.GetDisplayNode().GetVisibility3D()

    def points() -> int:
        surface = vtk.vtkPolyData()
        assert nodes.segmentation.GetClosedSurfaceRepresentation("lesion", surface)
        return surface.GetNumberOfPoints()

    before = points()
    assert before > 0
    panel.ui.thresholdSlider.value = 0.45
    assert points() == before
    wait_for(lambda: panel.look.is_settled)
    assert points() != before
    panel.ui.surfacesCheckBox.click()
    assert not nodes.segmentation.GetDisplayNode().GetVisibility3D()


def test_next_lesion_goes_through_the_lesions_by_size(panel, result):
    from scipy.ndimage import label

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetOrientationToAxial()
    panel.ui.thresholdSlider.value = 0.45
    panel.ui.minimumVolumeSlider.value = 0.1
    labels, count = label(lesions_of(result), np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * np.prod(result.ct.GetSpacing()) / 1000.0
    expected = sorted(sizes, reverse=True)
    matrix = slicer.util.arrayFromVTKMatrix(ras_matrix(result.lesions))
    assert count > 1
    for n in range(2):
        panel.ui.nextLesionButton.click()
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
    panel.ui.thresholdSlider.value = 0.5
    panel.ui.nextLesionButton.click()
    assert text_of(panel.ui.lesionLabel) == "There is no lesion at this threshold."


def ras_matrix(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


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
    for n in (1, 40, 50):
        assert volumes[n] == pytest.approx(expected_lesions(result, thresholds[n]).sum() * voxel_ml)
    panel.ui.thresholdSlider.value = 0.45
    assert [values[0] for values in columns(mark)] == pytest.approx([0.45, volumes[45]])
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
    assert panel.ui.statisticsTableView.mrmlTableNode() == other.table
    panel.ui.resultSelector.setCurrentNode(result.heatmap)
    assert panel.ui.thresholdSlider.value == pytest.approx(0.4)
