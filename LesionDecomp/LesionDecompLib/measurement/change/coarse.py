"""Lungs on a coarse grid that follows the patient's axes: what is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

from ...ct.steps import steps_covering
from ...segmentation.lesions import lung_box
from .scan import Scan

MARGIN_MM = 24.0  # around the lungs
LUNG, TISSUE = 0.15, 1.0  # gray of healthy lung and of whatever is not lung
HEALTHY_HU = -850.0  # where it is not known
Values = Callable[[tuple[slice, slice, slice]], np.ndarray]


@dataclass(frozen=True, eq=False)
class CoarseGrid:
    """A grid along the patient's axes.

    :param origin: ``(3,)`` RAS of its first point, mm.
    :param spacing: mm, along each axis.
    :param shape: points along (z, y, x): superior, anterior, right.
    """

    origin: np.ndarray
    spacing: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, scan: Scan, spacing: float) -> CoarseGrid:
        """The grid that holds a scan's lungs and some tissue around them."""
        corners = [[part.start - 0.5, part.stop - 0.5] for part in reversed(scan.box)]
        points = np.array([[i, j, k, 1.0] for i in corners[0] for j in corners[1] for k in corners[2]])
        places = points @ scan.ijk_to_ras[:3].T
        # Rounded, or the last bit of an origin would depend on the order of the array's axes.
        low, high = places.min(axis=0).round(3) - MARGIN_MM, places.max(axis=0).round(3) + MARGIN_MM
        x, y, z = (steps_covering(float(extent), spacing) + 1 for extent in high - low)
        return cls(low, spacing, (z, y, x))

    @property
    def index_to_ras(self) -> np.ndarray:
        """``(4, 4)``: (x, y, z) index to RAS, mm."""
        matrix = np.diag([self.spacing] * 3 + [1.0])
        matrix[:3, 3] = self.origin
        return matrix

    def points(self) -> np.ndarray:
        """``(z, y, x, 3)`` RAS of all points, mm."""
        x, y, z = (self.origin[axis] + self.spacing * np.arange(n) for axis, n in enumerate(reversed(self.shape)))
        return np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)


def lung_image(scan: Scan, grid: CoarseGrid) -> np.ndarray:
    """The lungs in gray: healthy lung at one gray whatever the breath, vessels lighter, all else as soft tissue.

    Lesions are as healthy lung, so that those of one scan alone draw nothing towards themselves.

    :return: ``(z, y, x)`` float32.
    """
    view, healthy = scan.view, _healthy_hu(scan)
    stacks = [view.to_axial(array) for array in (scan.lungs, scan.lesions)]
    hu = view.to_axial(scan.hu) if scan.hu is not None else None

    def gray(part: tuple[slice, slice, slice]) -> np.ndarray:
        inside, lesions = stacks[0][part] != 0, stacks[1][part] != 0
        image = np.full(inside.shape, TISSUE, np.float32)
        image[inside] = LUNG
        if hu is not None:
            shown = inside & ~lesions
            density = np.clip(hu[part][shown].astype(np.float32), -1000.0, 0.0)
            image[shown] = np.maximum(TISSUE + density * np.float32((TISSUE - LUNG) / -healthy), 0.0)
        return image

    return _on_grid(scan, grid, gray, TISSUE)


def lung_share(scan: Scan, grid: CoarseGrid) -> np.ndarray:
    """How much of each point's surroundings is lung, ``(z, y, x)`` float32 in [0, 1]."""
    lungs = scan.view.to_axial(scan.lungs)
    return _on_grid(scan, grid, lambda part: (lungs[part] != 0).astype(np.float32), 0.0)


def lesion_share(scan: Scan, grid: CoarseGrid) -> np.ndarray:
    """How much of each point's surroundings is lesion, ``(z, y, x)`` float32 in [0, 1]."""
    lesions = scan.view.to_axial(scan.lesions)
    return _on_grid(scan, grid, lambda part: (lesions[part] != 0).astype(np.float32), 0.0)


def _healthy_hu(scan: Scan) -> float:
    if scan.hu is None:
        return HEALTHY_HU
    healthy = scan.hu[scan.box][(scan.lungs[scan.box] != 0) & (scan.lesions[scan.box] == 0)]
    if not len(healthy):
        return HEALTHY_HU
    return float(np.clip(np.median(healthy), -980.0, -400.0))


def _on_grid(scan: Scan, grid: CoarseGrid, values: Values, outside: float) -> np.ndarray:
    """Mean of blocks of voxels near the grid's spacing, then linear; only where the lungs are."""
    view = scan.view
    box = lung_box(view.to_axial(scan.lungs))
    factors = [max(1, int(grid.spacing / mm + 1e-6)) for mm in view.spacing]
    means = np.concatenate(list(_block_means(box, factors, values)))
    # Block (x, y, z) -> voxel of the axial stack -> RAS.
    to_voxel = np.eye(4)
    for axis in range(3):
        factor, start = factors[2 - axis], box[2 - axis].start
        to_voxel[axis, axis], to_voxel[axis, 3] = factor, start + (factor - 1) / 2
    matrix = np.linalg.inv(view.axial_to_ras @ to_voxel) @ grid.index_to_ras
    order = [2, 1, 0]
    padded = np.pad(means, 1, constant_values=outside)
    return affine_transform(
        padded,
        matrix[:3, :3][np.ix_(order, order)],
        matrix[:3, 3][order] + 1.0,
        output_shape=grid.shape,
        order=1,
        mode="nearest",
    )


def _block_means(box: tuple[slice, slice, slice], factors: list[int], values: Values) -> Iterator[np.ndarray]:
    """Means of blocks, one slab of blocks after the other; the last block of an axis may reach over the box's end."""
    rows, columns = box[1:]
    for start in range(box[0].start, box[0].stop, factors[0]):
        part = values((slice(start, min(start + factors[0], box[0].stop)), rows, columns)).mean(axis=0)
        for axis in (0, 1):
            edges = np.arange(0, part.shape[axis], factors[axis + 1])
            widths = np.diff(np.append(edges, part.shape[axis])).astype(np.float32)
            part = np.add.reduceat(part, edges, axis=axis)
            part /= widths[:, None] if axis == 0 else widths[None, :]
        yield part[None].astype(np.float32)
