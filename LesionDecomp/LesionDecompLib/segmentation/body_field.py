"""What the lung network sees of a patient: a square of 256×256 pixels of 2 mm around the body, in one HU window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ..ct.grid import resampling_matrix
from .resampling import BandedMatrix

AIR_HU = -1000.0
SOFT_TISSUE_HU = -300.0
LEAST_BODY_SHARE = 0.02  # of the soft tissue of the slice that has most


@dataclass(frozen=True)
class FieldOfView:
    """Two pairs of matrices that bring axial slices to the network's pixels and back.

    :param rows, columns: ``(size, ny)`` and ``(size, nx)``: slices to pixels.
    :param rows_back, columns_back: ``(ny, size)`` and ``(nx, size)``: pixels to slices.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    rows_back: torch.Tensor
    columns_back: torch.Tensor

    @classmethod
    def around(
        cls,
        shape_yx: tuple[int, int],
        spacing_yx: tuple[float, float],
        center_yx: tuple[float, float],
        size: int = 256,
        pixel_mm: float = 2.0,
        device: torch.device | str = "cpu",
    ) -> FieldOfView:
        """The field whose middle lies at ``center_yx`` (index, may be fractional) of slices of ``shape_yx``."""
        matrices = []
        for n, spacing, center in zip(shape_yx, spacing_yx, center_yx, strict=True):
            forward = resampling_matrix(n, spacing, size, pixel_mm, center)
            # The middle of the slices, seen from the pixels.
            back_center = (size - 1) / 2 + ((n - 1) / 2 - center) * spacing / pixel_mm
            back = resampling_matrix(size, pixel_mm, n, spacing, back_center)
            matrices.append((torch.from_numpy(forward).to(device), torch.from_numpy(back).to(device)))
        (rows, rows_back), (columns, columns_back) = matrices
        return cls(rows, columns, rows_back, columns_back)

    def part(self, pixels: tuple[slice, slice], slices: tuple[slice, slice]) -> FieldOfView:
        """The field between a part (rows, columns) of the pixels and a part (rows, columns) of the slices."""
        return FieldOfView(
            self.rows[pixels[0], slices[0]],
            self.columns[pixels[1], slices[1]],
            self.rows_back[slices[0], pixels[0]],
            self.columns_back[slices[1], pixels[1]],
        )

    def to_pixels(self, slices: torch.Tensor, pad: float = 0.0) -> torch.Tensor:
        """``(n, ny, nx)`` float32 to ``(n, size, size)``; ``pad`` beyond the slices' edge."""
        rows, columns = self._forward
        if pad == 0.0:
            return columns.across(rows.times(slices))
        return columns.across(rows.times(slices - pad)).add_(pad)

    def to_slices(self, pixels: torch.Tensor, pad: float = 0.0) -> torch.Tensor:
        """``(n, size, size)`` to ``(n, ny, nx)``; ``pad`` where the slices reach beyond the field."""
        rows, columns = self._back
        if pad == 0.0:
            return rows.times(columns.across(pixels))
        return rows.times(columns.across(pixels - pad)).add_(pad)

    @cached_property
    def _forward(self) -> tuple[BandedMatrix, BandedMatrix]:
        return BandedMatrix.of(self.rows), BandedMatrix.of(self.columns)

    @cached_property
    def _back(self) -> tuple[BandedMatrix, BandedMatrix]:
        return BandedMatrix.of(self.rows_back), BandedMatrix.of(self.columns_back)


def body_center(stack: np.ndarray) -> tuple[float, float]:
    """Middle (row, column) of the body in an axial stack ``(z, y, x)`` of HU; the stack's middle when all is air.

    The median of the soft tissue's rows and columns: table, arms and wires move it little. At most about 64 slices
    and every other pixel are looked at.
    """
    center = []
    for profile, n in zip(_tissue_profiles(stack), stack.shape[1:], strict=True):
        total = profile.sum()
        center.append(2.0 * float(np.searchsorted(np.cumsum(profile), total / 2)) if total else (n - 1) / 2)
    return center[0], center[1]


def body_extent(stack: np.ndarray, field: FieldOfView, multiple: int = 32, margin: int = 12) -> tuple[slice, slice]:
    """The rows and columns of the network's pixels that hold body: the air around it need not be looked at.

    The same for all slices of a stack, so that the outcome doesn't depend on how slices are batched; sides are
    multiples of ``multiple`` pixels.
    """
    extent = []
    for profile, matrix in zip(_tissue_profiles(stack), (field.rows, field.columns), strict=True):
        size = matrix.shape[0]
        tissue = np.zeros(matrix.shape[1], dtype=np.float32)
        tissue[::2] = profile > 0.01 * profile.max(initial=0.0)
        hit = np.flatnonzero(matrix.cpu().numpy() @ tissue > 0)
        if hit.size == 0:
            extent.append(slice(0, size))
            continue
        low, high = hit[0] - margin, hit[-1] + 1 + margin
        length = min(-(-(high - low) // multiple) * multiple, size)
        start = int(np.clip((low + high - length) // 2, 0, size - length))
        extent.append(slice(start, start + int(length)))
    return extent[0], extent[1]


def body_slices(stack: np.ndarray) -> tuple[int, int]:
    """First axial slice of an axial stack ``(z, y, x)`` of HU that holds body, and the one after the last: what lies
    outside is air that was added to the scan. Every fourth pixel is looked at."""
    tissue = np.count_nonzero(stack[:, ::4, ::4] > SOFT_TISSUE_HU, axis=(1, 2))
    held = np.flatnonzero(tissue > LEAST_BODY_SHARE * tissue.max(initial=0))
    return (int(held[0]), int(held[-1]) + 1) if held.size else (0, len(stack))


def _tissue_profiles(stack: np.ndarray) -> list[np.ndarray]:
    """Soft-tissue voxels in every other row and in every other column, float64."""
    tissue = stack[:: max(1, stack.shape[0] // 64), ::2, ::2] > SOFT_TISSUE_HU
    return [tissue.sum(axis=axes).astype(np.float64) for axes in ((0, 2), (0, 1))]


def scale_window(hu: torch.Tensor, window: tuple[float, float]) -> torch.Tensor:
    """HU to [-1, 1]: the window's bounds become -1 and 1, and all beyond is cut off."""
    low, high = window
    return ((hu - low) * (2.0 / (high - low)) - 1.0).clamp_(-1.0, 1.0)
