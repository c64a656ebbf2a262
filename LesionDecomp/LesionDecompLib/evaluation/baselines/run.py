"""Train a baseline and write it as a bundle for ``lesiondecomp evaluate``."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from ...errors import InputError
from ...models.bundle import ModelBundle
from ...progress import Cancel, Progress
from ...training import ranks
from ...training.data.input import slice_input
from ...training.data.slices import SliceSet
from ...training.record import bundle_metadata, check_name, record_run, sources_of
from ...training.run import BUNDLE_NAME, train_and_draw, watch_of
from ...training.val_precision import HeatOf
from ..localizers import BASELINE_WAYS, Way
from .config import BaselineConfig, ClassifierConfig, CriticConfig
from .tasks import TASKS, unet_arguments


def train_baseline(
    method: str,
    data: str | Path,
    folder: str | Path,
    config: BaselineConfig,
    *,
    name: str | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    checkpoint_seconds: float = 120.0,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> ModelBundle:
    """Train ``method`` on the image labels of the ``train`` slices and write ``folder/bundle``.

    It ends where average precision on ``val`` gains no more, and the bundle has the weights where that was best.

    :param method: a key of :data:`LesionDecompLib.evaluation.baselines.config.BASELINES`.
    :param config: of that method.
    :raises LesionDecompError: unusable data, configuration or checkpoint, or several ranks.
    :raises Cancelled: ``cancelled`` returned True.
    """
    folder, name = Path(folder), name or method
    check_name(name)
    with ranks.joined(torch.device(device)) as device:
        if ranks.world_size() > 1:
            raise InputError("Training", f"{ranks.world_size()} ranks", "one: baselines are not distributed")
        slices, val = SliceSet.load(data, "train"), SliceSet.load(data, "val")
        run = record_run(folder, method, config, resume, None, lambda _: config, device, sources_of(Path(data)))
        task = TASKS[method](config, slices, device)
        watch = watch_of(config, val, heat_ways(method, config, device))
        network = train_and_draw(task, folder, config, resume, checkpoint_seconds, progress, cancelled, watch=watch)
    if isinstance(config, ClassifierConfig):
        architecture, arguments = "resnet18", {"width": config.width}
    else:
        architecture, arguments = "unet", unet_arguments(cast(CriticConfig, config))
    metadata = bundle_metadata(name, "localizer", architecture, arguments, config, Path(data), run, watch) | {
        "description": f"Baseline of the comparison: {method}",
        "method": method,
        "input": slice_input(),
        "default_threshold": 0.5,
        "heat": {"shrink": config.shrink},
        "metrics": {},
        "default": False,
    }
    return ModelBundle.save(folder / BUNDLE_NAME, network, metadata)


def heat_ways(method: str, config: BaselineConfig, device: torch.device) -> dict[str, HeatOf]:
    """The ways in which a baseline gives heat, as functions of a network in training and slices."""

    def heat_of(way: Way) -> HeatOf:
        def heat(network: nn.Module, images: np.ndarray) -> np.ndarray:
            # A copy: some ways hook into the network, and change it.
            return way(deepcopy(network).eval(), config.shrink, device)(images)

        return heat

    return {name: heat_of(way) for name, way in BASELINE_WAYS[method].items()}
