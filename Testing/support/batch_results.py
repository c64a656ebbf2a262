"""What a batch has left in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

from command_line import snapshot


def without_reports(out: Path) -> dict[str, str]:
    """Everything that was written, by hash, less the reports, which state times."""
    return {name: value for name, value in snapshot(out).items() if not name.endswith("report.json")}


def hidden(out: Path) -> list[str]:
    """Temporary names, and whatever else begins with a dot."""
    return sorted(str(path.relative_to(out)) for path in out.rglob(".*"))


def summary(out: Path) -> dict[str, tuple[str, str]]:
    """Status and message of each case; a case may stand there once."""
    with open(out / "summary.csv", encoding="utf-8-sig", newline="") as stream:
        rows = [(row["Case"], (row["Status"], row["Message"])) for row in csv.DictReader(stream)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)
