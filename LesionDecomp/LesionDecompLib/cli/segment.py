"""``lesiondecomp segment``: chest CT in, heatmap, labelmaps, statistics and report out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .argument_types import batch_size, count, devices, labels, threshold, volume_ml
from .batch.input_list import listed_inputs
from .batch.plan import Case, check_inputs_stay, plan_cases

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..report.case import SceneWriter

SUMMARY = "summary.csv"
OPENING = "Opening the output folder"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "segment",
        help="segment lung lesions in one or more chest CTs",
        description="Segment lung lesions in chest CT. Writes heatmap.nrrd, lungs.nrrd, lesions.nrrd, statistics.csv, "
        "regions.csv and report.json; several inputs, or the CTs in a folder of studies, get a subfolder each, with "
        "summary.csv and regions.csv beside them, and those that an earlier run has finished are skipped. Several "
        "processes, or the workers of a Dask cluster, share the inputs.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help="NIfTI, NRRD or MetaImage file, DICOM folder or file, zip archive of one, or a folder of studies with any "
        "number of these in it",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="a text file with more inputs, one per line, UTF-8 or UTF-16; # begins a comment ('-': standard input)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--model", metavar="NAME|DIR", help="lesion model bundle (default: the shipped one)")
    parser.add_argument(
        "--series",
        metavar="UID|N|TEXT",
        help="of several DICOM series in an INPUT the one to read: its UID, its number, or a part of its description "
        "(default: the best for lungs, with a warning that names the others)",
    )
    parser.add_argument("--lung-mask", type=Path, metavar="FILE", help="use this lung mask (one input only)")
    parser.add_argument(
        "--lung-labels",
        type=labels,
        metavar="N[-M][,…]",
        help="the labels of the lung mask that are lung, as 10-14 for the lobes of TotalSegmentator (default: those "
        "called lung; without names the only one, or 1 right and 2 left)",
    )
    parser.add_argument(
        "--regions",
        type=Path,
        metavar="FILE",
        help="measure the structures of this labelmap, where they meet the lungs, as regions, and the rest as "
        "elsewhere; with the five lobes among them, severity is scored by lobes too (one input only)",
    )
    parser.add_argument(
        "--review",
        type=Path,
        metavar="FILE.json",
        help="apply a reader's decisions about lesions of this CT: accepted, rejected, added (one input only)",
    )
    parser.add_argument(
        "--threshold",
        type=threshold,
        metavar="T",
        help="heat at or above which a voxel is lesion (default: the model's)",
    )
    parser.add_argument(
        "--min-volume-ml",
        type=volume_ml,
        default=0.1,
        metavar="V",
        help="leave out lesions smaller than this, mL (default: %(default)s)",
    )
    parser.add_argument(
        "--device",
        type=devices,
        default=["auto"],
        metavar="D[,D…]",
        help="auto, cpu, cuda, cuda:N or mps; several share the inputs, one process each (default: auto)",
    )
    parser.add_argument(
        "--processes",
        type=count,
        metavar="N",
        help="processes that share the inputs on this machine (default: one for each device; more than one needs Dask)",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS|FILE.json",
        help="run the inputs on this Dask cluster; its workers must see the same folders",
    )
    parser.add_argument(
        "--threads",
        type=count,
        metavar="N",
        help="processor threads of each process (default: its share of the cores)",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="auto: bfloat16 where the hardware is fast at it and the model tolerates it; float32: always float32",
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "torch", "onnx"),
        default="auto",
        help="what computes the networks: auto: ONNX Runtime where it is installed, no GPU is used and nothing is "
        "computed in 16 bits, otherwise PyTorch; onnx needs 'pip install onnxruntime' and computes in float32",
    )
    parser.add_argument(
        "--batch-size", type=batch_size, default=8, metavar="N", help="slices at a time (default: %(default)s)"
    )
    parser.add_argument("--scene", action="store_true", help="also write scene.mrb for 3D Slicer (needs slicer-core)")
    parser.add_argument("--overview", action="store_true", help="also write overview.png")
    parser.add_argument(
        "--healthy",
        action="store_true",
        help="also write healthy.nrrd: the CT in HU with the model's normal version in place of its lesions",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="also write report.html: pictures, measurements, definitions on one page",
    )
    parser.add_argument(
        "--methods", action="store_true", help="also write methods.txt: a paragraph for the methods section of a paper"
    )
    parser.add_argument(
        "--format",
        choices=("nrrd", "nii.gz"),
        default="nrrd",
        help="nii.gz: write heatmap, lungs and lesions as NIfTI too (default: %(default)s)",
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
    given = [*args.inputs, *(listed_inputs(args.list) if args.list is not None else [])]
    if not given:
        args.usage_error("no INPUT")
    inputs, found_in = searched_inputs(given, args.output, args.series)
    several = len(given) > 1 or bool(found_in)
    _check_sharing(args, several)
    for option in ("lung_mask", "regions", "review"):
        if getattr(args, option) is not None and several:
            args.usage_error(f"--{option.replace('_', '-')} is for a single INPUT")
    if args.lung_labels is not None and args.lung_mask is None:
        args.usage_error("--lung-labels is for a --lung-mask")
    cases = plan_cases(inputs, args.output, found_in, several)
    check_inputs_stay(
        cases, args.output, [path for path in (args.lung_mask, args.regions, args.review) if path is not None]
    )
    return _run_several(args, cases) if several else _run_single(args, cases[0])


def searched_inputs(given: list[Path], output: Path, series: str | None = None) -> tuple[list[Path], dict[Path, Path]]:
    """The inputs with folders of studies in them replaced by the CTs that they hold.

    :return: the inputs, and of those that were found the folder that was searched.
    :raises LesionDecompError: a folder of studies without a CT.
    """
    from . import notify  # not before: --help answers at once

    inputs, found_in = [], {}
    for path in given:
        found = None
        if path.is_dir():
            from .batch.search import search_folder  # not before: --help answers at once

            found = search_folder(path, output, series)
        if found is None:
            inputs.append(path)
            continue
        notify(found.sentence(path))
        inputs += found.cases
        found_in.update(dict.fromkeys(found.cases, path))
        if not found.cases:
            expected = "NIfTI, NRRD or MetaImage files, or folders with a DICOM series"
            raise InputError("Searching the folder", f"no CT in '{path.name}'", expected)
    return inputs, found_in


def run_with(arguments: list[str], scene_writer: Callable[[], SceneWriter] | None) -> int:
    """Run the command with these arguments, for the commands that are built on it."""
    parser = argparse.ArgumentParser(prog="lesiondecomp")
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["segment", *arguments])
    args.scene_writer = scene_writer
    return run(args)


def _run_single(args: argparse.Namespace, case: Case) -> int:
    from ..report.case import check_case_folder  # not before: --help answers at once
    from .batch.finished import asked_files, used_bundles
    from .batch.runner import CaseRunner, scene_writer

    _limit_threads(args.threads)
    check_case_folder(case.folder, asked_files(args), scene_writer(args), overwrite=args.overwrite)
    CaseRunner(args, *used_bundles(args), args.device[0], quiet=args.quiet).run_one(case)
    return int(case.status == "failed")


def _run_several(args: argparse.Namespace, cases: list[Case]) -> int:
    from ..processes.tree import end_with_parent  # not before: --help answers at once
    from . import notify
    from .batch.finished import report_finder, used_bundles
    from .batch.regions import write_batch_regions
    from .batch.summary import RunningSummary

    bundles = used_bundles(args)
    earlier, skipped = _earlier_results(args, cases, report_finder(args, bundles))
    end_with_parent()
    numbers = [number for number, case in enumerate(cases) if case.name not in skipped]
    if skipped:
        notify(f"{len(skipped)} of {len(cases)} cases are done already.")
    summary = RunningSummary(args.output / SUMMARY, cases)
    try:
        if numbers and (args.processes > 1 or args.scheduler is not None):
            _run_on_cluster(args, cases, bundles, numbers, summary.update)
        elif numbers:
            _run_here(args, cases, bundles, earlier, numbers, summary.update)
    finally:
        # An interrupted run reports in its summary which cases are there.
        if any(case.status for case in cases):
            summary.write()
            write_batch_regions(args.output, cases)
    done, failed = (sum(case.status == status for case in cases) for status in ("done", "failed"))
    notify(f"{done} of {len(cases)} cases done; see {SUMMARY}.")
    return int(failed > 0 or done < len(cases))


def _run_here(
    args: argparse.Namespace,
    cases: list[Case],
    bundles: tuple[ModelBundle, ModelBundle],
    earlier: dict[str, dict[str, Any]],
    numbers: list[int],
    after_each: Callable[[], None],
) -> None:
    from .batch.runner import CaseRunner  # not before: --help answers at once

    _limit_threads(args.threads)
    runner = CaseRunner(args, *bundles, args.device[0], lambda case: earlier.get(case.name), quiet=args.quiet)
    labeled = ((cases[number], f"[{number + 1}/{len(cases)} {cases[number].name}]") for number in numbers)
    runner.run_all(labeled, after_each)


def _run_on_cluster(
    args: argparse.Namespace,
    cases: list[Case],
    bundles: tuple[ModelBundle, ModelBundle],
    numbers: list[int],
    after_each: Callable[[], None],
) -> None:
    from . import notify  # not before: --help answers at once
    from .batch.board import Board
    from .batch.cluster import cluster_client
    from .batch.distribution import CaseDistribution
    from .batch.finished import identities
    from .batch.task import case_options

    args.output.mkdir(parents=True, exist_ok=True)
    local = args.processes if args.scheduler is None else 0
    board = Board(len(cases), len(cases) - len(numbers), args.quiet)
    with cluster_client(args.scheduler, args.processes) as client:
        if not args.quiet:
            notify(f"Dashboard of the cluster: {client.dashboard_link}")
        distribution = CaseDistribution(
            client, cases, args.output, case_options(args), identities(bundles), local, args.threads, board
        )
        distribution.run(numbers, after_each)


def _check_sharing(args: argparse.Namespace, several: bool) -> None:
    """Refuse ways to share the cases that cannot be, before any work; settle how many processes there are."""
    from .batch.cluster import INSTALL, has_dask  # not before: --help answers at once

    if "TORCHELASTIC_RUN_ID" in os.environ or os.environ.get("WORLD_SIZE", "1") != "1":
        args.usage_error(
            "torchrun is for 'train'; to share cases, use --processes N on one machine and --scheduler ADDRESS on "
            "several (Documentation/cluster.md)"
        )
    if args.scheduler is not None and (args.processes is not None or len(args.device) > 1):
        args.usage_error("--scheduler: the cluster has its own workers, each with one --device; no --processes")
    args.processes = len(args.device) if args.processes is None else args.processes
    if args.processes < len(args.device):
        args.usage_error(f"{len(args.device)} devices need as many --processes")
    if args.processes == 1 and args.scheduler is None:
        return
    if not several:
        args.usage_error("several devices or processes, and --scheduler, are for several INPUTs")
    if not has_dask():
        args.usage_error(f"several processes or a cluster need Dask: {INSTALL}")


def _limit_threads(threads: int | None) -> None:
    if threads is not None:
        import torch  # not before: --help answers at once

        torch.set_num_threads(threads)


def _earlier_results(
    args: argparse.Namespace, cases: list[Case], report_of: Callable[[Case], dict[str, Any] | None]
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """What earlier runs have left: reports that may spare a case once it is read, and names of cases that are done.

    Before any work, results are refused that this run would replace without leave.
    """
    from ..io.atomic import check_writable, existing_error  # not before: --help answers at once
    from ..report.case import ALL_FILES, REGIONS, check_support
    from .batch.finished import adopt, asked_files, is_same_input
    from .batch.regions import is_batch_regions
    from .batch.runner import scene_writer
    from .batch.summary import is_summary

    check_support(asked_files(args), scene_writer(args))
    earlier: dict[str, dict[str, Any]] = {}
    skipped: set[str] = set()
    if not args.overwrite:
        if (args.output / SUMMARY).exists() and not is_summary(args.output / SUMMARY):
            raise existing_error(OPENING, args.output, [SUMMARY])
        if (args.output / REGIONS).exists() and not is_batch_regions(args.output / REGIONS):
            raise existing_error(OPENING, args.output, [REGIONS])
        for case in cases:
            taken = [name for name in ALL_FILES if (case.folder / name).exists()] if case.folder.exists() else []
            if not taken:
                continue
            if (report := report_of(case)) is None:
                raise existing_error(OPENING, case.folder, taken)
            if is_same_input(case, report):
                adopt(case, report)
                skipped.add(case.name)
            else:
                earlier[case.name] = report
    check_writable(args.output)
    return earlier, skipped
