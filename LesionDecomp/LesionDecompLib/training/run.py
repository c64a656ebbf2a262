"""Training from a folder of data to a finished model bundle: what ``lesiondecomp train`` and the module call."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..atomic import write_text
from ..bundles import ModelBundle
from ..decomposition import HeatDefinition
from ..errors import LesionDecompError
from .config import LesionConfig, as_dict
from .curves import draw_curves
from .heat_scale import DEFAULT_THRESHOLD, fit_scale, fit_scale_without_masks, has_masks, slice_metrics
from .lesion_task import LesionTask
from .loop import LOG_NAME, train
from .lung_task import LungConfig, lung_task
from .slice_input import slice_input
from .slices import SliceSet
from .taught_heat import taught_heat
from .warm_start import start_from

CONFIG_NAME = "config.json"
BUNDLE_NAME = "bundle"
CURVES_NAME = "curves.png"

Progress = Callable[[str, int, int], None]
Cancel = Callable[[], bool]


def train_lesions(
    data: str | Path,
    folder: str | Path,
    config: LesionConfig,
    *,
    name: str = "lesions",
    device: torch.device | str = "cpu",
    resume: bool = False,
    warm_start: str | Path | None = None,
    teachers: Sequence[str | Path] = (),
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> ModelBundle:
    """Train the decomposition on the ``train`` slices of ``data`` and write ``folder/bundle``.

    Image-level labels alone are trained on. Once training has ended, the heat's scale is fitted on ``val``.

    :param data: a training set, see :class:`~.slices.SliceSet`. :param folder: for checkpoints, log and bundle.
    :param warm_start: folder of another run whose weights to begin with.
    :param teachers: lesion bundles whose mean heat on the training slices is learnt from (``alpha_self``).
    :raises LesionDecompError: unusable data, configuration or checkpoint. :raises Cancelled: the hook said so.
    """
    folder, device = Path(folder), torch.device(device)
    _record_config(folder, "lesions", config, resume)
    slices = SliceSet.load(data, "train")
    taught = taught_heat(teachers, slices, device, progress, cancelled) if teachers else None
    task = LesionTask(config, slices, device, taught)
    if warm_start is not None:
        start_from(task.network, warm_start)
    network = _train(task, folder, config, resume, progress, cancelled)
    return lesion_bundle(network, config, data, folder / BUNDLE_NAME, name=name, device=device)


def lesion_bundle(
    network: nn.Module,
    config: LesionConfig,
    data: str | Path,
    folder: str | Path,
    *,
    name: str,
    device: torch.device | str = "cpu",
    default: bool = False,
) -> ModelBundle:
    """Write a trained decomposition as a bundle, its heat scaled on ``val`` and measured on ``val`` and ``test``."""
    device = torch.device(device)
    network = network.eval().to(device)
    definition = HeatDefinition(
        "gate" if config.network.gated else "lesion" if config.network.lesion_decoder else "difference",
        shrink=config.shrink,
    )
    val = SliceSet.load(data, "val")
    metrics: dict[str, Any] = {}
    if has_masks(val):
        definition = fit_scale(network, definition, val, device)
        metrics["val"] = slice_metrics(network, definition, val, device)
        metrics["test"] = slice_metrics(network, definition, SliceSet.load(data, "test"), device)
    else:
        definition = fit_scale_without_masks(network, definition, val, device)
    metadata = _metadata(name, "lesions", "decomposition", as_dict(config.network), config, Path(data)) | {
        "description": "Lesion heat by decomposition into a normal and a lesion part, from image-level labels",
        "input": slice_input(),
        "default_threshold": DEFAULT_THRESHOLD,
        "heat": asdict(definition),
        "metrics": metrics,
        "default": default,
    }
    return ModelBundle.save(folder, network, metadata)


def train_lungs(
    data: str | Path,
    folder: str | Path,
    config: LungConfig,
    *,
    name: str = "lungs",
    device: torch.device | str = "cpu",
    resume: bool = False,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> ModelBundle:
    """Train the lung U-Net on CT with lung contours and write ``folder/bundle``.

    :param data: a folder of ``NAME_ct.nii.gz`` beside ``NAME_lung.nii.gz``.
    :raises LesionDecompError: unusable data, configuration or checkpoint. :raises Cancelled: the hook said so.
    """
    folder = Path(folder)
    _record_config(folder, "lungs", config, resume)
    task = lung_task(data, config, device)
    network = _train(task, folder, config, resume, progress, cancelled)
    metadata = _metadata(name, "lungs", "unet", config.architecture(), config, Path(data)) | {
        "description": "Right and left lung, disease included, by a 2-D U-Net on 2 mm pixels",
        "input": {
            "size": [config.size, config.size],
            "spacing_mm": config.pixel_mm,
            "hu_window": list(config.window),
            "mean": 0.5,
            "std": 0.5,
        },
        "default_threshold": 0.5,
        "heat": {},
        "metrics": {},
        "default": False,
    }
    return ModelBundle.save(folder / BUNDLE_NAME, network, metadata)


def _train(task, folder: Path, config, resume: bool, progress: Progress | None, cancelled: Cancel | None) -> nn.Module:
    try:
        return train(
            task,
            folder,
            steps=config.steps,
            seed=config.seed,
            ema=config.ema,
            resume=resume,
            progress=progress,
            cancelled=cancelled,
            on_log=lambda: draw_curves(folder / LOG_NAME, folder / CURVES_NAME),
        )
    finally:
        draw_curves(folder / LOG_NAME, folder / CURVES_NAME)


def _record_config(folder: Path, task: str, config: Any, resume: bool) -> None:
    """Write ``config.json``; a run that goes on must have been started with the same."""
    folder.mkdir(parents=True, exist_ok=True)
    record = json.loads(json.dumps({"task": task, "version": __version__, **as_dict(config)}))
    file = folder / CONFIG_NAME
    if resume and file.exists():
        try:
            before = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise LesionDecompError("Training", f"a {CONFIG_NAME} that is no JSON", "the one this run wrote") from error
        changed = sorted(key for key in record.keys() | before.keys() if record.get(key) != before.get(key))
        changed = [key for key in changed if key != "version"]
        if changed:
            found = f"another '{changed[0]}' than this run was started with"
            raise LesionDecompError("Training", found, "the same configuration", "Resume without changes.")
    write_text(file, json.dumps(record, indent=2) + "\n", "Writing the training configuration")


def _metadata(name: str, task: str, architecture: str, arguments: dict, config: Any, data: Path) -> dict[str, Any]:
    return {
        "name": name,
        "version": __version__,
        "task": task,
        "architecture": architecture,
        "architecture_arguments": arguments,
        "training": {"data": data.resolve().name, "labels": _labels(task), "configuration": as_dict(config)},
        "git_revision": git_revision(),
    }


def _labels(task: str) -> str:
    return "lung contours" if task == "lungs" else "image-level labels only"


def git_revision() -> str:
    """Revision of the source tree this library runs from, ``unknown`` outside one; ``-changed`` with local changes."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty=-changed", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
