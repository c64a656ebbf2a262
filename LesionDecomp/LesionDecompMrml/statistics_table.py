"""The statistics as a table node whose columns carry their unit and definition."""

from __future__ import annotations

from collections.abc import Sequence

import vtk
from LesionDecompLib.measurement.statistics import MEASUREMENTS, REGION_HEADER, RegionStatistics


def fill_table(node, rows: Sequence[RegionStatistics]) -> None:
    """Replace a table node's content by the statistics, one row for each region.

    :param node: a table node.
    :param rows: what ``lesion_statistics`` returned.

    Column names are the CSV file's headers ("Lesion volume (mL)"); the unit label and the description of each column
    hold the measurement's unit and definition. Undefined figures stay NaN.
    """
    modified = node.StartModify()
    try:
        node.SetLocked(True)  # figures are for reading; the user copies the table to edit it
        node.RemoveAllColumns()
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
            node.SetColumnUnitLabel(measurement.header, measurement.unit)
            node.SetColumnDescription(measurement.header, measurement.definition)
    finally:
        node.EndModify(modified)
