"""The segmentation of a CT as a job: what goes into its folder, and what comes out."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ct.hu_distribution import HuHistogram
from ..ct.volume import Volume
from ..errors import LesionDecompError
from ..measurement.statistics import RegionStatistics, Tally
from ..pipeline import SegmentResult
from .child import FORMAT, ChildJob, damaged, read_array, read_record
from .events import Step
from .tree import exit_in_words

SILENCE_S = 1800.0  # between two steps: a hang, since a step is a batch of slices
RESULT, REPORT, TALLY = "result.json", "report.json", "lung_tally.npz"
HU, MASK = "hu", "mask"
ARRAYS = {"heat": np.float32, "lungs": np.uint8, "lesions": np.uint8, "healthy": np.int16}
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


@dataclass(frozen=True)
class JobParameters:
    """What a run depends on besides its arrays; see :class:`LesionDecompLib.pipeline.Segmenter` and its ``run``."""

    lesion_model: str | None = None
    lung_model: str | None = None
    device: str = "auto"
    batch_size: int = 8
    engine: str = "auto"
    threshold: float | None = None
    min_volume_ml: float = 0.1
    healthy: bool = False


@dataclass(frozen=True, eq=False)
class WorkerResult:
    """What a child has made of a CT; its arrays stay in the job's folder until they are asked for.

    :param shape: of the CT, (k, j, i).
    :param box: of the lungs; heat, lungs and lesions are 0 outside.
    :param statistics, threshold, min_volume_ml: as in :class:`LesionDecompLib.pipeline.SegmentResult`.
    :param report: text of the manifest.
    :param has_healthy: whether the healthy version was made.
    """

    folder: Path
    shape: tuple[int, int, int]
    box: tuple[slice, slice, slice]
    statistics: list[RegionStatistics]
    threshold: float
    min_volume_ml: float
    report: str
    has_healthy: bool = False

    def boxed(self, name: str) -> np.ndarray:
        """``"heat"``, ``"lungs"``, ``"lesions"`` or ``"healthy"`` inside :attr:`box`, read-only.

        :raises LesionDecompError: a file that is missing or damaged.
        """
        array = read_array(self.folder, name, mapped=True)
        if array.dtype != ARRAYS[name] or array.shape != tuple(part.stop - part.start for part in self.box):
            raise damaged(f"{name}.npy")
        return array

    @property
    def lung_tally(self) -> Tally | None:
        """What no threshold changes; None where the child has not left it.

        :raises LesionDecompError: a file that is damaged.
        """
        path = self.folder / TALLY
        try:
            with np.load(path, allow_pickle=False) as stored:
                cells = len(stored["voxels"])
                first, second, third = (slice(int(low), int(high)) for low, high in stored["box"])
                hu = HuHistogram(int(stored["low"]), stored["counts"])
                none = np.zeros((0, cells), np.int64)
                return Tally((first, second, third), stored["voxels"], stored["heat"], hu, none)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zipfile.BadZipFile, *MALFORMED) as error:
            raise damaged(TALLY) from error


class SegmentationJob(ChildJob):
    """The segmentation of one CT.

    :param volume: the CT.
    :param lung_mask: ``(k, j, i)`` on its grid, or None.
    :param parameters: of the run.

    For the other parameters see :class:`.child.ChildJob`. The result's files last until :meth:`close`.
    """

    kind, title, keeps_files = "segmentation", "Segmentation", True
    # A system out of memory kills without a word, and a launcher in between hides the signal.
    advice = "If memory ran short: use a smaller batch size, crop the volume, or close other programs."

    def __init__(
        self,
        volume: Volume,
        lung_mask: np.ndarray | None,
        parameters: JobParameters,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._size = "×".join(str(n) for n in reversed(volume.shape))
        arrays = {HU: volume.array} | ({MASK: lung_mask} if lung_mask is not None else {})
        record = {
            "ijk_to_ras": volume.ijk_to_ras.tolist(),
            "with_mask": lung_mask is not None,
            "parameters": asdict(parameters),
        }
        super().__init__(record, arrays, python=python, temporary_folder=temporary_folder, silence_s=silence_s)
        self.step = Step("start", 0, 1)

    def result(self) -> WorkerResult:
        """The result, once :meth:`poll` has reported that the job has ended.

        :raises LesionDecompError: what the child refused, or how it died and what it printed last.
        """
        if self.error is not None:
            raise self.error
        return read_result(self.job_folder)

    def _died(self, status: int) -> LesionDecompError:
        error = super()._died(status)
        found = f"a process that ended early on {self._size} voxels ({exit_in_words(status)})"
        return LesionDecompError(error.stage, found, error.expected, error.advice)


def read_job(folder: Path, record: dict[str, Any]) -> tuple[Volume, np.ndarray | None, JobParameters]:
    """In the child: read what :class:`SegmentationJob` wrote.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    try:
        volume = Volume.from_array(read_array(folder, HU), np.asarray(record["ijk_to_ras"], dtype=np.float64))
        mask = read_array(folder, MASK) if record["with_mask"] else None
        return volume, mask, JobParameters(**record["parameters"])
    except MALFORMED as error:
        raise damaged("job.json") from error


def write_result(folder: Path, result: SegmentResult, report: str) -> None:
    """In the child: write a result, of its arrays only the box that holds the lungs; the JSON file comes last.

    :param report: text of the manifest.
    """
    for name in ARRAYS if result.has_healthy else [name for name in ARRAYS if name != "healthy"]:
        np.save(folder / f"{name}.npy", result.boxed(name), allow_pickle=False)
    if result.lung_tally is not None:
        _write_tally(folder / TALLY, result.lung_tally)
    (folder / REPORT).write_text(report, "utf-8")
    values = {
        "format": FORMAT,
        "shape": list(result.heat.shape),
        "box": [[part.start, part.stop] for part in result.box],
        "statistics": [asdict(row) for row in result.statistics],
        "threshold": result.threshold,
        "min_volume_ml": result.min_volume_ml,
        "has_healthy": result.has_healthy,
    }
    # NaN stands for undefined measurements; both sides are Python, which reads what it writes.
    (folder / RESULT).write_text(json.dumps(values), "utf-8")


def _write_tally(path: Path, tally: Tally) -> None:
    """Write a tally of HU that are whole numbers; others are as many as the voxels, and counted again as fast."""
    if isinstance(tally.hu, HuHistogram):
        box = [(part.start, part.stop) for part in tally.box]
        np.savez(path, box=box, voxels=tally.voxels, heat=tally.heat, low=tally.hu.low, counts=tally.hu.counts)


def read_result(folder: Path) -> WorkerResult:
    """Read what :func:`write_result` wrote.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    values = read_record(folder, RESULT)
    try:
        (k, j, i), (first, second, third) = values["shape"], (slice(*bounds) for bounds in values["box"])
        return WorkerResult(
            folder=folder,
            shape=(k, j, i),
            box=(first, second, third),
            statistics=[RegionStatistics(**row) for row in values["statistics"]],
            threshold=values["threshold"],
            min_volume_ml=values["min_volume_ml"],
            report=(folder / REPORT).read_text("utf-8"),
            has_healthy=values["has_healthy"],
        )
    except (OSError, *MALFORMED) as error:
        raise damaged(RESULT) from error
