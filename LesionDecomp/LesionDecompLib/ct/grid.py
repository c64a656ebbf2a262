"""From a CT grid of any orientation to axial slices and back, and from slices to the networks' pixels and back.

Two exact, linear steps. :class:`AxialView` permutes and flips the array (views, no copy) so that it becomes a stack of
axial slices in the radiological convention. :func:`resampling_matrix` turns in-plane resampling along one axis into a
matrix, so that a batch of slices is resampled by two matrix products, and brought back by two more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

# RAS direction of the axial stack's (z, y, x): slices go up, rows go to the back, columns go to the patient's left.
AXIAL_DIRECTIONS = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
FINEST_MM = 1e-4  # spacing is not looked at more closely: file formats keep it to about 1e-6


@dataclass(frozen=True, eq=False)
class AxialView:
    """How a ``(k, j, i)`` array is seen as axial slices ``(z, y, x)``.

    z runs from inferior to superior, y from anterior (top of the picture) to posterior, x from the patient's right
    (left of the picture) to the left. Each voxel axis is assigned to the body axis it is nearest to, so that permuting
    or flipping the input's axes permutes the output and changes nothing else.

    A stack of coronal slices, i to the left, j up and k to the front, becomes axial:

    >>> coronal = np.array([[-1.0, 0, 0, 0], [0, 0, 3.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
    >>> view = AxialView.of((60, 200, 256), coronal)
    >>> view.shape, view.spacing, view.flips
    ((200, 60, 256), (1.0, 3.0, 1.0), (False, True, False))
    >>> view.to_axial(np.zeros((60, 200, 256))).shape
    (200, 60, 256)
    """

    axes: tuple[int, int, int]  # axial axis -> array axis
    flips: tuple[bool, bool, bool]  # along the axial axes, after the permutation
    axial_to_ras: np.ndarray  # (4, 4), (x, y, z) index of the axial stack to RAS, mm
    shape: tuple[int, int, int]  # of the axial stack

    @classmethod
    def of(cls, shape: tuple[int, int, int], ijk_to_ras: np.ndarray) -> AxialView:
        """Find the axial view of an array of ``shape`` (k, j, i) that ``ijk_to_ras`` places in the patient."""
        columns = ijk_to_ras[:3, [2, 1, 0]]  # RAS step along the array's axes k, j, i
        cosines = AXIAL_DIRECTIONS @ (columns / np.linalg.norm(columns, axis=0))
        # Rounding makes ties (45 degrees) fall the same way whatever the order of the input's axes is.
        axes = max(permutations(range(3), 3), key=lambda p: np.round(sum(abs(cosines[a, p[a]]) for a in range(3)), 9))
        flip_z, flip_y, flip_x = (bool(cosines[a, axes[a]] < 0) for a in range(3))
        flips = (flip_z, flip_y, flip_x)
        axial_shape = (shape[axes[0]], shape[axes[1]], shape[axes[2]])
        matrix = np.eye(4)
        matrix[:3, 3] = ijk_to_ras[:3, 3]
        for axial_axis, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
            step = columns[:, axis]
            matrix[:3, 2 - axial_axis] = -step if flip else step
            if flip:
                matrix[:3, 3] += step * (shape[axis] - 1)
        return cls(axes, flips, matrix, axial_shape)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxels along (z, y, x), mm, as :func:`nominal_mm` has it."""
        x, y, z = (nominal_mm(float(mm)) for mm in np.linalg.norm(self.axial_to_ras[:3, :3], axis=0))
        return z, y, x

    @property
    def slice_distance(self) -> float:
        """Distance between slice planes, mm, as :func:`nominal_mm` has it: less than the z spacing when the gantry was
        tilted."""
        return nominal_mm(self._plane_distance)

    @property
    def tilt_degrees(self) -> float:
        """Angle between the slices' normal and the patient's body axis, degrees."""
        normal = np.cross(self.axial_to_ras[:3, 0], self.axial_to_ras[:3, 1])
        return float(np.degrees(np.arccos(np.clip(abs(normal[2]) / np.linalg.norm(normal), 0.0, 1.0))))

    @property
    def shear_degrees(self) -> float:
        """Angle between the slices' normal and the way from slice to slice, degrees: the gantry's tilt."""
        along = float(np.linalg.norm(self.axial_to_ras[:3, 2]))
        # Rounded, or the last bits would make an angle of an upright stack.
        return float(np.degrees(np.arccos(np.clip(round(self._plane_distance / along, 9), 0.0, 1.0))))

    @property
    def turn_degrees(self) -> float:
        """Largest angle between a voxel axis and the body axis it stands for, degrees."""
        unit = self.axial_to_ras[:3, [2, 1, 0]] / np.linalg.norm(self.axial_to_ras[:3, [2, 1, 0]], axis=0)
        cosines = np.einsum("ac,ca->a", AXIAL_DIRECTIONS, unit)
        return float(np.degrees(np.arccos(np.clip(cosines.min(), -1.0, 1.0))))

    def to_axial(self, array: np.ndarray) -> np.ndarray:
        """See a ``(k, j, i)`` array as the axial stack ``(z, y, x)``; a view, no copy."""
        return array.transpose(self.axes)[self._slices]

    def from_axial(self, stack: np.ndarray) -> np.ndarray:
        """The exact inverse of :meth:`to_axial`; a view, no copy."""
        return stack[self._slices].transpose(np.argsort(self.axes))

    def array_box(self, box: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
        """A box of the axial stack as the box of the array that holds the same voxels."""
        sides = [slice(0)] * 3
        for axis, flip, part, count in zip(self.axes, self.flips, box, self.shape, strict=True):
            sides[axis] = slice(count - part.stop, count - part.start) if flip else part
        return sides[0], sides[1], sides[2]

    def height_mm(self, z: np.ndarray | float) -> np.ndarray:
        """RAS superior coordinate of the middle of axial slice ``z``, mm."""
        middle = np.array([(self.shape[2] - 1) / 2, (self.shape[1] - 1) / 2])
        row = self.axial_to_ras[2]
        return np.asarray(z) * row[2] + middle @ row[:2] + row[3]

    @property
    def _plane_distance(self) -> float:
        normal = np.cross(self.axial_to_ras[:3, 0], self.axial_to_ras[:3, 1])
        return float(abs(normal @ self.axial_to_ras[:3, 2]) / np.linalg.norm(normal))

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)


def nominal_mm(spacing: float) -> float:
    """A spacing to 0.1 µm, so that the same voxels give the same heat whichever format has rounded their spacing.

    Where rounding changes sides lies between what scanners use: decimals of up to four digits and multiples of 1/512 mm
    (field of view over matrix) are all at least 1.5e-6 mm away from it.

    >>> nominal_mm(2.9999999999999996), nominal_mm(0.7031246), nominal_mm(0.7031254)
    (3.0, 0.7031, 0.7031)
    """
    return float(round(np.floor(spacing / FINEST_MM + 0.5 - 1 / 64) * FINEST_MM, 4)) or spacing


def corner_distance(shape_kji: tuple[int, int, int], a: np.ndarray, b: np.ndarray) -> float:
    """Largest distance, mm, between the places two index to RAS matrices give a grid's corner voxels."""
    corners = np.array([[i, j, k, 1.0] for i in (0, shape_kji[2] - 1) for j in (0, shape_kji[1] - 1)
                        for k in (0, shape_kji[0] - 1)]).T  # fmt: skip
    return float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())


def resampling_matrix(
    n_in: int, spacing_in: float, n_out: int, spacing_out: float, center_in: float | None = None
) -> np.ndarray:
    """Linear resampling along one axis, as a matrix.

    Interpolates linearly when the output is finer than the input, and averages with a triangle as wide as the output
    pixel when it is coarser (no aliasing). The middle of the output lies at input index ``center_in``.

    :param n_in: input samples.
    :param spacing_in: their distance, mm.
    :param n_out: output samples.
    :param spacing_out: their distance, mm.
    :param center_in: input index (may be fractional) under the middle of the output; default the input's middle.
    :return: ``(n_out, n_in)`` float32. A row sums to 1 inside the input and to less beyond its edge: resample
        ``x - pad`` and add ``pad`` to fill what lies outside with ``pad``.

    >>> resampling_matrix(4, 1.0, 2, 2.0).tolist()
    [[0.5, 0.375, 0.125, 0.0], [0.0, 0.125, 0.375, 0.5]]
    """
    scale = spacing_out / spacing_in
    if center_in is None:
        center_in = (n_in - 1) / 2
    position = center_in + (np.arange(n_out) - (n_out - 1) / 2) * scale
    width = max(scale, 1.0)
    # Samples beyond the edge take part in the normalization, so that rows fade to 0 there.
    reach = int(np.ceil(width)) + 1
    base = np.round(position).astype(int)[:, None] + np.arange(-reach, reach + 1)[None, :]
    weight = np.maximum(0.0, 1.0 - np.abs(base - position[:, None]) / width)
    weight /= weight.sum(axis=1, keepdims=True)
    # Half a pixel beyond the outermost sample still belongs to it.
    inside = (position > -0.5 - 1e-9) & (position < n_in - 0.5 + 1e-9)
    edge = np.where(inside[:, None], np.clip(base, 0, n_in - 1), base)
    valid = (edge >= 0) & (edge < n_in)
    matrix = np.zeros((n_out, n_in), dtype=np.float64)
    rows = np.broadcast_to(np.arange(n_out)[:, None], base.shape)
    np.add.at(matrix, (rows[valid], edge[valid]), weight[valid])
    return matrix.astype(np.float32)
