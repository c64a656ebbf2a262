"""Smoothing and resampling that take nothing from outside the lungs."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn import functional

from .resampling import BandedMatrix


def blur_inside(x: torch.Tensor, lung: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur by normalized convolution: only pixels inside the lungs count.

    :param x: ``(n, c, h, w)`` float.
    :param lung: ``(n, 1, h, w)`` of the same type, 1 inside.
    :param sigma: pixels.
    :return: ``(n, c, h, w)``, blurred inside; 0 where no lung is within reach (three sigma).
    """
    rows, columns = (_gaussian(n, float(sigma), x.dtype, str(x.device)) for n in x.shape[2:])
    both = torch.cat([x * lung, lung], dim=1)
    both = columns.across(rows.times(both.flatten(0, 1))).view(both.shape)
    value, weight = both.split([x.shape[1], 1], dim=1)
    return value / weight.clamp_min(1e-6) * (weight > 1e-6)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _gaussian(length: int, sigma: float, dtype: torch.dtype, device: str) -> BandedMatrix:
    """Blur along an axis, as a matrix: many times as fast as the convolution of a single channel."""
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=dtype) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    offset = torch.arange(length)[:, None] - torch.arange(length)[None, :]
    matrix = torch.where(offset.abs() <= reach, kernel[(offset + reach).clamp(0, 2 * reach)], 0.0)
    return BandedMatrix.of(matrix.to(device))


def shrink_inside(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Slices averaged down by ``factor``, the outside taking no part.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs; sides multiples of ``factor``.
    :return: ``(n, 1, h / factor, w / factor)``; lung where more than half of the pixels were, -1 elsewhere.
    """
    share = functional.avg_pool2d((x > -1).to(x.dtype), factor)
    gray = functional.avg_pool2d(torch.where(x > -1, x + 1, 0.0), factor)
    return torch.where(share > 0.5, gray / share.clamp_min(0.5) - 1, -1.0)
