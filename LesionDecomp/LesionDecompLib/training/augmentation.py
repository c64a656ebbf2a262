"""Augmentation of lung slices: what differs between patients and scanners without changing the label."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from ..smoothing import blur_inside
from .slice_draws import SliceDraws


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; 0 switches one off.

    :param rotation: largest turn, degrees.
    :param scale: largest relative change of size.
    :param shift: largest shift, pixels.
    :param flip: probability of a left-right flip.
    :param offset: standard deviation of a grey offset, in units of the [-1, 1] range. The bound of the slices' lung
        window is known to ±60 HU only, which is ±0.10 of this range.
    :param gain: standard deviation of a relative change of contrast about the healthy-lung grey.
    :param noise: largest standard deviation of white noise.
    :param blur: largest Gaussian blur, pixels.
    :param rim: probability of a bright rim, one or two pixels wide in places: lung masks of other makers take in some
        chest wall, those of the slices none.
    :param gravity: standard deviation of a density gradient from front to back, in units of the [-1, 1] range over
        100 pixels: supine lungs are denser behind, by scanner table, breath and age.
    """

    rotation: float = 15.0
    scale: float = 0.15
    shift: float = 4.0
    flip: float = 0.5
    offset: float = 0.08
    gain: float = 0.08
    noise: float = 0.06
    blur: float = 0.8
    rim: float = 0.5
    gravity: float = 0.1


HEALTHY_GREY = 97 / 127.5 - 1  # mode of healthy lung in the slices


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
    moved, beside = _move(x, beside, ranges, draws)
    lung = moved > -1
    gain = 1.0 + draws.normal(ranges.gain).to(device)
    out = HEALTHY_GREY + (moved - HEALTHY_GREY) * gain + draws.normal(ranges.offset).to(device)
    if ranges.gravity > 0:
        height = out.shape[2]
        behind = (torch.arange(height, dtype=out.dtype, device=device) - (height - 1) / 2) / 100
        # Never denser in front: few are scanned lying on their face.
        out = out + draws.normal(ranges.gravity).to(device).abs() * behind.view(1, 1, -1, 1)
    if ranges.rim > 0:
        out = _brighten_rim(out, lung, ranges.rim, draws)
    if ranges.blur > 0:
        share = draws.uniform(0, 1).to(device)
        out = torch.lerp(out, blur_inside(out, lung.float(), ranges.blur), share)
    if ranges.noise > 0:
        size = draws.uniform(0, ranges.noise).to(device)
        out = out + draws.normal(1.0, tuple(out.shape[1:])).to(device) * size
    # Not below the grey of air, and never the value that marks the outside.
    return torch.where(lung, out.clamp(-1 + 1 / 127.5, 1.0), -1.0), beside


def _brighten_rim(x: torch.Tensor, lung: torch.Tensor, probability: float, draws: SliceDraws) -> torch.Tensor:
    height, width = x.shape[2:]
    outside = (~lung).float()
    one = functional.max_pool2d(outside, 3, stride=1, padding=1) > 0
    two = functional.max_pool2d(outside, 5, stride=1, padding=2) > 0
    # Where, by a smooth field; how wide and how bright, for each slice.
    coarse = draws.uniform(0, 2, (1, 6, 8)) - draws.uniform(0, 1)
    where = functional.interpolate(coarse.to(x.device), (height, width), mode="bilinear").clamp(0, 1)
    chosen = (draws.uniform(0, 1) < probability).float().to(x.device)
    inner = (draws.uniform(0, 1) < 0.4).float().to(x.device) * 0.5
    grey = draws.uniform(0.1, 1.0).to(x.device)
    share = chosen * where * torch.where(one, 1.0, torch.where(two, inner, 0.0)) * lung
    return torch.lerp(x, torch.maximum(x, grey), share)


def _move(
    x: torch.Tensor, beside: torch.Tensor, ranges: Augmentation, draws: SliceDraws
) -> tuple[torch.Tensor, torch.Tensor]:
    n, _, height, width = x.shape
    angle = torch.deg2rad(draws.uniform(-ranges.rotation, ranges.rotation, ()))
    size = 1.0 + draws.uniform(-ranges.scale, ranges.scale, ())
    sign = torch.where(draws.uniform(0, 1, ()) < ranges.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
    theta = torch.zeros(n, 2, 3)
    # affine_grid works in units of half the picture: the aspect ratio keeps a turn a turn.
    theta[:, 0, 0], theta[:, 0, 1] = cos * sign, -sin * height / width
    theta[:, 1, 0], theta[:, 1, 1] = sin * width / height * sign, cos
    theta[:, :, 2] = draws.uniform(-ranges.shift, ranges.shift, (2,)) * torch.tensor([2 / width, 2 / height])
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False).to(x.device)
    lung = (x > -1).to(x.dtype)
    layers = torch.cat([(x + 1) * lung, lung, beside], 1)
    sizes = [1, 1, beside.shape[1]]
    value, coverage, beside = functional.grid_sample(layers, grid, align_corners=False).split(sizes, dim=1)
    # Divided by the coverage, grey at the lung's edge stays grey instead of fading to black.
    return torch.where(coverage > 0.5, value / coverage.clamp_min(0.5) - 1, -1.0), beside
