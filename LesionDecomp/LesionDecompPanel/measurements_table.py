"""The compact table of the panel: regions, and how much lung and lesion they hold."""

from __future__ import annotations

from collections.abc import Sequence

import qt
from LesionDecompLib.measurement.definitions import measurement
from LesionDecompLib.measurement.region_rows import RegionRow
from LesionDecompLib.measurement.statistics import RegionStatistics
from LesionDecompMrml.statistics_table import readable
from slicer.i18n import tr as _

COLUMNS = ("lung_volume_ml", "lesion_volume_ml", "involvement_percent")

NUMBERS_ALIGNMENT = 0x0082  # Qt's right and vertical center, as the number that models take

SHORT = ((" lungs, ", ", "), (" lung, ", ", "))  # "right lung, upper third" would not fit


class MeasurementsTable:
    """Rows of region, lung mL, lesion mL and share.

    :param table: a ``QTableWidget``.
    """

    def __init__(self, table) -> None:
        self._table = table
        table.columnCount = 1 + len(COLUMNS)
        table.setHorizontalHeaderLabels([_("Region"), _("Lung\nmL"), _("Lesion\nmL"), "%"])
        for column, key in enumerate(COLUMNS, start=1):
            table.horizontalHeaderItem(column).setToolTip(measurement(key).tooltip)
        table.verticalHeader().visible = False
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in range(1, 1 + len(COLUMNS)):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.minimumSectionSize = 20

    def show(self, rows: list[RegionStatistics], regions: Sequence[RegionRow] = ()) -> None:
        """Fill the table; without rows it is empty.

        :param regions: shown below; thirds are among the rows already.
        """
        table = self._table
        below = [row for row in regions if row.set_key != "thirds"]
        lines = [(row.region, row.values, row.region) for row in rows]
        lines += [(row.region, row.values, row.definition) for row in below]
        table.rowCount = len(lines)
        for n, (region, values, tooltip) in enumerate(lines):
            for long, short in SHORT:
                region = region.replace(long, short)
            texts = [region, *(readable(measurement(key), values[key]) for key in COLUMNS)]
            for column, text in enumerate(texts):
                item = table.item(n, column)
                if item is None:
                    item = qt.QTableWidgetItem()
                    if column:
                        item.setData(qt.Qt.TextAlignmentRole, NUMBERS_ALIGNMENT)
                    table.setItem(n, column, item)
                item.setText(text)
                item.setToolTip(tooltip)
        table.resizeRowsToContents()
