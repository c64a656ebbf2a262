"""The panel's third part: measurements to the clipboard, and files for others: CSV, report, manifest, DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from .errors import errors_shown
from .file_dialogs import ask_save_path
from .installation import install_packages, installing_in_words, is_installing
from .packages import can_write_dicom_seg, install_for_dicom_seg
from .signals import connect

BUTTONS = ("copyButton", "saveCsvButton", "saveRegionsButton", "saveReportButton", "saveManifestButton")
REPORTED = ("saveReportButton", "saveManifestButton", "copyMethodsButton")  # these need the run's report


class ExportSection:
    """Copy, CSV, report, manifest and DICOM segmentation of the result shown.

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
        connect(ui.saveRegionsButton, "clicked(bool)", self._on_regions)
        connect(ui.copyMethodsButton, "clicked(bool)", self._on_methods)
        connect(ui.saveDicomButton, "clicked(bool)", self._on_dicom)
        ui.exportLabel.text = ""

    def set_parameter_node(self, _parameters) -> None:
        """The result shown may be another one now."""
        self._ui.exportLabel.text = ""

    def refresh(self) -> None:
        """Bring the buttons in line with what there is."""
        from LesionDecompMrml.dicom_export import is_from_dicom  # not before: Slicer starts without it

        nodes = self._nodes()
        for name in BUTTONS:
            getattr(self._ui, name).enabled = nodes is not None
        reported = nodes is not None and nodes.report is not None
        for name in REPORTED:
            getattr(self._ui, name).enabled = reported
        dicom = reported and is_from_dicom(nodes.ct)
        self._ui.saveDicomButton.enabled = dicom and not is_installing()
        self._ui.saveDicomButton.toolTip = (
            installing_in_words() if is_installing() else _dicom_words(dicom or not nodes)
        )

    def cleanup(self) -> None:
        """Nothing is under way here."""

    def _on_copy(self, _checked: bool = False) -> None:
        with errors_shown(_("The measurements could not be copied.")):
            qt.QApplication.clipboard().setText(self._result().statistics_text())
            self._ui.exportLabel.text = _("The table is on the clipboard; paste it into a spreadsheet.")

    def _on_csv(self, _checked: bool = False) -> None:
        self._save(_("Save the statistics"), "statistics.csv", "CSV (*.csv)", lambda r, path: r.write_statistics(path))

    def _on_regions(self, _checked: bool = False) -> None:
        self._save(_("Save the regions"), "regions.csv", "CSV (*.csv)", lambda r, path: r.write_regions(path))

    def _on_methods(self, _checked: bool = False) -> None:
        with errors_shown(_("The methods text could not be made.")):
            qt.QApplication.clipboard().setText(self._result().methods_text())
            self._ui.exportLabel.text = _("The methods text is on the clipboard.")

    def _on_manifest(self, _checked: bool = False) -> None:
        title = _("Save the manifest of the run")
        self._save(title, "report.json", "JSON (*.json)", lambda r, path: r.write_manifest(path))

    def _on_report(self, _checked: bool = False) -> None:
        path = self._save(_("Save the report"), "report.html", "HTML (*.html)", lambda r, path: r.write_report(path))
        if path is not None:
            open_in_browser(path)

    def _on_dicom(self, _checked: bool = False) -> None:
        if can_write_dicom_seg() or install_packages(self._logic, install_for_dicom_seg):
            title = _("Save the DICOM segmentation")
            self._save(title, "segmentation.dcm", "DICOM (*.dcm)", lambda r, path: r.write_dicom_segmentation(path))

    def _result(self):
        return self._logic.result(self._nodes().heatmap)

    def _save(self, title: str, name: str, kind: str, write) -> Path | None:
        nodes = self._nodes()
        path = ask_save_path(title, nodes.ct.GetName() or "", name, kind) if nodes is not None else None
        if path is None:
            return None
        done = False
        with errors_shown(_("The file could not be written.")):
            write(self._result(), path)
            done = True
        self._ui.exportLabel.text = (
            _("Saved {name} in {folder}.").format(name=path.name, folder=path.parent) if done else ""
        )
        return path if done else None


def _dicom_words(possible: bool) -> str:
    if possible:
        return _(
            "Save lungs and lesions as a DICOM segmentation in the CT's study; it names the patient, as the CT does."
        )
    return _("Only for a CT that was loaded with the DICOM module, whose study the segmentation then joins.")


def open_in_browser(path: Path) -> None:
    """Show a page in the user's browser, from where it can be printed."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))
