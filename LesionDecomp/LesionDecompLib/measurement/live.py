"""The lesions of one heatmap at any threshold, at once: what a slider needs while it is dragged.

Only warm voxels of the lungs can become lesion. They are listed once; a threshold then costs a few passes over that
list, and none over the volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import ConfigError
from ..segmentation.components import Components, components_of_positions
from ..segmentation.lesions import STAGE, check_number, lung_box, smallest_count, volume_curve
from .statistics import RegionStatistics, Tally, axial_thirds, rows_of_tallies, tally_lesions, tally_lungs
from .tally import ListedVoxels, StoredOrder, list_voxels, voxels_at

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

    def paint(self, labelmap: np.ndarray, *, is_empty: bool = False) -> None:
        """Make an array the lesion labelmap: 1 in lesions, 0 everywhere else.

        :param is_empty: it is 0 everywhere: memory that the system has yet to hand out stays so.
        :param labelmap: ``(z, y, x)`` uint8, axial like the lungs; fastest when it lies in memory as they do.
        :raises LesionDecompError: another shape.
        """
        if labelmap.shape != self._of.lungs.shape:
            found, expected = f"a labelmap of shape {labelmap.shape}", f"the lungs' {self._of.lungs.shape}"
            raise ConfigError(STAGE, found, expected)
        stored = self._of.order(labelmap)
        if not is_empty:
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

    One threshold is looked for in the volume; after :meth:`of`, any number of them in a list.

    :param hu: int16 or float32.
    :param lungs: uint8, 0 / 1 right / 2 left.
    :param heat: float32 in [0, 1].
    :param voxel_volume_ml: volume of a voxel, mL.
    :param box: of the lungs.
    """

    hu: np.ndarray
    lungs: np.ndarray
    heat: np.ndarray
    voxel_volume_ml: float
    box: tuple[slice, slice, slice]

    @classmethod
    def of(
        cls,
        hu: np.ndarray,
        lungs: np.ndarray,
        heat: np.ndarray,
        voxel_volume_ml: float,
        lung_tally: Tally | None = None,
    ) -> LiveLesions:
        """List what may become lesion; takes about a second for 512×512×600 voxels.

        :param lung_tally: of the same arrays, where already known.
        :raises LesionDecompError: shapes that differ, or lung labels other than 0, 1 and 2.
        """
        live = cls(hu, lungs, heat, voxel_volume_ml, lung_box(lungs))
        if lung_tally is not None and lung_tally.box == live.box:
            vars(live)["lung_tally"] = lung_tally
        _ = live.lung_tally, live.listed
        return live

    @cached_property
    def order(self) -> StoredOrder:
        """How the lungs lie in memory."""
        return StoredOrder.of(self.lungs)

    @cached_property
    def lung_tally(self) -> Tally:
        """What no threshold changes."""
        return tally_lungs(self.hu, self.lungs, self.heat, self.box)

    @cached_property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds 0 to 1 and the volume at each (:func:`LesionDecompLib.segmentation.lesions.volume_curve`)."""
        return volume_curve(self.heat, self.lungs, self.voxel_volume_ml, self.box)

    @cached_property
    def floor(self) -> float:
        """Lowest heat in the list."""
        few = np.flatnonzero(self.curve[1] <= MOST_LISTED * self.voxel_volume_ml)
        return float(self.curve[0][few[0]]) if len(few) else 1.0

    @cached_property
    def listed(self) -> ListedVoxels:
        """Warm voxels."""
        return self._warmer_than(self.floor)

    def at(self, threshold: float, min_volume_ml: float) -> Lesions:
        """The lesions of :func:`LesionDecompLib.segmentation.lesions.lesion_labelmap`, voxel for voxel.

        :param threshold: on the heat; compared in the heat's own precision.
        :param min_volume_ml: 26-connected components smaller than this are left out, mL.
        :raises LesionDecompError: a threshold or minimum volume that is not a number from 0 up.
        """
        check_number("threshold", threshold)
        check_number("minimum lesion volume (mL)", min_volume_ml)
        limit = self.heat.dtype.type(threshold)
        if "listed" in vars(self) and limit >= self.heat.dtype.type(self.floor):
            voxels = self.listed.where(self.listed.heat >= limit)
        else:
            voxels = self._warmer_than(threshold)
        components = components_of_positions(voxels.positions, self.order(self.lungs).shape)
        keep = components.sizes >= smallest_count(min_volume_ml, self.voxel_volume_ml)
        if not keep.all():
            voxels = voxels.where(np.repeat(keep[components.labels], components.lengths))
            components = components.where(keep)
        return Lesions(voxels, components, self)

    def of_labelmap(self, lesions: np.ndarray) -> Lesions:
        """The lesions of a labelmap, whatever made it.

        :param lesions: ``(z, y, x)`` uint8, lesion where not 0; voxels outside the lungs are left out.
        :raises LesionDecompError: another shape.
        """
        if lesions.shape != self.lungs.shape:
            found, expected = f"a labelmap of shape {lesions.shape}", f"the lungs' {self.lungs.shape}"
            raise ConfigError(STAGE, found, expected)
        inside, lungs = self.order(lesions), self.order(self.lungs)

        def chosen(plane: int, part: tuple[slice, slice]) -> np.ndarray:
            return np.logical_and(inside[plane][part], lungs[plane][part])

        voxels = self._list(chosen)
        return Lesions(voxels, components_of_positions(voxels.positions, lungs.shape), self)

    def voxels_at(self, places: np.ndarray) -> ListedVoxels:
        """The voxels at given places, flat indices in the stored stack, that lie in the lungs."""
        order, shape = self.order, self.lungs.shape
        arrays = (order(array) for array in (self.hu, self.lungs, self.heat, axial_thirds(shape, self.box[0])))
        return voxels_at(np.unique(places), *arrays)

    def _warmer_than(self, floor: float) -> ListedVoxels:
        """Lung voxels whose heat is at least ``floor``."""
        lungs, heat = self.order(self.lungs), self.order(self.heat)
        limit = heat.dtype.type(floor)

        def warm(plane: int, part: tuple[slice, slice]) -> np.ndarray:
            return (heat[plane][part] >= limit) & (lungs[plane][part] != 0)

        return self._list(warm)

    def _list(self, choose: Callable[[int, tuple[slice, slice]], np.ndarray]) -> ListedVoxels:
        order, shape = self.order, self.lungs.shape
        hu, lungs, heat = order(self.hu), order(self.lungs), order(self.heat)
        return list_voxels(choose, hu, lungs, heat, order(axial_thirds(shape, self.box[0])), order.box(self.box, shape))
