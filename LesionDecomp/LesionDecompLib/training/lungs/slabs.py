"""Slabs drawn from the scans of a training set: a slice with its neighbors, thin or thick, also at a scan's ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ...ct.steps import steps_within
from ...segmentation.lungs.context import neighbor_steps
from .cases import LungPatient, belly_begins, scan_weights, slice_weights

THICKEST_MM = 8.0
# How often a slice is shown as it was scanned, and how often neighbors above, below or both are beyond the scan's end.
AS_SCANNED = 0.5
AT_AN_END, ALONE = 0.08, 0.03


@dataclass(frozen=True, eq=False)
class Slabs:
    """A batch of slabs with their neighbors as channels, the slab itself in the middle.

    :param hu: ``(n, c, h, w)`` float32, HU.
    :param labels: ``(n, c, h, w)`` uint8, 0 / 1 right / 2 left.
    :param depth_mm: ``(n, c, h, w)`` float32, distance from the edge of the lung.
    :param ignored: ``(n, h, w)`` bool, of the middle channel.
    :param abdominal: ``(n,)`` bool, whether there may be bowel.
    :param z: ``(n, c)`` float32, where each channel really lies, in pixels from the middle one.
    """

    hu: torch.Tensor
    labels: torch.Tensor
    depth_mm: torch.Tensor
    ignored: torch.Tensor
    abdominal: torch.Tensor
    z: torch.Tensor


class SlabSource:
    """Draws slabs from scans.

    :param offsets_mm: where the channels lie, the slab itself in the middle.
    :param rows: rows of the field that are handed out, from its middle.
    :param pixel_mm: of the scans.
    """

    def __init__(
        self, patients: Sequence[LungPatient], offsets_mm: Sequence[float], rows: int, pixel_mm: float = 2.0
    ) -> None:
        self.patients, self.offsets_mm, self.rows, self.pixel_mm = list(patients), tuple(offsets_mm), rows, pixel_mm
        self._scans = scan_weights(self.patients)
        self._slices = [slice_weights(patient) for patient in self.patients]
        self._belly = [belly_begins(patient) for patient in self.patients]

    def draw(self, rng: np.random.Generator, count: int) -> Slabs:
        """So many slabs."""
        drawn = []
        for number in rng.choice(len(self.patients), size=count, p=self._scans):
            patient, weights = self.patients[number], self._slices[number]
            z = int(rng.choice(len(weights), p=weights))
            drawn.append((*self._slab(patient, z, rng), z < self._belly[number]))
        hu, labels, depth, ignored, places, belly = zip(*drawn, strict=True)
        return Slabs(
            torch.stack(hu),
            torch.stack(labels),
            torch.stack(depth),
            torch.stack(ignored),
            torch.tensor(belly),
            torch.tensor(places, dtype=torch.float32),
        )

    def _slab(
        self, patient: LungPatient, z: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[float]]:
        count = len(patient.hu)
        most = min(max(1, steps_within(THICKEST_MM, patient.slice_mm)), count)
        thick = 1 if rng.random() < AS_SCANNED else int(rng.integers(1, most + 1))
        first = min(max(z - (thick - 1) // 2, 0), count - thick)
        below, above = first // thick, (count - first - thick) // thick
        end = rng.random()
        if end < AT_AN_END + ALONE:
            below = 0 if end < AT_AN_END / 2 or end >= AT_AN_END else below
            above = 0 if end >= AT_AN_END / 2 else above
        steps = [min(max(s, -below), above) for s in neighbor_steps(self.offsets_mm, thick * patient.slice_mm)]
        size = patient.hu.shape[1]
        start = max(0, (size - self.rows) // 2)
        rows = slice(start, start + min(self.rows, size))
        made = {step: _averaged(patient, first + step * thick, thick, rows) for step in set(steps)}
        hu, labels, depth = (torch.stack([made[step][part] for step in steps]) for part in range(3))
        ignored = torch.zeros(hu.shape[1:], dtype=torch.bool)
        if patient.ignored is not None:
            ignored = patient.ignored[first : first + thick, rows].any(dim=0)
        places = [step * thick * patient.slice_mm / self.pixel_mm for step in steps]
        return hu, labels, depth, ignored, places


def _averaged(patient: LungPatient, first: int, thick: int, rows: slice) -> tuple[torch.Tensor, ...]:
    """HU, labels and depth of ``thick`` slices from ``first`` on as one slab."""
    middle = first + thick // 2
    depth = patient.depth_mm[middle, rows].float()
    if thick == 1:
        return patient.hu[first, rows].float(), patient.labels[first, rows], depth
    part = slice(first, first + thick)
    labels = patient.labels[part, rows]
    right, left = ((labels == side).float().mean(dim=0) for side in (1, 2))
    lung = torch.where(right + left >= 0.5, torch.where(right >= left, 1, 2), 0).to(torch.uint8)
    return patient.hu[part, rows].float().mean(dim=0), lung, depth
