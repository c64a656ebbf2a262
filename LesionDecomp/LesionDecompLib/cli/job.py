"""``lesiondecomp job``: the working side of :mod:`LesionDecompLib.processes`. A program starts it, no person."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..processes.events import report_step
from .interrupts import interrupt_with_parent

# Seconds that the heat takes for each second of lungs, and writing and measuring for each second of both; measured on
# two CPU cores with whole chest CT. They only serve until the stage itself has begun.
HEAT_PER_LUNGS = 0.7
AFTER = 0.05
ENOUGH_S = 0.5  # before that, the first batch's warming up would mislead


class TimeLeft:
    """Hand it each step; it answers with the seconds left of the whole segmentation, or None while it cannot know.

    :param clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage, self._began = "", 0.0
        self._spent = 0.0  # in the stages before

    def update(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left after ``done`` of ``total`` slices of a stage."""
        now = self._clock()
        if stage != self._stage:
            self._spent += now - self._began if self._stage in ("lungs", "heat") else 0.0
            self._stage, self._began = stage, now
        elapsed = now - self._began
        if stage not in ("lungs", "heat") or not 0 < done <= total or elapsed < ENOUGH_S:
            return None
        whole = elapsed / done * total
        to_come = whole * HEAT_PER_LUNGS if stage == "lungs" else 0.0
        return whole - elapsed + to_come + AFTER * (self._spent + whole + to_come)


class StepsLeft:
    """The seconds left of a comparison, of whose time the registration takes nearly all; None while not known.

    :param clock: seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began = clock, clock()

    def update(self, stage: str, done: int, total: int) -> float | None:
        """Seconds left after ``done`` of ``total`` steps."""
        elapsed = self._clock() - self._began
        if stage != "registration" or not 0 < done <= total or elapsed < ENOUGH_S:
            return None
        return elapsed / done * (total - done) + AFTER * elapsed


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser; without a help text it is not listed."""
    parser = commands.add_parser("job", description="Do the job that another program has left in a folder.")
    parser.add_argument("folder", type=Path, metavar="DIR", help="private folder with job.json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do the job, and leave its result in the folder, or where the job asks for it."""
    from ..processes.child import damaged, read_record  # not before: --help answers at once

    record = read_record(args.folder)
    work = {"segmentation": _segment, "change": _compare, "slices": _cut_slices, "training": _train}.get(
        str(record.get("kind"))
    )
    if work is None:
        raise damaged("job.json")
    return work(args.folder, record)


def _segment(folder: Path, record: dict[str, Any]) -> int:
    from ..processes.tree import end_with_parent  # not before: --help answers at once

    end_with_parent(lambda: shutil.rmtree(folder, ignore_errors=True))
    report_step("start", 0, 1)
    # torch takes seconds to import: the first line is out before.
    from ..pipeline import Segmenter
    from ..processes.segmentation import read_job, write_result
    from ..report.manifest import build_manifest, manifest_text

    volume, mask, parameters = read_job(folder, record)
    segmenter = Segmenter(
        parameters.lesion_model,
        parameters.lung_model,
        device=parameters.device,
        batch_size=parameters.batch_size,
        engine=parameters.engine,
    )
    left = TimeLeft()
    result = segmenter.run(
        volume,
        lung_mask=mask,
        threshold=parameters.threshold,
        min_volume_ml=parameters.min_volume_ml,
        progress=lambda stage, done, total: report_step(stage, done, total, left.update(stage, done, total)),
        healthy=parameters.healthy,
    )
    report_step("writing", 0, 1)
    asked = {"device": parameters.device, "engine": parameters.engine, "batch_size": parameters.batch_size}
    write_result(folder, result, manifest_text(build_manifest(volume, result, parameters=asked)))
    return 0


def _compare(folder: Path, record: dict[str, Any]) -> int:
    from ..processes.tree import end_with_parent  # not before: --help answers at once

    end_with_parent(lambda: shutil.rmtree(folder, ignore_errors=True))
    report_step("start", 0, 1)
    from ..measurement.change.comparison import compare_scans  # not before: --help answers at once
    from ..processes.change import read_scans, write_change

    earlier, later = read_scans(folder, record)
    left = StepsLeft()
    found = compare_scans(
        earlier,
        later,
        progress=lambda stage, done, total: report_step(stage, done, total, left.update(stage, done, total)),
    )
    report_step("writing", 0, 1)
    write_change(folder, found)
    return 0


def _cut_slices(folder: Path, record: dict[str, Any]) -> int:
    from ..models.bundle import find_bundle  # not before: --help answers at once
    from ..models.device import choose_device
    from ..processes.training import read_slice_job
    from ..training.data.export import export_slices
    from .progress import Progress

    interrupt_with_parent()
    volumes, labels = read_slice_job(folder, record)
    export_slices(
        volumes,
        labels,
        record["output"],
        find_bundle(None, "lungs"),
        device=choose_device(record["device"])[0],
        overwrite=True,
        progress=Progress(quiet=True).update,
    )
    return 0


def _train(folder: Path, record: dict[str, Any]) -> int:
    from ..processes.training import TrainingSettings  # not before: --help answers at once
    from .train import train

    return train(TrainingSettings.of_record(record["settings"]))
