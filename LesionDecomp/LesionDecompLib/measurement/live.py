"""The lesions of one heatmap at any threshold, at once: what a slider needs while it is dragged.

Only warm voxels of the lungs can become lesion. They are listed once; a threshold then costs a few passes over that
list, and none over the volume.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..segmentation.components import Components, components_of_positions
from ..segmentation.lesions import STAGE, check_number, lung_box, smallest_count, volume_curve
from .statistics import RegionStatistics, Tally, axial_thirds, rows_of_tallies, tally_lesions, tally_lungs
from .tally import ListedVoxels, StoredOrder, list_voxels

# The list holds at most this many voxels; a threshold so low that it needs more lists its own.
MOST_LISTED = 1 << 21


@dataclass(frozen=True, eq=False)
class Lesions:
    """The lesions at one threshold; made by :meth:`LiveLesions.at`.

    :param voxels: of all lesions.
    :param components: of these voxels, whose runs follow one another in their order.
    """

    voxels: ListedVoxels
    components: Components
    _of: LiveLesions

    @property
    def volume_ml(self) -> float:
        """Volume of all lesions, mL."""
        return len(self.voxels) * self._of.voxel_volume_ml

    def paint(self, labelmap: np.ndarray) -> None:
        """Make an array the lesion labelmap: 1 in lesions, 0 everywhere else.

        :param labelmap: ``(z, y, x)`` uint8, axial like the lungs; fastest when it lies in memory as they do.
        :raises LesionDecompError: another shape.
        """
        if labelmap.shape != self._of.lungs.shape:
            found, expected = f"a labelmap of shape {labelmap.shape}", f"the lungs' {self._of.lungs.shape}"
            raise ConfigError(STAGE, found, expected)
        stored = self._of.order(labelmap)
        stored[...] = 0
        if stored.flags.c_contiguous:
            stored.reshape(-1)[self.voxels.places] = 1
        else:
            stored[np.unravel_index(self.voxels.places, stored.shape)] = 1

    def statistics(self) -> list[RegionStatistics]:
        """The rows of :func:`LesionDecompLib.measurement.statistics.lesion_statistics` for these lesions."""
        lungs = self._of.lung_tally
        return rows_of_tallies(lungs, tally_lesions(lungs, self.voxels, self.components), self._of.voxel_volume_ml)


@dataclass(frozen=True, eq=False)
class LiveLesions:
    """What a threshold turns into lesions; all arrays axial stacks ``(z, y, x)``, of any memory layout.

    :param hu: int16 or float32.
    :param lungs: uint8, 0 / 1 right / 2 left.
    :param heat: float32 in [0, 1].
    :param voxel_volume_ml: volume of a voxel, mL.
    :param order: of the lungs in memory.
    :param lung_tally: what no threshold changes.
    :param floor: lowest heat in the list.
    :param listed: warm voxels.
    :param curve: thresholds 0 to 1 and the volume at each (:func:`LesionDecompLib.segmentation.lesions.volume_curve`).
    """

    hu: np.ndarray
    lungs: np.ndarray
    heat: np.ndarray
    voxel_volume_ml: float
    order: StoredOrder
    lung_tally: Tally
    floor: float
    listed: ListedVoxels
    curve: tuple[np.ndarray, np.ndarray]

    @classmethod
    def of(cls, hu: np.ndarray, lungs: np.ndarray, heat: np.ndarray, voxel_volume_ml: float) -> LiveLesions:
        """List what may become lesion; takes about a second for 512×512×600 voxels.

        :raises LesionDecompError: shapes that differ, or lung labels other than 0, 1 and 2.
        """
        lung_tally = tally_lungs(hu, lungs, heat)
        curve = volume_curve(heat, lungs, voxel_volume_ml)
        few = np.flatnonzero(curve[1] <= MOST_LISTED * voxel_volume_ml)
        floor = float(curve[0][few[0]]) if len(few) else 1.0
        order = StoredOrder.of(lungs)
        listed = _warm_voxels(hu, lungs, heat, order, floor)
        return cls(hu, lungs, heat, voxel_volume_ml, order, lung_tally, floor, listed, curve)

    def at(self, threshold: float, min_volume_ml: float) -> Lesions:
        """The lesions of :func:`LesionDecompLib.segmentation.lesions.lesion_labelmap`, voxel for voxel.

        :param threshold: on the heat; compared in the heat's own precision.
        :param min_volume_ml: 26-connected components smaller than this are left out, mL.
        :raises LesionDecompError: a threshold or minimum volume that is not a number from 0 up.
        """
        check_number("threshold", threshold)
        check_number("minimum lesion volume (mL)", min_volume_ml)
        limit = self.heat.dtype.type(threshold)
        if limit >= self.heat.dtype.type(self.floor):
            voxels = self.listed.where(self.listed.heat >= limit)
        else:
            voxels = _warm_voxels(self.hu, self.lungs, self.heat, self.order, threshold)
        components = components_of_positions(voxels.positions, self.order(self.lungs).shape)
        keep = components.sizes >= smallest_count(min_volume_ml, self.voxel_volume_ml)
        if not keep.all():
            voxels = voxels.where(np.repeat(keep[components.labels], components.lengths))
            components = components.where(keep)
        return Lesions(voxels, components, self)


def _warm_voxels(hu: np.ndarray, lungs: np.ndarray, heat: np.ndarray, order: StoredOrder, floor: float) -> ListedVoxels:
    """Lung voxels whose heat is at least ``floor``."""
    hu, thirds, heat = order(hu), order(axial_thirds(lungs)), order(heat)
    lungs = order(lungs)
    limit = heat.dtype.type(floor)

    def warm(plane: int, part: tuple[slice, slice]) -> np.ndarray:
        return (heat[plane][part] >= limit) & (lungs[plane][part] != 0)

    return list_voxels(warm, hu, lungs, heat, thirds, lung_box(lungs))
