"""``lesiondecomp segment``: chest CT in, heatmap, labelmaps, statistics and report out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .argument_types import batch_size, devices, labels, labels_text, threshold, volume_ml
from .batch.plan import Case, check_inputs_stay, plan_cases

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..report.case import SceneWriter
    from .case_sharing import CaseSharing

SUMMARY = "summary.csv"
SUMMARY_EVERY_S = 30.0
OPENING = "Opening the output folder"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "segment",
        help="segment lung lesions in one or more chest CTs",
        description="Segment lung lesions in chest CT. Writes heatmap.nrrd, lungs.nrrd, lesions.nrrd, statistics.csv "
        "and report.json; several inputs, or the CTs in a folder of studies, get a subfolder each, with summary.csv "
        "beside them, and those that an earlier run has finished are skipped. Under torchrun or srun the processes "
        "share the inputs.",
    )
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help="NIfTI, NRRD or MetaImage file, DICOM folder, or a folder of studies with any number of these in it",
    )
    parser.add_argument(
        "--list",
        type=Path,
        metavar="FILE",
        help="a text file with more inputs, one per line ('-': standard input)",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--model", metavar="NAME|DIR", help="lesion model bundle (default: the shipped one)")
    parser.add_argument("--lung-mask", type=Path, metavar="FILE", help="use this lung mask (one input only)")
    parser.add_argument(
        "--lung-labels",
        type=labels,
        metavar="N[-M][,…]",
        help="the labels of the lung mask that are lung, as 10-14 for the lobes of TotalSegmentator (default: those "
        "called lung; without names the only one, or 1 right and 2 left)",
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
        "--precision",
        choices=("auto", "float32"),
        default="auto",
        help="auto: bfloat16 where the hardware is fast at it and the model tolerates it; float32: always float32",
    )
    parser.add_argument(
        "--batch-size", type=batch_size, default=8, metavar="N", help="slices at a time (default: %(default)s)"
    )
    parser.add_argument("--scene", action="store_true", help="also write scene.mrb for 3D Slicer (needs slicer-core)")
    parser.add_argument("--overview", action="store_true", help="also write overview.png")
    parser.add_argument(
        "--report",
        action="store_true",
        help="also write report.html: pictures, measurements, definitions on one page",
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
    inputs, found_in = searched_inputs(given, args.output)
    several = len(given) > 1 or bool(found_in)
    if args.lung_mask is not None and several:
        args.usage_error("--lung-mask is for a single INPUT")
    if args.lung_labels is not None and args.lung_mask is None:
        args.usage_error("--lung-labels is for a --lung-mask")
    cases = plan_cases(inputs, args.output, found_in, several)
    check_inputs_stay(cases, args.output, [args.lung_mask] if args.lung_mask is not None else [])
    return _run_several(args, cases) if several else _run_single(args, cases[0])


def searched_inputs(given: list[Path], output: Path) -> tuple[list[Path], dict[Path, Path]]:
    """The inputs with folders of studies in them replaced by the CTs that they hold.

    :return: the inputs, and of those that were found the folder that was searched.
    :raises LesionDecompError: a folder of studies without a CT.
    """
    from . import notify
    from .case_sharing import tells_for_all

    inputs, found_in = [], {}
    for path in given:
        found = None
        if path.is_dir():
            from .batch.search import search_folder

            found = search_folder(path, output)
        if found is None:
            inputs.append(path)
            continue
        if tells_for_all():
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


def listed_inputs(file: Path) -> list[Path]:
    """The inputs that a text file names, one a line; relative ones lie where the command runs, as on its own line.

    :raises LesionDecompError: it cannot be read.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no UTF-8 text"
        raise InputError(
            "Reading the list of inputs", f"'{file.name}', which cannot be read ({reason})", "one input a line"
        ) from error
    return [Path(line) for line in (line.strip() for line in text.splitlines()) if line]


def _run_single(args: argparse.Namespace, case: Case) -> int:
    from ..report.case import check_case_folder
    from .batch.runner import CaseRunner, scene_writer

    if len(args.device) > 1:
        args.usage_error("several devices are for several INPUTs")
    check_case_folder(case.folder, scene=scene_writer(args), dicom_seg=args.dicom_seg, overwrite=args.overwrite)
    lesion_bundle, lung_bundle = _bundles(args)
    CaseRunner(args, lesion_bundle, lung_bundle, args.device[0], quiet=args.quiet).run_one(case)
    return int(case.status == "failed")


def _run_several(args: argparse.Namespace, cases: list[Case]) -> int:
    from ..processes.tree import end_with_parent
    from . import notify
    from .batch.finished import adopt
    from .batch.runner import CaseRunner
    from .batch.summary import write_summary
    from .case_sharing import CaseSharing, environment_has_ranks

    bundles = _bundles(args)
    report_of = _reports(args, bundles)
    earlier, skipped = _earlier_results(args, cases, report_of)
    if len(args.device) > 1 and not environment_has_ranks():
        from .device_processes import run_on_devices

        return run_on_devices(args.command_line, len(args.device))
    end_with_parent()
    sharing = CaseSharing.of_environment()
    device = _device_of(args.device, sharing)
    runner = CaseRunner(args, bundles[0], bundles[1], device, earlier, quiet=args.quiet or sharing.size > 1)
    shown = time.monotonic()

    def labeled() -> Iterator[tuple[Case, str]]:
        for number in sharing.numbers(len(cases)):
            if cases[number].name not in skipped:
                yield cases[number], f"[{number + 1}/{len(cases)} {cases[number].name}]"

    def after_each() -> None:
        nonlocal shown
        sharing.tell_alive()
        if sharing.size == 1 and time.monotonic() - shown > SUMMARY_EVERY_S:
            write_summary(args.output / SUMMARY, cases)
            shown = time.monotonic()

    if skipped and sharing.rank == 0:
        notify(f"{len(skipped)} of {len(cases)} cases are done already.")
    all_ended = False
    try:
        runner.run_all(labeled(), after_each)
        sharing.hand_in(cases)
        all_ended = sharing.collect(cases) if sharing.rank == 0 else True
    finally:
        # An interrupted run records in its summary which cases are there.
        if sharing.rank == 0 and any(case.status for case in cases):
            for case in cases:
                # What a process that died has finished before.
                if not case.status and sharing.size > 1 and (report := report_of(case)) is not None:
                    adopt(case, report)
            write_summary(args.output / SUMMARY, cases)
    done, failed = (sum(case.status == status for case in cases) for status in ("done", "failed"))
    if sharing.rank > 0:
        return 0  # what failed is reported by the first; torchrun would end all when one returns 1
    notify(f"{done} of {len(cases)} cases done; see {SUMMARY}.")
    return int(failed > 0 or done < len(cases) or not all_ended)


def _bundles(args: argparse.Namespace) -> tuple[ModelBundle, ModelBundle]:
    from ..models.bundle import find_bundle

    return find_bundle(args.model, "lesions"), find_bundle(None, "lungs")


def _reports(
    args: argparse.Namespace, bundles: tuple[ModelBundle, ModelBundle]
) -> Callable[[Case], dict[str, Any] | None]:
    """What finds the report of a run of a case with these arguments and bundles."""
    from ..report.case import DICOM_SEG, OVERVIEW, PAGE, SCENE
    from .batch.finished import earlier_report

    lesions, lungs = bundles
    models = {task: (b.sha256, b.metadata_sha256) for task, b in (("lungs", lungs), ("lesions", lesions))}
    parameters = {
        "threshold": lesions.default_threshold if args.threshold is None else args.threshold,
        "min_volume_ml": args.min_volume_ml,
        "precision": args.precision,
        "lung_labels": labels_text(args.lung_labels),
    }
    asked = ((OVERVIEW, args.overview), (SCENE, args.scene), (PAGE, args.report), (DICOM_SEG, args.dicom_seg))
    names = [name for name, wanted in asked if wanted]
    return lambda case: earlier_report(case, models, parameters, names)


def _earlier_results(
    args: argparse.Namespace, cases: list[Case], report_of: Callable[[Case], dict[str, Any] | None]
) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """What earlier runs have left: reports that may spare a case once it is read, and names of cases that are done.

    Before any work, results are refused that this run would replace without leave.
    """
    from ..io.atomic import check_writable, existing_error
    from ..report.case import ALL_FILES, check_support
    from .batch.finished import adopt, is_same_input
    from .batch.runner import scene_writer
    from .batch.summary import is_summary

    check_support(scene=scene_writer(args), dicom_seg=args.dicom_seg)
    earlier: dict[str, dict[str, Any]] = {}
    skipped: set[str] = set()
    if not args.overwrite:
        if (args.output / SUMMARY).exists() and not is_summary(args.output / SUMMARY):
            raise existing_error(OPENING, args.output, [SUMMARY])
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


def _device_of(names: list[str], sharing: CaseSharing) -> str:
    """The device of this process: its own of several, or a GPU for each process of a machine."""
    if len(names) > 1:
        return names[sharing.local_rank % len(names)]
    if sharing.size > 1 and names[0] in ("auto", "cuda"):
        import torch

        if torch.cuda.is_available():
            return f"cuda:{sharing.local_rank % torch.cuda.device_count()}"
    if sharing.local_size > 1 and names[0] in ("auto", "cpu"):
        _share_cores(sharing.local_size)
    return names[0]


def _share_cores(processes: int) -> None:
    """Compute on this process's part of the machine's cores, unless the environment sets how many to use."""
    import os

    import torch

    from ..threads import usable_cores

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // processes))
