"""``lesiondecomp compare``: what differs between two runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .argument_types import share

if TYPE_CHECKING:
    from ..report.comparison import Difference

TROUBLE = 2
SHOWN_REGION = "both lungs"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "compare",
        help="show what differs between two runs",
        description="Compare the reports of two runs: input, lung mask, models, software, device, parameters, "
        "warnings, review, measurements and files. The exit status is 0 when all is the same, 1 when something "
        "differs, 2 when a report cannot be read.",
    )
    for name in ("first", "second"):
        parser.add_argument(name, type=Path, metavar="REPORT", help="a report.json, or the folder that holds it")
    parser.add_argument(
        "--tolerance",
        type=share,
        default=0.0,
        metavar="R",
        help="measurements count as the same up to this relative difference, e.g. 0.01 (default: %(default)g)",
    )
    parser.add_argument("--all", action="store_true", help="also show what differs in each lung and third")
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the comparison; 0 the same, 1 different, 2 unreadable."""
    from ..errors import LesionDecompError  # not before: --help answers at once
    from ..report.comparison import compare_reports, read_report
    from . import notify, print_line

    try:
        first, second = read_report(args.first), read_report(args.second)
    except LesionDecompError as error:
        notify(str(error))
        return TROUBLE
    differences = compare_reports(first, second, tolerance=args.tolerance)
    print_line(as_json(differences) if args.json else as_table(differences, everything=args.all))
    return 1 if differences else 0


def as_json(differences: list[Difference]) -> str:
    """``{"same": …, "differences": [{"section", "what", "first", "second", "change_percent"}, …]}``."""
    listed = [
        {"section": d.section, "what": d.what, "first": d.first, "second": d.second, "change_percent": d.change_percent}
        for d in differences
    ]
    return json.dumps({"same": not differences, "differences": listed}, indent=2, ensure_ascii=False)


def as_table(differences: list[Difference], everything: bool = False) -> str:
    """A line for each section that is the same, and for each value that differs."""
    from ..report.comparison import SECTIONS, measurement_title  # not before: --help answers at once

    lines = []
    for section in SECTIONS:
        own = [d for d in differences if d.section == section]
        if not own:
            lines.append((section, "same", "", "", ""))
            continue
        shown = own
        if section == "measurements" and not everything:
            shown = [d for d in own if d.what.startswith(f"{SHOWN_REGION}.")]
        for d in shown:
            change = "" if d.change_percent is None else f"{d.change_percent:+.3g} %"
            what = measurement_title(d.what) if section == "measurements" else d.what
            lines.append((section, what, _text(d.first), _text(d.second), change))
        if len(shown) < len(own):
            lines.append((section, f"{len(own) - len(shown)} of single lungs and thirds; --all shows them", "", "", ""))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Hashes differ in their first digits or not at all.
    return text if len(text) <= 28 else f"{text[:25]}..."
