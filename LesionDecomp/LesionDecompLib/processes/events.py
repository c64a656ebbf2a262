"""What a child process reports on its standard output: one JSON object a line; whatever else stands there is ignored.

The child calls :func:`report_step` and :func:`report_error`, its parent :func:`parse_event`. The exit status shows that
the work is done. People never see these lines: a command prints them only where its starter asks for them.
"""

from __future__ import annotations

import json
import math
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass

from .. import errors
from ..errors import LesionDecompError
from ..libraries import library_error

STAGES = ("start", "lungs", "heat", "healthy", "lesions", "statistics", "writing", "registration", "change", "slices",
          "training")  # fmt: skip
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
class Failed:
    """The run ended with an error; the fields are those of :class:`LesionDecompLib.errors.LesionDecompError`.

    :param stage: empty where none is known.
    :param kind: name of the error's class.
    """

    stage: str
    found: str
    expected: str
    advice: str = ""
    kind: str = LesionDecompError.__name__
    remedy: str = ""
    code: str = ""

    @classmethod
    def of(cls, error: Exception) -> Failed:
        """How any error is reported."""
        error = library_error(error) or error
        if isinstance(error, LesionDecompError):
            kind = type(error).__name__
            return cls(error.stage, error.found, error.expected, error.advice, kind, error.remedy, error.code)
        if isinstance(error, MemoryError):
            advice = "Use a smaller batch size, crop the volume, or close other programs."
            return cls("", "too little memory", "memory for the volume and one batch", advice)
        text = " ".join(str(error).split())[:300]
        return cls("", f"an internal error ({type(error).__name__}: {text})", "a finished run", "Report it.")

    def error(self, stage: str) -> LesionDecompError:
        """The error as it was raised in the child; ``stage`` stands in where none is known."""
        kind = getattr(errors, self.kind, None)
        if not (isinstance(kind, type) and issubclass(kind, LesionDecompError)):
            kind = LesionDecompError
        return kind(self.stage or stage, self.found, self.expected, self.advice, self.remedy, self.code)


Event = Step | Failed
_NAMES: dict[str, type[Step | Failed]] = {"step": Step, "failed": Failed}


def wants_events() -> bool:
    """In the child: whether the process that started this one reads events."""
    return os.environ.get(VARIABLE) == "1"


def report_step(stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
    """In the child: report how far a stage is; stages that no reader knows are passed over."""
    if stage in STAGES:
        _print_event(Step(stage, min(done, total), total, seconds_left))


def report_error(error: Exception) -> None:
    """In the child: report why the work failed."""
    _print_event(Failed.of(error))


def event_line(event: Event) -> str:
    """One line, without its end; ASCII, so that no console encoding can break it."""
    name = next(name for name, kind in _NAMES.items() if isinstance(event, kind))
    return json.dumps({_KEY: name, **asdict(event)})


def parse_event(line: str) -> Event | None:
    """The event in a line, or None for any other line, however odd."""
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
    return all(isinstance(text, str) for text in asdict(event).values())


def _print_event(event: Event) -> None:
    with suppress(OSError, ValueError):  # a reader that has gone ends the reporting, not the work
        # The line end in front keeps a library's unfinished line out of ours.
        sys.stdout.write(f"\n{event_line(event)}\n")
        sys.stdout.flush()
