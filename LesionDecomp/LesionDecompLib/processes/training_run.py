"""A training from its slices to its bundle, and the trainings of this session, which outlive any window on them.

A :class:`TrainingRun` first makes the training set, where volumes with marked slices were given, and then trains; each
is a job of its own. Somebody has to call :meth:`TrainingRun.poll` now and then, or :meth:`TrainingRun.wait`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.volume import Volume
from ..errors import ConfigError, LesionDecompError
from ..training.data.labels import SliceLabel
from .child import ENDED, FAILED, FINISHED, RUNNING, STARTING, STOPPED
from .events import Step
from .training import CHECKPOINT, TITLE, SliceSetJob, TrainingJob, TrainingSettings

SLICES_FOLDER = "slices"  # in the run's folder, where the training set is made from volumes
WAIT_STEP_S = 0.05

# The trainings that this program has started, by output folder; the latest comes last.
session_runs: dict[Path, TrainingRun] = {}


class TrainingRun:
    """One training; made by :func:`start_training`.

    ``state`` is one of :mod:`.child`'s; ``stage`` is ``"slices"`` while the training set is made, else ``"training"``.
    ``error`` reports why it failed. ``listener``, if there is one, is called after every poll.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        volumes: Sequence[Volume] = (),
        labels: Mapping[str, list[SliceLabel]] | None = None,
        **where: Any,
    ) -> None:
        self.settings, self._where = settings, where
        self.state = STARTING
        self.error: LesionDecompError | None = None
        self.listener: Callable[[], object] | None = None
        self._is_stopping = False
        self.job: SliceSetJob | TrainingJob
        if labels:
            settings.check_is_new()  # the trainer alone would notice it after the slices are made
            self.settings = replace(settings, data=settings.output / SLICES_FOLDER)
            self.job = SliceSetJob(volumes, labels, self.settings.data, device=settings.device, **where)
        else:
            self.job = TrainingJob(settings, **where)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.settings.output

    @property
    def stage(self) -> str:
        """What is under way, or was last."""
        return self.job.kind

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come."""
        return self.state not in ENDED

    @property
    def step(self) -> Step | None:
        """How far the present stage is."""
        return self.job.step

    @property
    def log(self) -> dict[str, np.ndarray]:
        """Columns of the training's log so far; empty before the first row."""
        return self.job.log if isinstance(self.job, TrainingJob) else {}

    @property
    def examples(self) -> Path | None:
        """Picture of example decompositions, once there is one."""
        return self.job.examples if isinstance(self.job, TrainingJob) else None

    @property
    def bundle(self) -> Path | None:
        """Folder of the finished bundle, or None."""
        return self.job.bundle if isinstance(self.job, TrainingJob) else None

    @property
    def can_resume(self) -> bool:
        """Whether it ended early and left a checkpoint to resume from."""
        return self.state in (STOPPED, FAILED) and (self.folder / CHECKPOINT).is_file()

    def poll(self) -> str:
        """Take in what has happened since.

        :return: :attr:`state`.
        """
        if self.is_running:
            self._take_in()
        if self.listener is not None:
            self.listener()
        return self.state

    def _take_in(self) -> None:
        self.state, self.error = self.job.poll(), self.job.error
        if self.job.kind == SliceSetJob.kind and self.state == FINISHED:
            self.state = STOPPED if self._is_stopping else RUNNING
            try:
                if not self._is_stopping:
                    self.job = TrainingJob(self.settings, **self._where)
            except LesionDecompError as error:
                self.state, self.error = FAILED, error

    def stop(self) -> None:
        """Ask it to end at the next good moment; a training writes its checkpoint first."""
        if not self.is_running:
            return
        self._is_stopping = True  # also where the slices are just finished: no training follows them then
        self.job.stop()
        self.state = self.job.state

    def kill(self) -> None:
        """End it now; the last checkpoint stays."""
        if self.is_running:
            self.job.kill()
            self.state = STOPPED

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for the end, for scripts.

        :return: :attr:`state`, not an end where it took longer.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.poll() not in ENDED and (end is None or time.monotonic() < end):
            time.sleep(WAIT_STEP_S)
        return self.state


def start_training(
    settings: TrainingSettings,
    volumes: Sequence[Volume] = (),
    labels: Mapping[str, list[SliceLabel]] | None = None,
    **where: Any,
) -> TrainingRun:
    """Start a training and keep it for the session.

    :param settings: what to train; ``data`` is not looked at where volumes are given.
    :param volumes, labels: to make the training set from first, see :class:`.training.SliceSetJob`.
    :param where: ``python`` and ``temporary_folder`` of the processes.
    :raises LesionDecompError: settings that will not do, or a training that runs in this folder already.
    """
    key = settings.output.resolve()
    running = session_runs.get(key)
    if running is not None and running.poll() not in ENDED:
        found = f"a training that is running in '{settings.output.name}'"
        raise ConfigError(TITLE, found, "one at a time", "Stop it, or choose another output folder.")
    run = TrainingRun(settings, volumes, labels, **where)
    session_runs.pop(key, None)  # the latest comes last
    session_runs[key] = run
    return run


def trainings() -> list[TrainingRun]:
    """The trainings of this session, running and ended, the latest last."""
    return list(session_runs.values())
