"""The application's module panel, in which this module's panel lies."""

from __future__ import annotations

import qt

LONGEST_WAY = 30  # parents between a control and the panel that scrolls


def scroll_to(control) -> None:
    """Bring a control, from its top, into the visible part of the module panel."""
    area = control
    for _ in range(LONGEST_WAY):
        area = area.parent() if area is not None else None
        if area is None:
            return
        if area.inherits("QScrollArea"):
            break
    else:
        return
    # Folded sections take their new height only when the layout is done.
    qt.QTimer.singleShot(0, lambda: _scroll(area, control))


def _scroll(area, control) -> None:
    # Meanwhile another module may have come into the panel; Qt crashes when it maps to a widget that is no ancestor.
    if area.widget() is None or not area.widget().isAncestorOf(control):
        return
    top = control.mapTo(area.widget(), qt.QPoint(0, 0)).y()
    area.verticalScrollBar().setValue(top)
