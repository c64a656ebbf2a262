"""The comparison of two results as a job: what goes into its folder, and what comes out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..measurement.change.coarse import CoarseGrid
from ..measurement.change.comparison import Comparison
from ..measurement.change.motion import Motion
from ..measurement.change.scan import Scan
from ..measurement.change.table import ChangeRow
from ..measurement.statistics import RegionStatistics
from .child import FORMAT, ChildJob, damaged, read_array, read_record
from .events import Step
from .segmentation import MALFORMED

SILENCE_S = 1800.0  # between two steps: a hang, since a step is one of an optimizer
RESULT = "change.json"
LABELS, DISPLACEMENT = "labels", "displacement"
EARLIER, LATER = "earlier", "later"
ARRAYS = ("lungs", "lesions", "hu")


@dataclass(frozen=True, eq=False)
class FoundChange:
    """What a child has found.

    :param labels: ``(k, j, i)`` uint8 on the later grid.
    :param rows: the table of change.
    :param motion: from the later to the earlier scan.
    :param record: of the comparison, see :meth:`LesionDecompLib.measurement.change.comparison.Comparison.record`.
    """

    labels: np.ndarray
    rows: list[ChangeRow]
    motion: Motion
    record: dict[str, Any]

    @property
    def warnings(self) -> list[str]:
        """A sentence each."""
        return [str(text) for text in self.record["warnings"]]


class ChangeJob(ChildJob):
    """The comparison of two scans.

    For the other parameters see :class:`.child.ChildJob`. The result's files last until :meth:`close`.
    """

    kind, title, keeps_files = "change", "Comparing scans", True

    def __init__(
        self,
        earlier: Scan,
        later: Scan,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | Path | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        scans = {EARLIER: earlier, LATER: later}
        arrays = {
            f"{which}_{name}": getattr(scan, name)
            for which, scan in scans.items()
            for name in ARRAYS
            if getattr(scan, name) is not None
        }
        record = {which: _scan_record(scan) for which, scan in scans.items()}
        super().__init__(record, arrays, python=python, temporary_folder=temporary_folder, silence_s=silence_s)
        self.step = Step("start", 0, 1)

    def result(self) -> FoundChange:
        """The result, once :meth:`poll` has reported that the job has ended.

        :raises LesionDecompError: what the child refused, or how it died and what it printed last.
        """
        if self.error is not None:
            raise self.error
        return read_change(self.job_folder)


def read_scans(folder: Path, record: dict[str, Any]) -> tuple[Scan, Scan]:
    """In the child: read what :class:`ChangeJob` wrote.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    try:
        earlier, later = (_read_scan(folder, which, record[which]) for which in (EARLIER, LATER))
    except MALFORMED as error:
        raise damaged("job.json") from error
    return earlier, later


def write_change(folder: Path, found: Comparison) -> None:
    """In the child: write a comparison; the JSON file comes last."""
    np.save(folder / f"{LABELS}.npy", found.labels, allow_pickle=False)
    np.save(folder / f"{DISPLACEMENT}.npy", found.motion.displacement, allow_pickle=False)
    grid = found.motion.grid
    values = {
        "format": FORMAT,
        "rows": [asdict(row) for row in found.rows],
        "grid": {"origin": grid.origin.tolist(), "spacing": grid.spacing, "shape": list(grid.shape)},
        "scale": found.motion.scale,
        "record": found.record(),
    }
    # NaN stands for undefined measurements; both sides are Python, which reads what it writes.
    (folder / RESULT).write_text(json.dumps(values), "utf-8")


def read_change(folder: Path) -> FoundChange:
    """Read what :func:`write_change` wrote.

    :raises LesionDecompError: files that are missing, of another version or damaged.
    """
    values = read_record(folder, RESULT)
    try:
        grid = values["grid"]
        z, y, x = grid["shape"]
        coarse = CoarseGrid(np.array(grid["origin"], dtype=np.float64), float(grid["spacing"]), (z, y, x))
        return FoundChange(
            labels=read_array(folder, LABELS),
            rows=[ChangeRow(**row) for row in values["rows"]],
            motion=Motion(coarse, read_array(folder, DISPLACEMENT), float(values["scale"])),
            record=values["record"],
        )
    except (OSError, *MALFORMED) as error:
        raise damaged(RESULT) from error


def _scan_record(scan: Scan) -> dict[str, Any]:
    return {
        "ijk_to_ras": scan.ijk_to_ras.tolist(),
        "statistics": [asdict(row) for row in scan.statistics],
        "identity": scan.identity,
        "with_hu": scan.hu is not None,
    }


def _read_scan(folder: Path, which: str, record: dict[str, Any]) -> Scan:
    return Scan(
        lungs=read_array(folder, f"{which}_lungs"),
        lesions=read_array(folder, f"{which}_lesions"),
        ijk_to_ras=np.asarray(record["ijk_to_ras"], dtype=np.float64),
        statistics=[RegionStatistics(**row) for row in record["statistics"]],
        hu=read_array(folder, f"{which}_hu") if record["with_hu"] else None,
        identity=record["identity"],
    )
