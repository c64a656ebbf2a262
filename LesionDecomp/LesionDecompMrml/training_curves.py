"""The log of a training in the scene: a table, and a chart with one curve for each of the chief figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LesionDecompLib.training.log import MEANINGS, SECONDS, STEP, curve_names

from .plots import draw_as_line
from .scene_nodes import nodes_of_class
from .table_columns import set_columns

FOLDER = "LesionDecomp.training"  # attribute of the table: which run it shows
CHART_ROLE = "LesionDecomp.trainingChart"
SERIES_ROLE = "LesionDecomp.trainingSeries"
UNITS = {SECONDS: "s"}
# Far apart in hue, and readable on a dark and a light background.
COLORS = (
    (0.12, 0.47, 0.71),
    (1.00, 0.50, 0.05),
    (0.17, 0.63, 0.17),
    (0.84, 0.15, 0.16),
    (0.58, 0.40, 0.74),
    (0.55, 0.34, 0.29),
    (0.89, 0.47, 0.76),
    (0.50, 0.50, 0.50),
)


def show_log(scene, folder: str | Path, log: dict[str, np.ndarray]):
    """Make or update table and chart of a run.

    :param folder: of the run; its name is the nodes'.
    :param log: as ``read_log`` gives it, not empty.
    :return: the table node and the chart node.
    """
    table = training_table(scene, folder)
    if table is None:
        table = scene.AddNewNodeByClass(
            "vtkMRMLTableNode", scene.GenerateUniqueName(f"Training {Path(folder).name} log")
        )
        table.SetAttribute(FOLDER, str(folder))
        table.SetLocked(True)
    if set_columns(table, log):
        for name in log:
            table.SetColumnUnitLabel(name, UNITS.get(name, ""))
            table.SetColumnDescription(name, MEANINGS.get(name, ""))
    return table, _chart(scene, table, Path(folder).name, curve_names(log))


def training_table(scene, folder: str | Path):
    """The table node of a run, or None."""
    return next(
        (node for node in nodes_of_class(scene, "vtkMRMLTableNode") if node.GetAttribute(FOLDER) == str(folder)), None
    )


def _chart(scene, table, title: str, names: list[str]):
    chart = table.GetNodeReference(CHART_ROLE)
    if chart is None:
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName(f"Training {title}"))
        chart.SetTitle(f"Training {title}")
        chart.SetXAxisTitle("Step")
        chart.SetYAxisTitle("Loss, or mean heat")
        table.SetNodeReferenceID(CHART_ROLE, chart.GetID())
    drawn = {table.GetNthNodeReference(SERIES_ROLE, n).GetYColumnName() for n in _indices(table)}
    for number, name in enumerate(names):
        if name in drawn:
            continue
        series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
        draw_as_line(series, table, STEP, name, COLORS[number % len(COLORS)])
        table.AddNodeReferenceID(SERIES_ROLE, series.GetID())
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return chart


def _indices(table) -> list[int]:
    references = range(table.GetNumberOfNodeReferences(SERIES_ROLE))
    return [n for n in references if table.GetNthNodeReference(SERIES_ROLE, n) is not None]
