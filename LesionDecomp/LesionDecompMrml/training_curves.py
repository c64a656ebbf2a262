"""The log of a training in the scene: a table, and a chart with one curve for each of the chief metrics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from LesionDecompLib.training.log import MEANINGS, SECONDS, STEP, curve_names

from .plots import draw_as_line, set_texts
from .scene_nodes import nodes_of_class
from .table_columns import set_columns

FOLDER = "LesionDecomp.training"  # attribute of the table: which run it shows
CHART_ROLE = "LesionDecomp.trainingChart"
SERIES_ROLE = "LesionDecomp.trainingSeries"
UNITS = {SECONDS: "s"}
# Names of the curves; others are called as their columns.
WORDS = {
    "L_r": "Unexplained (1)",
    "L_n": "Change of normal slices (2)",
    "L_c": "Critic (3)",
    "L_a": "Adversarial (4)",
    "L_g": "Total loss",
    "heat_lesion": "Heat, lesion slices",
    "heat_normal": "Heat, normal slices",
}
FEW = 8  # rows; of so few, each is marked, since a line of one is not seen
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
    if len(log[STEP]) == 1:  # the plot view draws lines of two points and more only
        log = {name: np.repeat(values, 2) for name, values in log.items()}
    if set_columns(table, log):
        for name in log:
            table.SetColumnUnitLabel(name, UNITS.get(name, ""))
            table.SetColumnDescription(name, MEANINGS.get(name, ""))
    return table, _chart(scene, table, Path(folder).name, curve_names(log), len(log[STEP]) <= FEW)


def training_table(scene, folder: str | Path):
    """The table node of a run, or None."""
    return next(
        (node for node in nodes_of_class(scene, "vtkMRMLTableNode") if node.GetAttribute(FOLDER) == str(folder)), None
    )


def _chart(scene, table, name: str, columns: list[str], with_marks: bool):
    chart = table.GetNodeReference(CHART_ROLE)
    if chart is None:
        chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", scene.GenerateUniqueName(f"Training {name}"))
        set_texts(chart, "Training", "Step", "Loss, or mean heat")
        table.SetNodeReferenceID(CHART_ROLE, chart.GetID())
    drawn = {series.GetYColumnName(): series for series in _series(table)}
    for number, column in enumerate(columns):
        series = drawn.get(column)
        if series is None:
            series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", WORDS.get(column, column))
            draw_as_line(series, table, STEP, column, COLORS[number % len(COLORS)])
            table.AddNodeReferenceID(SERIES_ROLE, series.GetID())
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        series.SetMarkerStyle(series.MarkerStyleCircle if with_marks else series.MarkerStyleNone)
    return chart


def _series(table) -> list:
    found = [table.GetNthNodeReference(SERIES_ROLE, n) for n in range(table.GetNumberOfNodeReferences(SERIES_ROLE))]
    return [series for series in found if series is not None]
