"""Augmentation of lung slices: what differs between patients and scanners without changing the label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..smoothing import blur_inside


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the random changes; 0 switches one off.

    :param rotation: largest turn, degrees. :param scale: largest relative change of size.
    :param shift: largest shift, pixels. :param flip: probability of a left-right flip.
    :param offset: standard deviation of a grey offset, in units of the [-1, 1] range. The bound of the slices' lung
        window is known to ±60 HU only, which is ±0.10 of this range.
    :param gain: standard deviation of a relative change of contrast about the healthy-lung grey.
    :param noise: largest standard deviation of white noise. :param blur: largest Gaussian blur, pixels.
    :param rim: probability of a bright rim, one or two pixels wide in places: lung masks of other makers take in some
        chest wall, those of the slices none.
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


HEALTHY_GREY = 97 / 127.5 - 1  # mode of healthy lung in the slices


def augment(x: torch.Tensor, ranges: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    """Randomly change slices, each in its own way.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs. :return: the same; outside stays exactly -1.
    """
    moved = _move(x, ranges, rng)
    lung = moved > -1
    n = len(x)

    def normal(sd: float) -> torch.Tensor:
        return torch.from_numpy(rng.normal(0.0, sd, (n, 1, 1, 1)).astype(np.float32)).to(x.device)

    out = HEALTHY_GREY + (moved - HEALTHY_GREY) * (1.0 + normal(ranges.gain)) + normal(ranges.offset)
    if ranges.rim > 0:
        out = _brighten_rim(out, lung, ranges.rim, rng)
    if ranges.blur > 0:
        out = torch.lerp(out, blur_inside(out, lung.float(), ranges.blur), _uniform(rng, n, x.device))
    if ranges.noise > 0:
        white = torch.from_numpy(rng.standard_normal(out.shape, dtype=np.float32)).to(x.device)
        out = out + white * _uniform(rng, n, x.device) * ranges.noise
    # Not below the grey of air, and never the value that marks the outside.
    return torch.where(lung, out.clamp(-1 + 1 / 127.5, 1.0), -1.0)


def _brighten_rim(x: torch.Tensor, lung: torch.Tensor, probability: float, rng: np.random.Generator) -> torch.Tensor:
    n, _, height, width = x.shape
    outside = (~lung).float()
    one = functional.max_pool2d(outside, 3, stride=1, padding=1) > 0
    two = functional.max_pool2d(outside, 5, stride=1, padding=2) > 0
    # Where, by a smooth field; how wide and how bright, for each slice.
    coarse = rng.random((n, 1, 6, 8), dtype=np.float32) * 2 - rng.random((n, 1, 1, 1), dtype=np.float32)
    where = functional.interpolate(torch.from_numpy(coarse).to(x.device), (height, width), mode="bilinear").clamp(0, 1)
    chosen = (_uniform(rng, n, x.device) < probability).float()
    inner = (_uniform(rng, n, x.device) < 0.4).float() * 0.5
    grey = _uniform(rng, n, x.device) * 0.9 + 0.1
    share = chosen * where * torch.where(one, 1.0, torch.where(two, inner, 0.0)) * lung
    return torch.lerp(x, torch.maximum(x, grey), share)


def _move(x: torch.Tensor, ranges: Augmentation, rng: np.random.Generator) -> torch.Tensor:
    n, _, height, width = x.shape
    angle = np.radians(rng.uniform(-ranges.rotation, ranges.rotation, n))
    size = 1.0 + rng.uniform(-ranges.scale, ranges.scale, n)
    sign = np.where(rng.random(n) < ranges.flip, -1.0, 1.0)
    theta = np.zeros((n, 2, 3), dtype=np.float32)
    # affine_grid works in units of half the picture: the aspect ratio keeps a turn a turn.
    theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) / size * sign, -np.sin(angle) / size * height / width
    theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) / size * width / height * sign, np.cos(angle) / size
    theta[:, :, 2] = rng.uniform(-ranges.shift, ranges.shift, (n, 2)) * np.array([2 / width, 2 / height])
    grid = functional.affine_grid(torch.from_numpy(theta), list(x.shape), align_corners=False).to(x.device)
    lung = (x > -1).to(x.dtype)
    both = functional.grid_sample(torch.cat([(x + 1) * lung, lung], 1), grid, align_corners=False)
    # Divided by the coverage, grey at the lung's edge stays grey instead of fading to black.
    value, coverage = both.split(1, dim=1)
    return torch.where(coverage > 0.5, value / coverage.clamp_min(0.5) - 1, -1.0)


def _uniform(rng: np.random.Generator, n: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(rng.random((n, 1, 1, 1), dtype=np.float32)).to(device)
