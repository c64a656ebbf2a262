"""What differs between the reports of two runs: input, models, software, parameters, review, measurements, files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..measurement.definitions import REGION_MEASUREMENTS
from .case import DICOM_SEG, PAGE, REPORT, SCENE
from .manifest import FORMAT_VERSION, shown_measurements

STAGE = "Reading the report"
MAX_BYTES = 16 << 20
# Section -> keys of the report that belong to it. What merely happened to a run (times, memory) is in none.
SECTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "input": (("input",),),
    "lung mask": (("lung_mask",),),
    "models": (("models",),),
    "software": (("software",), ("run", "environment")),
    "device": (("run", "device"), ("run", "precision"), ("run", "engine")),
    "parameters": (("parameters",),),
    "warnings": (("warnings",),),
    "review": (("review", "lesions"),),
    "measurements": (("statistics",), ("regions",), ("severity",)),
    "files": (("outputs",),),
}
# They hold the time at which they were made, or identifiers that no other file may have.
NEVER_THE_SAME = (SCENE, PAGE, DICOM_SEG)


@dataclass(frozen=True)
class Difference:
    """One thing in which two reports differ.

    :param section: one of :data:`SECTIONS`.
    :param what: which of its values.
    :param first, second: the values; None where a report has none.
    """

    section: str
    what: str
    first: Any
    second: Any

    @property
    def change_percent(self) -> float | None:
        """From the first to the second number, % of the first; None for what is not a number, or from zero."""
        if not all(type(value) in (int, float) for value in (self.first, self.second)) or self.first == 0:
            return None
        return 100.0 * (self.second - self.first) / abs(self.first)


def read_report(path: str | Path) -> dict[str, Any]:
    """Read a ``report.json``, or the one in a folder.

    :raises LesionDecompError: missing, unreadable, or no report that this version knows.
    """
    path = Path(path)
    file = path / REPORT if path.is_dir() else path
    expected = f"a {REPORT} of a segmented case, or the folder that holds it"
    try:
        if not file.is_file():
            raise InputError(STAGE, f"no file '{file.name}'", expected)
        if file.stat().st_size > MAX_BYTES:
            raise InputError(STAGE, f"'{file.name}' of {file.stat().st_size >> 20} MiB", expected)
        report = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(STAGE, f"'{file.name}', which is not JSON", expected) from error
    except OSError as error:
        found = f"'{file.name}', which cannot be opened ({error.strerror or error})"
        raise InputError(STAGE, found, expected) from error
    if not isinstance(report, dict) or report.get("report") != "LesionDecomp":
        raise InputError(STAGE, f"'{file.name}', which is not a report of LesionDecomp", expected)
    if report.get("report_version") != FORMAT_VERSION:
        found = f"report version {str(report.get('report_version'))[:20]} in '{file.name}'"
        raise InputError(STAGE, found, str(FORMAT_VERSION), "Use the LesionDecomp that wrote it.")
    kinds = {"statistics": list, "warnings": list}
    for key in ("input", "lung_mask", "models", "software", "parameters", "warnings", "statistics", "outputs", "run"):
        if not isinstance(report.get(key), kinds.get(key, dict)):
            raise InputError(STAGE, f"'{file.name}' without '{key}'", expected)
    return report


def compare_reports(first: Mapping[str, Any], second: Mapping[str, Any], tolerance: float = 0.0) -> list[Difference]:
    """List what differs, section by section; empty when the second run is a repetition of the first.

    Of results that were reviewed, the measurements of the lesions that are left are compared.

    :param tolerance: relative; measurements that lie no farther apart count as the same.
    """
    differences = []
    for section, places in SECTIONS.items():
        sources = (first, second)
        if section == "measurements":
            sources = (shown_measurements(first), shown_measurements(second))
        for place in places:
            if section == "measurements" and any(place[-1] not in source for source in sources):
                continue  # an older version measured less
            sides = [_flat(section, place[-1], _at(source, place)) for source in sources]
            for what in dict.fromkeys([*sides[0], *sides[1]]):
                one, other = (side.get(what) for side in sides)
                if one != other and not (section == "measurements" and _close(one, other, tolerance)):
                    differences.append(Difference(section, what, one, other))
    return differences


def measurement_title(what: str) -> str:
    """A measurement's name for people: ``"both lungs: Lesion volume (mL)"`` of ``"both lungs.lesion_volume_ml"``."""
    region, _, key = what.rpartition(".")
    return f"{region}: {_TITLES.get(key, key)}" if region else what


_TITLES = {m.key: m.header for m in REGION_MEASUREMENTS}


def _decision(record: Any) -> str:
    """What a reader decided about which lesion; when does not matter."""
    if not isinstance(record, Mapping):
        return str(record)
    words = [str(record.get("decision"))]
    words += [f"{len(record[key])} runs {key}" for key in ("painted", "erased") if record.get(key)]
    return ", ".join([*words, f"from {record.get('threshold')} at {record.get('lps_mm')} mm"])


def _at(report: Mapping[str, Any], place: tuple[str, ...]) -> Any:
    value: Any = report
    for key in place:
        value = value.get(key, {}) if isinstance(value, Mapping) else {}
    return value


def _flat(section: str, place: str, value: Any) -> dict[str, Any]:
    """A section's values by their names."""
    if section == "warnings":
        return {f"“{text}”": "reported" for text in value}
    if section == "review":
        decisions = value if isinstance(value, list) else []
        return {f"decision {number}": _decision(one) for number, one in enumerate(decisions, start=1)}
    if place == "severity":
        return dict(_scores(value))
    if section == "measurements":
        rows = [row for row in value if isinstance(row, Mapping)]
        rows = [{**row, "region": f"{row['set']}, {row.get('region')}"} if "set" in row else row for row in rows]
        return {f"{row.get('region')}.{key}": number for row in rows for key, number in row.items() if key != "region"}
    if section == "files":
        return {name: "written" if name in NEVER_THE_SAME else digest for name, digest in value.items()}
    if isinstance(value, Mapping):
        prefix = f"{place}." if len(SECTIONS[section]) > 1 else ""
        return dict(_leaves(prefix, value))
    return {place: value}


def _scores(severity: Any) -> Iterator[tuple[str, Any]]:
    """Totals and scores of lobes and zones, by name."""
    for kind, score in severity.items() if isinstance(severity, Mapping) else ():
        if isinstance(score, Mapping):
            yield f"severity, {kind}.total", score.get("total")
            for part in score.get("parts") or ():
                yield f"severity, {kind}, {part.get('name')}.score", part.get("score")


def _leaves(prefix: str, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _leaves(f"{prefix}{key}.", item)
        else:
            yield f"{prefix}{key}", item


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if not all(type(value) in (int, float) for value in (one, other)):
        return False
    return math.isclose(one, other, rel_tol=tolerance)
