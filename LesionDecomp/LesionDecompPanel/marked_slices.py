"""The small table in which slices of loaded volumes are marked as normal or with lesion."""

from __future__ import annotations

import qt
import slicer
from LesionDecompMrml.scene_nodes import chest_volumes
from slicer.i18n import tr as _

from .combo_box import fill, silent
from .signals import connect

VOLUME, FIRST, LAST, LABEL, SPLIT = range(5)


class MarkedSlicesTable:
    """Rows of (volume, first, last, label, use).

    :param ui: the panel's controls.
    :param changed: called when anything has changed.
    """

    def __init__(self, ui, changed) -> None:
        self._ui, self._changed = ui, changed
        table = ui.rangesTable
        table.columnCount = 5
        titles = [_("Volume"), _("From"), _("To"), _("Label"), _("Use for")]
        table.setHorizontalHeaderLabels(titles)
        table.setColumnWidth(VOLUME, 120)
        for column in (FIRST, LAST):
            table.setColumnWidth(column, 62)
        for column in (LABEL, SPLIT):
            table.setColumnWidth(column, 88)
        connect(ui.addRangeButton, "clicked(bool)", self._on_add)
        connect(ui.removeRangeButton, "clicked(bool)", self._on_remove)
        connect(ui.fromViewButton, "clicked(bool)", self._on_from_view)
        connect(ui.toViewButton, "clicked(bool)", self._on_to_view)

    def marks(self) -> list[tuple]:
        """(volume node, first, last, label, split) of each row, as the logic takes them."""
        table = self._ui.rangesTable
        rows = []
        for row in range(table.rowCount):
            node = self._node(row)
            if node is not None:
                first, last = (table.cellWidget(row, column).value for column in (FIRST, LAST))
                label, split = (self._data(row, column) for column in (LABEL, SPLIT))
                rows.append((node, first, last, label, split))
        return rows

    def add(self, node=None) -> int:
        """Add a row for a volume (default: that of the last row, or the first one).

        :return: its number.
        """
        table = self._ui.rangesTable
        row = table.rowCount
        node = node or (self._node(row - 1) if row else None)
        table.insertRow(row)
        volumes = [(n.GetName(), n.GetID(), n.GetName()) for n in chest_volumes(slicer.mrmlScene)]
        self._put_box(row, VOLUME, volumes, node.GetID() if node is not None else None)
        for column, tooltip in (
            (FIRST, _("Lowest slice of the range; the lowest slice of the volume is 0.")),
            (LAST, _("Highest slice of the range, included.")),
        ):
            spin = qt.QSpinBox()
            spin.toolTip = tooltip
            spin.keyboardTracking = False
            table.setCellWidget(row, column, spin)
            connect(spin, "valueChanged(int)", self._on_changed)
        labels = [
            (_("normal"), "normal", _("No lesion in any of these slices.")),
            (_("lesion"), "lesion", _("At least one lesion in each of these slices.")),
        ]
        self._put_box(row, LABEL, labels, "normal")
        splits = [
            (
                _("automatic"),
                "",
                _("Volumes are distributed so that training and validation have both labels."),
            ),
            (_("training"), "train", _("The network learns from it.")),
            (_("validation"), "val", _("The heat is calibrated on it; the network does not learn from it.")),
        ]
        self._put_box(row, SPLIT, splits, "")
        self._fit(row, whole=True)
        table.setCurrentCell(row, VOLUME)
        self._changed()
        return row

    def set(self, row: int, first: int | None = None, last: int | None = None, label: str | None = None) -> None:
        """Change a row."""
        table = self._ui.rangesTable
        for column, value in ((FIRST, first), (LAST, last)):
            if value is not None:
                table.cellWidget(row, column).value = value
        if label is not None:
            box = table.cellWidget(row, LABEL)
            box.currentIndex = next(n for n in range(box.count) if box.itemData(n) == label)

    def _put_box(self, row: int, column: int, entries, chosen) -> None:
        box = qt.QComboBox()
        fill(box, entries, chosen)
        self._ui.rangesTable.setCellWidget(row, column, box)
        slot = self._on_volume if column == VOLUME else self._on_changed
        connect(box, "currentIndexChanged(int)", slot)

    def _node(self, row: int):
        identity = self._data(row, VOLUME)
        return slicer.mrmlScene.GetNodeByID(identity) if identity else None

    def _data(self, row: int, column: int):
        box = self._ui.rangesTable.cellWidget(row, column)
        return box.itemData(box.currentIndex) if box is not None else None

    def _fit(self, row: int, whole: bool = False) -> None:
        """Limit a row's numbers to the slices that its volume has."""
        from LesionDecompLib.errors import LesionDecompError
        from LesionDecompMrml.training_volumes import axial_slices

        node = self._node(row)
        try:
            highest = axial_slices(node) - 1 if node is not None else 0
        except LesionDecompError:
            highest = 0
        for column in (FIRST, LAST):
            with silent(self._ui.rangesTable.cellWidget(row, column)) as spin:
                spin.maximum = highest
                if whole and column == LAST:
                    spin.value = highest

    def _on_volume(self, _index: int) -> None:
        for row in range(self._ui.rangesTable.rowCount):
            self._fit(row)
        self._changed()

    def _on_changed(self, _value: int) -> None:
        self._changed()

    def _on_add(self, _checked: bool = False) -> None:
        self.add()

    def _on_remove(self, _checked: bool = False) -> None:
        row = self._ui.rangesTable.currentRow()
        if row >= 0:
            self._ui.rangesTable.removeRow(row)
            self._changed()

    def _on_from_view(self, _checked: bool = False) -> None:
        self._take_from_view(FIRST)

    def _on_to_view(self, _checked: bool = False) -> None:
        self._take_from_view(LAST)

    def _take_from_view(self, column: int) -> None:
        from LesionDecompMrml.training_volumes import axial_slice_at

        row = self._ui.rangesTable.currentRow()
        view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        node = self._node(row) if row >= 0 else None
        if node is None or view is None:
            return
        with slicer.util.tryWithErrorDisplay(_("The slice could not be found.")):
            place = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
            self._ui.rangesTable.cellWidget(row, column).value = axial_slice_at(node, place)
