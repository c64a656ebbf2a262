"""Regions of the lungs that are measured beside the lungs themselves: zones, halves, and any that a user has.

A set of regions gives each lung voxel a cell, and each region some of the cells; a voxel may belong to several regions
of a set, and whatever belongs to none is the region "elsewhere".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..ct.anatomy import LUNGS
from ..ct.lobes import known_lobes, lobe_called
from ..ct.oddity import Oddity
from ..errors import InputError
from .statistics import REGIONS, SIDES, THIRDS

STAGE = "Regions"
ELSEWHERE = "elsewhere"
HALVES = {"ventral half": 0, "dorsal half": 1}
NAMED = 12  # in a warning
MOST_CELLS = 60000  # kinds of overlap that are told apart
BOTH = "both lungs"
_THIRDS_RULE = (
    "Thirds of the height of both lungs together, from their lowest to their highest slice; a slice belongs to the "
    "third that holds its middle."
)
_HALVES_RULE = (
    "Halves of each lung's own box, of equal height from its foremost to its hindmost row in the axial slices; a row "
    "belongs to the half that holds its middle, the middle one of an odd number to the dorsal half."
)


@dataclass(frozen=True)
class Region:
    """A part of the lungs.

    :param name: for people.
    :param definition: what belongs to it, a sentence.
    :param cells: of its set.
    :param lobe: which of :data:`LesionDecompLib.ct.lobes.LOBES` it is; may be empty.
    """

    name: str
    definition: str
    cells: tuple[int, ...]
    lobe: str = ""


@dataclass(frozen=True, eq=False)
class RegionSet:
    """A set of regions, and where they lie.

    :param key: ``"thirds"``, ``"halves"`` or ``"given"``.
    :param title: for people.
    :param regions: in the order of the table.
    :param warnings: what is odd about regions that were given.
    :param cells: inside the lungs' box, axial ``(z, y, x)``: cell + 1, 0 outside the lungs; None for the cells of
        :data:`.statistics.CELLS`, which every result is measured in.
    :param count: of cells.
    """

    key: str
    title: str
    regions: tuple[Region, ...]
    cells: np.ndarray | None
    count: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class GivenRegions:
    """Regions that a user has, before they meet the lungs.

    :param labels: on the CT's grid ``(k, j, i)``, unsigned integers, 0 in no region.
    :param names: name of each region, by number in the source; numbers without a name are called by it.
    :param values: the labels that make up each region, by number; without, each label is a region of its number.
    :param sha256: of the file, or of the labels where they come from no file.
    :param warnings: what was odd about them when they were read.
    """

    labels: np.ndarray
    names: Mapping[int, str]
    sha256: str
    values: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_masks(
        cls, masks: Iterable[tuple[str, np.ndarray]], shape: tuple[int, ...], sha256: Callable[[np.ndarray], str]
    ) -> GivenRegions:
        """Regions of one mask each, which may overlap; numbered from 1.

        :param masks: name and ``(k, j, i)`` mask, inside where not 0; read one at a time.
        :param shape: of each.
        :param sha256: of the labels that the masks amount to.
        :raises LesionDecompError: they overlap in too many ways.
        """
        labels = np.zeros(shape, np.uint16)
        owners: list[frozenset[int]] = [frozenset()]  # regions of each label
        names: dict[int, str] = {}
        for number, (name, mask) in enumerate(masks, start=1):
            names[number] = name
            inside = mask != 0
            # Each label there is becomes two: with this region, and without it.
            met = np.flatnonzero(np.bincount(labels[inside], minlength=len(owners)))
            renamed = np.zeros(len(owners), np.uint16)
            for label in met:
                renamed[label] = len(owners)
                owners.append(owners[label] | {number})
            if len(owners) > MOST_CELLS:
                raise InputError(STAGE, f"regions that overlap in {len(owners)} ways", f"at most {MOST_CELLS}")
            labels[inside] = renamed[labels[inside]]
        values = {n: tuple(label for label, owner in enumerate(owners) if n in owner) for n in names}
        return cls(labels, names, sha256(labels), values)

    def regions(self) -> dict[int, tuple[int, ...]]:
        """Labels of each region, by number."""
        if self.values:
            return dict(self.values)
        present: list[int] = np.flatnonzero(np.bincount(self.labels.ravel(order="K"))).tolist()
        return {int(value): (int(value),) for value in sorted({*present, *self.names}) if value}


def thirds_of_lungs() -> RegionSet:
    """Six zones: right and left lung, each by upper, middle and lower third."""
    regions = [
        Region(name := f"{side}, {third}", f"{name.capitalize()}. {_THIRDS_RULE}", tuple(REGIONS[name]))
        for side in SIDES
        if side != BOTH
        for third in THIRDS
    ]
    return RegionSet("thirds", "Zones: lungs by thirds of their height", tuple(regions), None, 6)


def halves_of_lungs(lungs: np.ndarray) -> RegionSet:
    """Ventral and dorsal half of both lungs and of each; cell 2 * half + lung label - 1.

    :param lungs: of the lungs' box, axial ``(z, y, x)`` uint8, 1 right, 2 left.
    """
    cells = lungs.copy(order="K")
    for lung in LUNGS:
        rows = np.flatnonzero((lungs == lung.label).any(axis=(0, 2)))
        if len(rows):
            dorsal = slice(rows[0] + (rows[-1] - rows[0] + 1) // 2, None)
            cells[:, dorsal] += np.uint8(2) * (lungs[:, dorsal] == lung.label)
    regions = [
        Region(
            name := f"{side}, {half}",
            f"{name.capitalize()}. {_HALVES_RULE}",
            tuple(2 * number + label - 1 for label in labels),
        )
        for side, labels in SIDES.items()
        for half, number in HALVES.items()
    ]
    return RegionSet("halves", "Ventral and dorsal halves", tuple(regions), cells, 4)


def given_in_lungs(given: GivenRegions, labels: np.ndarray, lungs: np.ndarray) -> RegionSet:
    """A user's regions where they meet the lungs; those that do not are left out, with a warning, and the rest of the
    lungs is "elsewhere".

    :param given: names and numbers.
    :param labels: its labels inside the lungs' box, axial ``(z, y, x)``.
    :param lungs: of the same box, uint8, 1 right, 2 left.
    """
    numbers = given.regions()
    names = {number: given.names.get(number, "") for number in numbers}
    program, known = ("", {}) if any(names.values()) or given.values else known_lobes(labels, lungs)
    highest = max([int(labels.max(initial=0)), *(value for values in numbers.values() for value in values)], default=0)
    # Cell 0 is elsewhere; each label that belongs to a region is a cell of its own.
    used = sorted({value for values in numbers.values() for value in values})
    cell_of = np.zeros(highest + 1, np.uint16)
    cell_of[used] = np.arange(1, len(used) + 1)
    cells = cell_of[labels] + np.uint16(1)
    cells[lungs == 0] = 0
    held = np.bincount(cells.ravel(order="K"), minlength=len(used) + 2)[1:]
    regions, outside = [], []
    for number, values in numbers.items():
        name = names[number] or known.get(number, "") or f"region {number}"
        own = tuple(int(cell_of[value]) for value in values)
        lobe = known.get(number, "") if known else lobe_called(name)
        if not lobe and not held[list(own)].any():
            outside.append(name)
            continue
        origin = f" (as {program} numbers lobes)" if number in known else ""
        regions.append(
            Region(name, f"Lung voxels of '{name}', number {number}{origin} of the regions that were given.", own, lobe)
        )
    lobes = [region.lobe for region in regions]
    # Two structures called by one lobe's name: which of them it is cannot be known.
    regions = [replace(region, lobe=region.lobe if lobes.count(region.lobe) == 1 else "") for region in regions]
    rest = "Lung voxels in none of the regions that were given."
    regions.append(Region(ELSEWHERE, rest, (0,)))
    warnings = (*given.warnings, *_outside_warnings(outside))
    return RegionSet("given", "Regions that were given", tuple(regions), cells, len(used) + 1, warnings)


def _outside_warnings(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
    text = f"Regions that do not meet the lungs were left out: {shown}."
    return [Oddity(text, "regions_outside_lungs", len(names), 0)]
