"""Ctrl-C and the system's request to end, both as an exception, so that temporary files are cleaned up."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S = 60.0  # to write a checkpoint


@contextmanager
def interrupts_as_exceptions() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, and when the terminal is closed, as on SIGINT.

    Outside the main thread nothing changes, and under ``nohup`` a closed terminal ends nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    hang_up = getattr(signal, "SIGHUP", None)  # not on Windows
    numbers = [signal.SIGTERM]
    if hang_up is not None and signal.getsignal(hang_up) == signal.SIG_DFL:
        numbers.append(hang_up)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_as_request() -> Iterator[Callable[[], bool]]:
    """Give a cancel hook that Ctrl-C and SIGTERM turn to True, for work that must end between two steps.

    A second Ctrl-C ends it at once. Outside the main thread the hook stays False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def request(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt_with_parent() -> None:
    """Treat the end of the process that started this one as Ctrl-C; after a minute's grace this process is ended.

    Does nothing where a person started it; see :func:`LesionDecompLib.processes.tree.end_with_parent`.
    """
    from ..processes.tree import end_with_parent  # not before: --help answers at once

    def ask_and_wait() -> None:
        _thread.interrupt_main()
        time.sleep(GRACE_S)

    end_with_parent(ask_and_wait)
