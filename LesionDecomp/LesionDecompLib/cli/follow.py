"""``lesiondecomp follow``: what changed between scans of one patient."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import segment
from .argument_types import count, device, threshold, volume_ml

if TYPE_CHECKING:
    from ..measurement.change.comparison import Comparison
    from ..measurement.change.scan import Scan
    from ..measurement.regions import GivenRegions


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "follow",
        help="measure what changed between scans of one patient",
        description="Compare scans of one patient, each with the one before. Lungs are registered, and every lesion "
        "voxel is labeled in change.nrrd on the later CT's grid: 1 new, 2 grown, 3 persistent, 4 resolved, 5 shrunk. "
        "change.csv and change.json have the volumes by region, trend.svg lesion volume over the scans, report.html "
        "all of it with pictures. CTs are segmented first, into scan-1, scan-2 and so on.",
    )
    parser.add_argument("earlier", type=Path, metavar="EARLIER", help="a CT, or a folder that 'segment' has written")
    parser.add_argument("later", nargs="+", type=Path, metavar="LATER", help="the same of later scans, in their order")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument(
        "--ct",
        nargs="+",
        type=Path,
        metavar="CT",
        help="the CTs of finished result folders, in their order; without them the lungs' masks alone are registered",
    )
    parser.add_argument(
        "--dates",
        nargs="+",
        type=_date,
        metavar="YYYY-MM-DD",
        help="when the scans were made (default: from DICOM, where the CTs are)",
    )
    parser.add_argument(
        "--keep-dates", action="store_true", help="write the dates to files, instead of days since the first scan"
    )
    parser.add_argument(
        "--regions", type=Path, metavar="FILE", help="also measure the structures of this labelmap of the last CT"
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="lesion model bundle for CTs (default: the shipped one)")
    parser.add_argument("--threshold", type=threshold, metavar="T", help="for CTs: heat at or above which is lesion")
    parser.add_argument(
        "--min-volume-ml", type=volume_ml, metavar="V", help="for CTs: leave out lesions smaller than this, mL"
    )
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--threads", type=count, metavar="N", help="processor threads (default: all cores)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results of an earlier run")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Segment what is not segmented yet, compare, write; 1 when a CT failed."""
    from ..report.finished_scan import is_result_folder, read_finished  # not before: --help answers at once
    from ..report.follow import FollowUp
    from ..report.follow_files import check_follow_folder, write_follow
    from . import notify, print_line

    inputs = [args.earlier, *args.later]
    _check_counts(args, len(inputs))
    finished = [is_result_folder(path) for path in inputs]
    if args.ct is not None and not all(finished):
        args.usage_error("--ct is for result folders; CTs as EARLIER and LATER bring their own")
    _check_inputs_stay(args, inputs, finished)
    check_follow_folder(args.output, args.overwrite)
    cts = (
        list(args.ct)
        if args.ct is not None
        else [None if done else path for path, done in zip(inputs, finished, strict=True)]
    )
    series = [_recorded_series(path) if done else None for path, done in zip(inputs, finished, strict=True)]
    dates = _dates(args, cts, series)
    folders = []
    for number, (path, done) in enumerate(zip(inputs, finished, strict=True), start=1):
        folder = path if done else _scan_folder(args.output, number)
        if not done and (status := segment.run_with(_segment_options(args, path, folder), args.scene_writer)):
            return status
        folders.append(folder)
    scans, reports = zip(*(read_finished(folder, ct) for folder, ct in zip(folders, cts, strict=True)), strict=True)
    regions = _regions(args, scans[-1], cts[-1])
    comparisons = _compared(scans, regions, args.quiet)
    follow = FollowUp(
        scans,
        reports,
        comparisons,
        dates,
        args.keep_dates,
        _parameters(args, regions),
        _settings_warnings(reports),
    )
    write_follow(args.output, follow, args.overwrite)
    for text in follow.warnings:
        notify(f"Warning: {text}")
    for number, done in enumerate(finished, start=1):
        for text in reports[number - 1]["warnings"] if done else ():  # those of CTs were told as they were segmented
            notify(f"Scan {number}: Warning: {text}")
    for number, comparison in enumerate(comparisons, start=1):
        for text in comparison.warnings:
            notify(f"Scan {number} to {number + 1}: Warning: {text}")
        print_line(f"Scan {number} to {number + 1}: {changes_line(comparison)}")
    return 0


def changes_line(comparison: Comparison) -> str:
    """The volume of each label in both lungs, in one line."""
    from ..measurement.change.definitions import NAMES  # not before: --help answers at once
    from ..measurement.change.labels import Change

    return ", ".join(f"{NAMES[change]} {comparison.ml(change):.2f} mL" for change in Change)


def _check_counts(args: argparse.Namespace, scans: int) -> None:
    for option, values in (("--ct", args.ct), ("--dates", args.dates)):
        if values is not None and len(values) != scans:
            args.usage_error(f"{option}: {len(values)} given for {scans} scans")
    if args.dates is not None and args.dates != sorted(args.dates):
        args.usage_error("--dates: EARLIER comes first; the dates do not rise")


def _scan_folder(output: Path, number: int) -> Path:
    """Where a CT is segmented into, by the scan's number."""
    return output / f"scan-{number}"


def _check_inputs_stay(args: argparse.Namespace, inputs: Sequence[Path], finished: Sequence[bool]) -> None:
    """Refuse to segment a CT into the place of another input, and to write the follow-up among a result's own files.

    :param finished: which of the inputs are result folders.
    :raises LesionDecompError: naming the input.
    """
    from ..errors import InputError  # not before: --help answers at once
    from .batch.plan import Case, check_inputs_stay

    cases = [
        Case(f"scan-{number}", path, _scan_folder(args.output, number))
        for number, (path, done) in enumerate(zip(inputs, finished, strict=True), start=1)
        if not done
    ]
    check_inputs_stay(cases, args.output, [args.regions] if args.regions is not None else [])
    written = {case.folder.resolve() for case in cases}
    for path, done in zip(inputs, finished, strict=True):
        if done and path.resolve() in {*written, args.output.resolve()}:
            what = "result of another scan" if path.resolve() in written else "follow-up"
            raise InputError(
                "Opening the output folder",
                f"the input '{path.name}' where the {what} goes",
                "inputs that stay as they are",
                "Choose another output folder.",
            )


def _recorded_series(folder: Path) -> str | None:
    """Which of a CT's DICOM series a finished result is of; None where none was named."""
    from ..report.comparison import read_report  # not before: --help answers at once

    return read_report(folder)["parameters"].get("series")


def _dates(
    args: argparse.Namespace, cts: Sequence[Path | None], series: Sequence[str | None]
) -> list[datetime.date] | None:
    """When the scans were made; None where one of them is not known.

    :param series: of each CT the one that was segmented, as ``segment --series`` takes it.
    """
    from ..errors import InputError  # not before: --help answers at once

    if args.dates is not None:
        return list(args.dates)
    found = [_dicom_date(ct, one) for ct, one in zip(cts, series, strict=True)]
    dates = [day for day in found if day is not None]
    if len(dates) < len(found):
        return None
    if dates != sorted(dates):
        raise InputError(
            "Reading the dates",
            "scans whose DICOM headers state falling dates",
            "the earlier scan first",
            "Exchange the scans, or give their dates.",
            remedy="dates",
            code="follow_order",
        )
    return dates


def _dicom_date(ct: Path | None, series: str | None) -> datetime.date | None:
    from ..io.archive import is_archive  # not before: --help answers at once
    from ..io.dicom.dates import acquisition_date
    from ..io.dicom.files import is_dicom_file

    if ct is None or not (ct.is_dir() or is_archive(ct) or (ct.is_file() and is_dicom_file(ct))):
        return None
    return acquisition_date(ct, series)


def _segment_options(args: argparse.Namespace, path: Path, folder: Path) -> list[str]:
    options = [str(path), "-o", str(folder), "--device", args.device]
    for name in ("model", "threshold", "min_volume_ml", "threads"):
        value = getattr(args, name)
        options += [f"--{name.replace('_', '-')}", str(value)] if value is not None else []
    return [*options, *(f"--{name}" for name in ("overwrite", "quiet") if getattr(args, name))]


def _regions(args: argparse.Namespace, last: Scan, ct: Path | None) -> GivenRegions | None:
    from ..ct.volume import Volume  # not before: --help answers at once
    from ..io.masks import labels_file, read_labels
    from ..measurement.regions import GivenRegions
    from ..report.manifest import file_sha256

    if args.regions is None:
        return None
    grid = Volume(last.hu if last.hu is not None else last.lungs, last.ijk_to_ras)
    file = labels_file(args.regions, "Reading the regions")
    labels = read_labels(file, grid, "Reading the regions", what="the regions")
    return GivenRegions(labels.array, labels.names, file_sha256(file), warnings=tuple(labels.warnings))


def _compared(scans: Sequence[Scan], regions: GivenRegions | None, quiet: bool) -> list[Comparison]:
    """Each scan but the first compared with the one before."""
    from ..measurement.change.comparison import compare_scans  # not before: --help answers at once
    from .progress import Progress

    progress, found = Progress(quiet), []
    for number, (earlier, later) in enumerate(pairwise(scans), start=1):
        progress.begin_case(f"[{number}/{len(scans) - 1}]" if len(scans) > 2 else "")
        own = regions if later is scans[-1] else None
        found.append(compare_scans(earlier, later, own, progress.update))
    progress.clear()
    return found


def _parameters(args: argparse.Namespace, regions: GivenRegions | None) -> dict[str, Any]:
    from ..measurement.change.labels import MEETING_MM  # not before: --help answers at once
    from ..measurement.change.registration import SPACING_MM

    return {
        "regions": regions.sha256 if regions is not None else None,
        "meeting_mm": MEETING_MM,
        "registration_grid_mm": SPACING_MM,
        "keep_dates": args.keep_dates,
    }


def _settings_warnings(reports: Sequence[dict[str, Any]]) -> list[str]:
    """What the scans were segmented with that differs between them."""
    from ..ct.oddity import Oddity  # not before: --help answers at once

    models = {(report["models"].get("lesions") or {}).get("sha256") for report in reports}
    limits = {(report["parameters"].get("threshold"), report["parameters"].get("min_volume_ml")) for report in reports}
    found: list[str] = []
    if len(models) > 1:
        text = "The scans were segmented with different lesion models: a part of the change may be due to that."
        found.append(Oddity(text, "follow_models", len(models), 1))
    if len(limits) > 1:
        text = "The scans were segmented with different thresholds or smallest lesions."
        found.append(Oddity(text, "follow_thresholds", len(limits), 1))
    return found


def _date(text: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date like 2026-03-31") from None
