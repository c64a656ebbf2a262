"""The panel's third part: measurements to the clipboard, and files for others: CSV, report, manifest."""

from __future__ import annotations

import re
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from .file_dialogs import ask_save_path
from .signals import connect

BUTTONS = ("copyButton", "saveCsvButton", "saveReportButton", "saveManifestButton")


class ExportSection:
    """Copy, CSV, report and manifest of the result shown.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param nodes: called for the result shown, or None.
    """

    def __init__(self, ui, logic, nodes) -> None:
        self._ui, self._logic, self._nodes = ui, logic, nodes
        connect(ui.copyButton, "clicked(bool)", self._on_copy)
        connect(ui.saveCsvButton, "clicked(bool)", self._on_csv)
        connect(ui.saveReportButton, "clicked(bool)", self._on_report)
        connect(ui.saveManifestButton, "clicked(bool)", self._on_manifest)
        ui.exportLabel.text = ""

    def set_parameter_node(self, _parameters) -> None:
        """The result shown may be another one now."""
        self._ui.exportLabel.text = ""

    def refresh(self) -> None:
        """Bring the buttons in line with what there is."""
        nodes = self._nodes()
        for name in BUTTONS:
            getattr(self._ui, name).enabled = nodes is not None
        for name in ("saveReportButton", "saveManifestButton"):
            getattr(self._ui, name).enabled = nodes is not None and nodes.report is not None

    def cleanup(self) -> None:
        """Nothing is under way here."""

    def _on_copy(self, _checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The measurements could not be copied.")):
            qt.QApplication.clipboard().setText(self._logic.statisticsText(self._nodes().heatmap))
            self._ui.exportLabel.text = _("The table is on the clipboard; paste it into a spreadsheet.")

    def _on_csv(self, _checked: bool = False) -> None:
        self._save(_("Save the statistics"), "statistics.csv", "CSV (*.csv)", self._logic.exportStatistics)

    def _on_manifest(self, _checked: bool = False) -> None:
        self._save(_("Save the manifest of the run"), "report.json", "JSON (*.json)", self._logic.exportManifest)

    def _on_report(self, _checked: bool = False) -> None:
        path = self._save(_("Save the report"), "report.html", "HTML (*.html)", self._logic.exportReport)
        if path is not None:
            open_in_browser(path)

    def _save(self, title: str, name: str, kind: str, export) -> Path | None:
        nodes = self._nodes()
        if nodes is None:
            return None
        answer = ask_save_path(title, name, kind)
        if not answer:
            return None
        path = Path(answer)
        ending = Path(name).suffix
        if not re.fullmatch(r"\.[A-Za-z0-9]{1,5}", path.suffix):
            path = path.with_name(path.name + ending)
        done = False
        with slicer.util.tryWithErrorDisplay(_("The file could not be written.")):
            export(nodes.heatmap, path)
            done = True
        self._ui.exportLabel.text = _("Saved {name}.").format(name=path.name) if done else ""
        return path if done else None


def open_in_browser(path: Path) -> None:
    """Show a page in the user's browser, from where it can be printed."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))
