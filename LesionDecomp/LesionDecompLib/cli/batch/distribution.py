"""The cases of a run on a Dask cluster: workers looked at before their first case, rows collected as they come.

Dask places the cases and gives those of a worker that died to another; how often a case may begin is counted in
:mod:`.worker`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ...errors import ConfigError
from ...io.atomic import remove_left_by
from .board import Board
from .plan import Case
from .task import CaseRow, CaseTask
from .window import Ended, TaskWindow
from .worker import UnfitWorkerError, forget, run_case, stop
from .workforce import Workforce

if TYPE_CHECKING:
    from distributed import Client

STAGE = "Sharing the cases"
POLL_S = 0.5
STOP_WITHIN_S = 20.0
MOST_GIVEN_UP = 5
GIVEN_UP = "failed: its workers ended before it was done"


class CaseDistribution:
    """Runs cases on a cluster.

    :param client: of the cluster.
    :param cases: all of the run.
    :param output: folder of the run, which exists.
    :param options, models: as of :class:`.task.CaseTask`.
    :param local: how many workers this command has started itself; 0 on a cluster of others.
    :param threads: that each worker computes on; None for its part of its machine's cores.
    :param board: shows how far the run is.
    """

    def __init__(
        self,
        client: Client,
        cases: list[Case],
        output: Path,
        options: Mapping[str, Any],
        models: Mapping[str, tuple[str, str]],
        local: int,
        threads: int | None,
        board: Board,
    ) -> None:
        self._client, self._cases, self._output, self._board = client, cases, output.absolute(), board
        self._options, self._models = options, models
        self._run = uuid4().hex[:12]
        self._window = TaskWindow[int](client, f"segment-{self._run}", self._task, run_case)
        some = [cases[0], cases[len(cases) // 2], cases[-1]]
        files = [str(case.path.absolute()) for case in some if case.path.exists()]  # a missing one is its case's matter
        files += [str(value) for value in options.values() if isinstance(value, Path)]
        self._workforce = Workforce(client, self._task(0, 0), files, self._output, local, threads)
        self._given_up: Counter[int] = Counter()

    def run(self, numbers: Iterable[int], after_each: Callable[[], None]) -> None:
        """Run the cases with these numbers; Ctrl-C ends those under way within seconds.

        :param after_each: called when another case is done or has failed.
        :raises LesionDecompError: none of the workers is fit; the scheduler is lost.
        """
        waiting = _Numbers(numbers)
        try:
            try:
                self._workforce.look_first()
            finally:
                self._report_unfit()
            while True:
                self._check_scheduler()
                self._workforce.look()
                self._report_unfit()
                self._window.resubmit_stranded(self._workforce.alive, self._workforce.only)
                if self._workforce.may_work:
                    self._window.fill(waiting, self._workforce.size, self._workforce.only)
                    if not len(self._window):
                        break
                self._collect(waiting, after_each)
                self._board.show(self._workforce.size)
        except KeyboardInterrupt:
            self._stop(waiting, after_each)
            raise
        finally:
            self._board.clear()
            self._window.cancel()
            self._leave()

    def _task(self, number: int, slot: int) -> CaseTask:
        case = self._cases[number]
        places = str(case.path.absolute()), str(case.folder.absolute())
        return CaseTask(self._run, number, slot, case.name, *places, self._options, self._models)

    def _check_scheduler(self) -> None:
        if self._client.status != "running":
            raise ConfigError(
                STAGE,
                "a scheduler that is gone",
                "one that stays to the end of the run",
                "Run the same command again on a cluster: what is done is not done again.",
            )

    def _collect(self, waiting: _Numbers, after_each: Callable[[], None]) -> None:
        """Enter the cases that have ended; wait a moment for one where there is none."""
        for ended in self._window.ended(POLL_S):
            row = self._row(ended, waiting)
            if row is None or not row.status:
                continue
            case = self._cases[ended.item]
            row.enter(case)
            self._report(ended.item, case, row)
            after_each()

    def _row(self, ended: Ended[int], waiting: _Numbers) -> CaseRow | None:
        """What came of a task; None where its case is run again."""
        from distributed import KilledWorker  # not before: --help answers at once

        from .. import error_sentence

        error, number = ended.error, ended.item
        if error is None and not ended.cancelled:
            row: CaseRow = ended.result
            return row
        if isinstance(error, UnfitWorkerError):
            waiting.give_back(number)
            return None
        if ended.cancelled:
            self._check_scheduler()
            waiting.give_back(number)
            return None
        if isinstance(error, KilledWorker):
            # By Dask's count, in which waiting is as bad as running; the worker knows whether it ever began.
            self._given_up[number] += 1
            if self._given_up[number] < MOST_GIVEN_UP:
                self._window.resubmit(ended.slot, self._workforce.only)
                return None
            return CaseRow("failed", GIVEN_UP)
        return CaseRow("failed", error_sentence(error) if isinstance(error, Exception) else str(error))

    def _report(self, number: int, case: Case, row: CaseRow) -> None:
        from .. import notify, print_line  # not before: --help answers at once

        self._board.clear()
        self._board.count(row.status == "failed")
        label = f"[{number + 1}/{len(self._cases)} {case.name}]"
        if row.status == "failed":
            notify(f"{label} {row.message}")
        for warning in row.warnings:
            notify(f"{label} Warning: {warning}")
        if row.line:
            print_line(f"{label} {row.line}")

    def _report_unfit(self) -> None:
        from .. import notify  # not before: --help answers at once

        for sentence in self._workforce.unreported():
            self._board.clear()
            notify(sentence)

    def _stop(self, waiting: _Numbers, after_each: Callable[[], None]) -> None:
        """Let what is being written be written; what is in the networks ends at its next batch of slices."""
        self._board.clear()
        with suppress(Exception):  # a cluster that is gone has stopped
            self._client.run(stop, self._run, on_error="ignore")
            end = time.monotonic() + STOP_WITHIN_S
            while len(self._window) and time.monotonic() < end and self._client.status == "running":
                self._collect(waiting, after_each)

    def _leave(self) -> None:
        """Have the workers forget the run, and remove what those that ended have left."""
        self._workforce.close()
        if self._client.status == "running":
            with suppress(Exception):  # nobody is left to forget
                self._client.run(forget, self._run, on_error="ignore")
        remove_left_by(self._output, self._workforce.gone())


class _Numbers:
    """Numbers of cases, those given back first."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers, self._again = iter(numbers), deque[int]()

    def __iter__(self) -> _Numbers:
        return self

    def __next__(self) -> int:
        return self._again.popleft() if self._again else next(self._numbers)

    def give_back(self, number: int) -> None:
        self._again.append(number)
