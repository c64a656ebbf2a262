"""``lesiondecomp train``: train a lesion decomposition or a lung network and write it as a model bundle."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..threads import ask_for_large_pages
from ..training.config import BASELINES, PRESET_NAMES
from .argument_types import device

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..processes.training import TrainingSettings


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a model from image-level labels (or the lung network from contours)",
        description="Train a lesion decomposition from slices with image-level labels, or the lung network from CT "
        "with lung contours. Checkpoints, log.csv, curves.png and the finished bundle go to the output folder.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="training set: index.csv and slices; for --preset lungs NAME_ct.nii.gz beside NAME_lung.nii.gz",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--preset",
        choices=PRESET_NAMES,
        default="default",
        help="starting configuration, or a baseline to compare with (default: default)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file with settings that differ from the preset"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="settings",
        help="one setting, such as steps=500 or network.channels=8; may be repeated",
    )
    parser.add_argument("--name", default=None, metavar="NAME", help="name of the bundle")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=120.0, metavar="S", help="time between checkpoints (default: 120)"
    )
    parser.add_argument("--resume", action="store_true", help="resume from the run's last checkpoint")
    parser.add_argument(
        "--hours", type=float, default=None, metavar="H", help="train for about this long instead of the preset's steps"
    )
    parser.add_argument(
        "--warm-start", type=Path, metavar="DIR", help="start from the weights of a run or bundle of the same kind"
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        action="append",
        default=[],
        metavar="BUNDLE",
        dest="teachers",
        help="learn from this lesion bundle's heat on the training slices; may be repeated: the mean is learned",
    )
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--threads", type=int, default=None, metavar="N", help="CPU threads")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train what the command line asks for."""
    from ..processes.training import TrainingSettings  # not before: --help answers at once

    settings = TrainingSettings(
        args.data,
        args.output,
        preset=args.preset,
        hours=args.hours,
        device=args.device,
        resume=args.resume,
        name=args.name or "",
        settings=tuple(args.settings),
        threads=args.threads,
        checkpoint_seconds=args.checkpoint_seconds,
    )
    return train(settings, args.config, args.warm_start, args.teachers)


def train(
    settings: TrainingSettings,
    config_file: Path | None = None,
    warm_start: Path | None = None,
    teachers: Sequence[Path] = (),
) -> int:
    """Train, then print where the bundle is.

    :param config_file: TOML file with more settings.
    :param warm_start, teachers: as for :func:`LesionDecompLib.training.run.train_lesions`.
    """
    ask_for_large_pages()
    from ..errors import ConfigError  # not before: --help answers at once
    from ..models.device import choose_device
    from ..training.config import PRESETS, load_config
    from ..training.loop import limit_threads
    from ..training.lungs.task import LungConfig
    from ..training.run import train_lesions, train_lungs
    from . import print_line
    from .interrupts import interrupt_with_parent, interrupts_as_request
    from .progress import Progress

    preset = settings.preset
    lungs, baseline = preset == "lungs", preset in BASELINES
    if baseline and warm_start is not None:
        raise ConfigError("Training", f"--warm-start with --preset {preset}", "a lesion preset or lungs")
    if (lungs or baseline) and teachers:
        raise ConfigError("Training", f"--teacher with --preset {preset}", "a lesion preset")
    work: Callable[..., ModelBundle | None]
    base: Any = LungConfig() if lungs else PRESETS.get(preset)
    if baseline:
        # Slicer has no evaluation package.
        from ..evaluation.baselines.config import BASELINES as BASELINE_CONFIGS
        from ..evaluation.baselines.run import train_baseline

        if settings.hours is not None:
            raise ConfigError("Training", f"--hours with --preset {preset}", "--set steps=N")
        base, work = BASELINE_CONFIGS[preset](), partial(train_baseline, preset)
    elif lungs:
        work = partial(train_lungs, hours=settings.hours, warm_start=warm_start)
    else:
        work = partial(train_lesions, hours=settings.hours, warm_start=warm_start, teachers=teachers)
    config: Any = load_config(base, config_file, list(settings.settings))
    limit_threads(settings.threads)
    device, in_words = choose_device(settings.device)
    print_line(f"Training on {in_words}.")
    progress = Progress()
    with interrupts_as_request() as cancelled, only_run_in(settings.output):
        interrupt_with_parent()
        bundle = work(
            settings.data,
            settings.output,
            config,
            name=settings.name or (preset if lungs or baseline else "lesions"),
            device=device,
            resume=settings.resume,
            checkpoint_seconds=settings.checkpoint_seconds,
            progress=progress.update,
            cancelled=cancelled,
        )
    progress.clear()
    if bundle is not None:
        print_line(f"The bundle is in {bundle.path}.")
    return 0


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Refuse a second run into ``folder`` while one is under way: their checkpoints and logs would mix."""
    from ..io.atomic import writing_error  # not before: --help answers at once
    from ..io.folder_lock import sole_writer

    if os.environ.get("RANK", "0") != "0":  # the first rank alone writes
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise writing_error(error, "Opening the output folder", folder.name) from error
    with sole_writer(folder, wait=False):
        yield
