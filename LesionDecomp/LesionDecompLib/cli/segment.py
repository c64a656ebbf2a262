"""``lesiondecomp segment``: chest CT in, heatmap, labelmaps, statistics and report out."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Cancelled
from .argument_types import batch_size, device, threshold, volume_ml
from .case_plan import Case, check_inputs_stay, plan_cases
from .progress import Progress

if TYPE_CHECKING:
    from ..bundles import ModelBundle
    from ..pipeline import Segmenter, SegmentResult

SUMMARY = "summary.csv"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "segment",
        help="segment lung lesions in one or more chest CTs",
        description="Segment lung lesions in chest CT. Writes heatmap.nrrd, lungs.nrrd, lesions.nrrd, statistics.csv "
        "and report.json; for several inputs into one subfolder each, with summary.csv beside them.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="INPUT", help="NIfTI, NRRD or MetaImage file, or DICOM folder"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--model", metavar="NAME|DIR", help="lesion model bundle (default: the one that ships)")
    parser.add_argument("--lung-mask", type=Path, metavar="FILE", help="use this lung mask (one input only)")
    parser.add_argument(
        "--threshold", type=threshold, metavar="T", help="heat from which a voxel is lesion (default: the model's)"
    )
    parser.add_argument(
        "--min-volume-ml",
        type=volume_ml,
        default=0.1,
        metavar="V",
        help="leave out lesions smaller than this, mL (default: %(default)s)",
    )
    parser.add_argument(
        "--device", type=device, default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    parser.add_argument(
        "--batch-size", type=batch_size, default=8, metavar="N", help="slices at a time (default: %(default)s)"
    )
    parser.add_argument("--scene", action="store_true", help="also write scene.mrb for 3D Slicer (needs slicer-core)")
    parser.add_argument("--overview", action="store_true", help="also write overview.png")
    parser.add_argument(
        "--report", action="store_true", help="also write report.html: pictures, figures and definitions on one page"
    )
    parser.add_argument(
        "--dicom-seg",
        action="store_true",
        help="also write segmentation.dcm, a DICOM SEG in the study of the input, patient identity included (needs a "
        "DICOM input and highdicom)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Segment all inputs; 1 when one of them failed."""
    from ..atomic import existing_error
    from ..bundles import find_bundle
    from ..case_files import check_case_folder
    from . import say

    if args.lung_mask is not None and len(args.inputs) > 1:
        args.usage_error("--lung-mask goes with one INPUT")
    cases = plan_cases(args.inputs, args.output)
    if len(args.inputs) > 1 and (args.output / SUMMARY).exists() and not args.overwrite:
        raise existing_error("Opening the output folder", args.output, [SUMMARY])
    check_inputs_stay(cases, args.output, [args.lung_mask] if args.lung_mask is not None else [])
    for case in cases:
        check_case_folder(case.folder, scene=args.scene, dicom_seg=args.dicom_seg, overwrite=args.overwrite)
    bundle = find_bundle(args.model, "lesions")
    runner = _Runner(args, bundle, find_bundle(None, "lungs"))
    try:
        for number, case in enumerate(cases, start=1):
            label = f"[{number}/{len(cases)} {case.name}]" if len(cases) > 1 else ""
            runner.run(case, label)
    finally:
        # An interrupted run tells in its summary which cases are there.
        if len(args.inputs) > 1 and any(case.status for case in cases):
            from .summary import write_summary

            write_summary(args.output / SUMMARY, cases)
    failed = sum(case.status == "failed" for case in cases)
    if len(args.inputs) > 1:
        say(f"{len(cases) - failed} of {len(cases)} cases done; see {SUMMARY}.")
    return 1 if failed else 0


class _Runner:
    """Runs cases one after another with networks that are loaded once, when the first readable case needs them."""

    def __init__(self, args: argparse.Namespace, lesion_bundle: ModelBundle, lung_bundle: ModelBundle) -> None:
        self._args = args
        self._bundles = lesion_bundle, lung_bundle
        self._segmenter: Segmenter | None = None
        self._progress = Progress(args.quiet)

    def run(self, case: Case, label: str) -> None:
        from . import error_sentence, say, tell

        self._progress.begin_case(label)
        prefix = f"{label} " if label else ""
        try:
            result = self._segment(case)
        except Cancelled:
            raise
        except Exception as error:
            self._progress.clear()
            case.status, case.message = "failed", error_sentence(error)
            say(prefix + case.message)
            return
        self._progress.clear()
        case.status, case.message = "done", " ".join(result.warnings)
        for warning in result.warnings:
            say(f"{prefix}Warning: {warning}")
        tell(f"{prefix}{_figures(result)}")

    def _segment(self, case: Case) -> SegmentResult:
        from ..case_files import write_case
        from ..chest_ct import check_chest_ct
        from ..dicom_seg import check_dicom_input
        from ..image_io import read_mask, read_volume

        args, began = self._args, time.perf_counter()
        if args.dicom_seg:
            check_dicom_input(case.path)
        volume, info = read_volume(case.path)
        case.input_sha256 = info.sha256
        check_chest_ct(volume)  # before the networks are loaded, which takes longer
        mask = read_mask(args.lung_mask, volume) if args.lung_mask is not None else None
        read = time.perf_counter()
        segmenter = self._load()
        result = segmenter.run(
            volume,
            lung_mask=mask,
            threshold=args.threshold,
            min_volume_ml=args.min_volume_ml,
            progress=self._progress.update,
        )
        own = [text for text in result.warnings if text not in info.warnings]
        timings = {"reading": read - began, **result.timings_s}
        result = replace(result, warnings=[*info.warnings, *own], timings_s=timings)
        parameters = {"device": args.device, "batch_size": args.batch_size}
        write_case(
            case.folder,
            volume,
            result,
            info,
            overview=args.overview,
            scene=args.scene,
            page=args.report,
            dicom_source=case.path if args.dicom_seg else None,
            overwrite=args.overwrite,
            parameters=parameters,
        )
        case.figures = result.statistics[0].values
        return result

    def _load(self) -> Segmenter:
        if self._segmenter is None:
            from ..pipeline import Segmenter

            lesion_bundle, lung_bundle = self._bundles
            self._segmenter = Segmenter(
                lesion_bundle, lung_bundle, device=self._args.device, batch_size=self._args.batch_size
            )
        return self._segmenter


def _figures(result: SegmentResult) -> str:
    """The key figures of both lungs in one line."""
    from ..statistics import measurement

    values = result.statistics[0].values
    keys = ("lung_volume_ml", "lesion_volume_ml", "involvement_percent", "lesion_count", "largest_lesion_ml")
    parts = []
    for key in keys:
        figure = measurement(key)
        parts.append(f"{figure.title} {figure.text(values[key])} {figure.unit}".rstrip())
    return ", ".join(parts)
