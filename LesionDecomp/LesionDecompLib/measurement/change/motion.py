"""How the lungs moved between two scans: for each place in the later one, where its tissue was in the earlier one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, map_coordinates

from ...threads import over_slices
from .coarse import CoarseGrid

HALF = 0.5 - 1e-9  # of what surrounds a place; rounding must not decide
NEAR_CELLS = 2  # of the coarse grid, around what may be met


@dataclass(frozen=True, eq=False)
class Motion:
    """Displacements from the later to the earlier scan; linear between the points of a coarse grid.

    :param grid: around the later lungs.
    :param displacement: ``(3, z, y, x)`` float32, RAS mm; 0 everywhere where nothing moved.
    :param scale: volume of tissue in the later scan over its volume in the earlier one, lungs as a whole.
    """

    grid: CoarseGrid
    displacement: np.ndarray
    scale: float = 1.0

    @property
    def is_none(self) -> bool:
        """Whether nothing moved."""
        return not self.displacement.any()

    def earlier(self, points: np.ndarray) -> np.ndarray:
        """Where points ``(n, 3)`` of the later scan were in the earlier one; RAS mm."""
        if self.is_none:
            return points
        index = ((points - self.grid.origin) / self.grid.spacing).T[::-1]
        moved = [map_coordinates(part, index, order=1, mode="nearest") for part in self.displacement]
        return points + np.stack(moved, axis=-1)

    def pull(
        self,
        labels: np.ndarray,
        labels_to_ras: np.ndarray,
        onto_to_ras: np.ndarray,
        box: tuple[slice, slice, slice],
    ) -> np.ndarray:
        """Labels of the earlier scan as they lie on the later scan's grid.

        Between voxels their shares are interpolated: a place is labeled where at least half of what surrounds it is, by
        the label that is nearest. The nearest voxel alone would fray the edges by half a voxel, which for lesions of a
        few voxels is a tenth of their volume.

        :param labels: ``(k, j, i)`` of the earlier scan, integers, 0 for nothing.
        :param labels_to_ras: ``(4, 4)`` its index to RAS.
        :param onto_to_ras: ``(4, 4)`` the later scan's index to RAS.
        :param box: of the later grid that is wanted, along (k, j, i).
        :return: of the box, type of ``labels``.
        """
        pulled = np.zeros(tuple(part.stop - part.start for part in box), labels.dtype)
        near = self._near(labels, labels_to_ras)
        to_index = np.linalg.inv(labels_to_ras)
        to_cell = np.linalg.inv(self.grid.index_to_ras) @ onto_to_ras
        j, i = (np.arange(part.start, part.stop, dtype=np.float64) for part in box[1:])
        limits = np.array(self.grid.shape) - 1

        def of_planes(planes: slice) -> None:
            for plane in range(planes.start, planes.stop):
                k = box[0].start + plane
                cells = [
                    np.rint(
                        to_cell[a, 0] * i[None, :] + (to_cell[a, 1] * j + to_cell[a, 2] * k + to_cell[a, 3])[:, None]
                    )
                    for a in (2, 1, 0)
                ]
                z, y, x = (np.clip(cell, 0, limit).astype(np.intp) for cell, limit in zip(cells, limits, strict=True))
                rows, columns = np.nonzero(near[z, y, x])
                if not len(rows):
                    continue
                voxels = np.stack([i[columns], j[rows], np.full(len(rows), float(k))], axis=-1)
                places = self.earlier(voxels @ onto_to_ras[:3, :3].T + onto_to_ras[:3, 3])
                share, label = label_shares(labels, places @ to_index[:3, :3].T + to_index[:3, 3])
                pulled[plane, rows, columns] = np.where(share >= HALF, label, 0)

        over_slices(of_planes, len(pulled))
        return pulled

    def _near(self, labels: np.ndarray, labels_to_ras: np.ndarray) -> np.ndarray:
        """Which points of the coarse grid lie near anything labeled, ``(z, y, x)`` bool."""
        k, j, i = np.nonzero(labels)
        if not len(k):
            return np.zeros(self.grid.shape, bool)
        places = np.stack([i, j, k], axis=-1) @ labels_to_ras[:3, :3].T + labels_to_ras[:3, 3]
        step = self.grid.spacing
        low = places.min(axis=0) - (NEAR_CELLS + 1) * step
        cells = ((places - low) / step).astype(np.intp)
        held = np.zeros(tuple(cells.max(axis=0) + NEAR_CELLS + 2), bool)
        held[tuple(cells.T)] = True
        held = binary_dilation(held, np.ones((3, 3, 3), bool), iterations=NEAR_CELLS)
        points = self.grid.points() + np.moveaxis(self.displacement, 0, -1)
        index = np.floor((points - low) / step).astype(np.intp)
        inside = ((index >= 0) & (index < np.array(held.shape))).all(axis=-1)
        x, y, z = np.moveaxis(np.clip(index, 0, np.array(held.shape) - 1), -1, 0)
        near = inside & held[x, y, z]
        return near | binary_dilation(near)


def label_shares(labels: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much of what surrounds places between voxels is labeled, and by which label: the nearest one.

    :param labels: ``(k, j, i)``, 0 for nothing and beyond the array.
    :param index: ``(n, 3)`` along (i, j, k).
    :return: shares ``(n,)`` in [0, 1] and labels ``(n,)``, 0 where none is near.
    """
    low = np.floor(index).astype(np.intp)
    part = index - low
    share, heaviest = np.zeros(len(index)), np.zeros(len(index))
    found = np.zeros(len(index), labels.dtype)
    limits = np.array(labels.shape)[::-1]
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1.0 - part).prod(axis=1)
        place = low + corner
        inside = ((place >= 0) & (place < limits)).all(axis=1)
        label = np.zeros(len(index), labels.dtype)
        label[inside] = labels[tuple(place[inside].T[::-1])]
        weight *= label != 0
        share += weight
        nearer = weight > heaviest
        found[nearer], heaviest[nearer] = label[nearer], weight[nearer]
    return share, found
