"""A field of view that cuts through a lung: beyond its edges the network sees the scan's mirror image instead of air.

Lung that borders on air looks like clothes or folds of skin beside a patient, and the network stops short of the edge.
A scan is looked at a second time where lung was found to go on to an edge; all others are looked at once, as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...models.precision import on_device
from ..body_field import FieldOfView

# Aerated lung; the air around a patient is as dark as the window goes.
AERATED_HU = -500.0
LEAST_CUT_CM2 = 10.0
LEAST_CUT_MM = 30.0  # of each slice, where there are few
MIRRORED_PIXELS = 14
# A row of a resampling matrix sums to 1 within the scan, and to less beyond its edge.
WITHIN_SCAN = 0.999


def cuts_lung(lung: np.ndarray, hu: np.ndarray, field: FieldOfView, spacing: tuple[float, float, float]) -> bool:
    """Whether aerated lung goes on up to one of a scan's four edges, with no chest wall between.

    :param lung: ``(z, size, size)`` bool, found by the network.
    :param hu: ``(z, size, size)`` int16, clipped to the network's window.
    :param spacing: of (z, y, x), mm.
    """
    within = (slice(None), pixels_within(field.rows), pixels_within(field.columns))
    lung, hu = lung[within], hu[within]
    way = ((hu < AERATED_HU) & (hu > hu.min(initial=0))) | lung
    least = min(LEAST_CUT_CM2, LEAST_CUT_MM * spacing[0] * len(lung) / 100.0)

    def area_cm2(axis: int, step: int) -> float:
        inward = (slice(None),) * axis + (slice(None, None, step),)
        open_to_edge = np.logical_and.accumulate(way[inward], axis=axis) & lung[inward]
        return int(np.count_nonzero(open_to_edge.any(axis=axis))) * spacing[0] * spacing[3 - axis] / 100.0

    return any(area_cm2(axis, step) >= least for axis in (1, 2) for step in (1, -1))


def pixels_within(matrix: torch.Tensor) -> slice:
    """The network's pixels along one axis that lie within the scan.

    :param matrix: ``(pixels, samples)``, slices to pixels (``FieldOfView.rows`` or ``columns``).
    """
    inside = np.flatnonzero(matrix.cpu().numpy().sum(axis=1) > WITHIN_SCAN)
    return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, len(matrix))


@dataclass(frozen=True)
class MirroredEdges:
    """A scan's pixels going on beyond its edges as their mirror image, for a few pixels.

    :param rows, columns: ``(rows, 1)`` and ``(columns,)`` int64, where each pixel looks.
    :param beyond: ``(rows, columns)`` bool, what is too far from the scan to be its mirror image.
    :param near: the rows and columns within the scan, and one on each side, which the outermost voxels reach.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    beyond: torch.Tensor
    near: tuple[slice, slice]

    @classmethod
    def of(cls, field: FieldOfView, reach: int = MIRRORED_PIXELS) -> MirroredEdges:
        """The edges as a field of view shows them; the mirror image is ``reach`` pixels wide."""
        (rows, far_rows, near_rows), (columns, far_columns, near_columns) = (
            _mirrored(len(matrix), pixels_within(matrix), reach) for matrix in (field.rows, field.columns)
        )
        row_places, column_places, beyond = (
            on_device(torch.from_numpy(array), field.rows.device)
            for array in (rows[:, None], columns, far_rows[:, None] | far_columns)
        )
        return cls(row_places, column_places, beyond, (near_rows, near_columns))

    def applied(self, pixels: torch.Tensor, pad: float) -> torch.Tensor:
        """``(n, rows, columns)`` to the same, ``pad`` in what is beyond."""
        return pixels[:, self.rows, self.columns].masked_fill_(self.beyond, pad)


def _mirrored(size: int, within: slice, reach: int) -> tuple[np.ndarray, np.ndarray, slice]:
    """Of one axis: where each pixel looks, which are too far from the scan, and the pixels near it."""
    pixels = np.arange(size)
    first, last = within.start, within.stop - 1
    places = np.where(pixels < first, 2 * first - 1 - pixels, np.where(pixels > last, 2 * last + 1 - pixels, pixels))
    far = (pixels < first - reach) | (pixels > last + reach)
    return places.clip(first, last), far, slice(max(first - 1, 0), last + 2)
