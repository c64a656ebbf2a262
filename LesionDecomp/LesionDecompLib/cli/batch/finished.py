"""Cases that an earlier run has finished, recognized by their reports: a batch that was ended goes on where it was."""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ... import __version__
from ...io.dicom.choice import recorded
from ...io.dicom.files import is_dicom_file
from ...io.folders import files_below
from ...io.readers import READERS, image_files
from ...measurement.definitions import MEASUREMENTS
from ...models.bundle import ModelBundle, find_bundle
from ...report.case import DICOM_SEG, HEALTHY, METHODS, NIFTI, OVERVIEW, PAGE, REPORT, SCENE, was_seg_asked_for
from ...report.manifest import shown_measurements
from ..argument_types import labels_text
from .plan import Case

# Keys of a report's parameters that make another result; the others describe where and how fast it was computed.
DECISIVE = ("threshold", "min_volume_ml", "precision", "engine", "lung_labels", "series", "regions", "review")


def source_state(path: Path) -> dict[str, int]:
    """How an input lies on the disk, read without its voxels: files, bytes, and the newest change in nanoseconds."""
    if path.is_dir():
        files = list(files_below(path))
    elif not path.is_file():  # not opened: a pipe would wait for somebody to write
        files = [path]
    elif path.name.lower().endswith(tuple(READERS)) or not is_dicom_file(path):
        files = image_files(path)
    else:  # stands for its series
        files = [file for file in path.parent.iterdir() if file.is_file()]
    states = [file.stat() for file in files]
    return {
        "files": len(states),
        "bytes": sum(state.st_size for state in states),
        "newest_change_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def used_bundles(args: argparse.Namespace) -> tuple[ModelBundle, ModelBundle]:
    """The bundles (lesions, lungs) that these arguments ask for.

    :raises LesionDecompError: one is not there, or does not verify.
    """
    return find_bundle(args.model, "lesions"), find_bundle(None, "lungs")


def identities(bundles: tuple[ModelBundle, ModelBundle]) -> dict[str, tuple[str, str]]:
    """SHA-256 of weights and of metadata, by task."""
    return {bundle.task: (bundle.sha256, bundle.metadata_sha256) for bundle in bundles}


def report_finder(
    args: argparse.Namespace, bundles: tuple[ModelBundle, ModelBundle]
) -> Callable[[Case], dict[str, Any] | None]:
    """What finds the report of a run of a case with these arguments and bundles (lesions, lungs)."""
    parameters = {
        "threshold": bundles[0].default_threshold if args.threshold is None else args.threshold,
        "min_volume_ml": args.min_volume_ml,
        "precision": args.precision,
        "engine": args.engine,
        "lung_labels": labels_text(args.lung_labels),
        "series": recorded(args.series),
        "regions": None,  # these two are for a single input
        "review": None,
    }
    models, names = identities(bundles), asked_files(args)
    return lambda case: earlier_report(case, models, parameters, names)


def asked_files(args: argparse.Namespace) -> list[str]:
    """Names of the files that are written on demand and asked for by these arguments."""
    asked = {
        OVERVIEW: args.overview,
        SCENE: args.scene,
        PAGE: args.report,
        METHODS: args.methods,
        HEALTHY: args.healthy,
        DICOM_SEG: args.dicom_seg,
    }
    names = [name for name, wanted in asked.items() if wanted]
    return names + (list(NIFTI.values()) if args.format == "nii.gz" else [])


def earlier_report(
    case: Case, models: Mapping[str, tuple[str, str]], parameters: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any] | None:
    """The report of an earlier run of this case with the same models and parameters, all of whose files are there.

    A DICOM segmentation that could not be written is none of them: another run could not write it either.

    :param models: SHA-256 of weights and of metadata, by task.
    :param parameters: what ``report.json`` calls so.
    :param names: files asked for.
    :return: None where there is none. Whether the input is still the same is another question: :func:`is_same_input`.
    """
    try:
        report = json.loads((case.folder / REPORT).read_text("utf-8"))
        outputs = report["outputs"]
        needed = set(names) - ({DICOM_SEG} if was_seg_asked_for(report) else set())
        same = (
            report["software"]["version"] == __version__
            and {task: _identity(model) for task, model in report["models"].items()} == dict(models)
            and all(report["parameters"].get(key) == parameters[key] for key in DECISIVE)
            and needed <= set(outputs)
            and all((case.folder / name).is_file() for name in outputs)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return report if same else None


def finished_cases(folder: Path) -> Iterator[tuple[Case, dict[str, Any]]]:
    """The cases in the subfolders of a batch that a run has finished, with their reports, in the order of their names.

    A report comes last into its folder, and what it lists was there then.
    """
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    for name in names:
        case = Case(name, folder / name, folder / name)
        try:
            report = json.loads((case.folder / REPORT).read_text("utf-8"))
            adopt(case, report)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not a case, or one that is just being replaced
        yield case, report


def is_same_input(case: Case, report: Mapping[str, Any]) -> bool:
    """Whether the input lies on the disk as it did then; if not, it may still hold the same CT."""
    try:
        return report["run"]["source"] == source_state(case.path)
    except (OSError, KeyError, TypeError):
        return False


def adopt(case: Case, report: Mapping[str, Any]) -> None:
    """Take over what an earlier run's report states: the case is done."""
    row = shown_measurements(report)["statistics"][0]
    measurements = {m.key: row.get(m.key) for m in MEASUREMENTS}
    case.measurements = {key: math.nan if value is None else float(value) for key, value in measurements.items()}
    case.input_sha256 = report["input"]["sha256"]
    case.status, case.message = "done", " ".join(report["warnings"])


def _identity(model: Mapping[str, Any]) -> tuple[str, str]:
    return model["sha256"], model["metadata_sha256"]
