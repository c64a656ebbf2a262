"""The random draws that a batch of slices with their neighbors is changed by, from one generator.

A batch is ``(n, c, h, w)``: ``n`` slices, each with its neighbors as ``c`` channels. What one number describes (a
patient, a scanner) is drawn once for a slice and its neighbors; what varies in space goes on smoothly from one to the
next, so that painted disease has a depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

AIR = -1000.0


@dataclass(frozen=True, eq=False)
class Chance:
    """A uniform draw for each slice of a batch, shaped ``(n, 1, 1, 1)``, and smooth noise, from one generator.

    :param z: ``(n, c)`` where the channels of each slice lie along the patient, in pixels.
    """

    generator: torch.Generator
    z: torch.Tensor

    @property
    def n(self) -> int:
        """Slices in the batch."""
        return len(self.z)

    def between(self, low: float, high: float) -> torch.Tensor:
        """Uniform in [low, high), one number for each slice."""
        return low + (high - low) * torch.rand((self.n, 1, 1, 1), generator=self.generator)

    def of(self, probability: float) -> torch.Tensor:
        """1 with this probability, else 0, for each slice."""
        return (torch.rand((self.n, 1, 1, 1), generator=self.generator) < probability).float()

    def happens(self, probability: float) -> bool:
        """One draw for the whole batch: what costs time is not done for every batch."""
        return bool(torch.rand((), generator=self.generator) < probability)

    def some(self, probability: float, among: torch.Tensor | None = None) -> torch.Tensor:
        """Numbers of the slices that something happens to.

        :param among: ``(n,)`` bool, the others are passed over.
        """
        hit = torch.rand(self.n, generator=self.generator) < probability
        return torch.nonzero(hit if among is None else hit & among).flatten()

    def among(self, some: torch.Tensor) -> Chance:
        """The draws for these slices alone."""
        return Chance(self.generator, self.z[some])

    def normal(self, h: int, w: int) -> torch.Tensor:
        """White noise of unit variance, ``(n, c, h, w)``."""
        return torch.randn((*self.z.shape, h, w), generator=self.generator)

    def smooth(self, h: int, w: int, grain: float) -> torch.Tensor:
        """Noise of about unit variance whose bumps are ``grain`` pixels wide, also along the patient."""
        first = self._plane(h, w, grain)
        if self.z.shape[1] == 1:
            return first
        # Two planes, turned into one another: at a distance of z pixels noise is like that at 0 by the turn's cosine.
        turn = (self.z * (math.pi / 2 / grain)).view(*self.z.shape, 1, 1)
        return torch.cos(turn) * first + torch.sin(turn) * self._plane(h, w, grain)

    def _plane(self, h: int, w: int, grain: float) -> torch.Tensor:
        rows, columns = max(2, round(h / grain) + 1), max(2, round(w / grain) + 1)
        coarse = torch.randn((self.n, 1, rows, columns), generator=self.generator)
        return _cubic_matrix(rows, h) @ coarse @ _cubic_matrix(columns, w).T * 1.3


@lru_cache(maxsize=256)
def _cubic_matrix(n_in: int, n_out: int) -> torch.Tensor:
    """Cubic interpolation along one axis as a matrix ``(n_out, n_in)``: two products are faster than a filter."""
    identity = torch.eye(n_in).view(1, n_in, n_in, 1)
    return functional.interpolate(identity, size=(n_out, 1), mode="bicubic", align_corners=True).view(n_in, n_out).T


def grown(mask: torch.Tensor, pixels: int) -> torch.Tensor:
    """A float mask ``(n, c, h, w)`` grown by a square of so many pixels to each side."""
    return (box_mean(mask, pixels) > 1e-4).float()


def box_mean(image: torch.Tensor, pixels: int) -> torch.Tensor:
    """Mean over a square of so many pixels to each side, ``(n, c, h, w)``."""
    for kernel, padding in (((2 * pixels + 1, 1), (pixels, 0)), ((1, 2 * pixels + 1), (0, pixels))):
        image = functional.avg_pool2d(image, kernel, 1, padding)
    return image
