"""From HU slices to what the lesion network saw in training, and its heat back to the scan's slices.

The network knows lung-masked grey slices of 256×256 pixels, scaled to [-1, 1], everything outside the lungs exactly
-1. :class:`LesionField` makes these from any axial slices by two matrix products, and brings heat back by two more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from .body_field import FieldOfView

OUTSIDE = -1.0
DARKEST = -1.0 + 1 / 127.5  # inside the lungs, grey 1 of 255: air must not look like outside
# Sides of what the network is given: it halves them four times.
MULTIPLE = 32
MARGIN = 8


@dataclass(frozen=True, eq=False)
class LesionField:
    """Where the lesion network's pixels lie in a scan's axial slices.

    :param field: matrices between the part of the slices named by ``rows`` and ``columns`` and the pixels.
    :param rows, columns: the lungs' bounding box in the scan's slices.
    :param pixel_rows, pixel_columns: the pixels that hold lung, sides a multiple of 32; the others stay outside.
    :param hu_window: HU that become grey -1 and 1.
    """

    field: FieldOfView
    rows: slice
    columns: slice
    pixel_rows: slice
    pixel_columns: slice
    hu_window: tuple[float, float]

    @classmethod
    def around(
        cls,
        box: tuple[slice, slice],
        spacing_yx: tuple[float, float],
        size: int,
        pixel_mm: float,
        hu_window: tuple[float, float],
        device: torch.device | str = "cpu",
    ) -> LesionField:
        """A field whose middle is the middle of the lungs.

        :param box: rows and columns of the slices that hold lung. :param spacing_yx: of the slices, mm.
        :param size: pixels along a side. :param pixel_mm: their distance, mm.
        """
        rows, columns = box
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        center = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
        field = FieldOfView.around(shape, spacing_yx, center, size, pixel_mm, device)
        held = [
            _centered(int(np.ceil(length * spacing / pixel_mm)) + 2 * MARGIN, size)
            for length, spacing in zip(shape, spacing_yx, strict=True)
        ]
        return cls(field, rows, columns, held[0], held[1], hu_window)

    def to_input(self, hu: np.ndarray, lungs: np.ndarray) -> torch.Tensor:
        """Make the network's input of axial slices.

        Grey and lung are resampled together and divided, so that no darkness from outside leaks into the rim.

        :param hu: ``(n, ny, nx)`` of the field's rows and columns, HU. :param lungs: the same shape, lung where not 0.
        :return: ``(n, 1, h, w)`` float32 in [-1, 1], exactly -1 outside the lungs.
        """
        low, high = self.hu_window
        device = self.field.rows.device
        lung = torch.from_numpy((lungs != 0).astype(np.float32)).to(device)
        grey = torch.from_numpy(hu.astype(np.float32)).to(device)
        grey = grey.sub_(low).mul_(2.0 / (high - low)).clamp_(0.0, 2.0).mul_(lung)  # [0, 2], 0 outside
        part = (slice(None), self.pixel_rows, self.pixel_columns)
        coverage = self.field.to_pixels(lung)[part]
        grey = self.field.to_pixels(grey)[part] / coverage.clamp_min(0.5) - 1.0
        return torch.where(coverage > 0.5, grey.clamp(DARKEST, 1.0), OUTSIDE).unsqueeze(1)

    def to_slices(self, heat: torch.Tensor, inside: torch.Tensor, lungs: np.ndarray) -> np.ndarray:
        """Bring heat back to the scan's slices: the inverse of :meth:`to_input`, by linear interpolation.

        :param heat: ``(n, 1, h, w)`` in [0, 1]. :param inside: the same shape, 1 inside the lungs.
        :param lungs: ``(n, ny, nx)``, lung where not 0. :return: ``(n, ny, nx)`` float32 in [0, 1], 0 outside.
        """
        rows = self.field.rows_back[:, self.pixel_rows]
        columns = self.field.columns_back[:, self.pixel_columns].T
        weight = rows @ inside[:, 0] @ columns
        value = (rows @ (heat * inside)[:, 0] @ columns) / weight.clamp_min(1e-4)
        value = torch.where(weight > 1e-4, value.clamp(0.0, 1.0), 0.0).cpu().numpy()
        return np.where(lungs != 0, value, np.float32(0.0))


def _centered(length: int, size: int) -> slice:
    length = min(-(-length // MULTIPLE) * MULTIPLE, size)
    start = (size - length) // 2
    return slice(start, start + length)
