"""``lesiondecomp train``: train a lesion decomposition or a lung network and write it as a model bundle."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..threads import ask_for_large_pages
from ..training.config import BASELINES, PRESET_NAMES
from .argument_types import device

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle


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
    parser.add_argument("--warm-start", type=Path, metavar="RUN", help="start from the weights of another lesion run")
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
    """Train, then say where the bundle is."""
    ask_for_large_pages()
    from ..errors import ConfigError
    from ..evaluation.baselines.config import BASELINES as BASELINE_CONFIGS
    from ..evaluation.baselines.run import train_baseline
    from ..models.device import choose_device
    from ..training.config import PRESETS, load_config
    from ..training.loop import limit_threads
    from ..training.lungs.task import LungConfig
    from ..training.run import train_lesions, train_lungs
    from . import tell
    from .interrupts import interrupt_with_parent, interrupts_as_request
    from .progress import Progress

    lungs, baseline = args.preset == "lungs", args.preset in BASELINES
    preset = LungConfig() if lungs else BASELINE_CONFIGS[args.preset]() if baseline else PRESETS[args.preset]
    config: Any = load_config(preset, args.config, args.settings)
    limit_threads(args.threads)
    device, in_words = choose_device(args.device)
    tell(f"Training on {in_words}.")
    if (lungs or baseline) and (args.warm_start is not None or args.teachers):
        raise ConfigError("Training", f"--warm-start or --teacher with --preset {args.preset}", "a lesion preset")
    if baseline and args.hours is not None:
        raise ConfigError("Training", f"--hours with --preset {args.preset}", "--set steps=N")
    train: Callable[..., ModelBundle | None]
    if baseline:
        train = partial(train_baseline, args.preset)
    elif lungs:
        train = partial(train_lungs, hours=args.hours)
    else:
        train = partial(train_lesions, hours=args.hours, warm_start=args.warm_start, teachers=args.teachers)
    progress = Progress()
    with interrupts_as_request() as cancelled, _only_run_in(args.output):
        interrupt_with_parent()
        bundle = train(
            args.data,
            args.output,
            config,
            name=args.name or (args.preset if lungs or baseline else "lesions"),
            device=device,
            resume=args.resume,
            checkpoint_seconds=args.checkpoint_seconds,
            progress=progress.update,
            cancelled=cancelled,
        )
    progress.clear()
    if bundle is not None:
        tell(f"The bundle is in {bundle.path}.")
    return 0


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """Refuse a second run into ``folder`` while one is under way: their checkpoints and logs would mix."""
    from ..io.atomic import writing_error
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
