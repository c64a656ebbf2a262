"""HU of the voxels of several cells of the lungs: mean, deviation and exact percentiles for any union of cells.

Integer HU (all scanners store them) are kept as one histogram with a bin for each HU: small, additive and exact. HU
with fractions, as after resampling, are kept voxel by voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

PERCENTILES = (5, 50, 95)
# Beyond this many bins (12-bit CT has 4096) HU are not worth a histogram.
MOST_BINS = 1 << 17


class HuMeasurements(NamedTuple):
    """What is measured on the HU of some voxels; NaN where there are too few of them."""

    mean: float
    sd: float
    p05: float
    p50: float
    p95: float


UNDEFINED = HuMeasurements(*[float("nan")] * 5)


@dataclass(frozen=True, eq=False)
class HuHistogram:
    """Voxel counts ``(cells, bins)`` int64; bin b holds HU ``low`` + b."""

    low: int
    counts: np.ndarray

    @classmethod
    def empty(cls, cells: int, low: int, high: int) -> HuHistogram:
        """No voxel yet, bins for ``low`` to ``high``."""
        return cls(low, np.zeros((cells, high - low + 1), dtype=np.int64))

    def blank(self) -> HuHistogram:
        """The same cells and bins without voxels."""
        return HuHistogram(self.low, np.zeros_like(self.counts))

    def add(self, cell: np.ndarray, hu: np.ndarray) -> None:
        """Count voxels: their cell ``(n,)`` and HU ``(n,)``."""
        bins = self.counts.shape[1]
        key = cell.astype(np.intp)
        key *= bins
        key += hu.astype(np.intp) - self.low
        flat = self.counts.reshape(-1)
        flat += np.bincount(key, minlength=flat.size)

    def extend(self, other: HuHistogram) -> None:
        """Count the voxels of another one with the same cells and bins, too."""
        np.add(self.counts, other.counts, out=self.counts)

    def count_below(self, cells: Sequence[int], hu: float) -> int:
        """Voxels of the cells with less than ``hu``."""
        stop = int(np.clip(np.ceil(hu) - self.low, 0, self.counts.shape[1]))
        return int(self.counts[list(cells), :stop].sum())

    def measurements(self, cells: Sequence[int]) -> HuMeasurements:
        """Mean, sample standard deviation and percentiles of all voxels of the cells."""
        counts = self.counts[list(cells)].sum(axis=0)
        n = int(counts.sum())
        if n == 0:
            return UNDEFINED
        # Moments about `low`: integers below 2**63, so the sums are exact.
        steps = np.arange(len(counts))
        first = int(counts @ steps)
        mean = first / n
        spread = float(counts @ (steps - mean) ** 2)
        sd = float(np.sqrt(spread / (n - 1))) if n > 1 else float("nan")
        return HuMeasurements(
            self.low + mean, sd, *(self.low + _percentile(np.cumsum(counts), n, q) for q in PERCENTILES)
        )


@dataclass(frozen=True, eq=False)
class HuSamples:
    """HU voxel by voxel: for each cell a list of float32 arrays."""

    parts: list[list[np.ndarray]]

    @classmethod
    def empty(cls, cells: int) -> HuSamples:
        """No voxel yet."""
        return cls([[] for _ in range(cells)])

    def blank(self) -> HuSamples:
        """The same cells without voxels."""
        return HuSamples.empty(len(self.parts))

    def add(self, cell: np.ndarray, hu: np.ndarray) -> None:
        """Keep voxels: their cell ``(n,)`` and HU ``(n,)``."""
        for index, part in enumerate(self.parts):
            chosen = hu[cell == index]
            if len(chosen):
                part.append(chosen)

    def extend(self, other: HuSamples) -> None:
        """Keep the voxels of another one with the same cells, too."""
        for own, others in zip(self.parts, other.parts, strict=True):
            own.extend(others)

    def count_below(self, cells: Sequence[int], hu: float) -> int:
        """Voxels of the cells with less than ``hu``."""
        return sum(int(np.count_nonzero(values < hu)) for cell in cells for values in self.parts[cell])

    def measurements(self, cells: Sequence[int]) -> HuMeasurements:
        """Mean, sample standard deviation and percentiles of all voxels of the cells."""
        parts = [values for cell in cells for values in self.parts[cell]]
        if not parts:
            return UNDEFINED
        n = sum(len(values) for values in parts)
        mean = sum(float(values.sum(dtype=np.float64)) for values in parts) / n
        # Part by part, so that only one slice is ever held in float64.
        spread = sum(float(((values.astype(np.float64) - mean) ** 2).sum()) for values in parts)
        sd = float(np.sqrt(spread / (n - 1))) if n > 1 else float("nan")
        percentiles = np.percentile(np.concatenate(parts), PERCENTILES, overwrite_input=True)
        return HuMeasurements(mean, sd, *(float(p) for p in percentiles))


def empty_distribution(cells: int, hu: np.ndarray) -> HuHistogram | HuSamples:
    """The kind of distribution that fits ``hu`` (any shape), without voxels.

    :param cells: number of cells.
    :param hu: int16 or float32, every voxel that will be added is among them.
    """
    if hu.size == 0:
        return HuHistogram.empty(cells, 0, 0)
    low, high = hu.min(), hu.max()
    if float(high) - float(low) >= MOST_BINS or not _is_whole(hu):
        return HuSamples.empty(cells)
    return HuHistogram.empty(cells, int(low), int(high))


def _is_whole(hu: np.ndarray) -> bool:
    return hu.dtype.kind in "iu" or all(np.array_equal(plane, np.rint(plane)) for plane in hu)


def _percentile(running: np.ndarray, n: int, percent: float) -> float:
    """Bin at a percentile, linear between the two nearest voxels; ``running`` is the cumulative count of ``n``."""
    place = percent / 100 * (n - 1)
    below = int(place)
    lower, upper = np.searchsorted(running, [below, min(below + 1, n - 1)], side="right")
    return float(lower + (upper - lower) * (place - below))
