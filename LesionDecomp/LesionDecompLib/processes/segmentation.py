"""The asking side: start a worker on a CT, hear how far it is, end it, and take its result."""

from __future__ import annotations

import shutil
import sys
import time
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..ct.volume import Volume
from ..errors import LesionDecompError
from ..io.atomic import private_folder
from ..pipeline import SegmentResult
from .events import Failed, Finished, Step, parse_event
from .job_files import JobParameters, read_result, write_job
from .tree import ProcessTree, exit_in_words, library_environment

STAGE = "Segmentation"
LINES_SHOWN = 6
SILENCE_S = 1800.0  # between two steps: a hang, since a step is a batch of slices


class WorkerJob:
    """One segmentation in a worker process, from its start to its end; nothing blocks.

    :param volume: the CT.
    :param lung_mask: ``(k, j, i)`` on its grid, or None.
    :param parameters: of the run.
    :param python: interpreter that has the library's packages, as a command; default the one that runs this.
    :param temporary_folder: where the job's private folder is made; default the system's.
    :param silence_s: a worker that tells no step for so long hangs, and is ended.
    :raises LesionDecompError: the job can't be written or the process not be started; nothing is then left behind.

    The private folder and the process are gone after :meth:`close`, at the latest when the object or the interpreter
    ends.
    """

    def __init__(
        self,
        volume: Volume,
        lung_mask: np.ndarray | None,
        parameters: JobParameters,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self.step = Step("start", 0, 1)
        self._silence_s, self._heard, self._hung = silence_s, time.monotonic(), False
        self._finished: Finished | Failed | None = None
        self._volume_size = "×".join(str(n) for n in reversed(volume.shape))
        try:
            # Made for this user alone (0700): it holds a patient's images.
            self.folder = private_folder(temporary_folder)
        except OSError as error:
            raise _no_room(error) from error
        try:
            write_job(self.folder, volume, lung_mask, parameters)
            command = [*(python or [sys.executable]), "-m", "LesionDecompLib.processes.worker", str(self.folder)]
            self.process = ProcessTree(command, self.folder, environment=library_environment())
        except OSError as error:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise _no_room(error) from error
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self._closer = weakref.finalize(self, _close, self.process, self.folder)

    def poll(self) -> bool:
        """Read what the worker has said since; :attr:`step` is then the latest.

        :return: whether it has ended."""
        ended = self.process.poll() is not None  # first: what it said before its end is then surely there
        while lines := self.process.new_lines():
            for line in lines:
                event = parse_event(line)
                if event is not None:
                    self._heard = time.monotonic()
                if isinstance(event, Step):
                    self.step = event
                elif event is not None:
                    self._finished = event
        if not ended and time.monotonic() - self._heard > self._silence_s:
            self._hung = True
            self.process.kill()
        return ended or self._hung

    def result(self) -> tuple[SegmentResult, str]:
        """The result and the text of its manifest, once :meth:`poll` has said that the worker has ended.

        :raises LesionDecompError: what the worker refused, or how it died and what it said last.
        """
        if isinstance(self._finished, Failed):
            raise self._finished.error()
        status = self.process.poll()
        if status == 0 and isinstance(self._finished, Finished):
            return read_result(self.folder)
        if self._hung:
            found = f"a worker process without a sign of life for {self._silence_s:g} s (stage '{self.step.stage}')"
            raise LesionDecompError(STAGE, found, "a step now and then", "Try again; if it happens again, report it.")
        how = "still running" if status is None else exit_in_words(status)
        # A system out of memory kills without a word, and a launcher in between hides the signal.
        advice = "If memory ran short: use a smaller batch size, crop the volume, or close other programs."
        said = " / ".join(self.process.last_errors(LINES_SHOWN))
        if said:
            advice += f" The worker's last lines: {said}"
        raise LesionDecompError(
            STAGE, f"a worker process that ended early on {self._volume_size} voxels ({how})", "a finished run", advice
        )

    def close(self) -> None:
        """End the worker with everything it started, if it still runs, and remove its folder; may be called twice."""
        self._closer()


def _close(process: ProcessTree, folder: Path) -> None:
    process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def _no_room(error: OSError) -> LesionDecompError:
    return LesionDecompError(
        "Handing the CT to the worker",
        f"a temporary folder that cannot be written ({error.strerror or error})",
        "room for a copy of the CT and its result",
        "Free some space, or choose another temporary folder in the application settings.",
    )
