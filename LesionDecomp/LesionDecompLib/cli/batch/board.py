"""How far a run on a cluster is, on one line."""

from __future__ import annotations

import shutil
import sys
import time
from collections import deque
from contextlib import suppress
from typing import TextIO

from ...progress import STDERR
from ..progress import time_text

LIVE_S = 0.5
PLAIN_S = 30.0
RECENT = 200  # finished cases that the rate is reckoned from


class Board:
    """Shows done, failed, cases an hour, time left and workers: a live line on a terminal, one now and then in a log.

    :param total: cases of the run.
    :param there: of them done before it began.
    :param quiet: show nothing.
    :param stream: default stderr, as it is when the object is made.
    """

    def __init__(self, total: int, there: int = 0, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._live = not quiet and bool(getattr(self._stream, "isatty", lambda: False)())
        self._total, self.done, self.failed = total, there, 0
        self._times: deque[float] = deque([time.monotonic()], maxlen=RECENT)
        self._shown, self._width = 0.0, 0

    def count(self, failed: bool) -> None:
        """Count a case that is finished."""
        self._times.append(time.monotonic())
        self.failed += failed
        self.done += not failed

    def line(self, workers: int) -> str:
        """The line, e.g. ``"12 of 80 cases done, 1 failed, 240 an hour, 17 min left, 4 workers"``."""
        parts = [f"{self.done} of {self._total} cases done", f"{self.failed} failed"]
        finished, span = len(self._times) - 1, time.monotonic() - self._times[0]
        left = self._total - self.done - self.failed
        if finished > 0 and span > 0:
            parts.append(f"{_rounded(3600 * finished / span)} an hour")
            if left:
                parts.append(f"{_time_left(left * span / finished)} left")
        return ", ".join([*parts, f"{workers} worker{'' if workers == 1 else 's'}"])

    def show(self, workers: int) -> None:
        """Show the line where it is time to."""
        now = time.monotonic()
        if self._quiet or now - self._shown < (LIVE_S if self._live else PLAIN_S):
            return
        self._shown, text = now, self.line(workers)
        if not self._live:
            self._print(f"lesiondecomp: {text}.\n")
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        self._print(f"\r{text.ljust(self._width)}")
        self._width = len(text)

    def clear(self) -> None:
        """Take the live line away, before something else is printed."""
        if self._width:
            self._print(f"\r{' ' * self._width}\r")
            self._width, self._shown = 0, 0.0

    def _print(self, text: str) -> None:
        with STDERR, suppress(OSError, ValueError):  # a closed stderr ends the display, not the work
            self._stream.write(text)
            self._stream.flush()


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _time_left(seconds: float) -> str:
    return time_text(seconds) if seconds < 2 * 3600 else f"{seconds / 3600:.0f} h"
