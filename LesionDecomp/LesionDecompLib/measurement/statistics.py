"""The measurements of a segmented CT: how they are computed, and how they are written down.

:func:`lesion_statistics` computes them for the two lungs and their thirds; :mod:`.definitions` defines each.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..ct.anatomy import LEFT_LUNG, RIGHT_LUNG
from ..ct.hu_distribution import HuHistogram, HuSamples, empty_distribution
from ..errors import InputError
from ..io.atomic import write_csv
from ..segmentation.components import Components, components_of_positions
from ..segmentation.lesions import lung_box, memory_order
from ..threads import over_slices
from .definitions import CONSOLIDATION_HU, MEASUREMENTS
from .tally import ListedVoxels, StoredOrder, list_voxels

STAGE = "Statistics"
REGION_HEADER = "Region"
WARNINGS_HEADER = "Warnings"

RIGHT, LEFT = RIGHT_LUNG.label, LEFT_LUNG.label
SIDES = {"both lungs": (RIGHT, LEFT), "right lung": (RIGHT,), "left lung": (LEFT,)}
# Thirds are numbered along the axial stack, which runs from inferior to superior.
THIRDS = {"upper third": 2, "middle third": 1, "lower third": 0}
# Voxels are counted in six cells, lung by third: cell 2 * third + label - 1.
CELLS = 6
REGIONS: dict[str, list[int]] = {
    **{name: [2 * third + side - 1 for side in sides for third in range(3)] for name, sides in SIDES.items()},
    **{
        f"{name}, {third_name}": [2 * third + side - 1 for side in sides]
        for name, sides in SIDES.items()
        for third_name, third in THIRDS.items()
    },
}


@dataclass(frozen=True)
class RegionStatistics:
    """The measurements of one region.

    :param region: e.g. ``"both lungs"`` or ``"right lung, upper third"``.
    :param values: a float for each key of :data:`MEASUREMENTS`; NaN where undefined.
    """

    region: str
    values: dict[str, float]


@dataclass(frozen=True, eq=False)
class Tally:
    """What is counted voxel by voxel, for each of n cells: six, lung (right, left) by third (lower, middle, upper), or
    those of a set of regions.

    :param box: of the lungs, along the axial axes.
    :param voxels: ``(n,)`` int64.
    :param heat: ``(n,)`` float64, sum of the heat.
    :param hu: their HU.
    :param components: ``(count, n)`` int64, voxels of each connected component; no rows where it does not matter.
    """

    box: tuple[slice, slice, slice]
    voxels: np.ndarray
    heat: np.ndarray
    hu: HuHistogram | HuSamples
    components: np.ndarray


def lesion_statistics(
    hu: np.ndarray,
    lungs: np.ndarray,
    lesions: np.ndarray,
    heat: np.ndarray,
    voxel_volume_ml: float,
    lung_tally: Tally | None = None,
) -> list[RegionStatistics]:
    """Compute all measurements for both lungs, each lung, and the upper, middle and lower third of these.

    All arrays are axial stacks ``(z, y, x)``, z from inferior to superior, of any memory layout. The thirds divide the
    height of both lungs together, so that the volumes of the rows add up.

    :param hu: int16 or float32, HU.
    :param lungs: uint8, 0 / 1 right / 2 left.
    :param lesions: uint8, lesion where not 0; voxels outside the lungs are left out.
    :param heat: float32 in [0, 1].
    :param voxel_volume_ml: volume of a voxel, mL.
    :param lung_tally: :func:`tally_lungs` of the same CT, lungs and heat where already known, as when only the
        lesions change; it is most of the work.
    :return: 12 rows.
    :raises LesionDecompError: shapes that differ, or lung labels other than 0, 1 and 2.
    """
    _check(hu, lungs, lesions, heat)
    if lung_tally is None:
        lung_tally = tally_lungs(hu, lungs, heat)
    order, box = StoredOrder.of(lungs), lung_tally.box
    lesions_stored, lungs_stored = order(lesions), order(lungs)

    def chosen(plane: int, part: tuple[slice, slice]) -> np.ndarray:
        return np.logical_and(lesions_stored[plane][part], lungs_stored[plane][part])

    thirds = order(axial_thirds(lungs.shape, box[0]))
    voxels = list_voxels(chosen, order(hu), lungs_stored, order(heat), thirds, order.box(box, lungs.shape))
    components = components_of_positions(voxels.positions, lungs_stored.shape)
    return rows_of_tallies(lung_tally, tally_lesions(lung_tally, voxels, components), voxel_volume_ml)


def tally_lesions(lungs: Tally, voxels: ListedVoxels, components: Components) -> Tally:
    """Count lesion voxels.

    :param lungs: of the same scan.
    :param voxels: of all lesions.
    :param components: of these voxels, whose runs follow one another in their order.
    """
    hu, cells = lungs.hu.blank(), len(lungs.voxels)
    hu.add(voxels.cells, voxels.hu)
    labels = np.repeat(components.labels.astype(np.intp) * cells, components.lengths)
    labels += voxels.cells
    return Tally(
        lungs.box,
        np.bincount(voxels.cells, minlength=cells),
        np.bincount(voxels.cells, weights=voxels.heat, minlength=cells),
        hu,
        np.bincount(labels, minlength=components.count * cells).reshape(-1, cells),
    )


def rows_of_tallies(lungs: Tally, lesions: Tally, voxel_volume_ml: float) -> list[RegionStatistics]:
    """The 12 rows that tallies of lungs and lesions amount to."""
    return [
        RegionStatistics(region, measurements_of_cells(lungs, lesions, cells, voxel_volume_ml))
        for region, cells in REGIONS.items()
    ]


def measurements_of_cells(
    lungs: Tally, lesions: Tally, cells: Sequence[int], voxel_volume_ml: float
) -> dict[str, float]:
    """All of :data:`.definitions.MEASUREMENTS` of the region that some cells make up; NaN where undefined."""
    cells = list(cells)
    lung_voxels, lesion_voxels = int(lungs.voxels[cells].sum()), int(lesions.voxels[cells].sum())
    ground_glass = lesions.hu.count_below(cells, CONSOLIDATION_HU)
    in_region = lesions.components[:, cells].sum(axis=1)
    values = {
        "lung_volume_ml": lung_voxels * voxel_volume_ml,
        "lesion_volume_ml": lesion_voxels * voxel_volume_ml,
        "involvement_percent": _ratio(100.0 * lesion_voxels, lung_voxels),
        "ground_glass_ml": ground_glass * voxel_volume_ml,
        "consolidation_ml": (lesion_voxels - ground_glass) * voxel_volume_ml,
        "lesion_count": float(np.count_nonzero(in_region)),
        "largest_lesion_ml": int(in_region.max(initial=0)) * voxel_volume_ml,
        "lung_heat_mean": _ratio(float(lungs.heat[cells].sum()), lung_voxels),
        "lesion_heat_mean": _ratio(float(lesions.heat[cells].sum()), lesion_voxels),
    }
    for name, tally in (("lesion", lesions), ("lung", lungs)):
        for measured, value in tally.hu.measurements(cells)._asdict().items():
            values[f"{name}_hu_{measured}"] = value
    return {m.key: values[m.key] for m in MEASUREMENTS}


def tally_lungs(
    hu: np.ndarray, lungs: np.ndarray, heat: np.ndarray, box: tuple[slice, slice, slice] | None = None
) -> Tally:
    """Count the lungs' voxels, HU and heat: the part of :func:`lesion_statistics` that no threshold changes.

    :param hu: ``(z, y, x)`` int16 or float32.
    :param lungs: uint8, 0 / 1 right / 2 left.
    :param heat: float32.
    :param box: of the lungs, where already known.
    :raises LesionDecompError: as :func:`lesion_statistics`.
    """
    _check(hu, lungs, lungs, heat)
    box, order = lung_box(lungs) if box is None else box, memory_order(lungs)
    stacks = (lungs, hu, heat, axial_thirds(lungs.shape, box[0]))
    lungs_box, hu_box, heat_box, thirds = (stack[box].transpose(order) for stack in stacks)
    highest = int(lungs_box.max(initial=0))
    if highest > LEFT:
        raise InputError(STAGE, f"lung label {highest}", "0 background, 1 right lung, 2 left lung")

    def cells_of_plane(plane: int) -> np.ndarray:
        return np.where(lungs_box[plane] != 0, lungs_box[plane] + 2 * thirds[plane], 0)

    return tally_planes(box, CELLS, cells_of_plane, hu_box, heat_box)


def tally_planes(
    box: tuple[slice, slice, slice],
    count: int,
    cells_of_plane: Callable[[int], np.ndarray],
    hu: np.ndarray,
    heat: np.ndarray,
) -> Tally:
    """Count voxels, HU and heat plane by plane.

    :param box: of the lungs, along the axial axes.
    :param count: of cells.
    :param cells_of_plane: gives each voxel of a plane its cell + 1, 0 outside the lungs.
    :param hu, heat: of the box; their first axis counts the planes.
    """
    tally = Tally(
        box,
        np.zeros(count, np.int64),
        np.zeros(count),
        empty_distribution(count, hu),
        np.zeros((0, count), np.int64),
    )

    def of_planes(part: slice) -> tuple[HuHistogram | HuSamples, list[tuple[np.ndarray, np.ndarray]]]:
        distribution, counts = tally.hu.blank(), []
        for plane in range(part.start, part.stop):
            cells = cells_of_plane(plane).reshape(-1)
            inside = np.flatnonzero(cells)
            cell = cells[inside] - cells.dtype.type(1)
            warmth = heat[plane].reshape(-1)[inside]
            counts.append((np.bincount(cell, minlength=count), np.bincount(cell, weights=warmth, minlength=count)))
            distribution.add(cell, hu[plane].reshape(-1)[inside])
        return distribution, counts

    for distribution, counts in over_slices(of_planes, len(hu)):
        tally.hu.extend(distribution)  # type: ignore[arg-type]  # both are of one kind
        for voxels, heat_sum in counts:  # plane by plane: sums of floats depend on their order
            tally.voxels[:] += voxels
            tally.heat[:] += heat_sum
    return tally


def thirds_of_slices(slices: int) -> np.ndarray:
    """Third (0 lower, 1 middle, 2 upper) of each slice of lungs ``slices`` high, by the slice's middle; int64."""
    return ((2 * np.arange(slices) + 1) * 3) // (2 * max(slices, 1))


def axial_thirds(shape: tuple[int, ...], levels: slice) -> np.ndarray:
    """Third of each voxel (:func:`thirds_of_slices` of the slices that hold lung; 0 elsewhere), uint8.

    :param shape: (z, y, x) of the stack.
    :param levels: slices that hold lung.
    :return: of that shape; read-only, one number for each slice.
    """
    thirds = np.zeros(shape[0], dtype=np.uint8)
    thirds[levels] = thirds_of_slices(levels.stop - levels.start)
    return np.broadcast_to(thirds[:, None, None], shape)


def write_statistics_csv(path: str | Path, rows: list[RegionStatistics], warnings: Sequence[str] = ()) -> None:
    """Write rows as CSV: a header with units, region first, nine digits, empty cells where undefined.

    UTF-8 with a byte order mark, by which spreadsheet programs know it. The file appears whole or not at all.

    :param warnings: what looked wrong; the last column repeats it in each row, so that no row goes without.
    :raises LesionDecompError: it can't be written.
    """
    write_csv(path, statistics_csv(rows, warnings), "Writing the statistics")


def statistics_csv(rows: list[RegionStatistics], warnings: Sequence[str] = (), delimiter: str = ",") -> str:
    """The text of :func:`write_statistics_csv`; with tabs between the cells a spreadsheet takes it when pasted."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in rows:
        writer.writerow([row.region, *(_csv_cell(row.values[m.key]) for m in MEASUREMENTS), " ".join(warnings)])
    return text.getvalue()


def read_statistics_csv(path: str | Path) -> list[RegionStatistics]:
    """Read the measurements that :func:`write_statistics_csv` wrote; files without the column of warnings will do too.

    :raises LesionDecompError: unreadable, other columns than those of a statistics file, or no numbers in them.
    """
    stage = "Reading statistics"
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header, *lines = list(csv.reader(file)) or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(stage, f"a file that cannot be read ({error})", "a statistics file") from error
    if header not in (CSV_HEADER, CSV_HEADER[:-1]):
        raise InputError(stage, f"other columns in {Path(path).name}", "those of a statistics file")
    if any(len(line) != len(header) for line in lines):
        raise InputError(stage, f"a line cut short in {Path(path).name}", "a cell in each column")
    try:
        return [
            RegionStatistics(line[0], {m.key: float(c or "nan") for m, c in zip(MEASUREMENTS, line[1:], strict=False)})
            for line in lines
        ]
    except ValueError as error:
        raise InputError(stage, f"a damaged line in {Path(path).name}", "a number in each cell") from error


CSV_HEADER = [REGION_HEADER, *(m.header for m in MEASUREMENTS), WARNINGS_HEADER]


def _csv_cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.9g}"


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def _check(hu: np.ndarray, lungs: np.ndarray, lesions: np.ndarray, heat: np.ndarray) -> None:
    shapes = {"CT": hu.shape, "lungs": lungs.shape, "lesions": lesions.shape, "heat": heat.shape}
    if len(set(shapes.values())) != 1 or hu.ndim != 3:
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise InputError(STAGE, found, "four 3-D arrays of the same shape")
