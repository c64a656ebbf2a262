"""Severity scores as radiology reports give them, made from measured involvement: by lobes of 25, by zones of 24.

Research only: the sources score by eye, and their zones are bounded by carina and veins instead of by thirds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..ct.lobes import LOBES
from .definitions import LOBE_SCORE, LOBE_TOTAL, RESEARCH_ONLY, ZONE_SCORE, ZONE_TOTAL, Measurement
from .regions import thirds_of_lungs

ZONES = tuple(region.name for region in thirds_of_lungs().regions)
NO_LOBES = "undefined: no lobes were given"


@dataclass(frozen=True)
class ScoredPart:
    """One lobe or zone.

    :param name: of the lobe or zone.
    :param score: None where undefined: no lung there.
    :param involvement_percent: that it was made from; NaN where undefined.
    :param lesions: that have voxels there.
    :param crossing: those of them that also lie beyond its border.
    """

    name: str
    score: int | None
    involvement_percent: float
    lesions: int
    crossing: int

    def text(self) -> str:
        """For people: what made the score."""
        if self.score is None:
            return f"{self.name}: undefined, no lung there"
        crossing = f", {self.crossing} of them crossing its border" if self.crossing else ""
        share, count = f"{self.involvement_percent:.1f} %", self.lesions
        return f"{self.name}: {self.score} ({share}, {count} lesion{'s' if count != 1 else ''}{crossing})"


@dataclass(frozen=True)
class Score:
    """A score, with what made it.

    :param total: None where undefined.
    :param maximum: that there can be.
    :param undefined: why there is no total; empty where there is one.
    :param parts: lobes or zones.
    :param measured: what the total means.
    :param part_measured: what each part's score means.
    """

    total: int | None
    maximum: int
    undefined: str
    parts: tuple[ScoredPart, ...]
    measured: Measurement
    part_measured: Measurement

    def text(self) -> str:
        """For people: ``"7 of 24"``, or why there is none."""
        return f"{self.total} of {self.maximum}" if self.total is not None else self.undefined

    def record(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {
            "total": self.total,
            "maximum": self.maximum,
            "undefined": self.undefined or None,
            "use": RESEARCH_ONLY,
            "definition": self.part_measured.definition,
            "source": self.measured.source,
            "parts": [
                {
                    "name": part.name,
                    "score": part.score,
                    "involvement_percent": None if math.isnan(part.involvement_percent) else part.involvement_percent,
                    "lesion_count": part.lesions,
                    "crossing_count": part.crossing,
                }
                for part in self.parts
            ],
        }


@dataclass(frozen=True)
class Severity:
    """Both scores of a result."""

    lobes: Score
    zones: Score

    def record(self) -> dict[str, Any]:
        """For ``report.json``."""
        return {"lobes": self.lobes.record(), "zones": self.zones.record()}

    def scores_of(self, set_key: str, part: str) -> tuple[float, float]:
        """Score and total that belong to a lobe or zone; NaN where undefined, and for other regions."""
        score = {"thirds": self.zones, "given": self.lobes}.get(set_key)
        found = [one for one in score.parts if one.name == part] if score is not None else []
        if score is None or not found:
            return math.nan, math.nan
        values = (found[0].score, score.total)
        first, second = (math.nan if value is None else float(value) for value in values)
        return first, second


def lobe_score(involvement_percent: float) -> int | None:
    """Score of a lobe, 0 to 5; None where its involvement is undefined.

    >>> [lobe_score(percent) for percent in (0, 0.1, 5, 25, 25.1, 49.9, 50, 75, 75.1, float("nan"))]
    [0, 1, 2, 2, 3, 3, 4, 4, 5, None]
    """
    if math.isnan(involvement_percent):
        return None
    if involvement_percent <= 0:
        return 0
    if involvement_percent < 5:
        return 1
    if involvement_percent <= 25:
        return 2
    if involvement_percent < 50:
        return 3
    return 4 if involvement_percent <= 75 else 5


def zone_score(involvement_percent: float) -> int | None:
    """Score of a zone, 0 to 4; None where its involvement is undefined.

    >>> [zone_score(percent) for percent in (0, 0.1, 24.9, 25, 49.9, 50, 74.9, 75, float("nan"))]
    [0, 1, 1, 2, 2, 3, 3, 4, None]
    """
    if math.isnan(involvement_percent):
        return None
    if involvement_percent <= 0:
        return 0
    return 1 + sum(involvement_percent >= limit for limit in (25, 50, 75))


def severity_of(lobes: Mapping[str, Mapping[str, float]], zones: Mapping[str, Mapping[str, float]]) -> Severity:
    """Both scores.

    :param lobes, zones: measurements by name; no lobes where none were given.
    """
    lobe_parts = [_part(name, lobes[name], lobe_score) for name in LOBES if name in lobes]
    missing = [name for name in LOBES if name not in lobes]
    why = NO_LOBES if not lobes else f"undefined: not given: {', '.join(missing)}" if missing else ""
    zone_parts = [_part(name, zones[name], zone_score) for name in ZONES]
    return Severity(
        _score(lobe_parts, 25, why, LOBE_TOTAL, LOBE_SCORE), _score(zone_parts, 24, "", ZONE_TOTAL, ZONE_SCORE)
    )


def _part(name: str, values: Mapping[str, float], score: Any) -> ScoredPart:
    share = values["involvement_percent"]
    return ScoredPart(name, score(share), share, int(values["lesion_count"]), int(values["crossing_count"]))


def _score(parts: list[ScoredPart], most: int, why: str, total: Measurement, part: Measurement) -> Score:
    without = [one.name for one in parts if one.score is None]
    why = why or (f"undefined: no lung in the {', '.join(without)}" if without else "")
    summed = None if why else sum(one.score for one in parts if one.score is not None)
    return Score(summed, most, why, tuple(parts), total, part)
