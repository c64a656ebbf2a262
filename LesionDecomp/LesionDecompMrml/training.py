"""A training started from the scene, watched from the event loop, its curves shown."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import slicer
from LesionDecompLib.processes.training import TrainingSettings
from LesionDecompLib.processes.training_run import TrainingRun, start_training

from .slicer_python import slicer_python
from .training_volumes import MarkedSlices, training_input, training_input_of_csv


def start(
    data_folder: str | Path | None,
    output_folder: str | Path,
    *,
    markedSlices: Sequence[tuple] = (),
    labelsFile: str | Path | None = None,
    volumes: Sequence[Any] = (),
    **settings: Any,
) -> TrainingRun:
    """Start a training in a process of its own.

    :param data_folder: training set (slices and index.csv); None where it is made from volumes of the scene.
    :param output_folder: for checkpoints, log, pictures and, at the end, the model: ``bundle`` inside it.
    :param markedSlices: (volume node, first, last, "normal" or "lesion"[, "train" or "val"]) each: axial slices counted
        from 0 at the lowest, both ends included.
    :param labelsFile: instead, a CSV file ``case,slice,label`` whose cases are names of ``volumes``.
    :param settings: of :class:`~LesionDecompLib.processes.training.TrainingSettings`: ``preset``, ``hours`` or
        ``steps``, ``device``, ``name`` of the model, ``resume`` (continue from the checkpoint in the output folder,
        with the settings it was started with), and ``settings`` (more ``key=value``).
    :raises LesionDecompError: settings or data that cannot work; nothing has been started then.
    """
    chest: list[Any] = []
    labels: Any = {}
    if labelsFile:
        chest, labels = training_input_of_csv(list(volumes), labelsFile)
    elif markedSlices:
        chest, labels = training_input([MarkedSlices(*mark) for mark in markedSlices])
    settings["settings"] = tuple(settings.get("settings", ()))
    output = Path(output_folder)
    run = start_training(
        TrainingSettings(Path(data_folder) if data_folder else output, output, **settings),
        chest,
        labels,
        python=slicer_python(),
        temporary_folder=slicer.app.temporaryPath or None,
    )
    logging.info("LesionDecomp: training started")
    return run


def watch(
    run: TrainingRun,
    every: Callable[[Callable[[], object]], Callable[[], object]],
    on_progress: Callable[[TrainingRun], object] | None = None,
    on_end: Sequence[Callable[[TrainingRun], object] | None] = (),
) -> None:
    """Poll a training until it ends, and report its progress; also to a script that waits for it.

    :param every: ``every(callback)`` calls back regularly and returns a function that stops it.
    """
    reported = None

    def report() -> None:
        nonlocal reported
        now = (run.state, run.stage, run.step)
        if reported != now:
            reported = now
            if on_progress is not None:
                on_progress(run)
        if not run.is_running:
            run.listener = None
            stop()
            logging.info(f"LesionDecomp: training {run.state}" + (f": {run.error}" if run.error else ""))
            for listener in on_end:
                if listener is not None:
                    listener(run)

    run.listener = report
    stop = every(run.poll)


def show_curves(run: TrainingRun):
    """Keep the log of a training as a table and a chart in the scene; the layout stays as it is.

    :return: table node and chart node, or (None, None) as long as the log is empty.
    """
    from .training_curves import show_log  # not before: Slicer starts without it

    if not run.log:
        return None, None
    return show_log(slicer.mrmlScene, run.folder, run.log)
