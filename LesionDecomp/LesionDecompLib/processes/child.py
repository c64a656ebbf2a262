"""A job in a child process: its private folder, how far it is, how it ended, and the ways to end it. Nothing blocks."""

from __future__ import annotations

import json
import shutil
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import LesionDecompError, OutputError
from ..io.atomic import private_folder
from .events import VARIABLE, Failed, Step, parse_event
from .tree import INTERRUPTED, ProcessTree, exit_in_words, library_environment

LINES_SHOWN = 6
JOB, FORMAT = "job.json", 1
STARTING, RUNNING, STOPPING = "starting", "running", "stopping"
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
ENDED = (FINISHED, STOPPED, FAILED)


class ChildJob:
    """One job, from its start to its end.

    :param record: what is to be done, as JSON.
    :param arrays: by name, of what it is done with.
    :param python: interpreter that has the library's packages, as a command; default the one that runs this.
    :param temporary_folder: where the private folder is made; default the system's.
    :param silence_s: a child that reports nothing for so long hangs, and is ended; None never ends it.
    :raises LesionDecompError: the folder cannot be written or the process not be started; nothing is left behind.

    ``state`` is ``starting``, ``running``, ``stopping``, and then one of :data:`ENDED`; ``step`` reports how far it is,
    ``error`` why it failed. All three change in :meth:`poll` only. Process and private folder are gone at the end, of
    the job or of this object or of the program that started it, whichever comes first.
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    keeps_files: ClassVar[bool] = False  # of a finished job, until close()
    advice: ClassVar[str] = "Try again; if it happens again, report it."

    def __init__(
        self,
        record: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
        silence_s: float | None = None,
    ) -> None:
        self.state = STARTING
        self.step: Step | None = None
        self.error: LesionDecompError | None = None
        self._failed: Failed | None = None
        self._silence_s, self._heard = silence_s, time.monotonic()
        folder = None
        try:
            # Made for this user alone (0700): it may hold a patient's images.
            folder = self.job_folder = private_folder(temporary_folder)
            for name, array in (arrays or {}).items():
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
            (folder / JOB).write_text(json.dumps({"format": FORMAT, "kind": self.kind, **record}), "utf-8")
            command = [*(python or [sys.executable]), "-m", "LesionDecompLib", "job", str(folder)]
            self.process = ProcessTree(command, folder, environment={**library_environment(), VARIABLE: "1"})
        except BaseException as error:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise _no_room(self.title, error) from error
            raise
        self._closer = weakref.finalize(self, _close, self.process, folder)

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come, as far as :meth:`poll` knows."""
        return self.state not in ENDED

    def poll(self) -> str:
        """Take in what the child has reported since.

        :return: :attr:`state`.
        """
        if not self.is_running:
            return self.state
        status = self.process.poll()  # first: what it reported before its end is then surely there
        while lines := self.process.new_lines():
            for line in lines:
                event = parse_event(line)
                if event is not None:
                    self._heard = time.monotonic()
                if isinstance(event, Step):
                    self.step = event
                    self.state = RUNNING if self.state == STARTING else self.state
                elif isinstance(event, Failed):
                    self._failed = event
        if status is not None:
            self._end(status)
        elif self._silence_s is not None and time.monotonic() - self._heard > self._silence_s:
            during = f" (stage '{self.step.stage}')" if self.step is not None else ""
            found = f"a process without a sign of life for {self._silence_s:g} s{during}"
            self.state, self.error = FAILED, LesionDecompError(self.title, found, "a step now and then", self.advice)
            self.close()
        return self.state

    def stop(self) -> None:
        """Ask the child to end at the next good moment; it keeps what can be resumed."""
        if self.is_running:
            self.state = STOPPING
            self.process.hang_up()

    def kill(self) -> None:
        """End the child and all it has started, now."""
        if self.is_running:
            self.state = STOPPED
        self.close()

    def close(self) -> None:
        """End the child, if it still runs, and remove the private folder; may be called twice."""
        self._closer()

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for the end, for scripts.

        :return: :attr:`state`, not an end where it took longer.
        """
        self.process.wait(timeout_s)
        return self.poll()

    def _end(self, status: int) -> None:
        if status == 0:
            self.state = FINISHED
        elif status == INTERRUPTED or (self.state == STOPPING and self._failed is None):
            self.state = STOPPED
        else:
            self.state = FAILED
            self.error = self._died(status) if self._failed is None else self._failed.error(self.title)
        if self.state != FINISHED or not self.keeps_files:
            self.close()

    def _died(self, status: int) -> LesionDecompError:
        lines = " / ".join(self.process.last_errors(LINES_SHOWN))
        advice = f"{self.advice} Its last lines: {lines}" if lines else self.advice
        found = f"a process that ended early ({exit_in_words(status)})"
        return LesionDecompError(self.title, found, "a finished run", advice)


def read_record(folder: Path, name: str = JOB) -> dict[str, Any]:
    """Read a JSON file of a job.

    :raises LesionDecompError: it is missing, damaged or of another version.
    """
    try:
        values = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(name) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise damaged(name)
    return values


def read_array(folder: Path, name: str, mapped: bool = False) -> np.ndarray:
    """Read an array of a job.

    :param mapped: leave it on the disk until it is used, read-only.
    :raises LesionDecompError: it is missing or damaged.
    """
    try:
        return np.load(folder / f"{name}.npy", mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(f"{name}.npy") from error


def damaged(name: str) -> LesionDecompError:
    """Error for a file of a job that does not read."""
    found, expected = f"a missing or damaged {name}", "the files of a finished step"
    return LesionDecompError("Reading the files of a job", found, expected, "Run again.")


def _no_room(title: str, error: OSError) -> OutputError:
    found = f"a temporary folder that cannot be written ({error.strerror or error})"
    advice = "Free some space, or choose another temporary folder in the application settings."
    return OutputError(title, found, "room for the files of a job", advice)


def _close(process: ProcessTree, folder: Path) -> None:
    process.kill()
    shutil.rmtree(folder, ignore_errors=True)
