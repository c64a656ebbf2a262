"""A training, and the making of its slices, as jobs: watched, stopped with a checkpoint, and resumed."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.volume import Volume
from ..errors import ConfigError
from ..training.config import BASELINES, PRESET_NAMES
from ..training.data.labels import SliceLabel, assign_splits
from ..training.log import LOG_NAME, read_log
from ..training.settings import NOT_SETTINGS, flat
from .child import FINISHED, ChildJob, damaged, read_array

TITLE = "Training"
CHECKPOINT, CONFIG = "checkpoint.pt", "config.json"
BUNDLE, EXAMPLES = "bundle", "examples.png"
LESION_PRESET = "default"
MAX_HOURS = 24 * 365


@dataclass(frozen=True)
class TrainingSettings:
    """What to train, as ``lesiondecomp train`` has it.

    :param data: training set: a folder with index.csv; for the preset ``lungs`` one with CT and lung contours.
    :param output: folder of the run.
    :param preset: where the configuration begins.
    :param steps: updates, or None for the preset's.
    :param hours: train for about so long instead.
    :param resume: resume from the run's checkpoint, with the configuration that it was started with.
    :param name: of the bundle; empty for the output folder's.
    :param settings: ``key=value`` each, e.g. ``seed=1``.
    :param threads: of the CPU, None for torch's own choice.
    :param checkpoint_seconds: time between checkpoints.
    """

    data: Path
    output: Path
    preset: str = LESION_PRESET
    steps: int | None = None
    hours: float | None = None
    device: str = "auto"
    resume: bool = False
    name: str = ""
    settings: tuple[str, ...] = field(default_factory=tuple)
    threads: int | None = None
    checkpoint_seconds: float = 60.0

    def check(self) -> None:
        """Refuse what the trainer would refuse after a while.

        :raises LesionDecompError: no training set, an unknown preset, both steps and hours, a run that is there already
            or, to resume, is not.
        """
        if self.preset not in PRESET_NAMES:
            raise ConfigError(TITLE, f"the preset '{self.preset}'", f"one of {', '.join(PRESET_NAMES)}")
        if self.steps is not None and self.steps < 1:
            raise ConfigError(TITLE, f"{self.steps} steps", "at least one")
        if self.hours is not None and not 0 < self.hours <= MAX_HOURS:
            raise ConfigError(TITLE, f"{self.hours:g} hours", f"more than 0, at most {MAX_HOURS}")
        if self.hours is not None and (self.steps is not None or self.preset in BASELINES):
            other = "steps" if self.steps is not None else f"the preset '{self.preset}'"
            raise ConfigError(TITLE, f"hours together with {other}", "one or the other")
        check_training_set(self.data, self.preset)
        if not self.resume:
            self.check_is_new()
        elif not (self.output / CHECKPOINT).is_file():
            advice = "Choose the folder of a run that was stopped, or start a new one."
            raise ConfigError(TITLE, f"no checkpoint in '{self.output.name}'", "a run to resume", advice)

    def check_is_new(self) -> None:
        """Refuse an output folder that holds another run.

        :raises LesionDecompError: there is a checkpoint.
        """
        if (self.output / CHECKPOINT).is_file():
            advice = "Resume it, or choose another output folder."
            raise ConfigError(TITLE, f"a run that was started before in '{self.output.name}'", "a new one", advice)

    def record(self) -> dict[str, Any]:
        """As JSON, with all that the child would otherwise have to find out."""
        preset, settings, hours = self.preset, self.settings, self.hours
        if self.resume:
            preset, recorded = recorded_configuration(self.output)
            settings, hours = tuple(recorded), None
        elif self.steps is not None:
            settings = (*settings, f"steps={self.steps}")
        name = self.name or self.output.resolve().name or LESION_PRESET
        whole = replace(self, preset=preset, steps=None, hours=hours, name=name, settings=settings)
        return asdict(whole) | {"data": str(self.data), "output": str(self.output)}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrainingSettings:
        """In the child: what :meth:`record` wrote.

        :raises LesionDecompError: a damaged record.
        """
        try:
            paths = {key: Path(record[key]) for key in ("data", "output")}
            return cls(**{**record, **paths, "settings": tuple(record["settings"])})
        except (KeyError, TypeError) as error:
            raise damaged("job.json") from error


class TrainingJob(ChildJob):
    """A running or ended training; ``settings`` and ``folder`` identify it.

    :raises LesionDecompError: settings that will not do; nothing has been started then.
    """

    kind, title = "training", TITLE

    def __init__(
        self,
        settings: TrainingSettings,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
    ) -> None:
        settings.check()
        self.settings, self.folder = settings, settings.output
        self._log: dict[str, np.ndarray] = {}
        self._log_stamp: tuple[int, int] | None = None
        super().__init__({"settings": settings.record()}, python=python, temporary_folder=temporary_folder)

    @property
    def log(self) -> dict[str, np.ndarray]:
        """Columns of the run's log so far, see :func:`LesionDecompLib.training.log.read_log`."""
        try:
            found = (self.folder / LOG_NAME).stat()
        except OSError:
            return self._log
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp != self._log_stamp:
            self._log, self._log_stamp = read_log(self.folder), stamp
        return self._log

    @property
    def examples(self) -> Path | None:
        """Picture of example decompositions, once there is one."""
        picture = self.folder / EXAMPLES
        return picture if picture.is_file() else None

    @property
    def bundle(self) -> Path | None:
        """Folder of the finished bundle, or None."""
        folder = self.folder / BUNDLE
        return folder if self.state == FINISHED and (folder / "bundle.json").is_file() else None


class SliceSetJob(ChildJob):
    """The making of a training set from volumes in memory.

    :param volumes: each with a name of its own, fit for a file.
    :param labels: by that name.
    :param folder: of the training set, to be made; an earlier one is replaced.
    :raises LesionDecompError: too few volumes, a full disk, or the process cannot be started.
    """

    kind, title = "slices", "Making the training set"

    def __init__(
        self,
        volumes: Sequence[Volume],
        labels: Mapping[str, list[SliceLabel]],
        folder: str | Path,
        *,
        device: str = "auto",
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
    ) -> None:
        record = {
            "volumes": [{"name": volume.name, "ijk_to_ras": volume.ijk_to_ras.tolist()} for volume in volumes],
            "labels": {name: [astuple(label) for label in items] for name, items in assign_splits(labels).items()},
            "output": str(folder),
            "device": device,
        }
        arrays = {str(number): volume.array for number, volume in enumerate(volumes)}
        super().__init__(record, arrays, python=python, temporary_folder=temporary_folder)


def read_slice_job(folder: Path, record: Mapping[str, Any]) -> tuple[list[Volume], dict[str, list[SliceLabel]]]:
    """In the child: volumes and labels that :class:`SliceSetJob` wrote; voxels are read when they are used.

    :raises LesionDecompError: files that are missing or damaged.
    """
    try:
        volumes = []
        for number, item in enumerate(record["volumes"]):
            array = read_array(folder, str(number), mapped=True)
            volumes.append(Volume.from_array(array, np.asarray(item["ijk_to_ras"]), item["name"]))
        return volumes, {name: [SliceLabel(*label) for label in items] for name, items in record["labels"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged("job.json") from error


def recorded_configuration(folder: str | Path) -> tuple[str, list[str]]:
    """Preset and ``key=value`` settings that give the configuration a run was started with.

    :raises LesionDecompError: there is none, or it does not read.
    """
    try:
        record = json.loads((Path(folder) / CONFIG).read_text("utf-8"))
        task = record["task"]
        preset = LESION_PRESET if task == "lesions" else task
        if preset not in PRESET_NAMES:
            raise ValueError(f"task {task}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            TITLE, f"no readable {CONFIG} in '{Path(folder).name}'", "the one that the run wrote", "Start a new run."
        ) from error
    # JSON's numbers, truth values, strings and lists of these are TOML as well.
    return preset, [
        f"{key}={json.dumps(value)}" for key, value in flat(record) if key.split(".")[0] not in NOT_SETTINGS
    ]


def check_training_set(data: str | Path, preset: str = LESION_PRESET) -> None:
    """Refuse a folder that is not a training set for a preset.

    :raises LesionDecompError: stating what is missing.
    """
    data = Path(data)
    if preset == "lungs":
        if not any(data.glob("*_ct.nii.gz")):
            raise ConfigError(TITLE, f"no NAME_ct.nii.gz in '{data.name}'", "CT beside NAME_lung.nii.gz")
        return
    expected = "a training set: slices and index.csv"
    try:
        with open(data / "index.csv", encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        advice = "Choose another folder, or make a training set from volumes."
        raise ConfigError(TITLE, f"no readable index.csv in '{data.name}'", expected, advice) from error
    for split in ("train", "val"):
        for label in ("lesion", "normal"):
            if not any((row.get("split"), row.get("label")) == (split, label) for row in rows):
                found = f"a training set without {label} slices in '{split}'"
                advice = "Add volumes, or set the split of each."
                raise ConfigError(TITLE, found, "slices of both labels in 'train' and in 'val'", advice)
