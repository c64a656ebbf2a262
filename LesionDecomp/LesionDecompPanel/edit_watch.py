"""Lesions edited by hand, as in Segment Editor: counted soon after each change, whichever module is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from .errors import errors_shown
from .signals import Later

RESTED_MS = 700  # after the last change


class EditWatch:
    """Observes the segmentation of the result that was shown last.

    :param take: called some time after the latest change.
    """

    def __init__(self, take: Callable[[], object]) -> None:
        self._take = take
        self._segmentation: Any = None
        self._tags: list[int] = []
        self.rested = Later(self._on_rested, RESTED_MS, restart=True)

    def watch(self, node) -> None:
        """Observe a segmentation node, or none."""
        segmentation = node.GetSegmentation() if node is not None else None
        if segmentation is self._segmentation:
            return
        self.stop()
        self._segmentation = segmentation
        if segmentation is not None:
            event = slicer.vtkSegmentation.SourceRepresentationModified
            self._tags = [segmentation.AddObserver(event, self._on_modified)]

    def stop(self) -> None:
        """Observe nothing any more."""
        self.rested.cancel()
        for tag in self._tags:
            self._segmentation.RemoveObserver(tag)
        self._segmentation, self._tags = None, []

    def _on_modified(self, _caller, _event) -> None:
        self.rested.request()

    def _on_rested(self) -> None:
        with errors_shown(_("The edited lesions could not be counted.")):
            self._take()
