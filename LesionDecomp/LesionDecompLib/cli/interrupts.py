"""Ctrl-C and the system's request to end, both as an exception, so that temporary files are cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130  # exit status: 128 + SIGINT, as shells have it


@contextmanager
def interrupts_as_exceptions() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, as on SIGINT; outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def interrupts_as_request() -> Iterator[Callable[[], bool]]:
    """Give a cancel hook that Ctrl-C and SIGTERM turn to True, for work that must end between two steps.

    A second Ctrl-C ends it at once. Outside the main thread the hook stays False.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def request(number, frame):
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
