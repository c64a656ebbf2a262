"""Connecting Qt signals and timers, in one place: the tests' Qt spells it another way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt


def connect(sender: Any, signal: str, slot: Callable[..., object]) -> None:
    """Call ``slot`` whenever ``sender`` emits ``signal``, given with its argument types: ``"clicked(bool)"``."""
    sender.connect(signal, slot)


def call_every(milliseconds: int, callback: Callable[[], object]) -> Callable[[], object]:
    """Call back regularly from Qt's event loop.

    :return: what stops it.
    """
    timer = qt.QTimer()
    timer.interval = milliseconds
    connect(timer, "timeout()", callback)
    timer.start()
    return timer.stop


class Later:
    """Calls back from the event loop, once for however many requests came before.

    :param callback: without arguments.
    :param milliseconds: from the first request to the call.
    :param restart: count from the latest request instead.
    """

    def __init__(self, callback: Callable[[], object], milliseconds: int = 0, *, restart: bool = False) -> None:
        self.callback, self._restart = callback, restart
        self._timer = qt.QTimer()
        self._timer.setProperty("singleShot", True)
        self._timer.interval = milliseconds
        connect(self._timer, "timeout()", self._on_timeout)

    @property
    def is_pending(self) -> bool:
        """Whether a call is still to come."""
        return bool(self._timer.active)

    def request(self) -> None:
        """Ask for a call."""
        if self._restart or not self.is_pending:
            self._timer.start()

    def flush(self) -> None:
        """Make the call now, if one is to come."""
        if self.is_pending:
            self._on_timeout()

    def cancel(self) -> None:
        """Forget the requests."""
        self._timer.stop()

    def _on_timeout(self) -> None:
        self._timer.stop()
        self.callback()
