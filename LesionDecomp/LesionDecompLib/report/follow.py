"""Scans of one patient in their order with what changed between them, and the record of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from .. import __version__
from ..ct.oddity import Oddity
from ..measurement.change.comparison import Comparison
from ..measurement.change.definitions import CHANGES, DEFINITIONS, NAMES
from ..measurement.change.labels import Change
from ..measurement.change.scan import Scan
from .manifest import RESEARCH_USE, environment
from .trend import trend_chart, trend_points

CHANGE = "change.nrrd"
FORMAT_VERSION = 1
KIND = "LesionDecomp follow-up"


@dataclass(frozen=True, eq=False)
class FollowUp:
    """Scans of one patient in their order, and each but the first compared with the one before.

    :param reports: of the scans' runs.
    :param dates: of the scans; None where they are not known.
    :param keep_dates: write them; otherwise files have days since the first scan alone.
    :param parameters: for the record.
    :param warnings: about the follow-up as a whole.
    """

    scans: Sequence[Scan]
    reports: Sequence[Mapping[str, Any]]
    comparisons: Sequence[Comparison]
    dates: Sequence[date] | None = None
    keep_dates: bool = False
    parameters: Mapping[str, Any] | None = None
    warnings: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """What each scan is called in files."""
        return [f"scan {number}" for number in range(1, len(self.scans) + 1)]

    def scan_warnings(self, number: int) -> list[str]:
        """What a scan's own run warned of, each beginning with the scan.

        :param number: of the scan, from 1.
        """
        return [f"Scan {number}: {text}" for text in self.reports[number - 1]["warnings"]]

    def all_warnings(self, number: int) -> list[str]:
        """What a comparison's numbers are to be read with: warnings of the follow-up, of both scans, and its own.

        :param number: of the comparison, from 1.
        """
        scans = [*self.scan_warnings(number), *self.scan_warnings(number + 1)]
        return [*self.warnings, *scans, *self.comparisons[number - 1].warnings]

    def change_files(self) -> list[str]:
        """Name of each comparison's labelmap: of two scans ``change.nrrd``, of more with the later scan's number."""
        if len(self.comparisons) == 1:
            return [CHANGE]
        return [f"change-{number}.nrrd" for number in range(2, len(self.scans) + 1)]

    def trend_svg(self) -> str:
        """The trend chart."""
        both = [scan.values("both lungs") for scan in self.scans]
        points, axis = trend_points(
            [values.get("lesion_volume_ml", float("nan")) for values in both],
            [values.get("involvement_percent", float("nan")) for values in both],
            self.dates,
            self.keep_dates,
        )
        return trend_chart(points, axis)

    def record(self) -> dict[str, Any]:
        """The follow-up as a JSON object."""
        return {
            "report": KIND,
            "report_version": FORMAT_VERSION,
            "notice": RESEARCH_USE,
            "software": {"name": "LesionDecomp", "version": __version__},
            "scans": [self._scan_record(number) for number in range(len(self.scans))],
            "parameters": dict(self.parameters or {}),
            "labels": {str(int(c)): {"name": NAMES[c], "definition": DEFINITIONS[c]} for c in Change},
            "comparisons": [
                {"earlier": number + 1, "later": number + 2, "labelmap": name, **comparison.record()}
                for number, (name, comparison) in enumerate(zip(self.change_files(), self.comparisons, strict=True))
            ],
            "warnings": [str(text) for text in self.warnings],
            "warning_codes": [text.record() for text in self.warnings if isinstance(text, Oddity)],
            "measurements": {m.key: m.record() for m in CHANGES},
            "outputs": {},  # file name -> SHA-256, filled in when they are written
            "run": {
                "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
                "environment": environment(),
            },
        }

    def _scan_record(self, number: int) -> dict[str, Any]:
        report = self.reports[number]
        known: dict[str, Any] = {"number": number + 1, "input_sha256": self.scans[number].identity}
        if self.dates is not None:
            known["days_since_first"] = (self.dates[number] - self.dates[0]).days
            if self.keep_dates:
                known["date"] = self.dates[number].isoformat()
        lesions = report["models"].get("lesions") or {}
        known["model"] = {key: lesions.get(key) for key in ("name", "version", "sha256")}
        known["threshold"] = report["parameters"].get("threshold")
        known["min_volume_ml"] = report["parameters"].get("min_volume_ml")
        known["warnings"] = list(report["warnings"])
        known["warning_codes"] = list(report.get("warning_codes", []))
        return known
