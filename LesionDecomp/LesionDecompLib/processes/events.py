"""What the worker says on its standard output: one JSON object a line. Whatever else stands there is passed over."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass

from ..errors import LesionDecompError

STAGES = ("start", "lungs", "heat", "lesions", "statistics", "writing", "slices", "training")
LONGEST = 1 << 16  # characters; our lines have a few hundred
VARIABLE = "LESIONDECOMP_EVENTS"  # in the environment of a command whose starter reads events
_KEY = "lesiondecomp"


@dataclass(frozen=True)
class Step:
    """``done`` of ``total`` slices (or parts) of a stage; ``seconds_left`` of the whole run, None while unknown."""

    stage: str
    done: int
    total: int
    seconds_left: float | None = None


@dataclass(frozen=True)
class Finished:
    """The result's files are complete."""


@dataclass(frozen=True)
class Failed:
    """The run ended with an error; the fields are those of :class:`LesionDecompLib.errors.LesionDecompError`."""

    stage: str
    found: str
    expected: str
    advice: str = ""

    def error(self) -> LesionDecompError:
        """The error as it was raised in the worker."""
        return LesionDecompError(self.stage, self.found, self.expected, self.advice)


Event = Step | Finished | Failed
_NAMES = {"step": Step, "finished": Finished, "failed": Failed}


def event_line(event: Event) -> str:
    """One line, without its end; ASCII, so that no console encoding can break it."""
    name = next(name for name, kind in _NAMES.items() if isinstance(event, kind))
    return json.dumps({_KEY: name, **asdict(event)})


def parse_event(line: str) -> Event | None:
    """The event that a line tells, or None for any other line, however odd."""
    if len(line) > LONGEST or not line.startswith("{"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    kind = _NAMES.get(values.pop(_KEY, None)) if isinstance(values.get(_KEY), str) else None
    if kind is None:
        return None
    try:
        event = kind(**values)
    except TypeError:
        return None
    return event if _is_sane(event) else None


def _is_sane(event: Event) -> bool:
    if isinstance(event, Step):
        counts = all(type(n) is int and 0 <= n <= 10**9 for n in (event.done, event.total))
        left = event.seconds_left
        known = left is None or (type(left) in (int, float) and math.isfinite(left) and left >= 0)
        return event.stage in STAGES and counts and event.done <= event.total and known
    if isinstance(event, Failed):
        return all(isinstance(text, str) for text in asdict(event).values())
    return True
