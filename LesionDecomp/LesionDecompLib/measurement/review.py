"""A reader's decisions: lesions accepted, rejected, added by place, so that they hold at any threshold; voxels painted
or erased; slices seen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError

STAGE = "Reading the review"
ACCEPT, REJECT, ADD, PAINT = "accept", "reject", "add", "paint"
EXPECTED = (
    "{input_sha256, lesions: [{lps_mm, decision: accept | reject | add | paint, threshold, time}], "
    "slices: [{index, seen}]}"
)
MOST_BYTES = 64 << 20
MOST_VOXELS = 2**40
Runs = tuple[tuple[int, int], ...]  # (first, count) each: voxels by flat index in the CT's array (k, j, i), rising


@dataclass(frozen=True)
class Decision:
    """What a reader decided about one lesion.

    :param lps_mm: a place in it, left-posterior-superior.
    :param decision: ``"accept"`` (as the model has it), ``"reject"``, ``"add"`` or ``"paint"``.
    :param threshold: on the heat; the lesion is the connected heat of at least this around the place. Of ``"paint"``:
        the one that the lesions were shown at.
    :param time: when, ISO 8601, UTC; may be empty.
    :param painted, erased: of ``"paint"``: voxels that are lesion, and that are none, at any threshold.
    """

    lps_mm: tuple[float, float, float]
    decision: str
    threshold: float
    time: str = ""
    painted: Runs = ()
    erased: Runs = ()

    def record(self) -> dict[str, Any]:
        """For JSON."""
        place = [round(mm, 4) for mm in self.lps_mm]
        record = {"lps_mm": place, "decision": self.decision, "threshold": self.threshold, "time": self.time}
        if self.decision == PAINT:
            record |= {"painted": [list(run) for run in self.painted], "erased": [list(run) for run in self.erased]}
        return record


@dataclass(frozen=True)
class SeenSlice:
    """Whether a reader has looked at a slice; slices not seen teach nothing.

    :param index: of the axial stack, from 0 at the lowest.
    :param time: when, as of :class:`Decision`; slices marked together share it.
    """

    index: int
    seen: bool
    time: str = ""

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {"index": self.index, "seen": self.seen, **({"time": self.time} if self.time else {})}


@dataclass(frozen=True)
class Review:
    """All decisions of a reader about one CT, the latest last.

    :param input_sha256: identity of the CT, as in ``report.json``.
    """

    input_sha256: str
    lesions: tuple[Decision, ...] = ()
    slices: tuple[SeenSlice, ...] = ()

    @property
    def seen(self) -> tuple[int, ...]:
        """Slices that were seen, rising; of two entries about a slice the later one holds."""
        return tuple(sorted(index for index, seen in {one.index: one.seen for one in self.slices}.items() if seen))

    def with_decision(self, decision: Decision) -> Review:
        """One decision more."""
        return replace(self, lesions=(*self.lesions, decision))

    def with_slices(self, indices: Iterable[int], seen: bool, time: str = "") -> Review:
        """Slices marked as seen or not seen, where they were not marked so before."""
        held = set(self.seen)
        marks = tuple(SeenSlice(index, seen, time) for index in indices if (index in held) != seen)
        return replace(self, slices=(*self.slices, *marks))

    def undone(self) -> Review:
        """Without the latest decision, be it about a lesion or about slices; as it is where there is none."""
        time = self.slices[-1].time if self.slices else ""
        if self.slices and not (self.lesions and self.lesions[-1].time > time):
            together = next((n for n, one in enumerate(reversed(self.slices)) if one.time != time), len(self.slices))
            return replace(self, slices=self.slices[: len(self.slices) - together])
        return replace(self, lesions=self.lesions[:-1])

    def record(self) -> dict[str, Any]:
        """For JSON: what :meth:`of_record` reads."""
        return {
            "input_sha256": self.input_sha256,
            "lesions": [decision.record() for decision in self.lesions],
            "slices": [one.record() for one in self.slices],
        }

    @classmethod
    def of_record(cls, record: Any) -> Review:
        """Read and check what JSON gave.

        :raises LesionDecompError: anything but a review, naming the entry.
        """
        if not isinstance(record, Mapping) or not isinstance(record.get("input_sha256"), str):
            raise InputError(STAGE, "JSON that is no review", EXPECTED)
        entries = {key: record.get(key, []) for key in ("lesions", "slices")}
        for key, entry in entries.items():
            if not isinstance(entry, list):
                raise InputError(STAGE, f"'{key}' that is no list", EXPECTED)
        lesions = tuple(_decision(number, item) for number, item in enumerate(entries["lesions"], start=1))
        slices = tuple(_slice(number, item) for number, item in enumerate(entries["slices"], start=1))
        return cls(record["input_sha256"], lesions, slices)

    def check_input(self, sha256: str) -> None:
        """Refuse the review of another CT.

        :raises LesionDecompError: naming both.
        """
        if self.input_sha256 != sha256:
            raise InputError(
                STAGE,
                f"a review of the CT {self.input_sha256[:12]}…",
                f"one of this CT, {sha256[:12]}…",
                "A review holds for the very CT it was made on.",
            )


def read_review(path: str | Path) -> Review:
    """Read a review from a JSON file: one by itself, or that of a report.

    :raises LesionDecompError: it cannot be read, or is none.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(STAGE, f"'{path.name}' of {path.stat().st_size >> 20} MiB", EXPECTED)
        record = json.loads(path.read_text("utf-8-sig"))
        if isinstance(record, Mapping) and "report" in record and isinstance(record.get("review"), Mapping):
            record = record["review"]
        return Review.of_record(record)
    except OSError as error:
        found = f"'{path.name}', which cannot be opened ({error.strerror or error})"
        raise InputError(STAGE, found, "a readable file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(STAGE, f"'{path.name}', which is not JSON", EXPECTED) from error


def _decision(number: int, item: Any) -> Decision:
    try:
        left, posterior, superior = (float(mm) for mm in item["lps_mm"])
        decision = Decision(
            (left, posterior, superior),
            item["decision"],
            float(item["threshold"]),
            item.get("time", ""),
            *(_runs(number, item.get(key, []) if item["decision"] == PAINT else []) for key in ("painted", "erased")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(STAGE, f"lesion {number} without place, decision or threshold", EXPECTED) from error
    if decision.decision not in (ACCEPT, REJECT, ADD, PAINT) or not isinstance(decision.time, str):
        found = f"the decision '{decision.decision}' about lesion {number}"
        raise InputError(STAGE, found, "accept, reject, add or paint")
    if not all(map(math.isfinite, decision.lps_mm)) or not 0 < decision.threshold <= 1:
        found = f"lesion {number} at a place or threshold that is out of range"
        raise InputError(STAGE, found, "millimeters, and a threshold above 0, at most 1")
    return decision


def _runs(number: int, item: Any) -> Runs:
    """Runs of voxels, checked.

    :raises LesionDecompError: anything but pairs of first and count that rise and do not overlap.
    """
    end = 0
    runs: list[tuple[int, int]] = []
    pairs: list[Any] = item if isinstance(item, list) else [None]
    for pair in pairs:
        good = isinstance(pair, list) and len(pair) == 2 and all(type(one) is int for one in pair)
        if not good or pair[0] < end or pair[1] < 1 or sum(pair) > MOST_VOXELS:
            raise InputError(STAGE, f"painted voxels of lesion {number} that are no runs", "[[first, count], …]")
        end = pair[0] + pair[1]
        runs.append((pair[0], pair[1]))
    return tuple(runs)


def _slice(number: int, item: Any) -> SeenSlice:
    if not isinstance(item, Mapping) or type(item.get("index")) is not int or type(item.get("seen")) is not bool:
        raise InputError(STAGE, f"slice entry {number} without index or seen", EXPECTED)
    time = item.get("time", "")
    if item["index"] < 0 or not isinstance(time, str):
        raise InputError(STAGE, f"slice entry {number} out of range", "an index from 0 at the lowest slice")
    return SeenSlice(item["index"], item["seen"], time)
