"""The lung U-Net's training task: what a batch is, and what a step does with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...models.networks import UNet
from ...models.precision import channels_last, mixed_precision, on_device
from ...segmentation.body_field import scale_window
from .. import losses, ranks
from ..loop import as_numbers, cosine, set_rate
from ..settings import Count, Distances, Items, Levels, Pixels, Real, Seed, Window
from . import scanner, surroundings
from .caselist import SOLID_HU, cases_in, chosen, read_cases, read_ignored
from .cases import LungPatient, read_patients
from .chance import Chance
from .disease import paint_disease
from .slabs import SlabSource

# Sizes of the training fields (rows, columns) and how often each is drawn: most are just larger than a pair of lungs.
FIELD_SIZES: tuple[tuple[tuple[int, int], float], ...] = (((128, 192), 0.65), ((160, 224), 0.25), ((256, 256), 0.10))
SOURCE_ROWS = 192
IGNORED = 255  # label of what is not learned from
EDGE_PIXELS = 2  # so near to the edge of the lung pixels are dense as they are half outside it


@dataclass(frozen=True)
class LungConfig:
    """What the lung network's training depends on, beside the data.

    :param cases: table of the scans (:mod:`.caselist`), paths below the training set; empty: all pairs in its folder.
    :param ignored: table of the boxes nothing is learned from; empty: none.
    :param leave_out: cases, patients, tags or ``fold:N`` to keep for evaluation, separated by commas.
    :param neighbors_mm: how far above and below the slice its neighbors lie that the network sees as well.
    :param window: HU that become -1 and 1.
    :param pixel_mm: pixel size of the ``size``×``size`` field.
    :param phantom_share: share of slices that show no chest at all.
    :param solid_weight: how much a pixel of solid lung counts in the cross-entropy: a tumor is few pixels among many
        that are easy.
    """

    seed: Seed = 0
    steps: Count = 4000
    batch: Items = 8
    learning_rate: Real = 2e-3
    final_learning_rate: Real = 1e-5
    weight_decay: Real = 1e-4
    ema: Real = 0.995
    window: Window = (-1000.0, 200.0)
    size: Pixels = 256
    pixel_mm: Real = 2.0
    phantom_share: Real = 0.04
    solid_weight: Real = 3.0
    cases: str = ""
    ignored: str = ""
    leave_out: str = ""
    neighbors_mm: Distances = (6.0, 12.0)
    channels: Items = 16
    levels: Levels = 5
    widest: Items = 256
    norm: str = "batch"

    def architecture(self) -> dict[str, Any]:
        """Arguments of :class:`.models.networks.UNet`: slices in; background, right and left lung out."""
        return {
            "in_channels": 1 + 2 * len(self.neighbors_mm),
            "out_channels": 3,
            "channels": self.channels,
            "levels": self.levels,
            "widest": self.widest,
            "norm": self.norm,
        }


class LungTask:
    """Batches of augmented slices and one update of the lung U-Net on each, for the training loop.

    :param patients: training patients.
    :param device: where to train.
    """

    averaged = "network"
    teacher: nn.Module | None = None

    def __init__(self, config: LungConfig, patients: Sequence[LungPatient], device: torch.device | str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config, self.patients, self.device = config, list(patients), torch.device(device)
        offsets = (*(-mm for mm in reversed(config.neighbors_mm)), 0.0, *config.neighbors_mm)
        self._source = SlabSource(self.patients, offsets, SOURCE_ROWS, config.pixel_mm)
        self.network = channels_last(UNet(**config.architecture()), self.device)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self._forward = ranks.data_parallel(self.network)
        optimizer = torch.optim.AdamW(self.network.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        self.optimizers: dict[str, torch.optim.Optimizer] = {"network": optimizer}

    def step(
        self, number: int, rng: np.random.Generator, batch: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> dict[str, float]:
        """One update; returns what to log."""
        config, optimizer = self.config, self.optimizers["network"]
        x, labels = batch or self.batch(rng)
        own = ranks.share(len(x))
        x, labels = x[own], labels[own]
        x = on_device(x, self.device).contiguous(memory_format=torch.channels_last)
        self.network.train()
        with mixed_precision(self.device):
            logits = self._forward(x)
        labels = on_device(labels, self.device)
        entropy, dice = lung_losses(logits.float(), labels, self.entropy_weight(x, labels))
        loss = entropy + (1.0 - dice)
        set_rate(optimizer, cosine(number, config.steps, config.learning_rate, config.final_learning_rate))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        optimizer.step()
        values = {"loss": loss, "entropy": entropy, "soft_dice": dice, "gradient_norm": norm}
        return as_numbers(values)

    def entropy_weight(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """``(n, h, w)``: ``solid_weight`` in solid lung away from its edge, 1 elsewhere."""
        limit = float(scale_window(torch.tensor(float(SOLID_HU)), self.config.window))
        lung = ((labels > 0) & (labels != IGNORED)).float().unsqueeze(1)
        within = functional.max_pool2d(1.0 - lung, 2 * EDGE_PIXELS + 1, 1, EDGE_PIXELS)[:, 0] == 0
        solid = within & (x[:, x.shape[1] // 2] > limit)
        return torch.where(solid, self.config.solid_weight, 1.0)

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Network input ``(n, c, h, w)`` float32 in [-1, 1] and labels ``(n, h, w)`` int64: 0 / 1 right / 2 left, and
        255 for what is not learned from."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        sizes, odds = [size for size, _ in FIELD_SIZES], [odds for _, odds in FIELD_SIZES]
        size = sizes[int(rng.choice(len(sizes), p=odds))]
        slabs = self._source.draw(rng, self.config.batch)
        chance = Chance(generator, slabs.z)
        hu, all_labels, depth, ignored = scanner.warp(
            slabs.hu, slabs.labels, slabs.depth_mm, slabs.ignored, size, chance
        )
        hu = surroundings.paint_contrast(hu, all_labels, chance)
        hu, painted = paint_disease(hu, all_labels, depth, chance)
        hu = surroundings.paint_bowel_gas(hu, all_labels, slabs.abdominal, chance)
        hu = surroundings.paint_surroundings(hu, chance)
        labels = painted[:, painted.shape[1] // 2].long()
        labels = torch.where(ignored & (labels == 0), IGNORED, labels)
        strange = torch.from_numpy(np.flatnonzero(rng.random(self.config.batch) < self.config.phantom_share))
        if len(strange):
            hu[strange] = surroundings.phantoms(*size, chance.among(strange))
            labels[strange] = 0
        hu = scanner.image(hu, chance)
        hu, labels = scanner.cut_field(hu, labels, chance)
        return scale_window(_copied(hu, slabs.z), self.config.window), labels


def _copied(hu: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Channels that are one and the same slice made the same again: noise was drawn for each."""
    first = (z.unsqueeze(2) == z.unsqueeze(1)).int().argmax(dim=2)  # (n, c): the first channel at the same place
    return hu[torch.arange(len(hu)).view(-1, 1), first]


def lung_losses(
    logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted cross-entropy over all pixels, and the soft Dice of the two lungs over the batch (to be raised).

    :param logits: ``(n, 3, h, w)``.
    :param labels: ``(n, h, w)`` int64, 0 / 1 right / 2 left; 255 counts for neither.
    :param weight: ``(n, h, w)`` of the cross-entropy; None: 1 everywhere.
    """
    known = labels != IGNORED
    each = functional.cross_entropy(logits, labels, reduction="none", ignore_index=IGNORED)
    entropy = losses.mean(each if weight is None else each * weight)
    probability = torch.softmax(logits, dim=1)[:, 1:] * known.unsqueeze(1)
    truth = functional.one_hot(torch.where(known, labels, 0), 3).permute(0, 3, 1, 2)[:, 1:].float()
    both, either = ranks.total(torch.stack([probability * truth, probability + truth]).sum(dim=(1, 3, 4)))
    # The constant keeps a batch with a few pixels of lung from ruling the gradient.
    dice = (2 * both + 50.0) / (either + 50.0)
    return entropy, dice.mean()


def lung_task(data: str | Path, config: LungConfig | None = None, device: torch.device | str = "cpu") -> LungTask:
    """Read the training set (``NAME_ct.nii.gz`` beside ``NAME_lung.nii.gz``, see :mod:`.caselist`) and make the task.

    :raises LesionDecompError: no training set, or something to leave out that it does not hold.
    """
    config = config or LungConfig()
    leave_out = [name.strip() for name in config.leave_out.split(",") if name.strip()]
    cases = chosen(read_cases(config.cases) if config.cases else cases_in(Path(data)), leave_out)
    ignored = read_ignored(config.ignored) if config.ignored else []
    return LungTask(config, read_patients(Path(data), cases, ignored, config.size, config.pixel_mm), device)
