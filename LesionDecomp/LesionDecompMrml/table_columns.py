"""Numbers as the columns of a table node, for plots."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk


def set_columns(table, columns: Mapping[str, np.ndarray]) -> bool:
    """Make a table node hold these columns and no others; series that plot them go on doing so.

    :param table: a table node.
    :param columns: name -> ``(n,)`` numbers, all of one length.
    :return: whether the columns themselves are new, and lack units and descriptions.
    """
    modified = table.StartModify()
    try:
        is_new = [table.GetColumnName(n) for n in range(table.GetNumberOfColumns())] != list(columns)
        if is_new:
            table.RemoveAllColumns()
            for name in columns:
                column = vtk.vtkDoubleArray()
                column.SetName(name)
                table.AddColumn(column)
        for index, (name, values) in enumerate(columns.items()):
            held = table.GetTable().GetColumn(index)
            held.DeepCopy(numpy_to_vtk(np.ascontiguousarray(values, np.float64), deep=True))
            held.SetName(name)  # a copy takes over the name too
        table.GetTable().SetNumberOfRows(len(next(iter(columns.values()))))
        table.GetTable().Modified()
        table.Modified()
    finally:
        table.EndModify(modified)
    return is_new
