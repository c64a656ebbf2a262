"""How far a run is as one number over all its stages, and the time it still needs."""

from __future__ import annotations

import time
from collections.abc import Callable

BEFORE = 0.02  # shown until the first estimate


class RunProgress:
    """Hand it each step of the worker.

    :param clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._end: float | None = None  # when the run will probably end
        self.fraction = 0.0

    def update(self, seconds_left: float | None) -> None:
        """Take in a step; stages that give no estimate let the last one run on."""
        now = self._clock()
        if seconds_left is not None:
            self._end = now + seconds_left
        if self._end is None:
            self.fraction = BEFORE
            return
        elapsed, left = now - self._began, max(self._end - now, 0.0)
        # It never goes back, nor is it full before the result is there.
        self.fraction = min(max(self.fraction, elapsed / max(elapsed + left, 1e-6)), 0.99)

    @property
    def seconds_left(self) -> float | None:
        """Until the end of the whole run; None while unknown."""
        return None if self._end is None else max(self._end - self._clock(), 0.0)
