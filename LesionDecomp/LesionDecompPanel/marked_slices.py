"""The small table in which slices of loaded volumes are marked as normal or with lesion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import qt
import slicer
from LesionDecompMrml.scene_nodes import chest_volumes
from slicer.i18n import tr as _

from .combo_box import fill, keep_narrow, silent
from .errors import errors_shown
from .signals import connect

VOLUME, FIRST, LAST, LABEL, SPLIT = range(5)
HEIGHT_PIXELS = 24  # of a row


@dataclass(eq=False)
class MarkedRange:
    """A row: the volume node itself, never its ID, which Slicer gives to another volume once the scene is closed."""

    node: Any


class MarkedSlicesTable:
    """Rows of (volume, first, last, label, use).

    :param ui: the panel's controls.
    :param changed: called when anything has changed.
    """

    def __init__(self, ui, changed) -> None:
        self._ui, self._changed = ui, changed
        self._rows: list[MarkedRange] = []
        self._volumes: list[Any] = []  # what the rows' boxes offer, in their order
        table = ui.rangesTable
        table.columnCount = 5
        table.setHorizontalHeaderLabels([_("Volume"), _("From"), _("To"), _("Label"), _("Use for")])
        table.verticalHeader().visible = False
        for column, width in ((VOLUME, 90), (FIRST, 52), (LAST, 52), (LABEL, 74), (SPLIT, 84)):
            table.setColumnWidth(column, width)
        connect(ui.addRangeButton, "clicked(bool)", self._on_add)
        connect(ui.removeRangeButton, "clicked(bool)", self._on_remove)
        connect(ui.fromViewButton, "clicked(bool)", self._on_from_view)
        connect(ui.toViewButton, "clicked(bool)", self._on_to_view)

    def marks(self) -> list[tuple]:
        """(volume node, first, last, label, split) of each row, as the logic takes them; a label may still be empty."""
        table = self._ui.rangesTable
        rows = []
        for row, marked in enumerate(self._rows):
            if marked.node is not None and slicer.mrmlScene.IsNodePresent(marked.node):
                first, last = (table.cellWidget(row, column).value for column in (FIRST, LAST))
                label, split = (self._data(row, column) for column in (LABEL, SPLIT))
                rows.append((marked.node, first, last, label, split))
        return rows

    def add(self, node=None) -> int:
        """Add a row for a volume (default: that of the last row, or the first one).

        :return: its number.
        """
        table = self._ui.rangesTable
        row = len(self._rows)
        self._volumes = chest_volumes(slicer.mrmlScene)
        node = node or (self._rows[-1].node if self._rows else None) or next(iter(self._volumes), None)
        self._rows.append(MarkedRange(node))
        table.insertRow(row)
        table.setRowHeight(row, HEIGHT_PIXELS)
        self._put_box(row, VOLUME, [], None)
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
            (_("choose"), "", _("Choose whether these slices are normal or show a lesion.")),
            (_("normal"), "normal", _("No lesion in any of these slices.")),
            (_("lesion"), "lesion", _("At least one lesion in each of these slices.")),
        ]
        self._put_box(row, LABEL, labels, "")
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
        self._fill_volumes()
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

    def replace(self, node, ranges: Sequence[tuple[int, int, str]]) -> None:
        """Have a volume's rows be these: first, last (included) and label; other volumes keep theirs."""
        for row in reversed([n for n, marked in enumerate(self._rows) if marked.node == node]):
            self._remove(row)
        for first, last, label in ranges:
            self.set(self.add(node), first, last, label)

    def clear(self) -> None:
        """Remove all rows, as when the scene is closed."""
        self._rows, self._volumes = [], []
        self._ui.rangesTable.rowCount = 0
        self._changed()

    def scene_changed(self) -> None:
        """Volumes were added or removed: rows of those that are gone go, the others offer what is there now."""
        gone = [n for n, row in enumerate(self._rows) if row.node and not slicer.mrmlScene.IsNodePresent(row.node)]
        for row in reversed(gone):
            self._remove(row)
        self._volumes = chest_volumes(slicer.mrmlScene)
        self._fill_volumes()
        for row in range(len(self._rows)):
            self._fit(row)
        self._changed()

    def _put_box(self, row: int, column: int, entries, chosen) -> None:
        box = qt.QComboBox()
        keep_narrow(box)
        fill(box, entries, chosen)
        self._ui.rangesTable.setCellWidget(row, column, box)
        slot = self._on_volume if column == VOLUME else self._on_changed
        connect(box, "currentIndexChanged(int)", slot)

    def _fill_volumes(self) -> None:
        """Offer the volumes in all rows; an entry's value is its place in the list of nodes."""
        entries = [(node.GetName(), str(n), node.GetName()) for n, node in enumerate(self._volumes)]
        for row, marked in enumerate(self._rows):
            chosen = str(self._volumes.index(marked.node)) if marked.node in self._volumes else None
            box = self._ui.rangesTable.cellWidget(row, VOLUME)
            fill(box, entries, chosen)
            if chosen is None and box.count:
                with silent(box):
                    box.currentIndex = -1

    def _data(self, row: int, column: int):
        box = self._ui.rangesTable.cellWidget(row, column)
        return box.itemData(box.currentIndex) if box is not None else None

    def _fit(self, row: int, whole: bool = False) -> None:
        """Limit a row's numbers to the slices that its volume has.

        :param whole: take all of them.
        """
        from LesionDecompLib.errors import LesionDecompError  # not before: Slicer starts without it
        from LesionDecompMrml.training_volumes import axial_slices

        node = self._rows[row].node
        try:
            highest = axial_slices(node) - 1 if node is not None else 0
        except LesionDecompError:
            highest = 0
        for column in (FIRST, LAST):
            with silent(self._ui.rangesTable.cellWidget(row, column)) as spin:
                spin.maximum = highest
                if whole:
                    spin.value = highest if column == LAST else 0

    def _on_volume(self, _index: int) -> None:
        for row, marked in enumerate(self._rows):
            value = self._data(row, VOLUME)
            node = self._volumes[int(value)] if value else None
            if node is not None and node != marked.node:
                marked.node = node
                self._fit(row, whole=True)  # slices of the other volume mean nothing in this one
        self._changed()

    def _on_changed(self, _value: int) -> None:
        self._changed()

    def _on_add(self, _checked: bool = False) -> None:
        self.add()

    def _on_remove(self, _checked: bool = False) -> None:
        row = self._current()
        if row >= 0:
            self._remove(row)
            self._changed()

    def _remove(self, row: int) -> None:
        del self._rows[row]
        self._ui.rangesTable.removeRow(row)

    def _current(self) -> int:
        """Row that is selected; a table in which nobody has clicked has none, and the last one is meant."""
        row = self._ui.rangesTable.currentRow()
        return row if 0 <= row < len(self._rows) else len(self._rows) - 1

    def _on_from_view(self, _checked: bool = False) -> None:
        self._take_from_view(FIRST)

    def _on_to_view(self, _checked: bool = False) -> None:
        self._take_from_view(LAST)

    def _take_from_view(self, column: int) -> None:
        from LesionDecompMrml.training_volumes import axial_slice_at  # not before: Slicer starts without it

        row = self._current()
        view = slicer.mrmlScene.GetNodeByID("vtkMRMLSliceNodeRed")
        node = self._rows[row].node if row >= 0 else None
        if node is None or view is None or not slicer.mrmlScene.IsNodePresent(node):
            return
        with errors_shown(_("The slice could not be found.")):
            place = [view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3)]
            self._ui.rangesTable.cellWidget(row, column).value = axial_slice_at(node, place)
