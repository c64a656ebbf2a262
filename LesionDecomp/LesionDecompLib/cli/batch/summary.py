"""``summary.csv``: one row for each case of a run with several inputs."""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path

from ...io.atomic import write_csv
from ...measurement.definitions import MEASUREMENTS
from .plan import Case

NOT_RUN = "not run"
EVERY_S = 30.0
PATIENCE = 20.0  # times what the last writing took
SHA256 = "Input SHA-256"
HEADER = ["Case", "Status", "Message", SHA256, *(m.header for m in MEASUREMENTS)]


def write_summary(path: Path, cases: list[Case]) -> None:
    """Write case, status, message, the input's identity and the measurements of both lungs, sorted by case.

    :raises LesionDecompError: the file can't be written; an earlier one is then as it was.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for case in sorted(cases, key=lambda case: case.name):
        cells = [_cell(case.measurements.get(m.key, math.nan)) for m in MEASUREMENTS]
        writer.writerow([case.name, case.status or NOT_RUN, case.message, case.input_sha256, *cells])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, text.getvalue(), "Writing the summary")


class RunningSummary:
    """The summary of a run that goes on: there from the first finished case on, then written now and then.

    :param cases: of the run; their states change.
    """

    def __init__(self, path: Path, cases: list[Case]) -> None:
        self._path, self._cases = path, cases
        self._next = 0.0

    def update(self) -> None:
        """Write it where it is time to; a summary of a million rows takes seconds, so it is then written less often."""
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write it now."""
        began = time.monotonic()
        write_summary(self._path, self._cases)
        ended = time.monotonic()
        self._next = ended + max(EVERY_S, PATIENCE * (ended - began))


def summarized_cases(path: Path) -> list[Case]:
    """The cases that a summary names, less their measurements; none where there is no summary of ours."""
    if not is_summary(path):
        return []
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return [
            Case(row["Case"], path.parent, path.parent / row["Case"], row["Status"], row["Message"], row[SHA256])
            for row in csv.DictReader(stream)
        ]


def is_summary(path: Path) -> bool:
    """Whether a file is one that :func:`write_summary` wrote, which a later run may write anew."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), None) == HEADER
    except (OSError, UnicodeError, csv.Error):
        return False


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"
