"""Cases through the pipeline: the next one is read and the last one written while the networks run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import Cancelled, OutputError
from ...progress import Cancel, check_cancel
from ..argument_types import labels_text
from ..progress import Progress
from .plan import Case
from .task import CaseRow
from .turns import Turns

if TYPE_CHECKING:
    from ...ct.volume import Volume
    from ...io.readers import ReadInfo
    from ...measurement.regions import GivenRegions
    from ...measurement.review import Review
    from ...models.bundle import ModelBundle
    from ...pipeline import Segmenter, SegmentResult
    from ...report.case import SceneWriter


@dataclass(frozen=True, eq=False)
class ReadCase:
    """What was read of a case, and how long that took.

    :param review_sha256: of the file that the review was read from.
    :param source: how the input lay on the disk.
    :param seconds: that reading took.
    """

    volume: Volume
    info: ReadInfo
    mask: np.ndarray | None
    regions: GivenRegions | None
    review: Review | None
    review_sha256: str | None
    source: dict[str, int]
    seconds: float


class CaseRunner:
    """Runs cases with networks that are loaded once, when the first readable case needs them.

    :param args: of ``lesiondecomp segment``.
    :param device: the one that this process computes on.
    :param earlier: finds the report of an earlier run, which spares a case that still is the same CT.
    :param quiet: show no progress.
    :param cancelled: asked once a batch of slices whether to stop.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        lesion_bundle: ModelBundle,
        lung_bundle: ModelBundle,
        device: str,
        earlier: Callable[[Case], dict[str, Any] | None] | None = None,
        quiet: bool = False,
        cancelled: Cancel | None = None,
    ) -> None:
        self._args, self._device = args, device
        self._bundles = lesion_bundle, lung_bundle
        self._earlier = earlier
        self._cancelled = cancelled
        self._segmenter: Segmenter | None = None
        self._progress = Progress(quiet)

    def run_one(self, case: Case) -> None:
        """Run a single case; when this returns it is written, or has failed."""
        self._progress.begin_case("")
        try:
            read = self._read(case)
            if read is None:
                return
            result = self._segment(read)
            result = self._write(case, read, result)
        except Cancelled:
            raise
        except Exception as error:
            self._failed(case, "", error)
        else:
            self._done(case, "", result)

    def is_done(self, case: Case) -> bool:
        """Whether an earlier run has done it, by the state of its files; it is then adopted."""
        from .finished import adopt, is_same_input  # not before: --help answers at once

        report = self._earlier(case) if self._earlier is not None else None
        if report is None or not is_same_input(case, report):
            return False
        adopt(case, report)
        return True

    def run_in_turn(self, case: Case, turns: Turns) -> CaseRow:
        """Run a case of several that run in this process, each in its turn; nothing is printed.

        :param turns: the place for reading is held.
        :return: what is to be printed and stands in the summary.
        """
        try:
            read = self._read(case)
            if read is None:
                return CaseRow.of(case)
            turns.to_networks()
            check_cancel(self._cancelled, "Segmentation")
            result = self._segment(read)
            turns.to_writing()
            result = self._write(case, read, result)
        except Cancelled:
            return CaseRow("")
        except Exception as error:
            from .. import error_sentence  # not before: --help answers at once

            return CaseRow("failed", error_sentence(error), case.input_sha256)
        warnings = tuple(str(warning) for warning in result.warnings)
        line, values = measurements_line(result), result.statistics[0].values
        return CaseRow("done", " ".join(warnings), case.input_sha256, values, line, warnings)

    def run_all(self, cases: Iterator[tuple[Case, str]], after_each: Callable[[], None]) -> None:
        """Run cases, at most three at a time: one being read, one in the networks, one being written.

        :param cases: with the label that stands before what is reported of them; asked for one ahead.
        :param after_each: called when another case is done or has failed.
        """
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: tuple[Case, str, Future[SegmentResult]] | None = None
            try:
                ahead = self._start_reading(cases, reader)
                while ahead is not None:
                    case, label, reading = ahead
                    ahead = None
                    self._progress.begin_case(label)
                    read: ReadCase | None = None
                    result: SegmentResult | None = None
                    try:
                        read = reading.result()
                        ahead = self._start_reading(cases, reader)
                        if read is not None:
                            result = self._segment(read)
                    except Cancelled:
                        raise
                    except Exception as error:
                        self._failed(case, label, error)
                        ahead = ahead or self._start_reading(cases, reader)
                    self._settle(writing)
                    writing = None
                    if read is not None and result is not None:
                        writing = case, label, writer.submit(self._write, case, read, result)
                    after_each()
            finally:
                reader.shutdown(wait=False, cancel_futures=True)
                self._settle(writing)
            after_each()

    def _start_reading(
        self, cases: Iterator[tuple[Case, str]], reader: ThreadPoolExecutor
    ) -> tuple[Case, str, Future[ReadCase | None]] | None:
        following = next(cases, None)
        return None if following is None else (*following, reader.submit(self._read, following[0]))

    def _settle(self, writing: tuple[Case, str, Future[SegmentResult]] | None) -> None:
        """Wait until a case is written, and report how it went."""
        if writing is None:
            return
        case, label, future = writing
        try:
            result = future.result()
        except Cancelled:
            raise
        except Exception as error:
            self._failed(case, label, error)
        else:
            self._done(case, label, result)

    def _read(self, case: Case) -> ReadCase | None:
        """Read a case; None when an earlier run has done it with this very CT."""
        from ...ct.checks import check_chest_ct  # not before: --help answers at once
        from ...io.atomic import existing_error
        from ...io.dicom.seg import check_dicom_input
        from ...io.masks import labels_file, read_labels, read_lungs
        from ...io.readers import read_volume
        from ...measurement.regions import GivenRegions
        from ...measurement.review import read_review
        from ...report.case import REPORT
        from ...report.manifest import file_sha256
        from .finished import adopt, source_state

        args, began = self._args, time.perf_counter()
        if args.dicom_seg:
            check_dicom_input(case.path, args.series)
        source = source_state(case.path) if case.path.exists() else {}
        volume, info = read_volume(case.path, series=args.series)
        case.input_sha256 = info.sha256
        if self._earlier is not None and (report := self._earlier(case)) is not None:
            if report["input"]["sha256"] == info.sha256:
                adopt(case, report)
                return None
            raise existing_error("Opening the output folder", case.folder, [REPORT])
        check_chest_ct(volume)  # before the networks are loaded, which takes longer
        mask = None
        if args.lung_mask is not None:
            given = read_lungs(args.lung_mask, volume, args.lung_labels)
            mask, info = given.array, replace(info, warnings=(*info.warnings, *given.warnings))
        regions = None
        if args.regions is not None:
            file = labels_file(args.regions, "Reading the regions")
            labels = read_labels(file, volume, "Reading the regions", what="the regions")
            sha256, warnings = file_sha256(file), tuple(labels.warnings)
            regions = GivenRegions(labels.array, labels.names, sha256, warnings=warnings)
        review, review_sha256 = None, None
        if args.review is not None:
            review, review_sha256 = read_review(args.review), file_sha256(args.review)
            review.check_input(info.sha256)
        return ReadCase(volume, info, mask, regions, review, review_sha256, source, time.perf_counter() - began)

    def _segment(self, read: ReadCase) -> SegmentResult:
        result = self._load().run(
            read.volume,
            lung_mask=read.mask,
            threshold=self._args.threshold,
            min_volume_ml=self._args.min_volume_ml,
            progress=self._progress.update,
            cancelled=self._cancelled,
            regions=read.regions,
            healthy=self._args.healthy,
            review=read.review,
        )
        own = [text for text in result.warnings if text not in read.info.warnings]
        timings = {"reading": read.seconds, **result.timings_s}
        return replace(result, warnings=[*read.info.warnings, *own], timings_s=timings)

    def _write(self, case: Case, read: ReadCase, result: SegmentResult) -> SegmentResult:
        """Write a case; return the result with what there is to report about writing it."""
        from ...io.dicom.choice import recorded  # not before: --help answers at once
        from ...report.case import write_case

        args = self._args
        warnings: list[str] = []
        write_case(
            case.folder,
            read.volume,
            result,
            read.info,
            overview=args.overview,
            scene=scene_writer(args),
            page=args.report,
            methods=args.methods,
            nifti=args.format == "nii.gz",
            dicom_source=case.path if args.dicom_seg else None,
            series=args.series,
            overwrite=args.overwrite,
            parameters={
                "device": self._device,
                "batch_size": args.batch_size,
                "precision": args.precision,
                "engine": args.engine,
                "lung_labels": labels_text(args.lung_labels),
                "series": recorded(args.series),
                "methods": args.methods,
                "healthy": args.healthy,
                "review": read.review_sha256,
                "format": args.format,
            },
            source=read.source,
            warnings=warnings,
        )
        return replace(result, warnings=[*result.warnings, *warnings])

    def _failed(self, case: Case, label: str, error: Exception) -> None:
        from .. import error_sentence, notify  # not before: --help answers at once

        self._progress.clear()
        case.status, case.message = "failed", error_sentence(error)
        notify(f"{label} {case.message}".lstrip())

    def _done(self, case: Case, label: str, result: SegmentResult) -> None:
        from .. import notify, print_line  # not before: --help answers at once

        self._progress.clear()
        case.status, case.message, case.measurements = "done", " ".join(result.warnings), result.statistics[0].values
        for warning in result.warnings:
            notify(f"{label} Warning: {warning}".lstrip())
        print_line(f"{label} {measurements_line(result)}".lstrip())

    def _load(self) -> Segmenter:
        if self._segmenter is None:
            from ...pipeline import Segmenter  # not before: --help answers at once

            lesion_bundle, lung_bundle = self._bundles
            args = self._args
            self._segmenter = Segmenter(
                lesion_bundle,
                lung_bundle,
                self._device,
                batch_size=args.batch_size,
                precision=args.precision,
                engine=args.engine,
            )
        return self._segmenter


def measurements_line(result: SegmentResult) -> str:
    """The key measurements of both lungs in one line."""
    from ...measurement.definitions import measurement  # not before: --help answers at once

    values = result.statistics[0].values
    keys = ("lung_volume_ml", "lesion_volume_ml", "involvement_percent", "lesion_count", "largest_lesion_ml")
    parts = []
    for key in keys:
        measured = measurement(key)
        parts.append(f"{measured.title} {measured.text(values[key])} {measured.unit}".rstrip())
    return ", ".join(parts)


def scene_writer(args: argparse.Namespace) -> SceneWriter | None:
    """What writes the scenes that were asked for; None where none were.

    :raises LesionDecompError: this program came without one.
    """
    if not args.scene:
        return None
    if args.scene_writer is None:
        raise OutputError("Writing the scene", "a program without a scene writer", "the command lesiondecomp")
    return args.scene_writer()
