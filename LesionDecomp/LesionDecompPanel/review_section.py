"""The panel's review: a list of the lesions, each to be jumped to, taken out or put back; adding by a click; edits by
hand; undo."""

from __future__ import annotations

from typing import Any

import qt
from LesionDecompMrml.statistics_table import readable_number
from slicer.i18n import tr as _

from .combo_box import silent
from .edit_watch import EditWatch
from .errors import errors_shown
from .measurements_table import NUMBERS_ALIGNMENT, SHORT
from .signals import connect
from .view_clicks import ViewClicks

MOST = 200  # of the model's lesions in the list
CONTROLS = ("lesionsTable", "undoReviewButton", "addLesionButton", "addThresholdSpinBox")


class ReviewSection:
    """What a reader decides about the lesions of the result shown.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param nodes: called for the result shown, or None.
    :param changed: called after a decision, when lesions, segment and table node have followed.
    """

    def __init__(self, ui, logic, nodes, changed) -> None:
        self._ui, self._logic, self._nodes, self._changed = ui, logic, nodes, changed
        self._lesions: list[Any] = []
        self._decisions: Any = None  # that the list shows
        self._clicks = ViewClicks(self.view_clicked)
        self.edits = EditWatch(self.take_edits)
        table = ui.lesionsTable
        table.columnCount = 4
        table.setHorizontalHeaderLabels([_("Lesion"), _("mL"), _("HU"), _("Heat")])
        for column, words in enumerate(
            (
                _("Lung and third that hold most of it. Untick a lesion to take it out; click it to go there."),
                _("Volume, mL."),
                _("Mean HU."),
                _("Highest heat, 0 to 1."),
            )
        ):
            table.horizontalHeaderItem(column).setToolTip(words)
        table.verticalHeader().visible = False
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in range(1, 4):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.minimumSectionSize = 20
        connect(table, "itemChanged(QTableWidgetItem*)", self._on_ticked)
        connect(table, "cellClicked(int,int)", self._on_clicked)
        connect(ui.undoReviewButton, "clicked(bool)", self._on_undo)
        connect(ui.addLesionButton, "toggled(bool)", self._on_add)
        ui.reviewLabel.text = ""

    def set_parameter_node(self, _parameters) -> None:
        """The result shown may be another one now."""
        self._ui.addLesionButton.checked = False
        self._ui.reviewLabel.text = ""

    def exit(self) -> None:
        """Another module is being looked at: a click in a view is meant for that one."""
        self._ui.addLesionButton.checked = False

    def refresh(self) -> None:
        """Bring the controls in line with what there is."""
        nodes = self._nodes()
        reported = nodes is not None and nodes.report is not None
        for name in CONTROLS:
            getattr(self._ui, name).enabled = reported
        if nodes is not None:  # without, another module is looked at, which may be Segment Editor
            self.edits.watch(nodes.segmentation)
        if not reported:
            self.show(None)

    def scene_closed(self) -> None:
        """The segmentation that was watched is gone."""
        self.edits.stop()

    def cleanup(self) -> None:
        """The panel goes."""
        self._clicks.stop()
        self.edits.stop()

    def take_edits(self) -> None:
        """Count what was edited by hand, as in Segment Editor, and show it; an export may have counted it before."""
        self.count_edits()
        nodes = self._nodes()
        if nodes is not None and nodes.report is not None and self._result().review.lesions != self._decisions:
            self._changed()

    def count_edits(self) -> None:
        """Count what was edited by hand; the result is the one that was shown last."""
        nodes = self._logic.resultNodes(self._logic.getParameterNode().heatmap)
        edit = self._logic.result(nodes.heatmap).take_edits() if nodes is not None else None
        if edit is None:
            return
        voxel_ml = self._logic.result(nodes.heatmap).live.live.voxel_volume_ml
        text = _("Edited by hand: {painted:.2f} mL painted, {erased:.2f} mL erased.").format(
            painted=edit.painted.sum() * voxel_ml, erased=edit.erased.sum() * voxel_ml
        )
        if edit.beside:
            text += " " + _("{beside:.2f} mL outside the lungs do not count.").format(beside=edit.beside * voxel_ml)
        if edit.covered:
            text += " " + _("{covered:.2f} mL of lesions that a lung was painted over stay.").format(
                covered=edit.covered * voxel_ml
            )
        self._ui.reviewLabel.text = text

    def show(self, result) -> None:
        """List the lesions of a result; of None, nothing."""
        table, left_out = self._ui.lesionsTable, 0
        self._lesions, self._decisions = [], None
        if result is not None and result.nodes.report is not None:
            with errors_shown(_("The lesions could not be listed.")):
                found, self._decisions = result.reviewed_lesions(), result.review.lesions
                own = [one for one in found if not (one.added or one.painted)]
                left_out = max(0, len(own) - MOST)
                self._lesions = own[:MOST] + [one for one in found if one.added or one.painted]
        with silent(table):
            table.rowCount = len(self._lesions) + bool(left_out)
            for row, one in enumerate(self._lesions):
                self._fill(row, one)
            if left_out:
                self._fill_last(left_out)
        table.resizeRowsToContents()

    def _fill(self, row: int, one) -> None:
        lesion, table = one.lesion, self._ui.lesionsTable
        region = lesion.region
        for long, short in SHORT:
            region = region.replace(long, short)
        name = _("added: {region}") if one.added else _("painted: {region}") if one.painted else "{region}"
        name = name.format(region=region)
        texts = [name, readable_number(lesion.volume_ml, "mL"), readable_number(lesion.mean_hu, "HU")]
        texts.append(f"{lesion.highest_heat:.2f}")
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(text)
            if column:
                item.setData(qt.Qt.TextAlignmentRole, NUMBERS_ALIGNMENT)
            else:
                item.setCheckState(qt.Qt.Checked if one.kept else qt.Qt.Unchecked)
            table.setItem(row, column, item)

    def _fill_last(self, left_out: int) -> None:
        table = self._ui.lesionsTable
        texts = [_("{count} smaller ones are not listed").format(count=left_out), "", "", ""]
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.NoItemFlags)
            table.setItem(len(self._lesions), column, item)

    def _on_ticked(self, item) -> None:
        row = item.row()
        if item.column() or row >= len(self._lesions):
            return
        kept = item.checkState() == qt.Qt.Checked
        one = self._lesions[row]
        if kept == one.kept:
            return
        with errors_shown(_("The lesions could not be updated.")):
            # What was added goes again, and leaves what the model has there.
            self._result().decide("accept" if kept or one.added else "reject", one.lesion.voxel, one.threshold)
            self._ui.reviewLabel.text = (
                _("Put back: {region}, {volume:.2f} mL.") if kept else _("Taken out: {region}, {volume:.2f} mL.")
            ).format(region=one.lesion.region, volume=one.lesion.volume_ml)
        self._changed()

    def _on_clicked(self, row: int, _column: int) -> None:
        if row < len(self._lesions) and self._nodes() is not None:
            with errors_shown(_("The views could not be moved.")):
                self._result().jump_to_lesion(self._lesions[row].lesion.voxel)

    def _on_undo(self, _checked: bool = False) -> None:
        # The button is never disabled by its own click: the focus would go elsewhere, and the panel would scroll there.
        with errors_shown(_("The decision could not be taken back.")):
            result = self._result()
            result.take_edits()
            if not (result.review.lesions or result.review.slices):
                self._ui.reviewLabel.text = _("There is no decision to take back.")
                return
            result.undo_decision()
            self._ui.reviewLabel.text = _("The latest decision was taken back.")
        self._changed()

    def _on_add(self, checked: bool) -> None:
        asked = _("Click a lesion in a slice view to add it.")
        if checked and self._nodes() is not None:
            self._clicks.start()
            self._ui.reviewLabel.text = asked
        else:
            self._clicks.stop()
            if self._ui.reviewLabel.text == asked:
                self._ui.reviewLabel.text = ""

    def views_changed(self) -> None:
        """There are other slice views now: clicks in them count, too."""
        if self._ui.addLesionButton.checked:
            self._clicks.start()

    def view_clicked(self, ras: tuple[float, float, float]) -> None:
        """Add the connected heat under a click, down to the threshold that the spin box shows."""
        if self._nodes() is None:
            return
        threshold = float(self._ui.addThresholdSpinBox.value)
        with errors_shown(_("The lesion could not be added.")):
            result = self._result()
            voxel = result.voxel_of(ras)
            heat = result.heat_at(voxel) if voxel is not None else 0.0
            if voxel is None or heat < threshold:
                self._ui.reviewLabel.text = _("No lesion there: the heat is {heat:.2f}, below {threshold:.2f}.").format(
                    heat=heat, threshold=threshold
                )
                return
            before = result.summary().lesion_ml
            result.decide("add", voxel, threshold)
            self._ui.reviewLabel.text = _("Added: {volume:.2f} mL of heat from {threshold:.2f} up.").format(
                volume=result.summary().lesion_ml - before, threshold=threshold
            )
        self._changed()

    def _result(self):
        return self._logic.result(self._nodes().heatmap)
