"""``lesiondecomp bench``: how fast the main job is on this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ...threads import ask_for_large_pages
from ..argument_types import device

PRESETS = ("default", "paper", "paper-large", "paper-full")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure how fast a CT is segmented on this machine",
        description="Measure a case end to end against the forward passes of its networks, against lungmask's R231 "
        "network where that is installed, and against a plain matrix product; the threshold slider; and, where asked "
        "for, start-up, time and memory for other numbers of slices. With --device cuda, report what to expect of a "
        "GPU, and write what was measured into a file that can be sent. With --train, measure the steps of a training.",
    )
    parser.add_argument("input", nargs="?", type=Path, metavar="INPUT", help="a chest CT (default: the bundled sample)")
    parser.add_argument("--device", type=device, default="auto", metavar="D", help="as for segment (default: auto)")
    parser.add_argument(
        "--engine", choices=("auto", "torch", "onnx"), default="auto", help="as for segment (default: auto)"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32"), default="auto", help="as for segment (default: auto)"
    )
    parser.add_argument(
        "--against-torch",
        action="store_true",
        help="also the same case with PyTorch in float32, in turn, and the ratio of the times",
    )
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="turns (default: %(default)s)")
    parser.add_argument(
        "--slices", type=int, nargs="*", default=[], metavar="N", help="also the same chest cut into this many slices"
    )
    parser.add_argument("--start-up", action="store_true", help="also the time to the first slice and to --help")
    parser.add_argument(
        "--train", type=Path, metavar="DIR", help="measure training on this training set instead of segmentation"
    )
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        default=PRESETS[:2],
        metavar="NAME",
        help=f"with --train: {', '.join(PRESETS)}",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="with --train: steps (default: 40, of the large ones 2)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="also write the metrics as JSON")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Measure and print a table."""
    if args.repeats < 1 or any(not 3 <= count <= 4096 for count in args.slices):
        args.usage_error("--repeats from 1, --slices from 3 to 4096")
    if args.steps is not None and not 2 <= args.steps <= 10_000:
        args.usage_error("--steps from 2 to 10000")
    from ...io.atomic import write_text  # not before: --help answers at once
    from .. import print_line

    if args.train is not None:
        table, metrics = _of_training(args)
    elif args.device.startswith("cuda"):
        return _of_gpu(args)
    else:
        table, metrics = _of_segmentation(args)
    print_line(table)
    if args.output is not None:
        write_text(args.output, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", "Writing the metrics")
    return 0


def _of_segmentation(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from .. import notify  # not before: --help answers at once
    from ..demo import sample_path
    from .job import Chosen, as_table, run_benchmark, scaling, start_up

    path = args.input if args.input is not None else sample_path()
    chosen = Chosen(args.device, args.engine, args.precision)
    metrics = run_benchmark(path, chosen, args.repeats, notify, against_torch=args.against_torch)
    if args.start_up:
        metrics["start_up"] = start_up(path, chosen, args.repeats)
    if args.slices:
        metrics["scaling"] = scaling(path, args.slices, chosen, notify)
    return as_table(metrics), metrics


def _of_gpu(args: argparse.Namespace) -> int:
    """What to expect of a GPU, and what was measured; 1 where there is none to measure."""
    from ...io.atomic import write_text
    from .. import notify, print_line
    from ..demo import sample_path
    from .gpu import FILE, as_table, run_gpu_benchmark
    from .job import Chosen

    path = args.input if args.input is not None else sample_path()
    report = run_gpu_benchmark(path, Chosen(args.device, args.engine, args.precision), args.repeats, notify)
    print_line(as_table(report))
    file = args.output if args.output is not None else Path(FILE)
    write_text(file, json.dumps(report, indent=2, ensure_ascii=False) + "\n", "Writing the metrics")
    print_line(f"All of it is in {file.name}, which names no patient and no path: send it with questions about speed.")
    return int(report["measured"] is None)


def _of_training(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    ask_for_large_pages()
    from .. import notify  # not before: --help answers at once
    from .training import as_table, run_training_benchmark

    metrics = run_training_benchmark(args.train, args.presets, args.steps, args.device, notify)
    return as_table(metrics), metrics
