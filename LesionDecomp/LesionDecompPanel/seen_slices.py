"""The panel's seen slices: which slices a reader has looked at, shown, marked, and handed to Train as labels."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from LesionDecompLib.measurement.seen_slices import LESION, ranges_of_labels
from LesionDecompMrml.views import RED_VIEW
from slicer.i18n import tr as _

from .combo_box import silent
from .errors import errors_shown
from .file_dialogs import ask_folder
from .installation import install_packages
from .signals import Later, connect

TRAINING_SET = "LesionDecomp/ReviewedFolder"  # where Slicer's settings keep the folder that cases were added to last
SHORTCUT = "Ctrl+Shift+M"
MOVED_MS = 30
MOST_RANGES = 6  # in the line that names the slices
CONTROLS = (
    "seenButton",
    "seenFirstSpinBox",
    "seenLastSpinBox",
    "seenRangeButton",
    "useLabelsButton",
    "addToSetButton",
)


class SeenSlices:
    """Marks slices of the result shown as seen, and makes labels of them.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param nodes: called for the result shown, or None.
    :param train: the section that learns from the labels.
    """

    def __init__(self, ui, logic, nodes, train) -> None:
        self._ui, self._logic, self._nodes, self._train = ui, logic, nodes, train
        self._view: Any = None
        self._tag = 0
        self._moved = Later(self._show_slice, MOVED_MS)
        connect(ui.seenButton, "clicked(bool)", self._on_seen)
        connect(ui.seenRangeButton, "clicked(bool)", self._on_range)
        connect(ui.useLabelsButton, "clicked(bool)", self._on_use)
        connect(ui.addToSetButton, "clicked(bool)", self._on_add)
        for spin in (ui.seenFirstSpinBox, ui.seenLastSpinBox):
            connect(spin, "valueChanged(int)", self._on_numbers)

    def set_parameter_node(self, _parameters) -> None:
        """The result shown may be another one now."""
        self._moved.cancel()

    def refresh(self) -> None:
        """Bring the controls in line with what there is."""
        nodes = self._nodes()
        reported = nodes is not None and nodes.report is not None
        for name in CONTROLS:
            getattr(self._ui, name).enabled = reported
        self._watch()
        if not reported:
            self.show(None)

    def cleanup(self) -> None:
        """The panel goes."""
        self._moved.cancel()
        if self._view is not None:
            self._view.RemoveObserver(self._tag)
            self._view = None

    def show(self, result) -> None:
        """Show which slices of a result were seen; of None, nothing."""
        ui = self._ui
        if result is None or result.nodes.report is None:
            ui.seenLabel.text = ""
            with silent(ui.seenButton):
                ui.seenButton.checked = False
            return
        with errors_shown(_("The slices could not be shown.")):
            for spin in (ui.seenFirstSpinBox, ui.seenLastSpinBox):
                with silent(spin):
                    spin.maximum = result.slices - 1
            ui.seenLabel.text = self._words(result)
            self._show_slice()

    def _words(self, result) -> str:
        labels = result.slice_labels()
        if not labels:
            return _("No slice was marked as seen; slices not seen teach nothing.")
        ranges = ranges_of_labels(dict.fromkeys(labels, ""))
        shown = [f"{first}\N{EN DASH}{last}" if last > first else str(first) for first, last, _label in ranges]
        names = ", ".join(shown[:MOST_RANGES]) + (", \N{HORIZONTAL ELLIPSIS}" if len(shown) > MOST_RANGES else "")
        lesion = sum(label == LESION for label in labels.values())
        return _("Seen: {seen} of {count} slices ({names}): {lesion} with lesion, {normal} normal.").format(
            seen=len(labels), count=result.slices, names=names, lesion=lesion, normal=len(labels) - lesion
        )

    def _watch(self) -> None:
        """Follow the Red view from slice to slice."""
        view = slicer.mrmlScene.GetNodeByID(RED_VIEW)
        if view != self._view:
            self.cleanup()
            self._view = view
            if view is not None:
                self._tag = view.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_view)

    def _on_view(self, _node, _event) -> None:
        self._moved.request()

    def _slice(self, result) -> int | None:
        """The axial slice at the Red view's place."""
        self._watch()
        if self._view is None:
            return None
        r, a, s = (self._view.GetSliceToRAS().GetElement(axis, 3) for axis in range(3))
        return result.slice_at((r, a, s))

    def _show_slice(self) -> None:
        ui, nodes = self._ui, self._nodes()
        if nodes is None or nodes.report is None:
            return
        result = self._logic.result(nodes.heatmap)
        index = self._slice(result)
        seen = index is not None and index in result.review.seen
        ui.seenButton.enabled = index is not None
        with silent(ui.seenButton):
            ui.seenButton.checked = seen
        if index is not None:
            text = _("Slice {n}: seen") if seen else _("Slice {n}: mark as seen")
            ui.seenButton.text = text.format(n=index)
            ui.seenButton.shortcut = qt.QKeySequence(SHORTCUT)  # a new text takes the old one away
        self._show_range(result)

    def _show_range(self, result) -> None:
        first, last = self._range()
        whole = set(range(first, last + 1)) <= set(result.review.seen)
        self._ui.seenRangeButton.text = _("Not seen") if whole else _("Seen")

    def _range(self) -> tuple[int, int]:
        numbers = self._ui.seenFirstSpinBox.value, self._ui.seenLastSpinBox.value
        return min(numbers), max(numbers)

    def _on_seen(self, checked: bool = False) -> None:
        if self._nodes() is None:
            return
        with errors_shown(_("The slice could not be marked.")):
            result = self._result()
            index = self._slice(result)
            if index is not None:
                result.mark_slices(index, index, checked)
            self.show(result)

    def _on_range(self, _checked: bool = False) -> None:
        if self._nodes() is None:
            return
        with errors_shown(_("The slices could not be marked.")):
            result = self._result()
            first, last = self._range()
            whole = set(range(first, last + 1)) <= set(result.review.seen)
            result.mark_slices(first, last, not whole)
            self.show(result)

    def _on_numbers(self, _value: int) -> None:
        nodes = self._nodes()
        if nodes is not None and nodes.report is not None:
            self._show_range(self._result())

    def _on_use(self, _checked: bool = False) -> None:
        if self._nodes() is None:
            return
        with errors_shown(_("The slices could not be used as labels.")):
            result = self._result()
            result.take_edits()
            ranges = ranges_of_labels(result.slice_labels())
            if not ranges:
                self._ui.reviewLabel.text = _("Mark the slices that you have seen first.")
                return
            self._train.take_labels(result.nodes.ct, ranges)
            self._ui.reviewLabel.text = _("Train has the labels of {n} slices of '{ct}'.").format(
                n=sum(last - first + 1 for first, last, _label in ranges), ct=result.nodes.ct.GetName()
            )

    def _on_add(self, _checked: bool = False) -> None:
        if self._nodes() is None:
            return
        with errors_shown(_("The slices could not be added to a training folder.")):
            result = self._result()
            if not result.slice_labels():
                self._ui.reviewLabel.text = _("Mark the slices that you have seen first.")
                return
            held = str(qt.QSettings().value(TRAINING_SET) or "")
            folder = ask_folder(_("Choose the training folder that this case joins, or a new one"), held)
            if not folder or (self._logic.missingPackages() and not install_packages(self._logic)):
                return
            grown = result.add_to_training_set(folder)
            qt.QSettings().setValue(TRAINING_SET, folder)
            self._train.take_folder(folder)
            self._ui.reviewLabel.text = grown.text()

    def _result(self):
        return self._logic.result(self._nodes().heatmap)
