"""Average precision on the lesion slices of ``val`` while a network is being trained, and the floor beside it.

The pixel masks it needs train nothing: they choose which of a run's weights are kept, on ``val``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from ..metrics.pixels import HeatCounts
from ..segmentation.smoothing import blur_inside
from .data.slices import SliceSet
from .heat_scale import MASKS

CHIEF = "val_AP"
FLOOR = "_floor"  # ends the names of metrics that are the floor of others
FLOOR_SIGMA_PX = 4.0
BATCH = 16

HeatOf = Callable[[nn.Module, np.ndarray], np.ndarray]


class ValPrecision:
    """Metrics of a network: ``val_AP``, the mean over the masks, of the best of its ways to give heat.

    :param val: slices with pixel masks.
    :param ways: name to a function of a network and ``(n, h, w)`` uint8 slices that gives their heat.
    """

    def __init__(self, val: SliceSet, ways: Mapping[str, HeatOf]) -> None:
        self.ways = dict(ways)
        self.images = val.images[val.lesion]
        self.lung = self.images > 0
        self.masks = [val.masks(name)[self.lung] for name in MASKS]
        self.floor = self._precision(blurred_grey(self.images))

    def __call__(self, network: nn.Module) -> dict[str, float]:
        """``val_AP``, ``val_AP_<way>`` where there are several, and ``val_AP_floor``: that of blurred gray."""
        of_ways = {name: self._precision(way(network, self.images)) for name, way in self.ways.items()}
        metrics = {CHIEF: max(of_ways.values())}
        if len(of_ways) > 1:
            metrics |= {f"{CHIEF}_{name}": value for name, value in of_ways.items()}
        return metrics | {f"{CHIEF}{FLOOR}": self.floor}

    def _precision(self, heat: np.ndarray) -> float:
        values, of_masks = heat[self.lung], []
        for mask in self.masks:
            counts = HeatCounts()
            counts.add(values, mask)
            of_masks.append(counts.average_precision())
        return float(np.mean(of_masks))


def blurred_grey(images: np.ndarray) -> np.ndarray:
    """Gray blurred inside the lungs: what a method must beat that claims to know more than a blur.

    :param images: ``(n, h, w)`` uint8, 0 outside the lungs.
    :return: the same shape, float32 in [0, 1], 0 outside.
    """
    heat = np.empty(images.shape, dtype=np.float32)
    for start in range(0, len(images), BATCH):
        gray = torch.from_numpy(images[start : start + BATCH].astype(np.float32) / 255.0).unsqueeze(1)
        inside = (gray > 0).float()
        heat[start : start + BATCH] = (blur_inside(gray, inside, FLOOR_SIGMA_PX) * inside)[:, 0].clamp(0, 1).numpy()
    return heat
