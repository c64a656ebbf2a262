"""Training slices by label, cropped to the lungs, drawn and augmented from seeded random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from . import ranks
from .augmentation import Augmentation, augment
from .slice_draws import SliceDraws
from .slices import SliceSet, lung_crops


class LabelledSlices:
    """The lesion and the normal slices of a set.

    :param data: training slices.
    :param crop: height and width of the window around the lungs, pixels; empty takes whole slices.
    :param device: where drawn slices go.
    :param heat: taught heat of the lesion slices of ``data``, ``(n_lesion, h, w)`` uint8, 255 for certain.
    """

    def __init__(
        self,
        data: SliceSet,
        crop: Sequence[int],
        augmentation: Augmentation,
        device: torch.device,
        heat: np.ndarray | None = None,
    ) -> None:
        height, width = crop or data.images.shape[1:]
        size = (height, width)
        crops = torch.from_numpy(lung_crops(data.images, size))
        self.lesion = crops[torch.from_numpy(data.lesion)]
        self.normal = crops[torch.from_numpy(~data.lesion)]
        self.heat: torch.Tensor | None = None
        if heat is not None:
            self.heat = torch.from_numpy(lung_crops(heat, size, around=data.images[data.lesion]))
        self.augmentation, self.device = augmentation, device

    def draw_lesion(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor | None]:
        """This rank's share of ``count`` lesion slices and their taught heat, if there is any.

        :return: slices ``(n, 1, h, w)`` in [-1, 1], -1 outside the lungs; heat of the same shape in [0, 1].
        """
        return self._draw(self.lesion, count, rng, self.heat)[:2]

    def draw_normal(self, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, SliceDraws]:
        """This rank's share of ``count`` normal slices, and their random numbers from there on."""
        x, _, draws = self._draw(self.normal, count, rng)
        return x, draws

    def _draw(
        self, slices: torch.Tensor, count: int, rng: np.random.Generator, heat: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, SliceDraws]:
        own = ranks.share(count)
        chosen = torch.from_numpy(rng.integers(len(slices), size=count)[own])
        draws = SliceDraws(rng.integers(2**62, size=count)[own])
        x = slices[chosen].unsqueeze(1).to(self.device, torch.float32) / 127.5 - 1.0
        if heat is None:
            return augment(x, self.augmentation, draws)[0], None, draws
        x, taught = augment(x, self.augmentation, draws, heat[chosen].unsqueeze(1).to(self.device) / 255.0)
        return x, taught, draws
