"""Plots of a result in Slicer's own plot nodes: lesion volume against threshold, lesion area along the body axis.

They belong to the heatmap by node references, are made once for each result, and are saved with the scene.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from .table_columns import set_columns

THRESHOLD_COLUMN, VOLUME_COLUMN = "Threshold", "Lesion volume (mL)"
HEIGHT_COLUMN, AREA_COLUMN = "Height, superior (mm)", "Lesion area (cm²)"
LINE_COLOR, MARK_COLOR = (0.55, 0.10, 0.45), (0.90, 0.35, 0.10)
STEP = 10  # of the thousand thresholds of the curve, every tenth is drawn
LOWEST = 0.05  # below, nearly the whole lung is lesion, and the rest of the curve would lie flat
TITLE_SIZE, TEXT_SIZE = 14, 12  # points; Slicer's own 20 are cut off in a view of a quarter of a small screen


def show_volume_curve(heatmap, curve: tuple[np.ndarray, np.ndarray], threshold: float, volume_ml: float):
    """Make or update the plot of lesion volume against threshold.

    :param heatmap: node of the result.
    :param curve: thresholds and volumes, mL, as ``volume_curve`` gives them.
    :param threshold: the current one, marked.
    :param volume_ml: of the lesions shown, at that threshold.
    :return: the chart node.
    """
    name = heatmap.GetName()
    drawn = curve[0] >= LOWEST - 1e-9
    thresholds, volumes = (values[drawn][::STEP] for values in curve)
    line = _table(heatmap, "volumeCurve", f"{name} volume curve")
    if line.GetNumberOfRows() != len(thresholds) or not np.array_equal(_column(line, 1), volumes):
        set_columns(line, {THRESHOLD_COLUMN: thresholds, VOLUME_COLUMN: volumes})
    mark_threshold(heatmap, threshold, volume_ml)
    series = [
        _series(heatmap, "volumeSeries", "Any size", line, THRESHOLD_COLUMN, VOLUME_COLUMN),
        _mark_series(heatmap),
    ]
    # A curve that falls leaves the corner free in which the legend stands.
    titles = ("Lesion volume", THRESHOLD_COLUMN, "mL")
    return _chart(heatmap, "volumeChart", f"{name}: lesion volume", series, titles, with_legend=True)


def mark_threshold(heatmap, threshold: float, volume_ml: float) -> None:
    """Move the mark of the volume curve, from the axis up to the present volume."""
    table = _table(heatmap, "volumeMark", f"{heatmap.GetName()} volume at the threshold")
    # Two points: the plot view complains about a line of one, each time it paints.
    set_columns(table, {THRESHOLD_COLUMN: np.full(2, threshold), VOLUME_COLUMN: np.array([0.0, volume_ml])})


def show_area_along_body(heatmap, heights: np.ndarray, areas: np.ndarray):
    """Make or update the plot of lesion area along the body axis.

    :param heights: RAS superior of each axial slice, mm.
    :param areas: cm².
    :return: the chart node.
    """
    name = heatmap.GetName()
    table = _table(heatmap, "areaCurve", f"{name} area along the body")
    set_columns(table, {HEIGHT_COLUMN: heights, AREA_COLUMN: areas})
    series = [_series(heatmap, "areaSeries", "Lesion area", table, HEIGHT_COLUMN, AREA_COLUMN)]
    return _chart(heatmap, "areaChart", f"{name}: lesion area", series, ("Lesion area", HEIGHT_COLUMN, "cm²"))


def has_plots(heatmap) -> bool:
    """Whether a plot of this result is in the scene, and worth updating."""
    return heatmap.GetNodeReference(_role("volumeChart")) is not None


def _role(name: str) -> str:
    return f"LesionDecomp.{name}"


def _node(heatmap, role: str, class_name: str, name: str):
    node = heatmap.GetNodeReference(_role(role))
    if node is None:
        scene = heatmap.GetScene()
        node = scene.AddNewNodeByClass(class_name, scene.GenerateUniqueName(name))
        heatmap.SetNodeReferenceID(_role(role), node.GetID())
    return node


def _table(heatmap, role: str, name: str):
    table = _node(heatmap, role, "vtkMRMLTableNode", name)
    table.SetLocked(True)
    return table


def _series(heatmap, role: str, name: str, table, x: str, y: str):
    series = _node(heatmap, role, "vtkMRMLPlotSeriesNode", name)
    draw_as_line(series, table, x, y, LINE_COLOR)
    return series


def draw_as_line(series, table, x: str, y: str, color: tuple[float, float, float]) -> None:
    """Have a plot series node draw column ``y`` of a table node over its column ``x``."""
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(y)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleSolid)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
    series.SetColor(*color)


def _mark_series(heatmap):
    table = heatmap.GetNodeReference(_role("volumeMark"))
    series = _series(heatmap, "markSeries", "Lesions shown", table, THRESHOLD_COLUMN, VOLUME_COLUMN)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    series.SetMarkerSize(9)
    series.SetColor(*MARK_COLOR)
    return series


def _chart(heatmap, role: str, name: str, series: list[Any], titles: tuple[str, str, str], with_legend: bool = False):
    """Find or make a chart.

    :param titles: of the chart and its two axes; short, or a small view cuts them off.
    """
    is_new = heatmap.GetNodeReference(_role(role)) is None
    chart = _node(heatmap, role, "vtkMRMLPlotChartNode", name)
    if is_new:  # the user's own settings survive
        for one in series:
            chart.AddAndObservePlotSeriesNodeID(one.GetID())
        set_texts(chart, *titles)
        chart.SetLegendVisibility(with_legend)
    return chart


def set_texts(chart, title: str, x_axis: str, y_axis: str) -> None:
    """Title and axis titles of a chart node, small enough for a view that is a quarter of a small screen."""
    chart.SetTitle(title)
    chart.SetXAxisTitle(x_axis)
    chart.SetYAxisTitle(y_axis)
    chart.SetTitleFontSize(TITLE_SIZE)
    chart.SetAxisTitleFontSize(TEXT_SIZE)
    chart.SetAxisLabelFontSize(TEXT_SIZE)
    chart.SetLegendFontSize(TEXT_SIZE)


def _column(table, index: int) -> np.ndarray:
    return slicer.util.arrayFromTableColumn(table, table.GetColumnName(index))
