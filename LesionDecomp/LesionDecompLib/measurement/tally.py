"""Voxels of the lungs listed one by one, with all that the statistics ask of them.

Lesions fill a few percent of a scan: what is listed once is counted, joined and painted without another pass over the
volume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from ..segmentation.components import padded_position
from ..segmentation.lesions import memory_order


@dataclass(frozen=True)
class StoredOrder:
    """How a stack lies in memory: its axes from the farthest apart to the nearest, and which of them run backwards."""

    axes: tuple[int, int, int]
    steps: tuple[int, int, int]

    @classmethod
    def of(cls, stack: np.ndarray) -> StoredOrder:
        """The order of a stack, of any memory layout."""
        axes = memory_order(stack)
        first, second, third = (-1 if stack.strides[axis] < 0 else 1 for axis in axes)
        return cls(axes, (first, second, third))

    def box(self, box: tuple[slice, slice, slice], shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
        """A box of a stack of ``shape``, seen in this order."""
        first, second, third = (
            slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start) if step < 0 else box[axis]
            for axis, step in zip(self.axes, self.steps, strict=True)
        )
        return first, second, third

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """An array seen in this order; a view, C-contiguous where the array lies in memory as the stack does."""
        return array.transpose(self.axes)[tuple(slice(None, None, step) for step in self.steps)]


@dataclass(frozen=True, eq=False)
class ListedVoxels:
    """Lung voxels in the order of memory; each array ``(n,)``.

    :param places: flat index in the stored stack.
    :param positions: :func:`LesionDecompLib.segmentation.components.padded_position` there.
    :param cells: uint8, 2 * third + lung label - 1.
    :param hu: HU.
    :param heat: float32.
    """

    places: np.ndarray
    positions: np.ndarray
    cells: np.ndarray
    hu: np.ndarray
    heat: np.ndarray

    def __len__(self) -> int:
        return len(self.places)

    def where(self, chosen: np.ndarray) -> ListedVoxels:
        """The voxels that a mask ``(n,)`` chooses."""
        # Taken by number: several times as fast as by mask.
        index = np.flatnonzero(chosen)
        if len(index) == len(self):
            return self
        return ListedVoxels(*(getattr(self, field.name).take(index) for field in fields(self)))


def list_voxels(
    choose: Callable[[int, tuple[slice, slice]], np.ndarray],
    hu: np.ndarray,
    lungs: np.ndarray,
    heat: np.ndarray,
    thirds: np.ndarray,
    box: tuple[slice, slice, slice],
) -> ListedVoxels:
    """List lung voxels; all arrays in one :class:`StoredOrder`.

    :param choose: gives for a plane of the stored stack, and the part of it inside the box, a mask of voxels that lie
        inside the lungs.
    :param lungs: uint8, 1 right, 2 left.
    :param thirds: uint8, 0 to 2, see :func:`LesionDecompLib.measurement.statistics.thirds_of_slices`.
    :param box: of the lungs.
    """
    rows, columns = box[1:]
    shape = lungs.shape
    kind = np.int32 if padded_position(shape[0], 0, 0, shape) < 2**31 else np.int64
    parts: list[tuple[np.ndarray, ...]] = []
    for plane in range(box[0].start, box[0].stop):
        y, x = np.divmod(
            np.flatnonzero(choose(plane, (rows, columns))).astype(kind), kind(columns.stop - columns.start)
        )
        if len(y) == 0:
            continue
        y += rows.start
        x += columns.start
        here = y * shape[2] + x
        label, third, value, warmth = (a[plane].reshape(-1)[here] for a in (lungs, thirds, hu, heat))
        place = here + kind(plane * shape[1] * shape[2])
        parts.append(
            (
                place,
                padded_position(np.asarray(plane, kind), y, x, shape),
                label + 2 * third - np.uint8(1),
                value,
                warmth,
            )
        )
    if not parts:
        empty = np.zeros(0, kind)
        return ListedVoxels(empty, empty, np.zeros(0, np.uint8), np.zeros(0, hu.dtype), np.zeros(0, heat.dtype))
    return ListedVoxels(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def voxels_at(
    places: np.ndarray, hu: np.ndarray, lungs: np.ndarray, heat: np.ndarray, thirds: np.ndarray
) -> ListedVoxels:
    """The voxels at given places that lie in the lungs; all arrays in one :class:`StoredOrder`.

    :param places: ``(n,)`` flat indices in the stored stack, rising.
    """
    shape = lungs.shape
    z, y, x = np.unravel_index(places, shape)
    inside = lungs[z, y, x] != 0
    z, y, x = z[inside], y[inside], x[inside]
    kind = np.int32 if padded_position(shape[0], 0, 0, shape) < 2**31 else np.int64
    positions = padded_position(z.astype(kind), y.astype(kind), x.astype(kind), shape)
    cells = lungs[z, y, x] + 2 * thirds[z, y, x] - np.uint8(1)
    return ListedVoxels(places[inside].astype(kind), positions, cells, hu[z, y, x], heat[z, y, x])
