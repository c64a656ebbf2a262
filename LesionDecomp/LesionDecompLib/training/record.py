"""What a run records of itself: ``config.json`` beside its checkpoint, and what its bundle states of the training."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..errors import ConfigError
from ..io.atomic import write_text
from ..models.bundle import MAX_TEXT, METADATA_NAME, ModelBundle
from ..models.device import device_name
from ..models.precision import has_fast_bf16
from . import ranks
from .config import Schedule
from .loop import STAGE, check_is_new
from .settings import NOT_SETTINGS, as_dict, change, flat, grouped
from .watch import Watch

CONFIG_NAME = "config.json"
# What a resumed run must be given again, and what it is called.
SAME_SOURCES = {"data": "a training set", "more": "further training sets", "teachers": "teachers"}


@dataclass(frozen=True)
class RunRecord:
    """A run as ``config.json`` has it.

    :param config: to train by.
    :param devices: on which it was trained, in their order, with the precision of each.
    :param sources: SHA-256 of what it learns from, see :func:`sources_of`.
    """

    config: Any
    devices: tuple[str, ...]
    sources: Mapping[str, Any]


def check_name(name: str) -> None:
    """Refuse a name that no bundle can have, before the training that would end with it.

    :raises LesionDecompError: too long, or not printable.
    """
    if not name or len(name) > MAX_TEXT["name"] or not name.isprintable():
        found = f"the name {name[:60]!r} ({len(name)} characters)"
        raise ConfigError(STAGE, found, f"1 to {MAX_TEXT['name']} printable characters", "Give another name.")


def sources_of(
    data: Path, more: Sequence[Path] = (), teachers: Sequence[str | Path] = (), warm_start: str | Path | None = None
) -> dict[str, Any]:
    """What a run learns from: SHA-256 of ``index.csv`` of each training set, and of the teachers' bundles.

    :param warm_start: run or bundle whose weights it begins with.
    :raises LesionDecompError: a teacher that is no lesion bundle.
    """
    sources: dict[str, Any] = {"data": _index_sha256(data)}
    if more:
        sources["more"] = [_index_sha256(folder) for folder in more]
    if teachers:
        loaded = [ModelBundle.load(folder, "lesions") for folder in teachers]
        sources["teachers"] = [{"name": bundle.name, "sha256": bundle.sha256} for bundle in loaded]
    if warm_start is not None:
        folder = Path(warm_start)
        is_bundle = (folder / METADATA_NAME).is_file()
        sources["warm_start"] = {
            "name": _encodable(folder.resolve().name),
            "sha256": ModelBundle.load(folder).sha256 if is_bundle else None,
        }
    return sources


def _index_sha256(folder: Path) -> str | None:
    try:
        return hashlib.sha256((folder / "index.csv").read_bytes()).hexdigest()
    except OSError:
        return None  # a set of another kind; what cannot be read is refused where it is read


def _encodable(name: str) -> str:
    """A file's name, of whatever bytes, as a text that can be written."""
    return os.fsencode(name).decode("utf-8", "replace")


def record_run(
    folder: Path,
    task: str,
    config: Any,
    resume: bool,
    hours: float | None,
    steps_in: Callable[[float], Any],
    device: torch.device,
    sources: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Write ``config.json`` and return what to train by: with ``hours``, the steps that fit into them.

    A run that goes on must have been started with the same; the steps measured at its start are kept.

    :param steps_in: called with ``hours`` for the configuration whose steps fit into them.
    :param sources: what it learns from (:func:`sources_of`).
    :raises LesionDecompError: a run that is there already, another configuration or other sources than the run was
        started with, or a record that does not read.
    """
    if not resume:
        check_is_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / CONFIG_NAME
    read = _read_record(file) if resume and file.exists() else None
    before = None if read is None else grouped(type(config), read)
    sources = dict(sources or {})
    if read is not None:
        sources = _same_sources(read.get("sources"), sources)
    if hours is not None and before is not None:
        config = change(config, _steps_of(before))
    elif hours is not None:
        config = steps_in(hours)
    here = f"{device_name(device)} ({'bfloat16' if has_fast_bf16(device) else 'float32'})"
    devices = [*_devices_before(read), here]
    devices = list(dict.fromkeys(devices))
    own = {"task": task, "version": __version__, "hours": hours, "devices": devices, "sources": sources}
    record = json.loads(json.dumps(own | as_dict(config)))
    if before is not None:
        # Settings that the run's version did not have yet were as they are by default.
        now, then = dict(flat(record)), dict(flat(as_dict(type(config)()))) | dict(flat(before))
        keys = {key for key in now.keys() | then.keys() if key.split(".")[0] not in NOT_SETTINGS} | {"task"}
        changed = sorted(key for key in keys if now.get(key) != then.get(key))
        if changed:
            found = f"another '{changed[0]}' than this run was started with"
            raise ConfigError("Training", found, "the same configuration", "Resume without changes.")
    if ranks.rank() == 0:
        write_text(file, json.dumps(record, indent=2) + "\n", "Writing the training configuration")
    return RunRecord(config, tuple(devices), sources)


def _devices_before(record: Mapping[str, Any] | None) -> list[str]:
    named = None if record is None else record.get("devices")
    return [name for name in named if isinstance(name, str)] if isinstance(named, list) else []


def _same_sources(before: Any, now: dict[str, Any]) -> dict[str, Any]:
    """The sources of a run that goes on; runs of earlier versions have none on record."""
    if not isinstance(before, dict):
        return now
    for key, called in SAME_SOURCES.items():
        if before.get(key) != now.get(key):
            advice = "Resume with the same, or start a new run in another folder."
            other = (
                "left out that this run was started with" if now.get(key) is None else "other than at this run's start"
            )
            raise ConfigError(STAGE, f"{called} {other}", "what the run was started with", advice)
    return before


def _steps_of(record: dict[str, Any]) -> dict[str, Any]:
    """The settings of a record that depend on its steps, as :meth:`.config.LesionConfig.lasting` changes them."""
    kept = {
        "schedule": ("steps", *Schedule.STAGES),
        "self_training": ("start",),
    }
    steps = {
        group: {key: record[group][key] for key in keys if key in record[group]}
        for group, keys in kept.items()
        if isinstance(record.get(group), dict)
    }
    return steps if steps else {"steps": record["steps"]} if "steps" in record else {}


def _read_record(file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text("utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no object")
        return record
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("Training", f"a {CONFIG_NAME} that is not JSON", "the one this run wrote") from error


def bundle_metadata(
    name: str,
    task: str,
    architecture: str,
    arguments: dict[str, Any],
    config: Any,
    data: Path,
    run: RunRecord,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """What every trained bundle's ``bundle.json`` records of its network and training.

    :param arguments: of the architecture.
    :param data: folder of the training set; its name alone is recorded.
    :param run: that ends with it.
    :param watch: what chose the weights among the run's, on ``val``, if anything did.
    """
    chosen = {} if watch is None else {"watched": watch.outcome()}
    return {
        "name": name,
        "version": __version__,
        "task": task,
        "architecture": architecture,
        "architecture_arguments": arguments,
        "training": {
            "data": _encodable(data.resolve().name),
            "labels": _labels(task),
            "devices": list(run.devices),
            "sources": dict(run.sources),
            "configuration": as_dict(config),
        }
        | chosen,
        "git_revision": git_revision(),
    }


def _labels(task: str) -> str:
    return "lung contours" if task == "lungs" else "image-level labels only"


def git_revision() -> str:
    """Revision of the source tree this library runs from, ``unknown`` outside one; ``-changed`` with local changes."""
    folder = Path(__file__).resolve().parent
    try:
        # Installed somewhere below another repository, it is no part of that.
        held = ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(held, capture_output=True, check=True, timeout=10)
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty=-changed", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
