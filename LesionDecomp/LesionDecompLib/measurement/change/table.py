"""The table of change: for each region, what became of its lesions, and both scans' lungs beside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import binary_erosion
from scipy.spatial import cKDTree

from ...segmentation.lesions import lung_box
from ..regions import GivenRegions, RegionSet, given_in_lungs, halves_of_lungs
from ..statistics import REGION_HEADER, REGIONS, WARNINGS_HEADER, axial_thirds
from .definitions import CHANGES, IN_EARLIER, NAMES
from .labels import Change, ChangeLabels
from .scan import Scan

LAST = max(Change) + 1


@dataclass(frozen=True)
class ChangeRow:
    """The change of one region.

    :param set_key: ``"lungs"`` (lungs and their thirds), ``"halves"`` or ``"given"``.
    :param values: a float for each key of :data:`.definitions.CHANGES`; NaN where undefined.
    """

    set_key: str
    region: str
    values: dict[str, float]

    def record(self) -> dict[str, Any]:
        """For JSON; undefined values are None."""
        values = {key: None if math.isnan(value) else float(value) for key, value in self.values.items()}
        return {"set": self.set_key, "region": self.region, **values}


def change_rows(
    earlier: Scan, later: Scan, change: ChangeLabels, regions: GivenRegions | None = None
) -> tuple[list[ChangeRow], list[str]]:
    """Measure lungs, thirds, halves, and the regions that were given; and what is odd about these.

    A voxel that registration leaves outside the later lungs counts where the nearest lung voxel does, so that none of
    them is lost.

    :param regions: on the later scan's grid; earlier values of these are undefined but for the change itself.
    """
    voxels = _Voxels.of(later, change)
    rows = [
        _row("lungs", name, voxels.amounts(voxels.lung_cells, cells), earlier.values(name), later.values(name))
        for name, cells in REGIONS.items()
    ]
    sets = [halves_of_lungs(voxels.lungs)]
    if regions is not None:
        sets.append(given_in_lungs(regions, later.view.to_axial(regions.labels)[voxels.box], voxels.lungs))
    for one in sets:
        own = voxels.cells_of(one)
        for region in one.regions:
            before, after = earlier.values(region.name), later.values(region.name)
            if one.key == "given":
                before, after = {}, {"lung_volume_ml": voxels.lung_ml(one, region.cells)}
            rows.append(_row(one.key, region.name, voxels.amounts(own, region.cells), before, after))
    return rows, [text for one in sets for text in one.warnings]


@dataclass(frozen=True, eq=False)
class _Voxels:
    """Labeled voxels, each with the place of the lung voxel that it counts with.

    :param lungs: of the lungs' box, axial.
    :param places: ``(3, n)`` in that box.
    :param labels: ``(n,)``.
    :param earlier_ml: ``(n,)``.
    """

    lungs: np.ndarray
    box: tuple[slice, slice, slice]
    places: np.ndarray
    labels: np.ndarray
    earlier_ml: np.ndarray
    voxel_ml: float
    lung_cells: np.ndarray

    @classmethod
    def of(cls, later: Scan, change: ChangeLabels) -> _Voxels:
        view, held = later.view, np.nonzero(change.boxed)
        places = np.stack([axis + part.start for axis, part in zip(held, change.box, strict=True)])
        axial = _axial_places(later, places)
        stack = view.to_axial(later.lungs)
        box = lung_box(stack)
        lungs = stack[box]
        starts = np.array([part.start for part in box])[:, None]
        inside = _in_lungs(lungs, axial - starts, later)
        thirds = axial_thirds(stack.shape, box[0])[:, 0, 0][inside[0] + box[0].start]
        lung_cells = lungs[tuple(inside)].astype(np.intp) + 2 * thirds - 1
        return cls(lungs, box, inside, change.boxed[held], change.earlier_ml[held], later.voxel_ml, lung_cells)

    def cells_of(self, regions: RegionSet) -> np.ndarray:
        """Each voxel's cell of a set."""
        assert regions.cells is not None
        return regions.cells[tuple(self.places)].astype(np.intp) - 1

    def lung_ml(self, regions: RegionSet, cells: Sequence[int]) -> float:
        """Lung volume of some cells of a set, mL."""
        assert regions.cells is not None
        return float(np.isin(regions.cells, np.array(cells) + 1).sum()) * self.voxel_ml

    def amounts(self, own: np.ndarray, cells: Iterable[int]) -> tuple[np.ndarray, np.ndarray]:
        """Volume of each label in some cells, on the later grid and in the earlier scan, mL."""
        chosen = np.isin(own, list(cells))
        labels = self.labels[chosen]
        here = np.bincount(labels, minlength=LAST) * self.voxel_ml
        return here, np.bincount(labels, weights=self.earlier_ml[chosen], minlength=LAST)


def _axial_places(scan: Scan, places: np.ndarray) -> np.ndarray:
    """Places ``(3, n)`` along (k, j, i) as places of the axial stack."""
    view = scan.view
    return np.stack(
        [
            view.shape[axis] - 1 - places[own] if flip else places[own]
            for axis, (own, flip) in enumerate(zip(view.axes, view.flips, strict=True))
        ]
    )


def _in_lungs(lungs: np.ndarray, places: np.ndarray, later: Scan) -> np.ndarray:
    """The places themselves where they are lung, else those of the nearest lung voxel."""
    limits = np.array(lungs.shape)[:, None]
    clipped = np.clip(places, 0, limits - 1)
    outside = (places != clipped).any(axis=0) | (lungs[tuple(clipped)] == 0)
    if outside.any():
        spacing = np.array(later.view.spacing)[:, None]
        edge = np.stack(np.nonzero((lungs != 0) & ~binary_erosion(lungs != 0)))
        _, nearest = cKDTree((edge * spacing).T).query((places[:, outside] * spacing).T)
        clipped[:, outside] = edge[:, nearest]
    return clipped


def _row(
    key: str,
    region: str,
    amounts: tuple[np.ndarray, np.ndarray],
    before: dict[str, float],
    after: dict[str, float],
) -> ChangeRow:
    here, there = amounts
    nan = float("nan")
    lung_before, lung_after = before.get("lung_volume_ml", nan), after.get("lung_volume_ml", nan)
    lesion_before, lesion_after = before.get("lesion_volume_ml", nan), after.get("lesion_volume_ml", nan)
    share_before, share_after = before.get("involvement_percent", nan), after.get("involvement_percent", nan)
    values = {
        "earlier_lung_volume_ml": lung_before,
        "later_lung_volume_ml": lung_after,
        "lung_volume_change_percent": _percent(lung_after - lung_before, lung_before),
        "earlier_lung_hu_mean": before.get("lung_hu_mean", nan),
        "later_lung_hu_mean": after.get("lung_hu_mean", nan),
        "earlier_lesion_volume_ml": lesion_before,
        "later_lesion_volume_ml": lesion_after,
        "lesion_volume_change_ml": lesion_after - lesion_before,
        "lesion_volume_change_percent": _percent(lesion_after - lesion_before, lesion_before),
        "earlier_involvement_percent": share_before,
        "later_involvement_percent": share_after,
        "involvement_change_points": share_after - share_before,
    }
    for change in Change:
        values[f"{NAMES[change]}_ml"] = float(here[change])
        values[f"{NAMES[change]}_percent"] = _percent(float(here[change]), lung_after)
    for change in IN_EARLIER:
        values[f"{NAMES[change]}_earlier_ml"] = float(there[change])
    return ChangeRow(key, region, {m.key: values[m.key] for m in CHANGES})


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else float("nan")


def change_csv(comparisons: Iterable[tuple[str, str, Sequence[ChangeRow], Sequence[str]]], delimiter: str = ",") -> str:
    """A line for each region of each comparison: scans, set, region, measurements with units, warnings.

    :param comparisons: names of the earlier and the later scan, rows, warnings.
    """
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(["Earlier", "Later", "Set", REGION_HEADER, *(m.header for m in CHANGES), WARNINGS_HEADER])
    for earlier, later, rows, warnings in comparisons:
        for row in rows:
            cells = ("" if math.isnan(value) else f"{value:.9g}" for value in row.values.values())
            writer.writerow([earlier, later, row.set_key, row.region, *cells, " ".join(warnings)])
    return text.getvalue()
