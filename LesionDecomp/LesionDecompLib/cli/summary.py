"""``lesiondecomp summary``: the summary of a batch, made anew from what its cases have left; at any time."""

from __future__ import annotations

import argparse
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError
from .batch.plan import Case
from .batch.summary import NOT_RUN, is_summary, summarized_cases, write_summary

if TYPE_CHECKING:
    from PIL import Image

STAGE = "Summarizing"
SUMMARY, PLOT = "summary.csv", "summary.png"
INVOLVEMENT = "involvement_percent"


class Table(Protocol):
    """What is written of all cases of a batch. It keeps what it needs of each, as a cohort's reports are many."""

    def add(self, case: Case, report: Mapping[str, Any]) -> None:
        """Take a finished case."""

    def write(self, folder: Path, others: list[Case]) -> None:
        """Write it.

        :param others: cases that are not finished.
        """


class SummaryTable:
    """``summary.csv``."""

    def __init__(self) -> None:
        self.finished: list[Case] = []

    def add(self, case: Case, report: Mapping[str, Any]) -> None:
        """Take a finished case."""
        self.finished.append(case)

    def write(self, folder: Path, others: list[Case]) -> None:
        """Write it, the others with the status they have; a file of that name that is none of a batch stays."""
        if _is_foreign(folder):
            _tell_left(SUMMARY)
            return
        write_summary(folder / SUMMARY, [*self.finished, *others])


class RegionsTable:
    """``regions.csv``: the regions of all finished cases."""

    def __init__(self) -> None:
        self._finished: list[Case] = []

    def add(self, case: Case, report: Mapping[str, Any]) -> None:
        """Take a finished case; its rows are read when the table is written."""
        self._finished.append(case)

    def write(self, folder: Path, others: list[Case]) -> None:
        """Write it; a file of that name that is none of a batch stays as it is."""
        from ..report.case import REGIONS  # not before: --help answers at once
        from .batch.regions import is_batch_regions, write_batch_regions

        path = folder / REGIONS
        if path.exists() and not is_batch_regions(path):
            _tell_left(path.name)
            return
        write_batch_regions(folder, self._finished)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "summary",
        help="summarize a batch at any time, also while it runs",
        description="Write summary.csv and regions.csv of a batch anew from what its finished cases have left, and "
        "print how many there are. Cases that the summary names as failed or not run stay in it until they are "
        "finished.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the output folder of lesiondecomp segment")
    parser.add_argument(
        "--plot",
        action="store_true",
        help=f"also write {PLOT}: the distribution of involvement, with outliers and warnings marked",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the summary, and print the counts."""
    from . import print_line  # not before: --help answers at once
    from .batch.finished import finished_cases

    folder: Path = args.folder
    if not folder.is_dir():
        raise InputError(STAGE, f"no folder '{folder.name}'", "the output folder of 'lesiondecomp segment'")
    summary = SummaryTable()
    tables: list[Table] = [summary, RegionsTable()]
    for case, report in finished_cases(folder):
        for table in tables:
            table.add(case, report)
    others = unfinished(summarized_cases(folder / SUMMARY), summary.finished)
    if not summary.finished and not others:
        raise InputError(STAGE, f"no case in '{folder.name}'", "the output folder of 'lesiondecomp segment'")
    for table in tables:
        table.write(folder, others)
    if args.plot and (folder / PLOT).exists() and _is_foreign(folder):
        _tell_left(PLOT)
    elif args.plot:
        _write_plot(folder / PLOT, summary.finished, others)
    print_line(counts_line(summary.finished, others))
    return 0


def _is_foreign(folder: Path) -> bool:
    """Whether the summary there is none of a batch, nor then a picture beside it."""
    return (folder / SUMMARY).exists() and not is_summary(folder / SUMMARY)


def _tell_left(name: str) -> None:
    from . import notify  # not before: --help answers at once

    notify(f"'{name}' is not that of a batch; it was left as it is.")


def unfinished(summarized: list[Case], finished: list[Case]) -> list[Case]:
    """The cases of an earlier summary that are not finished, or not any more."""
    names = {case.name for case in finished}
    others = [case for case in summarized if case.name not in names]
    return [case if case.status == "failed" else Case(case.name, case.path, case.folder) for case in others]


def counts_line(finished: list[Case], others: list[Case]) -> str:
    """How many cases are in each state, e.g. ``"7 done (2 with warnings), 1 failed, 3 not run"``."""
    warned = sum(bool(case.message) for case in finished)
    parts = [f"{len(finished)} done" + (f" ({warned} with warnings)" if warned else "")]
    return ", ".join([*parts, *(f"{count} {status}" for status, count in sorted(_states(others).items()))])


def _states(others: list[Case]) -> Counter[str]:
    return Counter(case.status or NOT_RUN for case in others)


def _write_plot(path: Path, finished: list[Case], others: list[Case]) -> None:
    import numpy as np  # not before: --help answers at once

    from ..io.atomic import write_bytes
    from ..report.cohort import Cohort, draw_cohort

    involvement = np.array([case.measurements[INVOLVEMENT] for case in finished], dtype=float)
    warned = np.array([bool(case.message) for case in finished], dtype=bool)
    png = io.BytesIO()
    picture: Image.Image = draw_cohort(Cohort([case.name for case in finished], involvement, warned, _states(others)))
    picture.save(png, "PNG")
    write_bytes(path, png.getvalue(), "Writing the picture")
