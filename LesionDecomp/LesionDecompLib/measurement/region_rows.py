"""What is measured in regions: rows for tables and files, at any threshold, made from what is counted once."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.atomic import write_csv
from .definitions import CROSSING_COUNT, REGION_MEASUREMENTS
from .live import Lesions, LiveLesions
from .regions import STAGE, GivenRegions, Region, RegionSet, given_in_lungs, halves_of_lungs, thirds_of_lungs
from .severity import Severity, severity_of
from .statistics import (
    REGION_HEADER,
    WARNINGS_HEADER,
    RegionStatistics,
    Tally,
    measurements_of_cells,
    tally_lesions,
    tally_planes,
)
from .tally import ListedVoxels, StoredOrder

SET_HEADER, DEFINITION_HEADER = "Set", "Definition"
SCORE_HEADER, TOTAL_HEADER = "Severity score", "Severity total"


@dataclass(frozen=True)
class RegionRow:
    """The measurements of one region.

    :param set_key: ``"thirds"``, ``"halves"`` or ``"given"``.
    :param region: its name.
    :param definition: what belongs to it.
    :param values: a float for each key of :data:`.definitions.REGION_MEASUREMENTS`; NaN where undefined.
    :param lobe: which lobe it is; may be empty.
    """

    set_key: str
    region: str
    definition: str
    values: dict[str, float]
    lobe: str = ""

    def record(self) -> dict[str, Any]:
        """For ``report.json``; undefined values are None."""
        values = {key: None if math.isnan(value) else float(value) for key, value in self.values.items()}
        return {"set": self.set_key, "region": self.region, "definition": self.definition, "lobe": self.lobe, **values}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> RegionRow:
        """What :meth:`record` gave; raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else."""
        values = {m.key: math.nan if record[m.key] is None else float(record[m.key]) for m in REGION_MEASUREMENTS}
        return cls(record["set"], record["region"], record["definition"], values, record.get("lobe", ""))


@dataclass(frozen=True, eq=False)
class RegionMeasurements:
    """All regions' rows of one result, and the scores that they amount to."""

    rows: tuple[RegionRow, ...]

    def of_set(self, key: str) -> list[RegionRow]:
        """Rows of one set."""
        return [row for row in self.rows if row.set_key == key]

    @property
    def severity(self) -> Severity:
        """Scores by lobes and by zones."""
        lobes = {row.lobe: row.values for row in self.of_set("given") if row.lobe}
        return severity_of(lobes, {row.region: row.values for row in self.of_set("thirds")})


@dataclass(frozen=True, eq=False)
class ModelMeasurements:
    """What the model alone had found, beside what is left after a reader's review.

    :param statistics: as in :func:`.statistics.lesion_statistics`.
    """

    statistics: list[RegionStatistics]
    regions: RegionMeasurements


@dataclass(frozen=True, eq=False)
class RegionTallies:
    """The regions of a result, and what of them no threshold changes.

    :param live: the result.
    :param sets: of regions, each with its count of lung voxels.
    """

    live: LiveLesions
    sets: tuple[tuple[RegionSet, Tally], ...]

    @classmethod
    def of(
        cls, live: LiveLesions, given: np.ndarray | None = None, regions: GivenRegions | None = None
    ) -> RegionTallies:
        """Thirds and halves of the lungs, and the regions that were given.

        :param given: ``regions.labels`` as axial stack.
        :raises LesionDecompError: labels of another shape than the lungs.
        """
        lungs = live.lungs[live.box]
        halves = halves_of_lungs(lungs)
        sets = [(thirds_of_lungs(), live.lung_tally), (halves, _tally(live, halves))]
        if regions is not None and given is not None:
            if given.shape != live.lungs.shape:
                raise InputError(STAGE, f"regions of shape {given.shape}", f"the lungs' {live.lungs.shape}")
            own = given_in_lungs(regions, given[live.box], lungs)
            sets.append((own, _tally(live, own)))
        return cls(live, tuple(sets))

    @property
    def warnings(self) -> list[str]:
        """What is odd about the regions that were given."""
        return [text for regions, _ in self.sets for text in regions.warnings]

    def at(self, lesions: Lesions) -> RegionMeasurements:
        """What is measured of these lesions, which must be of the same result."""
        rows: list[RegionRow] = []
        for regions, lungs in self.sets:
            tally = tally_lesions(lungs, self._in_cells(regions, lesions.voxels), lesions.components)
            rows += [self._row(regions.key, region, lungs, tally) for region in regions.regions]
        return RegionMeasurements(tuple(rows))

    def _row(self, key: str, region: Region, lungs: Tally, lesions: Tally) -> RegionRow:
        values = measurements_of_cells(lungs, lesions, region.cells, self.live.voxel_volume_ml)
        inside = lesions.components[:, list(region.cells)].sum(axis=1)
        crossing = (inside > 0) & (inside < lesions.components.sum(axis=1))
        values[CROSSING_COUNT.key] = float(np.count_nonzero(crossing))
        return RegionRow(key, region.name, region.definition, values, region.lobe)

    def _in_cells(self, regions: RegionSet, voxels: ListedVoxels) -> ListedVoxels:
        """The lesions' voxels with their cells of this set."""
        if regions.cells is None:
            return voxels
        live = self.live
        order, shape = live.order, live.lungs.shape
        box, stored = order.box(live.box, shape), order(live.lungs).shape
        places = np.unravel_index(voxels.places, stored)
        inside = tuple(along - part.start for along, part in zip(places, box, strict=True))
        cells = order(regions.cells)[inside] - regions.cells.dtype.type(1)
        return ListedVoxels(voxels.places, voxels.positions, cells, voxels.hu, voxels.heat)


def regions_csv(
    rows: Iterable[RegionRow], severity: Severity, warnings: Sequence[str] = (), delimiter: str = ","
) -> str:
    """A line for each region: set, name, measurements with units, severity score, definition, warnings."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    writer.writerows([*line, " ".join(warnings)] for line in region_cells(rows, severity))
    return text.getvalue()


def region_cells(rows: Iterable[RegionRow], severity: Severity) -> list[list[str]]:
    """The cells of each line of :func:`regions_csv` but the last; empty where undefined."""
    return [
        [
            row.set_key,
            row.region,
            *(_cell(row.values[m.key]) for m in REGION_MEASUREMENTS),
            *(_cell(value) for value in severity.scores_of(row.set_key, row.lobe or row.region)),
            row.definition,
        ]
        for row in rows
    ]


def write_regions_csv(path: str | Path, measured: RegionMeasurements, warnings: Sequence[str] = ()) -> None:
    """Write :func:`regions_csv` as UTF-8 with a byte order mark; the file appears whole or not at all.

    :raises LesionDecompError: it can't be written.
    """
    write_csv(path, regions_csv(measured.rows, measured.severity, warnings), "Writing the regions")


REGION_CELLS = [
    SET_HEADER,
    REGION_HEADER,
    *(m.header for m in REGION_MEASUREMENTS),
    SCORE_HEADER,
    TOTAL_HEADER,
    DEFINITION_HEADER,
]
CSV_HEADER = [*REGION_CELLS, WARNINGS_HEADER]


def _tally(live: LiveLesions, regions: RegionSet) -> Tally:
    order = StoredOrder.of(live.lungs)
    assert regions.cells is not None
    cells, hu, heat = (order(part) for part in (regions.cells, live.hu[live.box], live.heat[live.box]))
    return tally_planes(live.box, regions.count, lambda plane: cells[plane], hu, heat)


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"
