"""Clicks in the slice views, while somebody waits for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
import vtk

FIRST = 10.0  # before the views' own interaction


class ViewClicks:
    """Calls back with the place of each left click in a slice view.

    :param clicked: called as ``clicked((r, a, s))``, mm.
    """

    def __init__(self, clicked: Callable[[tuple[float, float, float]], object]) -> None:
        self._clicked = clicked
        self._observed: list[tuple[Any, int]] = []

    def start(self) -> None:
        """Listen to the slice views that there are now."""
        self.stop()
        layout = slicer.app.layoutManager()
        for name in layout.sliceViewNames() if layout is not None else []:
            widget = layout.sliceWidget(name)
            interactor = widget.sliceView().interactor()
            node = widget.mrmlSliceNode()
            tag = interactor.AddObserver(vtk.vtkCommand.LeftButtonPressEvent, self._listener(node, interactor), FIRST)
            self._observed.append((interactor, tag))

    def stop(self) -> None:
        """Listen no longer."""
        for interactor, tag in self._observed:
            interactor.RemoveObserver(tag)
        self._observed = []

    def _listener(self, node, interactor) -> Callable[[Any, str], None]:
        def pressed(_caller, _event) -> None:
            x, y = interactor.GetEventPosition()
            r, a, s, _ = node.GetXYToRAS().MultiplyPoint((x, y, 0.0, 1.0))
            self._clicked((r, a, s))

        return pressed
