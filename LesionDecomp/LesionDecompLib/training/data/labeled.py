"""Training slices by label, cropped to the lungs, drawn and augmented from seeded random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from ...models.precision import on_device
from .. import ranks
from ..augmentation import augment
from ..config import Augmentation
from ..draws import SliceDraws
from .slices import SliceSet, lung_crops

SHAPE_BLOCKS = (20, 24)  # the lungs' shape: how much of each of so many blocks of the crop they fill


class LabeledSlices:
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
        self._nearest: np.ndarray | None = None

    def draw(
        self, rng: np.random.Generator, lesion: int, *normal: int, nearest: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor | None, SliceDraws]:
        """This rank's share of so many lesion slices and of each of some numbers of normal ones, augmented together.

        :param nearest: each normal slice is one of so many that are nearest, by the shape of the lungs, to a lesion
            slice of the batch; they come in the order of these. 0: any.
        :return: slices ``(n, 1, h, w)`` in [-1, 1], -1 outside the lungs; taught heat of the lesion slices, which come
            first, of the same shape in [0, 1], if there is any; the random numbers of all slices from there on.
        """
        sick = rng.integers(len(self.lesion), size=lesion)
        chosen = torch.from_numpy(sick[ranks.share(lesion)])
        images, seeds = [self.lesion[chosen]], [rng.integers(2**62, size=lesion)[ranks.share(lesion)]]
        heat = None if self.heat is None else self.heat[chosen]
        for count in normal:
            healthy = self._normal(rng, count, sick, nearest)[ranks.share(count)]
            seeds.append(rng.integers(2**62, size=count)[ranks.share(count)])
            images.append(self.normal[torch.from_numpy(healthy)])
        draws = SliceDraws(np.concatenate(seeds))
        x = on_device(torch.cat(images).unsqueeze(1), self.device).float().div_(127.5).sub_(1.0)
        if heat is None:
            return augment(x, self.augmentation, draws)[0], None, draws
        beside = x.new_zeros(x.shape)
        beside[: len(heat)] = on_device(heat.unsqueeze(1), self.device) / 255.0
        x, beside = augment(x, self.augmentation, draws, beside)
        return x, beside[: len(heat)], draws

    def _normal(self, rng: np.random.Generator, count: int, sick: np.ndarray, nearest: int) -> np.ndarray:
        """Numbers of ``count`` normal slices: any, or of those like the lesion slices ``sick``, in their order."""
        if nearest == 0 or len(sick) == 0:
            return rng.integers(len(self.normal), size=count)
        alike = self.nearest(nearest)[sick[np.arange(count) * len(sick) // max(count, 1)]]
        return alike[np.arange(count), rng.integers(alike.shape[1], size=count)]

    def nearest(self, count: int) -> np.ndarray:
        """For each lesion slice the ``count`` normal ones whose lungs look most like its own, nearest first.

        Lungs are compared by how much of each block of the crop they fill: size, shape and the way up, not gray.

        :return: ``(n_lesion, count)`` numbers of normal slices; fewer where there are fewer.
        """
        count = min(count, len(self.normal))
        if self._nearest is None or self._nearest.shape[1] != count:
            distance = torch.cdist(_lung_shapes(self.lesion), _lung_shapes(self.normal))
            self._nearest = distance.topk(count, largest=False).indices.numpy()
        return self._nearest

    def draw_lesion(self, count: int, rng: np.random.Generator) -> torch.Tensor:
        """This rank's share of ``count`` lesion slices, as :meth:`draw` gives them."""
        return self.draw(rng, count)[0]


def _lung_shapes(crops: torch.Tensor) -> torch.Tensor:
    """``(n, h, w)`` uint8 crops to ``(n, blocks)``: the share of each block that is lung."""
    chunks = [functional.adaptive_avg_pool2d((part > 0).float(), SHAPE_BLOCKS) for part in crops.split(256)]
    return torch.cat(chunks).flatten(1)
