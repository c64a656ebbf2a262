"""Smoothing and resampling that take nothing from outside the lungs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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


class AcrossSlices:
    """Heat averaged with that of the slices above and below by a Gaussian, where these have lung: slices come one after
    the other, and leave when the last that counts for them has come. A scan's first and last slice have neighbors on
    one side.

    :param sigma: slices; those further than twice of it away do not count.
    """

    def __init__(self, sigma: float) -> None:
        self.reach = int(2 * sigma + 1e-6)
        self._weights = [math.exp(-0.5 * (step / sigma) ** 2) if sigma > 0 else 1.0 for step in range(self.reach + 1)]
        self._held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._waiting: list[int] = []

    def add(
        self, numbers: Sequence[int], heat: torch.Tensor, inside: torch.Tensor
    ) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        """Take in slices and give those that are done: their numbers, heat and inside.

        :param numbers: of the slices, rising, above all that came before.
        :param heat, inside: ``(n, 1, h, w)``, heat and 1 inside the lungs.
        """
        if self.reach == 0:
            return list(numbers), heat, inside
        self._held |= {z: (heat[n], inside[n]) for n, z in enumerate(numbers)}
        self._waiting += numbers
        return self._done(numbers[-1] - self.reach)

    def rest(self) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        """The slices that are still waiting when no more will come; they may be none."""
        return self._done(self._waiting[-1]) if self._waiting else ([], torch.empty(0), torch.empty(0))

    def _done(self, last: int) -> tuple[list[int], torch.Tensor, torch.Tensor]:
        ready = [z for z in self._waiting if z <= last]
        if not ready:
            return [], torch.empty(0), torch.empty(0)
        averaged = torch.stack([self._averaged(z) for z in ready])
        inside = torch.stack([self._held[z][1] for z in ready])
        self._waiting = self._waiting[len(ready) :]
        first = self._waiting[0] if self._waiting else last + 1
        self._held = {z: kept for z, kept in self._held.items() if z >= first - self.reach}
        return ready, averaged, inside

    def _averaged(self, z: int) -> torch.Tensor:
        own, inside = self._held[z]
        total, weight = own * inside, inside.clone()
        for near, step in self._neighbors(z):
            heat, lung = self._held[near]
            total.addcmul_(heat, lung, value=self._weights[step])
            weight.add_(lung, alpha=self._weights[step])
        return torch.where(inside > 0, total / weight.clamp_min(1.0), 0.0)

    def _neighbors(self, z: int) -> Iterator[tuple[int, int]]:
        for step in range(1, self.reach + 1):
            yield from ((near, step) for near in (z - step, z + step) if near in self._held)


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
