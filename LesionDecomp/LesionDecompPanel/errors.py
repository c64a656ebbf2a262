"""Errors that the user is shown, after which the panel goes on."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import slicer


@contextmanager
def errors_shown(message: str) -> Iterator[None]:
    """Show an error that is raised inside, below ``message``, and go on behind it.

    ``slicer.util.tryWithErrorDisplay`` raises it again, so that whatever follows would be left out.
    """
    try:
        yield
    except Exception as error:
        logging.exception(f"LesionDecomp: {message}")
        slicer.util.errorDisplay(f"{message}\n\n{error}", detailedText=traceback.format_exc())
