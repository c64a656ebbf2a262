"""``lesiondecomp demo``: the main job on the bundled sample CT."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import segment
from .argument_types import device

SAMPLE = "chest_ct_tumor.nrrd"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        help="segment the bundled sample CT and draw its overview",
        description="Segment the bundled sample CT (a chest with a lung tumor) and print where the picture is.",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("lesiondecomp-demo"),
        metavar="DIR",
        help="output folder (default: %(default)s)",
    )
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--scene", action="store_true", help="also write scene.mrb (needs slicer-core)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run ``segment`` on the sample with a picture."""
    from ..report.case import OVERVIEW  # not before: --help answers at once
    from . import print_line

    options = [str(sample_path()), "-o", str(args.output), "--overview", "--device", args.device]
    options += [f"--{name}" for name in ("scene", "overwrite", "quiet") if getattr(args, name)]
    status = segment.run_with(options, args.scene_writer)
    if status == 0:
        print_line(f"Picture: {(args.output / OVERVIEW).resolve()}")
    return status


def sample_path() -> Path:
    """Where the sample CT is: beside the module, or inside the installed package.

    :raises LesionDecompError: it is missing.
    """
    from ..errors import InputError  # not before: --help answers at once

    library = Path(__file__).resolve().parents[1]
    for home in (library.parent, library):
        path = home / "Resources" / "SampleData" / SAMPLE
        if path.is_file():
            return path
    raise InputError("Demo", "no sample CT", f"{SAMPLE} beside the program", "Install LesionDecomp again.")
