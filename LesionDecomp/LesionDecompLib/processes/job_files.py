"""The files between the two processes: the job (CT, lung mask, parameters) and the result (arrays, figures, report)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.volume import Volume
from ..errors import LesionDecompError
from ..measurement.statistics import RegionStatistics
from ..models.bundle import ModelBundle
from ..pipeline import SegmentResult

STAGE = "Reading the worker's files"
FORMAT = 1
JOB, RESULT = "job.json", "result.json"
HU, MASK, HEAT, LUNGS, LESIONS = "hu.npy", "mask.npy", "heat.npy", "lungs.npy", "lesions.npy"


@dataclass(frozen=True)
class JobParameters:
    """What a run depends on besides its arrays; see :class:`LesionDecompLib.pipeline.Segmenter` and its ``run``."""

    lesion_model: str | None = None
    lung_model: str | None = None
    device: str = "auto"
    batch_size: int = 8
    threshold: float | None = None
    min_volume_ml: float = 0.1


def write_job(folder: Path, volume: Volume, lung_mask: np.ndarray | None, parameters: JobParameters) -> None:
    """Write what the worker needs.

    :raises OSError: no room."""
    np.save(folder / HU, volume.array, allow_pickle=False)
    if lung_mask is not None:
        np.save(folder / MASK, lung_mask, allow_pickle=False)
    job = {
        "format": FORMAT,
        "ijk_to_ras": volume.ijk_to_ras.tolist(),
        "with_mask": lung_mask is not None,
        "parameters": asdict(parameters),
    }
    _write_json(folder / JOB, job)


def read_job(folder: Path) -> tuple[Volume, np.ndarray | None, JobParameters]:
    """Read what :func:`write_job` wrote.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    job = _read_json(folder / JOB)
    try:
        volume = Volume.from_array(_read_array(folder / HU), np.asarray(job["ijk_to_ras"], dtype=np.float64))
        mask = _read_array(folder / MASK) if job["with_mask"] else None
        return volume, mask, JobParameters(**job["parameters"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        raise _damaged(JOB) from error


def write_result(folder: Path, result: SegmentResult, report: str) -> None:
    """Write a result, of the heat only the box that holds the lungs, since it is 0 elsewhere; the JSON file comes last.

    :param report: text of the manifest.
    """
    box = result.box
    for name, array in ((HEAT, result.heat), (LUNGS, result.lungs), (LESIONS, result.lesions)):
        np.save(folder / name, np.ascontiguousarray(array[box]), allow_pickle=False)
    values = {
        "format": FORMAT,
        "shape": list(result.heat.shape),
        "box": [[part.start, part.stop] for part in box],
        "statistics": [{"region": row.region, "values": row.values} for row in result.statistics],
        "threshold": result.threshold,
        "min_volume_ml": result.min_volume_ml,
        "device": result.device,
        "warnings": result.warnings,
        "timings_s": result.timings_s,
        "precision": result.precision,
        "lesion_bundle": _bundle_to_json(result.lesion_bundle),
        "lung_bundle": _bundle_to_json(result.lung_bundle),
        "report": report,
    }
    _write_json(folder / RESULT, values)


def read_result(folder: Path) -> tuple[SegmentResult, str]:
    """Read what :func:`write_result` wrote: the result, and the text of its manifest.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    values = _read_json(folder / RESULT)
    try:
        shape, box = tuple(values["shape"]), tuple(slice(*bounds) for bounds in values["box"])
        arrays = {}
        for name, dtype in ((HEAT, np.float32), (LUNGS, np.uint8), (LESIONS, np.uint8)):
            arrays[name] = np.zeros(shape, dtype)
            arrays[name][box] = _read_array(folder / name)
        result = SegmentResult(
            heat=arrays[HEAT],
            lungs=arrays[LUNGS],
            lesions=arrays[LESIONS],
            box=(box[0], box[1], box[2]),
            statistics=[RegionStatistics(row["region"], row["values"]) for row in values["statistics"]],
            threshold=values["threshold"],
            min_volume_ml=values["min_volume_ml"],
            device=values["device"],
            warnings=values["warnings"],
            timings_s=values["timings_s"],
            lesion_bundle=_bundle_from_json(values["lesion_bundle"]),
            lung_bundle=_bundle_from_json(values["lung_bundle"]) if values["lung_bundle"] is not None else None,
            precision=values["precision"],
        )
        return result, values["report"]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError) as error:
        raise _damaged(RESULT) from error


def _bundle_to_json(bundle: ModelBundle | None) -> dict[str, Any] | None:
    return None if bundle is None else {"path": str(bundle.path), "metadata": bundle.metadata}


def _bundle_from_json(values: dict[str, Any]) -> ModelBundle:
    return ModelBundle(Path(values["path"]), values["metadata"])


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path.name) from error


def _write_json(path: Path, values: dict[str, Any]) -> None:
    # NaN stands for undefined figures; both sides are Python, which reads what it writes.
    path.write_text(json.dumps(values), "utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path.name) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise _damaged(path.name)
    return values


def _damaged(name: str) -> LesionDecompError:
    return LesionDecompError(STAGE, f"a missing or damaged {name}", "the files of a finished step", "Run again.")
