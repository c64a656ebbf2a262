"""``lesiondecomp rerun``: repeat a run from its report, and report whether the outcome is the same."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import segment
from .compare import as_table

if TYPE_CHECKING:
    from ..errors import LesionDecompError
    from ..models.bundle import ModelBundle


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "rerun",
        help="repeat a run from its report and compare",
        description="Segment INPUT again with the models and parameters of a report, and compare the two reports. The "
        "input and the models must be those of the report, by their hashes. The exit status is 0 when all is the same, "
        "1 when something differs.",
    )
    parser.add_argument("report", type=Path, metavar="REPORT", help="a report.json, or the folder that holds it")
    parser.add_argument("input", type=Path, metavar="INPUT", help="the CT that the report is about")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--model", metavar="NAME|DIR", help="where the lesion model is (default: the installed one with that hash)"
    )
    parser.add_argument("--lung-mask", type=Path, metavar="FILE", help="the lung mask, if one was supplied")
    parser.add_argument("--regions", type=Path, metavar="FILE", help="the file with the regions, if one was given")
    parser.add_argument("--review", type=Path, metavar="FILE.json", help="the reader's decisions, if some were given")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Repeat and compare; 0 the same, 1 different or failed."""
    # not before: --help answers at once
    from ..report.case import HEALTHY, METHODS, OVERVIEW, PAGE, REPORT, SCENE, was_seg_asked_for
    from ..report.comparison import compare_reports, read_report
    from . import notify, print_line

    report = read_report(args.report)
    series = report["parameters"].get("series")
    _check_input(report, args.input, series)
    if (report["lung_mask"].get("source") == "supplied") != (args.lung_mask is not None):
        raise _error("another source of the lungs", "a --lung-mask where the report records that one was supplied")
    for option in ("regions", "review"):
        _check_file(report, option, getattr(args, option))
    options = [str(args.input), "-o", str(args.output), "--model", _model(report, args.model)]
    for option, key in (
        ("--threshold", "threshold"),
        ("--min-volume-ml", "min_volume_ml"),
        ("--device", "device"),
        ("--batch-size", "batch_size"),
    ):
        if key not in report["parameters"]:
            raise _error(f"a report without '{key}'", "a report of 'lesiondecomp segment'")
        options += [option, str(report["parameters"][key])]
    options += ["--series", str(series)] if series is not None else []
    options += ["--precision", str(report["parameters"].get("precision", "auto"))]
    options += ["--engine", str(report["parameters"].get("engine", "torch"))]  # there was no other before
    if args.lung_mask is not None:
        options += ["--lung-mask", str(args.lung_mask)]
        if (chosen := report["parameters"].get("lung_labels")) is not None:
            options += ["--lung-labels", str(chosen)]
    options += ["--format", str(report["parameters"].get("format", "nrrd"))]
    for option, file in (("--regions", args.regions), ("--review", args.review)):
        options += [option, str(file)] if file is not None else []
    files = {"overview": OVERVIEW, "report": PAGE, "scene": SCENE, "methods": METHODS, "healthy": HEALTHY}
    for option, name in files.items():
        options += [f"--{option}"] if name in report["outputs"] else []
    options += ["--dicom-seg"] if was_seg_asked_for(report) else []
    options += [f"--{name}" for name in ("overwrite", "quiet") if getattr(args, name)]
    status = segment.run_with(options, args.scene_writer)
    if status:
        return status
    differences = compare_reports(report, read_report(args.output / REPORT))
    print_line(as_table(differences))
    if differences:
        notify("The outcome differs from the report.")
    return 1 if differences else 0


def _check_input(report: dict[str, Any], path: Path, series: str | None) -> None:
    from ..io.readers import read_volume  # not before: --help answers at once

    found = read_volume(path, series=series)[1].sha256
    if found != report["input"].get("sha256"):
        raise _error(f"a CT with the hash {found[:12]}…", f"the report's, {str(report['input'].get('sha256'))[:12]}…")


def _check_file(report: dict[str, Any], option: str, path: Path | None) -> None:
    """Refuse another file than the one that the report names by its hash, or none where it names one."""
    from ..io.masks import labels_file  # not before: --help answers at once
    from ..report.manifest import file_sha256

    wanted = report["parameters"].get(option)
    if (wanted is None) != (path is None):
        raise _error(
            "no file for --" + option if path is None else f"a file for --{option}, which the run had none of",
            f"--{option} with the file whose hash is {wanted[:12]}…" if wanted else f"no --{option}",
        )
    path = labels_file(path) if path is not None and option == "regions" else path
    if path is not None and path.is_file() and (found := file_sha256(path)) != wanted:
        raise _error(f"another file for --{option} (hash {found[:12]}…)", f"the report's, {wanted[:12]}…")


def _model(report: dict[str, Any], chosen: str | None) -> str:
    """Path of the lesion bundle that the report names; the lung bundle must be the default one."""
    from ..models.bundle import find_bundle, installed_bundles  # not before: --help answers at once

    wanted = report["models"]
    if wanted.get("lungs") is not None:
        _check_model(find_bundle(None, "lungs"), wanted["lungs"])
    if chosen is None:
        for bundle in installed_bundles("lesions"):
            if bundle.sha256 == wanted["lesions"].get("sha256"):
                _check_model(bundle, wanted["lesions"])
                return str(bundle.path)
    bundle = find_bundle(chosen if chosen is not None else wanted["lesions"].get("name"), "lesions")
    _check_model(bundle, wanted["lesions"])
    return str(bundle.path)


def _check_model(bundle: ModelBundle, wanted: dict[str, Any]) -> None:
    for key, what in (("sha256", "weights"), ("metadata_sha256", "metadata")):
        if getattr(bundle, key) != wanted.get(key):
            raise _error(
                f"the model '{bundle.name}' {bundle.version} with other {what}",
                f"'{wanted.get('name')}' {wanted.get('version')}, as the report has it",
                "Install that version, or give its place with --model.",
            )


def _error(found: str, expected: str, advice: str = "") -> LesionDecompError:
    from ..errors import InputError  # not before: --help answers at once

    return InputError("Repeating the run", found, expected, advice)
