"""How long work reports how far it is and is canceled, and how reports share the standard error."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import Cancelled

Progress = Callable[[str, int, int], None]
"""Called with a stage, the slices (or steps) done, and how many there are."""

Cancel = Callable[[], bool]
"""Asked now and then whether to stop."""

STDERR = threading.RLock()
"""Held while standard error is written to, or silenced by a reader in another thread."""


def unwatched(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def check_cancel(cancelled: Cancel | None, stage: str) -> None:
    """Stop here if asked to.

    :raises Cancelled: ``cancelled`` returned True.
    """
    if cancelled is not None and cancelled():
        raise Cancelled(stage)
