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

    def draw(
        self, rng: np.random.Generator, lesion: int, *normal: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, SliceDraws]:
        """This rank's share of so many lesion slices and of each of some numbers of normal ones, augmented together.

        :return: slices ``(n, 1, h, w)`` in [-1, 1], -1 outside the lungs; taught heat of the lesion slices, which come
            first, of the same shape in [0, 1], if there is any; the random numbers of all slices from there on.
        """
        images, seeds, heat = [], [], None
        for number, count in enumerate((lesion, *normal)):
            slices, own = self.normal if number else self.lesion, ranks.share(count)
            chosen = torch.from_numpy(rng.integers(len(slices), size=count)[own])
            seeds.append(rng.integers(2**62, size=count)[own])
            images.append(slices[chosen])
            if number == 0 and self.heat is not None:
                heat = self.heat[chosen]
        draws = SliceDraws(np.concatenate(seeds))
        x = torch.cat(images).unsqueeze(1).to(self.device, torch.float32).div_(127.5).sub_(1.0)
        if heat is None:
            return augment(x, self.augmentation, draws)[0], None, draws
        beside = x.new_zeros(x.shape)
        beside[: len(heat)] = heat.unsqueeze(1).to(self.device) / 255.0
        x, beside = augment(x, self.augmentation, draws, beside)
        return x, beside[: len(heat)], draws

    def draw_lesion(self, count: int, rng: np.random.Generator) -> torch.Tensor:
        """This rank's share of ``count`` lesion slices, as :meth:`draw` gives them."""
        return self.draw(rng, count)[0]

    def draw_normal(self, count: int, rng: np.random.Generator) -> torch.Tensor:
        """This rank's share of ``count`` normal slices, as :meth:`draw` gives them."""
        return self.draw(rng, 0, count)[0]
