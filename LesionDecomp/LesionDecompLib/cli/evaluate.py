"""``lesiondecomp evaluate``: metrics, curves and examples of models against pixel masks, on slices or whole CT."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .argument_types import device

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle

RESULTS_NAME = "results.json"
# As evaluation.localizers has them; naming them here keeps torch out of --help.
OF_MODELS = ("heat", "gate", "difference", "lesion", "change", "cam", "grad-cam", "va-gan", "biomarker")
METHODS = (*OF_MODELS, "grey", "blurred_grey")
SPLITS = ("train", "val", "test")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate",
        help="compare models with pixel masks: results.json, curves, examples",
        description="Evaluate models on slices with pixel masks (a training set's folder), or on CT with lesion masks "
        "(NAME_ct.nii.gz beside NAME_lesion.nii.gz; none needed where NAME begins with normal): the whole pipeline of "
        "one lesion model, and any methods inside lungs that are given (NAME_lung.nii.gz). Needs the extras: "
        "lesiondecomp[evaluation].",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="slices with index.csv, or CT volumes")
    parser.add_argument("--split", choices=SPLITS, default=None, help="of the slices (default: test)")
    parser.add_argument(
        "--models",
        nargs="+",
        default=[None],
        metavar="NAME|DIR",
        help="bundles: lesion models and baselines (default: the shipped lesion model)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=None, metavar="NAME", help=f"only these: {', '.join(METHODS)}"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, write everything, print the table."""
    from ..errors import ConfigError  # not before: --help answers at once
    from ..io.atomic import existing_error, staged_folder

    earlier = _earlier(args.output)
    if earlier and not args.overwrite:
        raise existing_error("Evaluation", args.output, earlier)
    slices = (args.data / "index.csv").is_file()
    if not slices and args.split is not None:
        raise ConfigError("Evaluation", f"no index.csv in '{args.data.name}'", "slices, for --split")
    retired = tuple(earlier)
    with staged_folder(args.output, args.overwrite, stage="Evaluation", last=RESULTS_NAME, retired=retired) as staging:
        results = _slices(args, staging) if slices else _volumes(args, staging)
        (staging / RESULTS_NAME).write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    return 0


def _earlier(output: Path) -> list[str]:
    """Names of files in ``output`` that an earlier evaluation wrote, of slices or of CT."""
    from ..evaluation import figures, volumes  # not before: --help answers at once

    names = [RESULTS_NAME, figures.TABLE_NAME, *figures.PICTURES, volumes.BLAND_ALTMAN_NAME]
    try:
        cases = json.loads((output / RESULTS_NAME).read_text("utf-8")).get("cases", [])
        names += [f"{case['case']}.png" for case in cases if Path(case["case"]).name == case["case"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # no results, or not ours: they have no pictures that are known
    return [name for name in names if (output / name).exists()]


def _slices(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from ..evaluation import figures  # not before: --help answers at once
    from ..evaluation.comparison import evaluate_localizers
    from ..evaluation.localizers import localizers_of
    from ..evaluation.trainings import trainings_of
    from ..models.device import choose_device
    from ..training.data.slices import SliceSet, read_index
    from . import print_line
    from .interrupts import interrupts_as_request
    from .progress import Progress

    split = args.split or "test"
    bundles = _bundles(args.models)
    localizers = localizers_of(bundles, args.methods, choose_device(args.device)[0])
    data = SliceSet.load(args.data, split)
    has_val = any(row["split"] == "val" for row in read_index(args.data))
    val = data if split == "val" else SliceSet.load(args.data, "val") if has_val else None
    trainings = trainings_of(bundles)
    progress = Progress()
    with interrupts_as_request() as cancelled:
        comparison, results = evaluate_localizers(localizers, data, val, split, progress.update, cancelled)
    progress.clear()
    figures.draw_precision_recall(comparison, results, output / figures.PR_NAME)
    figures.draw_dice(comparison, results, output / figures.DICE_NAME)
    figures.draw_examples(comparison, localizers, output / figures.EXAMPLES_NAME)
    results["trainings"] = trainings
    figures.draw_trainings(results["trainings"], output / figures.TRAININGS_NAME)
    figures.write_table(results, output / figures.TABLE_NAME)
    print_line((output / figures.TABLE_NAME).read_text("utf-8").rstrip())
    return results


def _volumes(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    """One lesion model as a user runs it; and every method inside given lungs, where they are given or asked for."""
    from ..evaluation.given_lungs import given_lungs  # not before: --help answers at once
    from ..evaluation.volumes import find_cases, without_mask
    from . import print_line

    bundles = _bundles(args.models)
    several = len(bundles) > 1 or args.methods is not None or bundles[0].task != "lesions"
    results = {} if several else _pipeline(args, output)
    given = {name: given_lungs(ct).is_file() for name, (ct, mask) in find_cases(args.data).items() if mask is not None}
    if several or (given and all(given.values())):
        results |= _inside_given_lungs(args, bundles)
    elif any(given.values()):
        lacking = ", ".join(name for name, found in given.items() if not found)
        print_line(f"Nothing is measured inside given lungs: {lacking} without NAME_lung.nii.gz.")
    if left_out := without_mask(args.data):
        print_line(f"Left out, without NAME_lesion.nii.gz: {', '.join(left_out)}.")
    return results


def _inside_given_lungs(args: argparse.Namespace, bundles: list[ModelBundle]) -> dict[str, Any]:
    from .. import __version__  # not before: --help answers at once
    from ..evaluation.given_lungs import evaluate_inside
    from ..evaluation.localizers import localizers_of
    from ..models.device import choose_device
    from . import print_line
    from .interrupts import interrupts_as_request
    from .progress import Progress

    localizers = localizers_of(bundles, args.methods, choose_device(args.device)[0])
    progress = Progress()
    with interrupts_as_request() as cancelled:
        volumes = evaluate_inside(localizers, args.data, progress.update, cancelled)
    progress.clear()
    print_line("Inside the given lungs: average precision / best Dice")
    for name, cases in volumes.items():
        shown = (
            f"{case} –"
            if row["best_dice"] is None
            else f"{case} {row['average_precision']:.3f} / {row['best_dice']:.3f}"
            for case, row in cases.items()
        )
        print_line(f"{name:36s} {'   '.join(shown)}")
    return {"version": __version__, "data": args.data.resolve().name, "volumes": volumes}


def _pipeline(args: argparse.Namespace, output: Path) -> dict[str, Any]:
    from ..evaluation.volumes import evaluate_volumes  # not before: --help answers at once
    from ..pipeline import Segmenter
    from . import print_line
    from .progress import Progress

    progress = Progress()
    results = evaluate_volumes(args.data, Segmenter(args.models[0], device=args.device), output, progress.update)
    progress.clear()
    print_line("case          Dice   lesion, mL   reader, mL   involvement, %   reader, %")
    for case in results["cases"]:
        dice = "–" if case["dice"] is None else f"{case['dice']:.3f}"
        print_line(
            f"{case['case']:12s} {dice:>5s}   {case['lesion_ml']:10.1f}   {case['reference_ml']:10.1f}   "
            f"{case['involvement_percent']:14.2f}   {case['reference_percent']:9.2f}"
        )
    if results["mean_dice"] is not None:
        print_line(f"Mean Dice {results['mean_dice']:.3f} over the {results['mean_dice_cases']} cases with lesions.")
    return results


def _bundles(names: list[str | None]) -> list[ModelBundle]:
    from ..errors import ModelError  # not before: --help answers at once
    from ..models.bundle import find_bundle

    bundles = [find_bundle(name, "lesions" if name is None else None) for name in names]
    for bundle in bundles:
        if bundle.task not in ("lesions", "localizer"):
            raise ModelError(
                "Evaluation", f"'{bundle.name}' for the task '{bundle.task}'", "a model that finds lesions"
            )
    return bundles
