"""Augmentation of lung slices: what differs between patients and scanners without changing the label."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from ..models.precision import on_device
from .config import Augmentation
from .draws import SliceDraws
from .smooth_fields import interpolated

HEALTHY_GRAY = 97 / 127.5 - 1  # mode of healthy lung in the slices


def augment(
    x: torch.Tensor, ranges: Augmentation, draws: SliceDraws, beside: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Randomly change slices, each in its own way.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :param beside: maps that belong to the slices, ``(n, k, h, w)``: moved with them, otherwise left as they are.
    :return: slices like ``x``, their outside again exactly -1, and the maps (none: k = 0).
    """
    device = x.device
    beside = x.new_empty(len(x), 0, *x.shape[2:]) if beside is None else beside.to(device)
    value, coverage, beside = _move(x, beside, ranges, draws)
    lung = coverage > 0.5
    gain = 1.0 + draws.normal(ranges.gain)
    shift = HEALTHY_GRAY * (1 - gain) - gain + draws.normal(ranges.offset)
    if ranges.gravity > 0:
        height = x.shape[2]
        behind = (torch.arange(height, dtype=x.dtype) - (height - 1) / 2) / 100
        # Never denser in front: few are scanned lying on their face.
        shift = shift + draws.normal(ranges.gravity).abs() * behind.view(1, 1, -1, 1)
    # Divided by the coverage, gray at the lung's edge stays gray instead of fading to black.
    out = (value / coverage.clamp_min_(0.5)).mul_(gain.to(device)).add_(shift.to(device))
    if ranges.rim > 0:
        out = _brighten_rim(out, lung, ranges.rim, draws)
    if ranges.blur > 0:
        share = draws.uniform(0, 1).to(device)
        out = torch.lerp(out, _blur(out, lung.to(out.dtype), ranges.blur), share)
    if ranges.noise > 0:
        size = draws.uniform(0, ranges.noise).to(device)
        out = torch.addcmul(out, on_device(draws.noise(tuple(out.shape[1:])), device), size)
    # Not below the gray of air, and never the value that marks the outside.
    return torch.where(lung, out.clamp_(-1 + 1 / 127.5, 1.0), -1.0), beside


def _brighten_rim(x: torch.Tensor, lung: torch.Tensor, probability: float, draws: SliceDraws) -> torch.Tensor:
    height, width = x.shape[2:]
    one = _grown(~lung)
    two = _grown(one)
    # Where, by a smooth field; how wide and how bright, for each slice.
    coarse = draws.uniform(0, 2, (1, 6, 8)) - draws.uniform(0, 1)
    where = interpolated(coarse.to(x.device), (height, width), "bilinear", align_corners=False).clamp_(0, 1)
    chosen = (draws.uniform(0, 1) < probability).float().to(x.device)
    inner = (draws.uniform(0, 1) < 0.4).float().to(x.device) * 0.5
    gray = draws.uniform(0.1, 1.0).to(x.device)
    # Outermost pixels in full, the next by ``inner``.
    share = torch.lerp(one.to(x.dtype), two.to(x.dtype), inner).mul_(where).mul_(lung).mul_(chosen)
    return torch.lerp(x, torch.maximum(x, gray), share)


def _grown(mask: torch.Tensor) -> torch.Tensor:
    """A bool mask ``(..., h, w)`` with the eight neighbors of each pixel."""
    out = mask.clone()
    out[..., 1:, :] |= mask[..., :-1, :]
    out[..., :-1, :] |= mask[..., 1:, :]
    rows = out.clone()
    out[..., 1:] |= rows[..., :-1]
    out[..., :-1] |= rows[..., 1:]
    return out


def _blur(x: torch.Tensor, lung: torch.Tensor, sigma: float) -> torch.Tensor:
    """:func:`LesionDecompLib.segmentation.smoothing.blur_inside`, for a small ``sigma``, by sums of shifted slices."""
    reach = max(1, math.ceil(3 * sigma))
    weights = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(reach + 1)]
    weights = [weight / (2 * sum(weights) - 1) for weight in weights if weight > 1e-3]
    both = torch.empty(len(x), 2, *x.shape[2:], dtype=x.dtype, device=x.device)
    torch.mul(x, lung, out=both[:, :1])
    both[:, 1:] = lung
    for axis in (2, 3):
        length = both.shape[axis]
        blurred = both * weights[0]
        for step, weight in enumerate(weights[1:], start=1):
            before, after = both.narrow(axis, 0, length - step), both.narrow(axis, step, length - step)
            blurred.narrow(axis, step, length - step).add_(before, alpha=weight)
            blurred.narrow(axis, 0, length - step).add_(after, alpha=weight)
        both = blurred
    return both[:, :1] / both[:, 1:].clamp_min_(1e-6)


def _move(
    x: torch.Tensor, beside: torch.Tensor, ranges: Augmentation, draws: SliceDraws
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Slices turned, sized, shifted and flipped: 1 + their gray times how much lung a pixel covers, that, the maps."""
    n, _, height, width = x.shape
    angle = torch.deg2rad(draws.uniform(-ranges.rotation, ranges.rotation))
    size = 1.0 + draws.uniform(-ranges.scale, ranges.scale)
    sign = torch.where(draws.uniform(0, 1) < ranges.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    right, down = draws.uniform(-ranges.shift, ranges.shift, (2, 1, 1)).unsqueeze(-1).unbind(1)
    # Pixels from the middle; grid_sample's unit is half the picture.
    rows = (torch.arange(height) - (height - 1) / 2).view(1, 1, -1, 1)
    columns = (torch.arange(width) - (width - 1) / 2).view(1, 1, 1, -1)
    across = (cos * sign * columns + right) * (2 / width), -sin * rows * (2 / width)
    along = (sin * sign * columns + down) * (2 / height), cos * rows * (2 / height)
    grid = x.new_empty(n, height, width, 2)
    for axis, (of_column, of_row) in enumerate((across, along)):
        torch.add(of_column[:, 0].to(x.device), of_row[:, 0].to(x.device), out=grid[..., axis])
    sizes = [1, 1, beside.shape[1]]
    layers = x.new_empty(n, sum(sizes), height, width)
    torch.add(x, 1, out=layers[:, :1])  # 0 outside the lungs
    layers[:, 1:2] = x > -1
    layers[:, 2:] = beside
    value, coverage, beside = functional.grid_sample(layers, grid, align_corners=False).split(sizes, dim=1)
    return value, coverage, beside
