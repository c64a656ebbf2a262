"""Combo boxes whose entries carry a value."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import qt


@contextmanager
def silent(control):
    """Change a control without its signals."""
    blocked = control.blockSignals(True)
    try:
        yield control
    finally:
        control.blockSignals(blocked)


def keep_narrow(box) -> None:
    """Let a combo box (or node selector) be narrower than its longest entry, so that it does not widen the panel."""
    box.sizeAdjustPolicy = qt.QComboBox.AdjustToMinimumContentsLengthWithIcon


def index_of(box, value: str) -> int:
    """Index of the entry with this value, or -1."""
    return next((index for index in range(box.count) if box.itemData(index) == value), -1)


def select(box, value: str) -> None:
    """Select the entry with this value, silently; nothing happens where there is none."""
    index = index_of(box, value)
    if index >= 0 and index != box.currentIndex:
        with silent(box):
            box.currentIndex = index


def fill(box, entries: list[tuple[str, str, str]], chosen: Any) -> None:
    """Replace all entries, silently: (text, value, tooltip) each; ``chosen`` is the value to select."""
    with silent(box):
        box.clear()
        for text, value, tooltip in entries:
            box.addItem(text, value)
            box.setItemData(box.count - 1, tooltip, qt.Qt.ToolTipRole)
        index = index_of(box, chosen)
        box.currentIndex = max(index, 0) if box.count else -1
