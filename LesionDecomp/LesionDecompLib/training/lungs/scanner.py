"""Other bodies and other scanners: training slices turned, stretched and cut off, and a scanner's picture of them.

All functions take slices with their neighbors, ``(n, c, h, w)`` float32 HU, see :mod:`.chance`.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from .chance import AIR, Chance, box_mean


def warp(
    hu: torch.Tensor,
    labels: torch.Tensor,
    depth_mm: torch.Tensor,
    ignored: torch.Tensor,
    size: tuple[int, int],
    chance: Chance,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Turn, stretch, shear, bend, mirror and shift slices and cut a field of ``size`` out of them.

    A slice and its neighbors are changed alike.

    :param labels: ``(n, c, h, w)`` uint8, 0 / 1 right / 2 left.
    :param depth_mm: ``(n, c, h, w)`` distance from the lung's edge.
    :param ignored: ``(n, h, w)`` bool, of the middle slice.
    :return: all four with sides of ``size``, HU -1000 beyond the scan. Mirroring from side to side exchanges the
        labels, so that label 1 stays on the left of the picture.
    """
    n, c, h, w = hu.shape
    grid, flipped = _grid(n, h, w, size, chance)
    planes = torch.cat([hu - AIR, (labels == 1).float(), (labels == 2).float(), depth_mm, ignored.unsqueeze(1)], dim=1)
    planes = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    moved, right, left, depth = planes[:, : 4 * c].split(c, dim=1)
    right, left = torch.where(flipped, left, right), torch.where(flipped, right, left)
    warped = torch.where(right + left >= 0.5, torch.where(right >= left, 1, 2), 0)
    return moved + AIR, warped.to(torch.uint8), depth, planes[:, -1] > 0.2


def _grid(n: int, h: int, w: int, size: tuple[int, int], chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
    """Where each pixel comes from, ``(n, *size, 2)`` for ``grid_sample``, and ``(n, 1, 1, 1)`` bool: mirrored."""
    out_h, out_w = size
    still = Chance(chance.generator, torch.zeros(n, 1))  # one draw for a slice and its neighbors
    turn = torch.where(still.of(0.1) > 0, still.between(-0.8, 0.8), still.between(-0.26, 0.26))
    scale = torch.where(still.of(0.2) > 0, still.between(0.45, 1.5), still.between(0.72, 1.3))
    stretch, shear = still.between(0.85, 1.18), still.between(-0.12, 0.12)
    mirror, upside = 1.0 - 2.0 * still.of(0.08), 1.0 - 2.0 * still.of(0.03)
    # Output pixel (from its middle) -> input pixel (from its middle).
    cos, sin = torch.cos(turn) / scale, torch.sin(turn) / scale
    a, b = cos * stretch * mirror, (-sin + shear * cos) * mirror
    c, d = sin * stretch * upside, (cos + shear * sin) * upside
    y = (torch.arange(out_h).float() - (out_h - 1) / 2).view(1, 1, out_h, 1)
    x = (torch.arange(out_w).float() - (out_w - 1) / 2).view(1, 1, 1, out_w)
    # Mostly near the middle, at times far enough to cut a lung off.
    far = torch.where(still.of(0.2) > 0, 0.38, 0.1)
    shift_y, shift_x = still.between(-1.0, 1.0) * far * 0.6 * h, still.between(-1.0, 1.0) * far * w
    bend = still.of(0.5) * still.between(0.0, 4.0)
    source_x = a * x + b * y + shift_x + bend * still.smooth(out_h, out_w, 45.0)
    source_y = c * x + d * y + shift_y + bend * still.smooth(out_h, out_w, 45.0)
    # One lung small and the other large: the middle of the chest moves, its walls stay.
    uneven = still.of(0.2) * still.between(-0.35, 0.35)
    half = 0.3 * w
    source_x = source_x + uneven * (half - source_x.square() / half).clamp_min(0.0)
    grid = torch.stack([source_x * (2.0 / w), source_y * (2.0 / h)], dim=-1)[:, 0]
    return grid, mirror < 0


def cut_field(hu: torch.Tensor, labels: torch.Tensor, chance: Chance) -> tuple[torch.Tensor, torch.Tensor]:
    """A scanner's field of view: a circle or a rectangle, padded; what lies outside is not lung.

    :param labels: ``(n, h, w)`` of the middle slices.
    """
    h, w = hu.shape[2:]
    rows = torch.arange(h).view(1, 1, h, 1).float() - h / 2 - chance.between(-12.0, 12.0)
    columns = torch.arange(w).view(1, 1, 1, w).float() - w / 2 - chance.between(-12.0, 12.0)
    radius = chance.between(0.42, 0.75) * w
    circle = rows.square() + columns.square() > radius.square()
    box = (rows.abs() > chance.between(0.3, 0.6) * h) | (columns.abs() > chance.between(0.25, 0.6) * w)
    outside = (circle & (chance.of(0.25) > 0)) | (box & (chance.of(0.15) > 0))
    # -1024, -2000 and -3024 all are the window's floor; now and then a converter writes 0.
    fill = torch.where(chance.of(0.12) > 0, torch.tensor(0.0), torch.tensor(-3024.0))
    return torch.where(outside, fill, hu), torch.where(outside[:, 0], torch.zeros_like(labels), labels)


def image(hu: torch.Tensor, chance: Chance) -> torch.Tensor:
    """A scanner's picture of the same slice: calibration, kernel, pixel size, streaks and noise."""
    h, w = hu.shape[2:]
    noise = chance.normal(h, w)
    if chance.happens(0.5):  # a soft kernel's noise has a grain
        noise = 2.0 * box_mean(noise, 1)
    level = torch.where(chance.of(0.25) > 0, chance.between(0.0, 120.0), chance.between(0.0, 40.0))
    if chance.happens(0.35):  # large pixels
        factor = 1.0 + 1.4 * float(torch.rand((), generator=chance.generator))
        small = functional.interpolate(hu + level * noise, scale_factor=1.0 / factor, mode="area")
        hu = functional.interpolate(small, size=(h, w), mode="bilinear", align_corners=False)
    else:
        hu = hu + level * noise
        blurred = functional.avg_pool2d(hu, 3, 1, 1, count_include_pad=False)
        hu = hu + chance.between(-0.6, 1.0) * chance.of(0.7) * (blurred - hu)  # sharper or softer
    if chance.happens(0.2):  # photon starvation streaks through the shoulders
        streaks = functional.avg_pool2d(chance.normal(h, w), (1, 41), 1, (0, 20))
        hu = hu + streaks * 6.4 * chance.between(0.0, 90.0)
    gain, offset = chance.between(0.93, 1.07), torch.where(chance.of(0.3) > 0, chance.between(-70, 70), torch.zeros(()))
    return (hu - AIR) * gain + AIR + offset
