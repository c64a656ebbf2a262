"""The table of the panel and the severity scores below it: whole lungs, thirds, halves, and the chosen regions."""

from __future__ import annotations

from LesionDecompLib.errors import LesionDecompError
from slicer.i18n import tr as _

from .combo_box import keep_narrow
from .measurements_table import MeasurementsTable


class MeasuredRegions:
    """What is measured of a result, by region.

    :param ui: the panel's controls.
    """

    def __init__(self, ui) -> None:
        self._ui = ui
        self._table = MeasurementsTable(ui.measurementsTable)
        keep_narrow(ui.regionsSelector)

    def show(self, result) -> None:
        """Show the measurements of a result; of None, nothing."""
        label = self._ui.severityLabel
        label.text, label.toolTip = "", ""
        if result is None:
            self._table.show([])
            return
        try:
            regions = result.regions()
        except LesionDecompError as error:  # the regions do not fit this CT: what else there is stays
            self._table.show(result.measurements())
            label.text = str(error)
            return
        self._table.show(result.measurements(), regions.rows)
        result.update_region_table(make=result.regions_node is not None)
        scores = (regions.severity.zones, regions.severity.lobes)
        lines = [
            _("{title}: {score} (research only)").format(title=score.measured.title, score=score.text())
            for score in scores
        ]
        explained = [
            "\n".join([score.measured.tooltip, score.part_measured.tooltip, *(part.text() for part in score.parts)])
            for score in scores
        ]
        texts = "\n".join(lines), "\n\n".join(explained)
        label.text, label.toolTip = texts
