"""Ctrl-C and the system's request to end, both as an exception, so that temporary files are cleaned up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
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
