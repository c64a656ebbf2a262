"""The command ``lesiondecomp``.

Each command is a module with ``add_parser(commands)``, which sets ``run``, and ``run(args) -> int``. Modules import
torch and SimpleITK only when they run, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import Cancelled, LesionDecompError
from ..libraries import library_error
from ..processes.events import report_error, wants_events
from ..processes.tree import INTERRUPTED
from ..progress import STDERR
from .interrupts import interrupts_as_exceptions

if TYPE_CHECKING:
    from ..report.case import SceneWriter

# In the order of the help text. A new command is one more name here.
COMMANDS = (
    "segment",
    "summary",
    "follow",
    "compare",
    "rerun",
    "slices",
    "train",
    "evaluate",
    "models",
    "demo",
    "bench",
    "job",
)

# What an error's remedy is called here.
REMEDIES = {
    "dates": "On the command line: --dates.",
    "lung_labels": "On the command line: --lung-labels.",
    "overwrite": "On the command line: --overwrite.",
    "series": "On the command line: --series with the UID, the number or a part of the description.",
    "dicom_seg": "On the command line: the DICOM folder as INPUT, or no --dicom-seg.",
    "models": "On the command line: --models and --methods; lesiondecomp train --help.",
    "name": "On the command line: lesiondecomp train --name.",
}


def main(argv: Sequence[str] | None = None, scene_writer: Callable[[], SceneWriter] | None = None) -> int:
    """Run the command line.

    :param argv: arguments less the program's name; default those of the process.
    :param scene_writer: gives what writes Slicer scenes, when one is asked for; None where none can be written.
    :return: exit status: 0 done, 1 a case or the command failed, 2 wrong usage, 130 interrupted.
    """
    _hold_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        # A console that lacks a character (×, an umlaut in a name) must not end the run.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("LESIONDECOMP_DEBUG"):
        logging.basicConfig(level=logging.INFO)  # to standard error, where people look
    try:
        args = build_parser().parse_args(argv)
        args.command_line = list(sys.argv[1:] if argv is None else argv)
        args.scene_writer = scene_writer
    except SystemExit as end:
        return int(end.code or 0)
    try:
        with interrupts_as_exceptions(), warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")  # libraries' remarks to programmers; users get our own sentences
            return args.run(args)
    except SystemExit as end:  # a usage error found while running
        return int(end.code or 0)
    except (KeyboardInterrupt, Cancelled):
        notify("Interrupted; no half-written result was left behind.")
        return INTERRUPTED
    except Exception as error:
        if wants_events():
            report_error(error)
        notify(error_sentence(error))
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="lesiondecomp",
        description="Lung-lesion heatmaps, labelmaps and volumes from chest CT. For research use only.",
    )
    parser.add_argument("--version", action="version", version=f"lesiondecomp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f".{name}", __name__).add_parser(commands)
    return parser


def error_sentence(error: Exception) -> str:
    """One sentence for any error; with LESIONDECOMP_DEBUG set in the environment it is raised instead."""
    error = library_error(error) or error
    if isinstance(error, LesionDecompError):
        option = REMEDIES.get(error.remedy)
        return f"{error} {option}" if option else str(error)
    if os.environ.get("LESIONDECOMP_DEBUG"):
        raise error
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "Out of memory; try a smaller --batch-size, --device cpu, or a machine with more memory."
    return f"Internal error ({type(error).__name__}: {text}); set LESIONDECOMP_DEBUG=1 to see where, and report it."


def notify(text: str) -> None:
    """Print one line for the user on stderr."""
    with STDERR, suppress(OSError, ValueError):
        print(f"lesiondecomp: {text}", file=sys.stderr, flush=True)


def print_line(text: str) -> None:
    """Print a result on stdout; when its reader has gone (as with ``| head``), the work goes on without it."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        # Or Python would try again at exit, and complain.
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _hold_standard_streams() -> None:
    # A file opened while stdin, stdout or stderr is closed would take its number, and get what libraries print there.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
