"""The device selector. What this computer has is asked of a child process: torch takes seconds to import, and need not
be loaded into Slicer for a look at the panel."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from LesionDecompLib.errors import LesionDecompError
from slicer.i18n import tr as _

from .combo_box import fill, select
from .signals import connect


class DeviceChoice:
    """Where a run computes.

    :param ui: the panel's controls.
    :param chosen: called as ``chosen(name)`` when the user has chosen.
    :param every: as of the module's logic: calls back regularly, returns what stops it.
    :param python: the interpreter that has torch, as a command.
    """

    def __init__(self, ui, chosen, every: Callable, python: list[str]) -> None:
        self._ui, self._chosen, self._every, self._python = ui, chosen, every, python
        self._words: dict[str, str] = {}
        self._process: Any = None
        self._folder: str | Path = ""
        self._stop: Callable[[], None] | None = None
        self._asked = False
        connect(ui.deviceComboBox, "currentIndexChanged(int)", self._on_chosen)
        self._refill("auto")

    def show(self, name: str) -> None:
        """Select a device; one that a scene from another computer names is offered too, and refused by the run."""
        if self._ui.deviceComboBox.itemData(self._ui.deviceComboBox.currentIndex) != name:
            if name not in self._names():
                self._words[name] = _("not known on this computer")
                self._refill(name)
            select(self._ui.deviceComboBox, name)
        words = self._words.get(name, "")
        self._ui.deviceInfoLabel.text = words
        self._ui.deviceInfoLabel.visible = bool(words)

    def ask(self) -> None:
        """Find out what this computer has, once, without waiting for it."""
        if self._asked:
            return
        from LesionDecompLib.io.atomic import private_folder  # not before: Slicer starts without it
        from LesionDecompLib.processes.tree import ProcessTree, library_environment

        self._asked = True
        try:
            self._folder = private_folder()
            command = [*self._python, "-m", "LesionDecompLib.processes.devices"]
            self._process = ProcessTree(command, self._folder, environment=library_environment())
        except (LesionDecompError, OSError):  # the selector keeps what it offers without an answer
            self.close()
            return
        self._stop = self._every(self.poll)

    def poll(self) -> None:
        """Take the answer when it is there."""
        from LesionDecompLib.processes.devices import parse_devices  # not before: Slicer starts without it

        if self._process is None or self._process.poll() is None:
            return
        devices = parse_devices("\n".join(self._process.new_lines()))
        self.close()
        if devices:
            chosen = self._ui.deviceComboBox.itemData(self._ui.deviceComboBox.currentIndex)
            self._words = {**({chosen: ""} if chosen not in devices else {}), **devices}
            self._refill(chosen)
            self.show(chosen)

    def close(self) -> None:
        """End the question, if it is still open."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        if self._process is not None:
            self._process.kill()
            self._process = None
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _names(self) -> list[str]:
        return list(dict.fromkeys(["auto", *self._words, "cpu"]))

    def _refill(self, chosen: str) -> None:
        entries = [(self._title(name), name, self._words.get(name, "")) for name in self._names()]
        fill(self._ui.deviceComboBox, entries, chosen)

    def _title(self, name: str) -> str:
        titles = {"auto": _("Automatic"), "cpu": _("CPU"), "mps": _("Apple GPU (MPS)"), "cuda": _("CUDA GPU")}
        if name in titles:
            return titles[name]
        words = self._words.get(name, "")
        return f"{name}: {words}" if words else name

    def _on_chosen(self, index: int) -> None:
        if index >= 0:
            self._chosen(self._ui.deviceComboBox.itemData(index))
