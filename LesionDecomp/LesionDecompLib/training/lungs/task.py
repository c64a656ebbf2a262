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
from ...models.precision import channels_last, mixed_precision
from ...segmentation.body_field import scale_window
from .. import losses, ranks
from ..loop import cosine, set_rate
from ..settings import Count, Items, Levels, Pixels, Real, Seed, Window
from . import augmentation
from .cases import LungPatient, read_patients, slice_weights

# Sizes of the training fields (rows, columns) and how often each is drawn: most are just larger than a pair of lungs.
FIELD_SIZES: tuple[tuple[tuple[int, int], float], ...] = (((128, 192), 0.65), ((160, 224), 0.25), ((256, 256), 0.10))
SOURCE_ROWS = 192


@dataclass(frozen=True)
class LungConfig:
    """What the lung network's training depends on, beside the data.

    :param leave_out: names of patients to keep for evaluation, separated by commas.
    :param window: HU that become -1 and 1.
    :param pixel_mm: pixel size of the ``size``×``size`` field.
    :param phantom_share: share of slices that show no chest at all.
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
    leave_out: str = ""
    channels: Items = 16
    levels: Levels = 5
    widest: Items = 256
    norm: str = "batch"

    def architecture(self) -> dict[str, Any]:
        """Arguments of :class:`.models.networks.UNet`: one channel in; background, right and left lung out."""
        return {
            "in_channels": 1,
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
        self._weights = [slice_weights(patient) for patient in self.patients]
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
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        self.network.train()
        with mixed_precision(self.device):
            logits = self._forward(x)
        entropy, dice = lung_losses(logits.float(), labels.to(self.device))
        loss = entropy + (1.0 - dice)
        set_rate(optimizer, cosine(number, config.steps, config.learning_rate, config.final_learning_rate))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 2.0)
        optimizer.step()
        values = {"loss": loss, "entropy": entropy, "soft_dice": dice, "gradient_norm": norm}
        return {key: float(value.detach()) for key, value in values.items()}

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Network input ``(n, 1, h, w)`` float32 in [-1, 1] and labels ``(n, h, w)`` int64, 0 / 1 right / 2 left."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        chance = augmentation.Chance(generator, self.config.batch)
        sizes, odds = [size for size, _ in FIELD_SIZES], [odds for _, odds in FIELD_SIZES]
        size = sizes[int(rng.choice(len(sizes), p=odds))]
        hu, labels, depth, abdominal = self._slices(rng)
        hu = augmentation.paint_disease(hu, labels, depth, chance)
        hu = augmentation.paint_bowel_gas(hu, labels, abdominal, chance)
        hu, labels = augmentation.warp(hu, labels, size, chance)
        hu = augmentation.paint_surroundings(hu, chance)
        strange = torch.from_numpy(rng.random(self.config.batch) < self.config.phantom_share)
        if strange.any():
            made = augmentation.phantoms(self.config.batch, *size, chance)
            hu = torch.where(strange.view(-1, 1, 1), made, hu)
            labels = torch.where(strange.view(-1, 1, 1), torch.zeros_like(labels), labels)
        hu = augmentation.image(hu, chance)
        hu, labels = augmentation.cut_field(hu, labels, chance)
        return scale_window(hu, self.config.window).unsqueeze(1), labels.long()

    def _slices(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Source slices (HU, labels, depth) of ``SOURCE_ROWS`` rows, some thicker than scanned, and where belly is."""
        slices = []
        for patient_index in rng.integers(len(self.patients), size=self.config.batch):
            patient, weights = self.patients[patient_index], self._weights[patient_index]
            count = len(weights)
            z = int(rng.choice(count, p=weights))
            share = (1.0, 0.5, 1.0 / 3.0)[int(rng.choice(3, p=(0.5, 0.3, 0.2)))]
            low, high = max(z - 1, 0), min(z + 1, count - 1)
            start = (self.config.size - SOURCE_ROWS) // 2
            rows = slice(start, start + SOURCE_ROWS)
            hu, labels = patient.hu[z, rows].float(), patient.labels[z, rows]
            if share < 1.0:
                rest = (1.0 - share) / 2.0
                hu = share * hu + rest * (patient.hu[low, rows].float() + patient.hu[high, rows].float())
                lung = [(patient.labels[i, rows] > 0).float() for i in (low, z, high)]
                mean = share * lung[1] + rest * (lung[0] + lung[2])
                nearest = torch.maximum(torch.maximum(labels, patient.labels[low, rows]), patient.labels[high, rows])
                labels = torch.where(mean >= 0.5, torch.where(labels > 0, labels, nearest), torch.zeros_like(labels))
            # Below the top of the liver there may be bowel; the lungs' lowest third stands for it.
            lungs_z = np.flatnonzero((patient.labels.amax(dim=(1, 2)) > 0).numpy())
            belly = z < lungs_z[0] + 0.35 * (lungs_z[-1] - lungs_z[0])
            slices.append((hu, labels, patient.depth_mm[z, rows].float(), float(belly)))
        hu, labels, depth, belly = zip(*slices, strict=True)
        return torch.stack(hu), torch.stack(labels), torch.stack(depth), torch.tensor(belly).view(-1, 1, 1)


def lung_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy over all pixels, and the soft Dice of the two lungs over the batch (to be raised).

    :param logits: ``(n, 3, h, w)``.
    :param labels: ``(n, h, w)`` int64, 0 / 1 right / 2 left.
    """
    entropy = losses.mean(functional.cross_entropy(logits, labels, reduction="none"))
    probability = torch.softmax(logits, dim=1)[:, 1:]
    truth = functional.one_hot(labels, 3).permute(0, 3, 1, 2)[:, 1:].float()
    both, either = ranks.total(torch.stack([probability * truth, probability + truth]).sum(dim=(1, 3, 4)))
    # The constant keeps a batch with a few pixels of lung from ruling the gradient.
    dice = (2 * both + 50.0) / (either + 50.0)
    return entropy, dice.mean()


def lung_task(data: str | Path, config: LungConfig | None = None, device: torch.device | str = "cpu") -> LungTask:
    """Read the training set (a folder of ``NAME_ct.nii.gz`` and ``NAME_lung.nii.gz``) and make the task.

    :raises LesionDecompError: no training set, or patients to leave out that it does not hold.
    """
    config = config or LungConfig()
    leave_out = [name.strip() for name in config.leave_out.split(",") if name.strip()]
    return LungTask(config, read_patients(Path(data), leave_out, config.size, config.pixel_mm), device)
