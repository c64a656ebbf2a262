"""Smoothing and resampling that take nothing from outside the lungs."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def blur_inside(x: torch.Tensor, lung: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur by normalised convolution: only pixels inside the lungs count.

    :param x: ``(n, c, h, w)`` float. :param lung: ``(n, 1, h, w)`` of the same type, 1 inside. :param sigma: pixels.
    :return: ``(n, c, h, w)``, blurred inside; 0 where no lung is within reach (three sigma).
    """
    reach = max(1, math.ceil(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    both = torch.cat([x * lung, lung], dim=1).flatten(0, 1).unsqueeze(1)
    both = functional.conv2d(both, kernel.view(1, 1, -1, 1), padding=(reach, 0))
    both = functional.conv2d(both, kernel.view(1, 1, 1, -1), padding=(0, reach))
    value, weight = both.view(len(x), -1, *x.shape[2:]).split([x.shape[1], 1], dim=1)
    return value / weight.clamp_min(1e-6) * (weight > 1e-6)


def shrink_inside(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Slices averaged down by ``factor``, the outside taking no part.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs; sides multiples of ``factor``.
    :return: ``(n, 1, h / factor, w / factor)``; lung where more than half of the pixels were, -1 elsewhere.
    """
    share = functional.avg_pool2d((x > -1).to(x.dtype), factor)
    grey = functional.avg_pool2d(torch.where(x > -1, x + 1, 0.0), factor)
    return torch.where(share > 0.5, grey / share.clamp_min(0.5) - 1, -1.0)
