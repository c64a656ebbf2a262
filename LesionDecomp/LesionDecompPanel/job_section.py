"""What the panel's parts with a worker have in common: a button that becomes Cancel, a bar, and the work under way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from .run_progress import RunProgress
from .signals import connect

BAR_STEPS = 1000


class JobSection(ABC):
    """A part of the panel that starts a worker, and watches it.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param button: starts the work, and cancels it.
    :param bar: shows how far it is.
    """

    def __init__(self, ui, logic, button, bar) -> None:
        self._ui, self._logic, self._bar = ui, logic, bar
        self._parameters: Any = None
        self.current: Any = None
        self._progress = RunProgress()
        bar.visible = False
        bar.maximum = BAR_STEPS
        connect(button, "clicked(bool)", self._on_button)

    @abstractmethod
    def start(self) -> None:
        """Start the work, where everything is there that it needs."""

    @property
    def is_running(self) -> bool:
        """Whether a worker is at work."""
        return self.current is not None and self.current.is_running

    def set_parameter_node(self, parameters) -> None:
        """Take a parameter node, or none."""
        self._parameters = parameters

    def scene_closing(self) -> None:
        """The scene goes, and with it what the work would write."""
        self.cancel()

    def cleanup(self) -> None:
        """End what is under way: the panel goes."""
        self.cancel()

    def cancel(self) -> None:
        """End the work, if there is any; the scene stays as it was."""
        if self.current is not None:
            self.current.cancel()

    def _on_button(self, _checked: bool = False) -> None:
        if self.is_running:
            self.cancel()
        else:
            self.start()

    def _begin(self) -> None:
        """The worker has been started: the bar begins at 0."""
        self._progress = RunProgress()
        self._bar.value = 0

    def _advance(self, step) -> None:
        """Move the bar to where a step of the worker is."""
        self._progress.update(step.seconds_left)
        self._bar.value = round(BAR_STEPS * self._progress.fraction)
