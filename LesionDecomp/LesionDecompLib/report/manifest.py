"""The report of a run: what went in, what it was done with, what came out; enough to repeat the run.

The report identifies the input by hashes and geometry. It holds no path, and nothing about the patient.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__
from ..ct.oddity import Oddity
from ..ct.volume import Volume
from ..io.readers import ReadInfo, volume_identity
from ..measurement.definitions import REGION_MEASUREMENTS, SCORES
from ..measurement.region_rows import ModelMeasurements, RegionMeasurements
from ..measurement.review import Review
from ..measurement.statistics import RegionStatistics
from .memory import peak_memory_mib

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..pipeline import SegmentResult

FORMAT_VERSION = 1
RESEARCH_USE = "For research use only. Not a medical device; not for diagnosis or treatment decisions."
PACKAGES = ("torch", "numpy", "SimpleITK", "scikit-image", "scipy", "pillow", "slicer-core")


def build_manifest(
    volume: Volume,
    result: SegmentResult,
    info: ReadInfo | None = None,
    *,
    parameters: Mapping[str, Any] | None = None,
    source: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Describe a run as a JSON object.

    Everything outside ``run`` is the same whenever the same input meets the same models, parameters and device.

    :param info: what the reader found; ``None`` for a volume that came from no file.
    :param parameters: those the result does not state, e.g. batch size and the device asked for.
    :param source: how the input lay on the disk: files, bytes, newest change.
    :return: strings, numbers, lists and objects only; undefined measurements are ``None``.
    """
    voxels, identity = (info.voxels_sha256, info.sha256) if info else volume_identity(volume)
    return {
        "report": "LesionDecomp",
        "report_version": FORMAT_VERSION,
        "notice": RESEARCH_USE,
        "software": {"name": "LesionDecomp", "version": __version__},
        "input": {
            "sha256": identity,
            "voxels_sha256": voxels,
            "format": info.format if info else "memory",
            "stored_type": info.stored_type if info else volume.array.dtype.name,
            "size_ijk": [int(n) for n in reversed(volume.shape)],
            "spacing_mm": [float(value) for value in volume.spacing],
            "ijk_to_ras": [[float(value) for value in row] for row in volume.ijk_to_ras],
            "dicom": dict(info.dicom) if info else {},
        },
        "lung_mask": {
            "source": "supplied" if result.lung_bundle is None else "model",
            "sha256": hashlib.sha256(np.ascontiguousarray(result.lungs)).hexdigest(),
        },
        "models": {"lungs": _bundle(result.lung_bundle), "lesions": _bundle(result.lesion_bundle)},
        "parameters": {
            "threshold": float(result.threshold),
            "min_volume_ml": float(result.min_volume_ml),
            "regions": result.regions_sha256 or None,
            **(parameters or {}),
        },
        "warnings": [str(warning) for warning in result.warnings],
        "warning_codes": [warning.record() for warning in result.warnings if isinstance(warning, Oddity)],
        **_measured(result.statistics, result.regions, result.review, result.model),
        "measurements": {m.key: m.record() for m in (*REGION_MEASUREMENTS, *SCORES)},
        "outputs": {},  # file name -> SHA-256, filled in by whoever writes files
        "run": {
            "finished_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "device": result.device,
            "precision": dict(result.precision),
            "engine": dict(result.engine),
            "source": dict(source or {}),
            "timings_s": {stage: round(float(seconds), 3) for stage, seconds in result.timings_s.items()},
            "peak_memory_mib": peak_memory_mib(),
            "environment": environment(("onnxruntime",) if "onnx" in result.engine.values() else ()),
        },
    }


def manifest_of_lesions(
    manifest: Mapping[str, Any],
    threshold: float,
    min_volume_ml: float,
    statistics: Sequence[RegionStatistics],
    regions: RegionMeasurements | None = None,
    regions_sha256: str = "",
    review: Review | None = None,
    model: ModelMeasurements | None = None,
) -> dict[str, Any]:
    """The manifest of a run whose threshold or smallest lesion was changed afterwards; the rest stays as it was.

    :param threshold: on the heat.
    :param min_volume_ml: mL.
    :param statistics: of the lesions that these give.
    :param regions: of the same lesions; None takes out what the run measured of others.
    :param regions_sha256: of the regions that were given.
    :param review: decisions that ``statistics`` and ``regions`` follow.
    :param model: what the model alone finds; with a review only.
    """
    changed = {"threshold": float(threshold), "min_volume_ml": float(min_volume_ml), "regions": regions_sha256 or None}
    parameters = {**manifest["parameters"], **changed}
    return {**manifest, "parameters": parameters, **_measured(statistics, regions, review, model)}


def with_warnings(manifest: Mapping[str, Any], added: Sequence[Oddity]) -> dict[str, Any]:
    """A run's manifest, and before its warnings others that it did not know of."""
    texts, codes = manifest.get("warnings", []), manifest.get("warning_codes", [])
    records = [warning.record() for warning in added]
    return {**manifest, "warnings": [*map(str, added), *texts], "warning_codes": [*records, *codes]}


def shown_measurements(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where a manifest has the ``statistics``, ``regions`` and ``severity`` of the lesions shown: those left after a
    review, else the model's own."""
    review = manifest.get("review")
    return review if isinstance(review, Mapping) else manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as the text of ``report.json``."""
    return json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def environment(more: Sequence[str] = ()) -> dict[str, str]:
    """Versions of Python, the system and the libraries that results can depend on.

    :param more: packages that this run used besides.
    """
    versions = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in (*PACKAGES, *more):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _rows(statistics: Sequence[RegionStatistics]) -> list[dict[str, Any]]:
    return [{"region": row.region, **{key: _number(value) for key, value in row.values.items()}} for row in statistics]


def _measured(
    statistics: Sequence[RegionStatistics],
    regions: RegionMeasurements | None,
    review: Review | None,
    model: ModelMeasurements | None,
) -> dict[str, Any]:
    """Measurements of the lesions; with a review the model's own, and those after it beside them."""
    shown = {"statistics": _rows(statistics), **_regions(regions)}
    if review is None or model is None:
        return {**shown, "review": None}
    own = {"statistics": _rows(model.statistics), **_regions(model.regions)}
    return {**own, "review": {**review.record(), **shown}}


def _regions(regions: RegionMeasurements | None) -> dict[str, Any]:
    if regions is None:
        return {"regions": [], "severity": None}
    return {"regions": [row.record() for row in regions.rows], "severity": regions.severity.record()}


def _bundle(bundle: ModelBundle | None) -> dict[str, str] | None:
    if bundle is None:
        return None
    return {
        "name": bundle.name,
        "version": bundle.version,
        "task": bundle.task,
        "sha256": bundle.sha256,
        "metadata_sha256": bundle.metadata_sha256,
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
