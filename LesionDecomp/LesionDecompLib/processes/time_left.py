"""How long a run will still take, from how long its slices have taken so far."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds that the heat takes for each second of lungs, and writing and measuring for each second of both; measured on
# two CPU cores with whole chest CT. They only serve until the stage itself has begun.
HEAT_PER_LUNGS = 0.7
AFTER = 0.05
ENOUGH_S = 0.5  # before that, the first batch's warming up would mislead


class TimeLeft:
    """Tell it each step; it answers with the seconds left of the whole run, or None while it cannot know.

    :param clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage, self._began = "", 0.0
        self._spent = 0.0  # in the stages before

    def update(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left after ``done`` of ``total`` slices of a stage."""
        now = self._clock()
        if stage != self._stage:
            self._spent += now - self._began if self._stage in ("lungs", "heat") else 0.0
            self._stage, self._began = stage, now
        elapsed = now - self._began
        if stage not in ("lungs", "heat") or not 0 < done <= total or elapsed < ENOUGH_S:
            return None
        whole = elapsed / done * total
        to_come = whole * HEAT_PER_LUNGS if stage == "lungs" else 0.0
        return whole - elapsed + to_come + AFTER * (self._spent + whole + to_come)
