"""Connecting Qt signals, in one place: the tests' Qt has another way of saying it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def connect(sender: Any, signal: str, slot: Callable[..., object]) -> None:
    """Call ``slot`` whenever ``sender`` emits ``signal``, given with its argument types: ``"clicked(bool)"``."""
    sender.connect(signal, slot)
