"""For the process that started a command: how far it is and why it failed, as lines on stdout that a program reads.

:class:`.processes.command.CommandProcess` asks for them by an environment variable; people never see them.
"""

from __future__ import annotations

import os

from ..errors import LesionDecompError
from ..processes.events import STAGES, VARIABLE, Event, Failed, Step, event_line


def wants_events() -> bool:
    """Whether the process that started this one reads events."""
    return os.environ.get(VARIABLE) == "1"


def tell_step(stage: str, done: int, total: int, seconds_left: float | None = None) -> None:
    """Tell how far a stage is; stages that no reader knows are passed over."""
    if stage in STAGES:
        _tell(Step(stage, min(done, total), total, seconds_left))


def tell_error(error: Exception) -> None:
    """Tell why the command failed."""
    if isinstance(error, LesionDecompError):
        _tell(Failed(error.stage, error.found, error.expected, error.advice))


def _tell(event: Event) -> None:
    from . import tell

    tell(event_line(event))
