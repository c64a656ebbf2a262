"""The way from lesion to lesion: Next and Previous move the views, and a line reports where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from .errors import errors_shown
from .signals import connect


class LesionWalk:
    """From the largest lesion to the smallest and around again.

    :param ui: the panel's controls.
    :param result: called for the result shown, its lesions up to date, or None.
    """

    def __init__(self, ui, result: Callable[[], Any]) -> None:
        self._ui, self._result = ui, result
        self._places: list | None = None
        self._place = -1
        connect(ui.nextLesionButton, "clicked(bool)", self._on_next)
        connect(ui.previousLesionButton, "clicked(bool)", self._on_previous)

    def forget(self) -> None:
        """The lesions are others now: begin with the largest."""
        self._places, self._place = None, -1
        self._ui.lesionLabel.text = ""

    def _on_next(self, _checked: bool = False) -> None:
        self._go(1)

    def _on_previous(self, _checked: bool = False) -> None:
        self._go(-1)

    def _go(self, step: int) -> None:
        """To the next smaller (1) or next larger (-1) lesion, around the ends."""
        result = self._result()
        if result is None:
            return
        with errors_shown(_("The views could not be moved.")):
            if self._places is None:
                self._places = result.places()
            if not self._places:
                self._ui.lesionLabel.text = _("There is no lesion at this threshold.")
                return
            first = 0 if step > 0 else -1
            self._place = (self._place + step if self._place >= 0 else first) % len(self._places)
            place = self._places[self._place]
            result.jump_to(place.voxel)
            self._ui.lesionLabel.text = _("Lesion {n} of {count}: {volume:.2f} mL").format(
                n=self._place + 1, count=len(self._places), volume=place.volume_ml
            )
