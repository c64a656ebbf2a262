"""``regions.csv`` of a batch: the regions and severity scores of all finished cases, a row for each region of each."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...io.atomic import atomic_file
from ...measurement.region_rows import CSV_HEADER, DEFINITION_HEADER
from ...report.case import REGIONS
from .plan import Case

# A case's own file has definitions and warnings, too; here they would be repeated for thousands of cases.
KEPT = CSV_HEADER[: CSV_HEADER.index(DEFINITION_HEADER)]
HEADER = ["Case", *KEPT]


def write_batch_regions(folder: Path, cases: Iterable[Case]) -> None:
    """Write the regions of the finished cases, sorted by case; one case is held at a time.

    :param folder: of the batch.
    :param cases: those not done, and those of a version that measured no regions, have no rows.
    :raises LesionDecompError: the file can't be written; an earlier one is then as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / REGIONS, "w", "Writing the regions") as stream:
        stream.write("\ufeff")  # as io.atomic.write_csv does
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        for case in sorted(cases, key=lambda case: case.name):
            if case.status == "done":
                writer.writerows([case.name, *cells] for cells in _rows_of(case))


def is_batch_regions(path: Path) -> bool:
    """Whether a file is one that :func:`write_batch_regions` wrote, which a later run may write anew."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            return next(csv.reader(stream), None) == HEADER
    except (OSError, UnicodeError, csv.Error):
        return False


def _rows_of(case: Case) -> Iterator[list[str]]:
    try:
        with (case.folder / REGIONS).open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.reader(stream)
            if next(rows, None) == CSV_HEADER:
                yield from (row[: len(KEPT)] for row in rows if len(row) == len(CSV_HEADER))
    except (OSError, UnicodeError, csv.Error):
        return
