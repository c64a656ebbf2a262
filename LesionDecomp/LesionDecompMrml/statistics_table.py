"""The statistics as table nodes: one that holds the numbers, and one for people, with digits that make sense."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import vtk
from LesionDecompLib.measurement.definitions import MEASUREMENTS, Measurement
from LesionDecompLib.measurement.statistics import REGION_HEADER, RegionStatistics

READABLE_ROLE = "LesionDecomp.readableTable"  # the heatmap's reference to the table for people
UNDEFINED = "–"
MEASUREMENT_HEADER = "Measurement"


def fill_table(node, rows: Sequence[RegionStatistics]) -> None:
    """Replace a table node's content by the statistics, one row for each region.

    :param node: a table node.
    :param rows: what ``lesion_statistics`` returned.

    Column names are the CSV file's headers ("Lesion volume (mL)"); title, unit label and description of each column
    hold the measurement's title, unit and definition. Undefined ones stay NaN.
    """
    with _emptied(node):
        regions = vtk.vtkStringArray()
        regions.SetName(REGION_HEADER)
        for row in rows:
            regions.InsertNextValue(row.region)
        node.AddColumn(regions)
        node.SetColumnDescription(REGION_HEADER, "Part of the lungs that the row is about.")
        for measurement in MEASUREMENTS:
            column = vtk.vtkDoubleArray()
            column.SetName(measurement.header)
            for row in rows:
                column.InsertNextValue(float(row.values[measurement.key]))
            node.AddColumn(column)
            node.SetColumnTitle(measurement.header, measurement.title)
            node.SetColumnUnitLabel(measurement.header, measurement.unit)
            node.SetColumnDescription(measurement.header, measurement.explanation)


@contextmanager
def _emptied(node, names_rows: bool = True) -> Iterator[None]:
    """A table node without columns, to be filled as one change.

    :param names_rows: whether its first column will name the rows.
    """
    modified = node.StartModify()
    try:
        node.SetLocked(True)  # measurements are for reading; the user copies the table to edit it
        node.SetUseColumnTitleAsColumnHeader(True)
        node.SetUseFirstColumnAsRowHeader(names_rows)
        node.RemoveAllColumns()
        yield
    finally:
        node.EndModify(modified)


def read_table(node) -> list[RegionStatistics]:
    """The statistics that a table node holds; empty where it holds none, or lacks a column.

    :param node: filled by :func:`fill_table`.
    """
    table = node.GetTable()
    columns = [table.GetColumnByName(measurement.header) for measurement in MEASUREMENTS]
    regions = table.GetColumnByName(REGION_HEADER)
    if regions is None or any(column is None for column in columns):
        return []
    rows = []
    for n in range(table.GetNumberOfRows()):
        # A table that was read from a file may hold text.
        keys = (m.key for m in MEASUREMENTS)
        values = {k: column.GetVariantValue(n).ToDouble() for k, column in zip(keys, columns, strict=True)}
        rows.append(RegionStatistics(regions.GetValue(n), values))
    return rows


def readable(measurement: Measurement, value: float) -> str:
    """A value with digits that make sense, without its unit: "4104", "65.3", "−752"; a dash where it is undefined."""
    return readable_number(value, "HU" if measurement.decimals == 0 else measurement.unit)


def readable_number(value: float, unit: str) -> str:
    """A value of a unit with digits that make sense; a dash where it is undefined."""
    if math.isnan(value):
        return UNDEFINED
    if unit == "HU":
        decimals = 0
    elif unit == "mL":
        decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    else:
        decimals = 1 if unit == "%" else 2
    text = f"{value:.{decimals}f}"
    if float(text) == 0.0:
        text = text.lstrip("-")
    return text.replace("-", "\N{MINUS SIGN}")


def show_readable_table(heatmap, rows: Sequence[RegionStatistics], *, make: bool = True):
    """Make or update the table for people: measurements as rows, the most important first, regions as columns.

    :param heatmap: node of the result, which refers to the table.
    :param make: make it where there is none.
    :return: the table node, or None.
    """
    node = result_table(heatmap, READABLE_ROLE, f"{heatmap.GetName()} measurements", make=make)
    if node is None:
        return None
    columns = {MEASUREMENT_HEADER: [measurement.header for measurement in MEASUREMENTS]}
    for row in rows:
        columns[row.region] = [readable(one, float(row.values[one.key])) for one in MEASUREMENTS]
    fill_with_texts(node, columns)
    return node


def result_table(heatmap, role: str, name: str, *, make: bool):
    """The table node that a heatmap refers to by ``role``, or None; made under ``name`` where asked for."""
    node = heatmap.GetNodeReference(role)
    if node is None and make:
        scene = heatmap.GetScene()
        node = scene.AddNewNodeByClass("vtkMRMLTableNode", scene.GenerateUniqueName(name))
        heatmap.SetNodeReferenceID(role, node.GetID())
    return node


def fill_with_texts(
    node, columns: Mapping[str, Sequence[str]], described: Sequence[Measurement] = (), *, names_rows: bool = True
) -> None:
    """Replace a table node's content by columns of texts.

    :param described: measurements among the columns, whose unit and definition these get.
    :param names_rows: whether the first column names the rows.
    """
    with _emptied(node, names_rows):
        for name, texts in columns.items():
            column = vtk.vtkStringArray()
            column.SetName(name)
            for text in texts:
                column.InsertNextValue(text)
            node.AddColumn(column)
        for one in described:
            node.SetColumnUnitLabel(one.header, one.unit)
            node.SetColumnDescription(one.header, one.explanation)
