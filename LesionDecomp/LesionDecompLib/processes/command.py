"""A command of ``lesiondecomp`` in a process of its own: how far it is, how it ended, and a way to stop it cleanly.

For commands that make something of their own in an output folder, as ``train`` and ``slices`` do. Nothing blocks.
"""

from __future__ import annotations

import shutil
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

from ..errors import LesionDecompError
from ..io.atomic import private_folder
from .events import VARIABLE, Failed, Step, parse_event
from .tree import INTERRUPTED, ProcessTree, exit_in_words, library_environment

LINES_SHOWN = 6
STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
ENDED = (FINISHED, STOPPED, FAILED)


class CommandProcess:
    """One command, from its start to its end.

    :param arguments: of the command line, the command's name first.
    :param title: of the work, for messages.
    :param python: interpreter that has the library's packages, as a command; default the one that runs this.
    :param temporary_folder: where the folder for the command's output is made; default the system's.
    :raises LesionDecompError: the process cannot be started.

    ``state`` is ``starting``, ``running``, ``stopping``, and then one of :data:`ENDED`; ``step`` tells how far it is.
    Both change in :meth:`poll` only. The process ends with the program that started it: cleanly where it can.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        title: str,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
    ) -> None:
        self.title = title
        self.state = STARTING
        self.step: Step | None = None
        self.error: LesionDecompError | None = None
        self._failed: Failed | None = None
        try:
            folder = private_folder(temporary_folder)
        except OSError as error:
            raise no_temporary_folder(title, error) from error
        try:
            command = [*(python or [sys.executable]), "-m", "LesionDecompLib", *arguments]
            self._process = ProcessTree(command, folder, environment={**library_environment(), VARIABLE: "1"})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._closer = weakref.finalize(self, _close, self._process, folder)

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come, as far as :meth:`poll` knows."""
        return self.state not in ENDED

    def poll(self) -> str:
        """Take in what the command has told since.

        :return: :attr:`state`.
        """
        if not self.is_running:
            return self.state
        status = self._process.poll()  # first: what it told before its end is then surely there
        while lines := self._process.new_lines():
            for line in lines:
                event = parse_event(line)
                if isinstance(event, Step):
                    self.step = event
                    self.state = RUNNING if self.state == STARTING else self.state
                elif isinstance(event, Failed):
                    self._failed = event
        if status is not None:
            self._end(status)
        return self.state

    def stop(self) -> None:
        """Ask the command to end at the next good moment; it keeps what can be gone on from."""
        if self.is_running:
            self.state = STOPPING
            self._process.hang_up()

    def kill(self) -> None:
        """End the command and all it has started, now."""
        if self.is_running:
            self._process.kill()
            self.state = STOPPED
            self._closer()

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for the end, for scripts.

        :return: :attr:`state`, not an end where it took longer.
        """
        self._process.wait(timeout_s)
        return self.poll()

    def _end(self, status: int) -> None:
        if status == 0:
            self.state = FINISHED
        elif status == INTERRUPTED or (self.state == STOPPING and self._failed is None):
            self.state = STOPPED
        else:
            self.state = FAILED
            self.error = self._failed.error() if self._failed is not None else self._died(status)
        self._closer()

    def _died(self, status: int) -> LesionDecompError:
        said = " / ".join(self._process.last_errors(LINES_SHOWN))
        advice = f"Its last lines: {said}" if said else "Try again; if it happens again, report it."
        return LesionDecompError(self.title, f"a process that ended early ({exit_in_words(status)})", "its end", advice)


def no_temporary_folder(stage: str, error: OSError) -> LesionDecompError:
    """Error for a system that gives no folder for temporary files."""
    return LesionDecompError(stage, f"no temporary folder ({error.strerror or error})", "room for temporary files")


def _close(process: ProcessTree, folder: Path) -> None:
    process.kill()
    shutil.rmtree(folder, ignore_errors=True)
