"""A training from its slices to its bundle, and the trainings of this session, which outlive any window on them.

A :class:`TrainingRun` first makes the training set, where volumes with marked slices were given, and then trains; each
is a process of its own. Somebody has to call :meth:`TrainingRun.poll` now and then, or :meth:`TrainingRun.wait`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.volume import Volume
from ..errors import ConfigError, LesionDecompError
from ..io.atomic import private_folder
from ..io.readers import write_image
from ..training.data.labels import SliceLabel, deal_labels, write_slice_labels
from .command import FAILED, FINISHED, RUNNING, STARTING, STOPPED, CommandProcess, no_temporary_folder
from .events import Step
from .training import CHECKPOINT, TITLE, TrainingProcess, TrainingSettings

SLICES_TITLE = "Making the training set"
SLICES_FOLDER = "slices"  # in the run's folder, where the training set is made from volumes
WAIT_STEP_S = 0.05

_runs: dict[Path, TrainingRun] = {}


class SliceSetProcess(CommandProcess):
    """``lesiondecomp slices`` on volumes in memory.

    :param volumes: each with a name of its own, fit for a file.
    :param labels: by that name.
    :param folder: of the training set, to be made.
    :raises LesionDecompError: too few volumes, a full disk, or the process cannot be started.
    """

    def __init__(
        self,
        volumes: Sequence[Volume],
        labels: Mapping[str, list[SliceLabel]],
        folder: str | Path,
        *,
        device: str = "auto",
        overwrite: bool = False,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
    ) -> None:
        labels = deal_labels(labels)
        try:
            # What a killed process leaves of a patient's images here is removed by the next one.
            self._inputs = private_folder(temporary_folder)
        except OSError as error:
            raise no_temporary_folder(SLICES_TITLE, error) from error
        try:
            files = []
            for volume in volumes:
                files.append(self._inputs / f"{volume.name}.nrrd")
                write_image(files[-1], volume.array, volume)
            write_slice_labels(self._inputs / "labels.csv", labels)
            arguments = ["slices", *map(str, files), "--labels", str(self._inputs / "labels.csv")]
            arguments += ["-o", str(folder), "--device", device, *(["--overwrite"] if overwrite else [])]
            super().__init__(arguments, SLICES_TITLE, python=python, temporary_folder=temporary_folder)
        except BaseException:
            self._remove_inputs()
            raise

    def poll(self) -> str:
        """Take in what the command has told since; its inputs are removed at its end.

        :return: :attr:`state`.
        """
        state = super().poll()
        if not self.is_running:
            self._remove_inputs()
        return state

    def kill(self) -> None:
        """End the command now, and remove its inputs."""
        super().kill()
        self._remove_inputs()

    def _remove_inputs(self) -> None:
        shutil.rmtree(self._inputs, ignore_errors=True)


class TrainingRun:
    """One training; made by :func:`start_training`.

    ``state`` is one of :mod:`.command`'s; ``stage`` is ``"slices"`` while the training set is made, else
    ``"training"``.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        volumes: Sequence[Volume] = (),
        labels: Mapping[str, list[SliceLabel]] | None = None,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
    ) -> None:
        self.settings = settings
        self._python, self._temporary_folder = python, temporary_folder
        self._training: TrainingProcess | None = None
        self._slices: SliceSetProcess | None = None
        self._is_stopping = False
        if labels:
            self.settings = replace(settings, data=settings.output / SLICES_FOLDER)
            # What the trainer alone would notice, after the slices are made.
            if (settings.output / CHECKPOINT).exists():
                advice = "Resume it, or choose another output folder."
                found = f"a run that was started before in '{settings.output.name}'"
                raise ConfigError(TITLE, found, "a new one", advice)
            self._slices = SliceSetProcess(
                volumes,
                labels,
                self.settings.data,
                device=settings.device,
                overwrite=True,
                python=python,
                temporary_folder=temporary_folder,
            )
        else:
            self._training = self._start()
        self._state = STARTING
        self._error: LesionDecompError | None = None

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.settings.output

    @property
    def stage(self) -> str:
        """What is under way, or was last."""
        return "training" if self._training is not None else "slices"

    @property
    def state(self) -> str:
        """How it stands, as of the last :meth:`poll`."""
        return self._state

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come."""
        return self._state not in (FINISHED, STOPPED, FAILED)

    @property
    def step(self) -> Step | None:
        """How far the present stage is."""
        process = self._training or self._slices
        return process.step if process is not None else None

    @property
    def error(self) -> LesionDecompError | None:
        """Why it failed: stage, what was found, what was expected, what to do."""
        return self._error

    @property
    def log(self) -> dict[str, np.ndarray]:
        """Columns of the training's log so far; empty before the first row."""
        return self._training.log if self._training is not None else {}

    @property
    def examples(self) -> Path | None:
        """Picture of example decompositions, once there is one."""
        return self._training.examples if self._training is not None else None

    @property
    def bundle(self) -> Path | None:
        """Folder of the finished bundle, or None."""
        return self._training.bundle if self._training is not None else None

    @property
    def can_resume(self) -> bool:
        """Whether it ended early and left a checkpoint to go on from."""
        return self._state in (STOPPED, FAILED) and (self.folder / CHECKPOINT).is_file()

    def _start(self) -> TrainingProcess:
        return TrainingProcess(self.settings, python=self._python, temporary_folder=self._temporary_folder)

    @property
    def _process(self) -> TrainingProcess | SliceSetProcess:
        process = self._training or self._slices
        if process is None:
            raise RuntimeError("a training without a process")
        return process

    def poll(self) -> str:
        """Take in what has happened since.

        :return: :attr:`state`.
        """
        if not self.is_running:
            return self._state
        process = self._process
        state, self._error = process.poll(), process.error
        if process is self._slices and state == FINISHED:
            state = STOPPED if self._is_stopping else RUNNING
            try:
                if not self._is_stopping:
                    self._training = self._start()
            except LesionDecompError as error:
                state, self._error = FAILED, error
        self._state = state
        return state

    def stop(self) -> None:
        """Ask it to end at the next good moment; a training writes its checkpoint first."""
        if not self.is_running:
            return
        self._is_stopping = True  # also where the slices are just finished: no training follows them then
        self._process.stop()
        self._state = self._process.state

    def kill(self) -> None:
        """End it now; the last checkpoint stays."""
        if self.is_running:
            self._process.kill()
            self._state = STOPPED

    def wait(self, timeout_s: float | None = None) -> str:
        """Wait for the end, for scripts.

        :return: :attr:`state`, not an end where it took longer.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while self.poll() not in (FINISHED, STOPPED, FAILED) and (end is None or time.monotonic() < end):
            time.sleep(WAIT_STEP_S)
        return self._state


def start_training(
    settings: TrainingSettings,
    volumes: Sequence[Volume] = (),
    labels: Mapping[str, list[SliceLabel]] | None = None,
    **where: Any,
) -> TrainingRun:
    """Start a training and keep it for the session.

    :param settings: what to train; ``data`` is not looked at where volumes are given.
    :param volumes, labels: to make the training set from first, see :class:`SliceSetProcess`.
    :param where: ``python`` and ``temporary_folder`` of the processes.
    :raises LesionDecompError: settings that will not do, or a training that runs in this folder already.
    """
    key = settings.output.resolve()
    running = _runs.get(key)
    if running is not None and running.poll() not in (FINISHED, STOPPED, FAILED):
        found = f"a training that is running in '{settings.output.name}'"
        raise ConfigError(TITLE, found, "one at a time", "Stop it, or choose another output folder.")
    run = TrainingRun(settings, volumes, labels, **where)
    _runs.pop(key, None)  # the latest comes last
    _runs[key] = run
    return run


def trainings() -> list[TrainingRun]:
    """The trainings of this session, running and ended, the latest last."""
    return list(_runs.values())
