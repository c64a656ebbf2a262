"""Random numbers of slices: each slice has its own generator, so that it does not matter who draws which."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch


class SliceDraws:
    """Draws for ``n`` slices at once, each from the slice's own generator.

    :param seeds: one for each slice.
    """

    def __init__(self, seeds: Sequence[int] | np.ndarray) -> None:
        self.generators = [np.random.default_rng(int(seed)) for seed in seeds]

    def __len__(self) -> int:
        return len(self.generators)

    def uniform(self, low: float, high: float, shape: tuple[int, ...] = (1, 1, 1)) -> torch.Tensor:
        """``(n, *shape)`` float32, uniform in [low, high)."""
        return self._stack(lambda generator: generator.random(shape, dtype=np.float32)) * (high - low) + low

    def normal(self, sd: float, shape: tuple[int, ...] = (1, 1, 1)) -> torch.Tensor:
        """``(n, *shape)`` float32, normal with standard deviation ``sd``."""
        return self._stack(lambda generator: generator.standard_normal(shape, dtype=np.float32)) * sd

    def noise(self, shape: tuple[int, ...]) -> torch.Tensor:
        """White noise of unit variance, ``(n, *shape)`` float32: in less than half of the time of :meth:`normal`."""
        out = torch.empty(len(self), *shape)
        for each, generator in zip(out, self.generators, strict=True):
            each.normal_(generator=torch.Generator().manual_seed(int(generator.integers(2**62))))
        return out

    def part(self, chosen: slice) -> SliceDraws:
        """The draws of some of the slices; they go on where these stand."""
        part = SliceDraws([])
        part.generators = self.generators[chosen]
        return part

    def _stack(self, draw: Callable[[np.random.Generator], np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack([draw(generator) for generator in self.generators]))
