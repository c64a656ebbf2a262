"""Training from a folder of data to a finished model bundle: what ``lesiondecomp train`` and the module call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, InputError
from ..models.bundle import ModelBundle
from ..models.networks import DecompositionNet
from ..models.records import HeatDefinition
from ..progress import Cancel, Progress
from . import ranks
from .config import SIDE_MULTIPLE, LesionConfig, NetworkConfig, Schedule
from .curves import draw_curves
from .data.input import PIXEL_MM, SIZE, slice_input
from .data.slices import LABELS, SliceSet, read_index
from .examples import ExampleSlices
from .healthy import healthy_version_metrics, train_judge
from .heat_scale import (
    DEFAULT_THRESHOLD,
    fit_scale,
    fit_scale_without_masks,
    has_masks,
    slice_heat,
    slice_metrics,
)
from .lesion_task import LesionTask
from .loop import LOG_NAME, Task, steps_within, train
from .lungs.task import LungConfig, lung_task
from .record import RunRecord, bundle_metadata, check_name, record_run, sources_of
from .settings import as_dict
from .taught_heat import taught_heat
from .val_precision import CHIEF, HeatOf, ValPrecision
from .warm_start import start_from
from .watch import Watch

BUNDLE_NAME = "bundle"
CURVES_NAME = "curves.png"
EXAMPLES_NAME = "examples.png"
# Of heat across the slices of a whole CT: on 2 mm slices neighbors differ by a quarter less, and the slices with lesion
# are recognized as well as before (P001 of COVID-CT-MD; from 2.5 mm on, less well).
SMOOTHING_MM = 1.5


def train_lesions(
    data: str | Path,
    folder: str | Path,
    config: LesionConfig,
    *,
    name: str = "lesions",
    device: torch.device | str = "cpu",
    resume: bool = False,
    hours: float | None = None,
    checkpoint_seconds: float = 120.0,
    warm_start: str | Path | None = None,
    teachers: Sequence[str | Path] = (),
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> ModelBundle | None:
    """Train the decomposition on the ``train`` slices of ``data`` and write ``folder/bundle``.

    Image-level labels alone are trained on. Once training has ended, the heat's scale is fitted on ``val`` and on
    the normal slices of the further sets (``batch.more``).

    :param data: a training set, see :class:`LesionDecompLib.training.data.slices.SliceSet`.
    :param folder: for checkpoints, log and bundle.
    :param hours: train for about so long: the steps that fit are measured, recorded and kept when resumed.
    :param warm_start: folder of another run, or of a bundle, whose weights to begin with.
    :param teachers: lesion bundles whose mean heat on the training slices is learned from (``alpha_self``).
    :return: the bundle; on several ranks None for all but the first.
    :raises LesionDecompError: unusable data, configuration or checkpoint.
    :raises Cancelled: ``cancelled`` returned True.
    """
    folder = Path(folder)
    check_name(name)
    if teachers and config.self_training.weight == 0:
        found = "teachers, and self_training.weight = 0"
        raise ConfigError("Training", found, "a weight above 0: nothing would be learned from them")
    with ranks.joined(torch.device(device)) as device:
        slices = SliceSet.load(data, "train").joined(config.batch.more_folders, "train")
        val = SliceSet.load(data, "val")
        for part in (slices, val):
            check_sides(part)
        has_masks(val)  # what is wrong with them is better known now than at the end
        sources = sources_of(Path(data), config.batch.more_folders, teachers, warm_start)

        def steps_in(hours: float) -> LesionConfig:
            # Clocked as they are once nothing is merely copied any more.
            timed = replace(config, schedule=replace(config.schedule, **dict.fromkeys(Schedule.STAGES, 0)))
            return config.lasting(steps_within(LesionTask(timed, slices, device), hours))

        run = record_run(folder, "lesions", config, resume, hours, steps_in, device, sources)
        config = run.config
        taught = taught_heat(teachers, slices, device, progress, cancelled) if teachers else None
        task = LesionTask(config, slices, device, taught)
        if warm_start is not None:
            start_from(task.network, warm_start)
        draw = partial(ExampleSlices(val, config.batch.shrink).draw, picture=folder / EXAMPLES_NAME)
        watch = watch_of(config.schedule, val, heat_ways(config, device))
        network = train_and_draw(task, folder, config, resume, checkpoint_seconds, progress, cancelled, draw, watch)
        if ranks.rank() > 0:
            return None
    return lesion_bundle(network, run, data, folder / BUNDLE_NAME, name=name, device=device, watch=watch)


def check_sides(data: SliceSet) -> None:
    """Refuse slices that the bundle's heat could not be made for.

    :raises LesionDecompError: sides that networks cannot halve five times, or larger than a bundle states.
    """
    sides = data.images.shape[1:]
    if any(side % SIDE_MULTIPLE for side in sides) or max(sides) > SIZE:
        found = f"slices of {sides[0]}×{sides[1]} pixels in '{data.folder.name}'"
        expected = f"sides that are multiples of {SIDE_MULTIPLE}, at most {SIZE}, of {PIXEL_MM} mm a pixel"
        raise InputError("Training set", found, expected, "Make them with: lesiondecomp slices")


def lesion_bundle(
    network: nn.Module,
    run: RunRecord,
    data: str | Path,
    folder: str | Path,
    *,
    name: str,
    device: torch.device | str = "cpu",
    watch: Watch | None = None,
) -> ModelBundle:
    """Write a trained decomposition as a bundle, its heat scaled on ``val`` and measured on ``val`` and ``test``.

    :param run: that has trained it.
    :param watch: what chose its weights among the run's, if anything did.
    """
    device, config = torch.device(device), run.config
    network = network.eval().to(device)
    sources = heat_sources(config.network)
    definition = HeatDefinition(sources[0], shrink=config.batch.shrink, smoothing_mm=SMOOTHING_MM)
    val = SliceSet.load(data, "val")
    metrics: dict[str, Any] = {}
    if has_masks(val):
        others = [SliceSet.load(folder, "train", labels=()) for folder in config.batch.more_folders]
        definition = fit_scale(network, definition, val, device, sources, others)
        metrics["val"] = slice_metrics(network, definition, val, device)
        if (test := marked_test(data)) is not None:
            metrics["test"] = slice_metrics(network, definition, test, device)
    else:
        definition = fit_scale_without_masks(network, definition, val, device)
    if config.network.normal_decoder:
        judge = train_judge(SliceSet.load(data, "train"), config.schedule.judge_steps, config.seed)
        heat = slice_heat(network, definition, val.images, device)
        healthy = healthy_version_metrics(
            cast(DecompositionNet, network), judge, val, heat, DEFAULT_THRESHOLD, config.batch.shrink
        )
        metrics["healthy_version_val"] = healthy
    # Of further sets the names alone: folders may reveal whose they are.
    more = ",".join(folder.name for folder in config.batch.more_folders)
    recorded = replace(config, batch=replace(config.batch, more=more))
    metadata = bundle_metadata(
        name, "lesions", "decomposition", as_dict(config.network), recorded, Path(data), run, watch
    ) | {
        "description": "Lesion heat by decomposition into a normal and a lesion part, from image-level labels",
        "input": slice_input(),
        "default_threshold": DEFAULT_THRESHOLD,
        "heat": asdict(definition),
        "metrics": metrics,
        "default": False,
    }
    return ModelBundle.save(folder, network, metadata)


def marked_test(data: str | Path) -> SliceSet | None:
    """The ``test`` split of a training set; None where it has not slices of both labels with pixel masks."""
    labels = {row["label"] for row in read_index(Path(data)) if row["split"] == "test"}
    test = SliceSet.load(data, "test") if labels == set(LABELS) else None
    return test if test is not None and has_masks(test) else None


def heat_sources(network: NetworkConfig) -> tuple[str, ...]:
    """Ways in which a decomposition can give heat (:class:`HeatDefinition`), the one on ``val`` best to be chosen."""
    if network.gated:
        return ("gate", "both") if network.normal_decoder else ("gate",)
    if not network.lesion_decoder:
        return ("difference", "change")
    return ("lesion", "difference", "change") if network.normal_decoder else ("lesion",)


def heat_ways(config: LesionConfig, device: torch.device) -> dict[str, HeatOf]:
    """The heat of each of :func:`heat_sources`, as a function of a network and slices."""

    def way(source: str) -> HeatOf:
        definition = HeatDefinition(source, shrink=config.batch.shrink)
        return lambda network, images: slice_heat(network, definition, images, device)

    return {source: way(source) for source in heat_sources(config.network)}


def watch_of(schedule: Any, val: SliceSet, ways: dict[str, HeatOf]) -> Watch | None:
    """What looks at a run's average precision on ``val``; None where the configuration or ``val`` has it not.

    :param schedule: with ``val_every``, ``patience_steps`` and ``least_gain``.
    """
    if schedule.val_every == 0 or not has_masks(val):
        return None
    return Watch(ValPrecision(val, ways), CHIEF, schedule.val_every, schedule.patience_steps, schedule.least_gain)


def train_lungs(
    data: str | Path,
    folder: str | Path,
    config: LungConfig,
    *,
    name: str = "lungs",
    device: torch.device | str = "cpu",
    resume: bool = False,
    hours: float | None = None,
    checkpoint_seconds: float = 120.0,
    warm_start: str | Path | None = None,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> ModelBundle | None:
    """Train the lung U-Net on CT with lung contours and write ``folder/bundle``.

    :param data: a folder of ``NAME_ct.nii.gz`` beside ``NAME_lung.nii.gz``; with ``config.cases`` what its table's
        paths begin at.
    :param hours, warm_start: as for :func:`train_lesions`.
    :return: the bundle; on several ranks None for all but the first.
    :raises LesionDecompError: unusable data, configuration or checkpoint.
    :raises Cancelled: ``cancelled`` returned True.
    """
    folder = Path(folder)
    check_name(name)
    with ranks.joined(torch.device(device)) as device:

        def steps_in(hours: float) -> LungConfig:
            return replace(config, steps=steps_within(lung_task(data, config, device), hours))

        sources = sources_of(Path(data), warm_start=warm_start)
        run = record_run(folder, "lungs", config, resume, hours, steps_in, device, sources)
        config = run.config
        task = lung_task(data, config, device)
        if warm_start is not None:
            start_from(task.network, warm_start, "lungs")
        network = train_and_draw(task, folder, config, resume, checkpoint_seconds, progress, cancelled)
        if ranks.rank() > 0:
            return None
    # Of the tables the names alone: folders and names of scans may reveal whose they are.
    recorded = replace(config, cases=Path(config.cases).name, ignored=Path(config.ignored).name)
    metadata = bundle_metadata(name, "lungs", "unet", config.architecture(), recorded, Path(data), run) | {
        "description": _lung_description(config),
        "input": {
            "size": [config.size, config.size],
            "spacing_mm": config.pixel_mm,
            "hu_window": list(config.window),
            "mean": 0.5,
            "std": 0.5,
            "neighbors_mm": list(config.neighbors_mm),
        },
        "default_threshold": 0.5,
        "heat": {},
        "metrics": {},
        "default": False,
    }
    metadata["training"]["scans"] = len(task.patients)
    return ModelBundle.save(folder / BUNDLE_NAME, network, metadata)


def _lung_description(config: LungConfig) -> str:
    text = "Right and left lung, disease included, by a 2-D U-Net on 2 mm pixels"
    if not config.neighbors_mm:
        return text
    return f"{text} with the slices {' and '.join(f'{mm:g}' for mm in config.neighbors_mm)} mm above and below"


def train_and_draw(
    task: Task,
    folder: Path,
    config: Any,
    resume: bool,
    checkpoint_seconds: float,
    progress: Progress | None,
    cancelled: Cancel | None,
    draw: Callable[[nn.Module], object] | None = None,
    watch: Watch | None = None,
) -> nn.Module:
    """Train a task (:func:`.loop.train`) and draw its curves, and what ``draw`` draws, while it trains and at its end.

    :param config: with ``steps``, ``seed`` and ``ema``.
    :return: the averaged network, with ``watch`` as it was when it was best.
    """

    def show(network: nn.Module) -> None:
        draw_curves(folder / LOG_NAME, folder / CURVES_NAME)
        if draw is not None:
            draw(network)

    network = train(
        task,
        folder,
        steps=config.steps,
        seed=config.seed,
        ema=config.ema,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress if ranks.rank() == 0 else None,
        cancelled=cancelled,
        on_log=show,
        watch=watch,
    )
    if ranks.rank() == 0:
        show(network)
    return network
