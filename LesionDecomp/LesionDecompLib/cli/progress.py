"""Progress on stderr: one live line on a terminal, a few plain lines in a log."""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import suppress
from typing import TextIO

from ..processes.events import report_step, wants_events
from ..progress import STDERR

STAGES = {
    "lungs": "Finding the lungs",
    "heat": "Decomposing the slices",
    "healthy": "Making the healthy version",
    "lesions": "Outlining the lesions",
    "statistics": "Measuring",
    "registration": "Registering the lungs",
    "change": "Labeling the change",
    "slices": "Cutting slices",
    "teachers": "Asking the teachers",
    "training": "Training",
    "evaluation": "Evaluating",
    "cases": "Evaluating",
}
UNITS = {
    "registration": "step",
    "change": "step",
    "slices": "case",
    "training": "step",
    "evaluation": "method",
    "cases": "case",
}  # what a stage counts, where it is not slices
EVENT_S = 0.25  # between events for the process that started this one
LIVE_S = 0.1  # between updates of the live line
PLAIN_S = 30.0  # between plain lines of one stage


class Progress:
    """Shows what the pipeline reports to its progress callback; see :meth:`update`.

    :param quiet: show nothing.
    :param stream: default stderr, as it is when the object is made.
    """

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._live = not quiet and bool(getattr(self._stream, "isatty", lambda: False)())
        self._case = ""
        self._stage = ""
        self._began = self._shown = self._reported = 0.0
        self._first = 0
        self._width = 0  # of the live line

    def begin_case(self, label: str) -> None:
        """Start a case; ``label`` (may be empty) stands before each line, e.g. ``"[2/5 name]"``."""
        self.clear()
        self._case, self._stage = f"{label} " if label else "", ""

    def update(self, stage: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps of ``stage`` are done; what the pipeline calls."""
        now = time.monotonic()
        started = stage != self._stage
        if wants_events() and (started or done >= total or now - self._reported > EVENT_S):
            self._reported = now
            report_step(stage, done, total, self._seconds_left(done, total, now - self._began) if not started else None)
        if started:
            self._stage, self._began, self._first = stage, now, done
        if self._quiet:
            return
        if not started and done < total and now - self._shown < (LIVE_S if self._live else PLAIN_S):
            return
        if not self._live and not started and done >= total:
            return  # the next stage's line shows that this one has ended
        self._shown = now
        self._write(f"{self._case}{STAGES.get(stage, stage)}{self._count(done, total, now - self._began)}")

    def clear(self) -> None:
        """Take the live line away, before something else is printed."""
        if self._width:
            self._print(f"\r{' ' * self._width}\r", end="")
            self._width = 0

    def _count(self, done: int, total: int, elapsed: float) -> str:
        if total <= 1:
            return ""
        text = f", {UNITS.get(self._stage, 'slice')} {min(done, total)} of {total}"
        left = self._seconds_left(done, total, elapsed)
        return f"{text}, {time_text(left)} left" if left is not None else text

    def _seconds_left(self, done: int, total: int, elapsed: float) -> float | None:
        # A resumed training begins with many steps done: only those since show how long one takes.
        fresh = done - self._first
        return elapsed / fresh * (total - done) if fresh > 0 and done < total and elapsed > 1.0 else None

    def _write(self, line: str) -> None:
        if self._live:
            line = line[: shutil.get_terminal_size().columns - 1]
            # Blanks over the rest of a longer line: some Windows consoles print terminal codes as they are.
            self._print(f"\r{line.ljust(self._width)}", end="")
            self._width = len(line)
        else:
            self._print(line)

    def _print(self, text: str, end: str = "\n") -> None:
        # A closed stderr ends the display, not the work.
        with STDERR, suppress(OSError, ValueError):
            print(text, end=end, file=self._stream, flush=True)


def time_text(seconds: float) -> str:
    """A duration for people, e.g. ``"45 s"`` or ``"3 min"``."""
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
