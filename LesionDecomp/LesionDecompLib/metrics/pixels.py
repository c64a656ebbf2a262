"""Precision, recall and Dice of heat against pixel masks, from counts: any number of pixels in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# Heat is distinguished to 1/8192, finer than float16 near 1.
BINS = 8192
THRESHOLDS = np.arange(1, BINS + 1) / BINS
CHUNK = 1 << 22  # pixels counted at once: memory stays the same for any number


@dataclass(eq=False)
class HeatCounts:
    """How many pixels of each heat lie in and outside a mask.

    A pixel counts as found at threshold ``t`` when its heat is at least ``t`` (to 1/8192).
    """

    lesion: np.ndarray = field(default_factory=lambda: np.zeros(BINS + 1, dtype=np.int64))
    healthy: np.ndarray = field(default_factory=lambda: np.zeros(BINS + 1, dtype=np.int64))

    def add(self, heat: np.ndarray, mask: np.ndarray) -> None:
        """Count pixels.

        :param heat: any shape, float in [0, 1].
        :param mask: the same shape, bool.
        """
        heat, mask = heat.reshape(-1), mask.reshape(-1)
        for start in range(0, heat.size, CHUNK):
            part = slice(start, start + CHUNK)
            bins = np.floor(heat[part] * BINS).astype(np.int32)
            both = np.bincount(2 * bins + mask[part], minlength=2 * (BINS + 1))
            self.healthy += both[0::2]
            self.lesion += both[1::2]

    @classmethod
    def total(cls, parts: Sequence[HeatCounts]) -> HeatCounts:
        """All pixels of ``parts`` together."""
        return cls(np.sum([part.lesion for part in parts], axis=0), np.sum([part.healthy for part in parts], axis=0))

    def found(self, counts: np.ndarray) -> np.ndarray:
        """Pixels of ``counts`` at or above each of the thresholds ``arange(BINS + 1) / BINS``."""
        return np.cumsum(counts[::-1])[::-1]

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision and recall at each threshold that some pixel's heat takes, from the highest threshold down."""
        true, false = self.found(self.lesion)[::-1], self.found(self.healthy)[::-1]
        taken = np.diff(true + false, prepend=0) > 0
        true, false = true[taken], false[taken]
        return true / (true + false), true / max(1, true[-1] if len(true) else 0)

    def average_precision(self) -> float:
        """Sum over thresholds of precision times the recall gained (no interpolation), as scikit-learn has it."""
        precision, recall = self.precision_recall()
        return float(np.sum(precision * np.diff(recall, prepend=0.0)))

    def auc_pr(self) -> float:
        """Area under the precision-recall curve by the trapezoidal rule, from recall 0 at the first precision."""
        precision, recall = self.precision_recall()
        return float(np.trapezoid(np.r_[precision[:1], precision], np.r_[0.0, recall]))

    def dice(self, thresholds: np.ndarray | float) -> np.ndarray:
        """Pooled Dice of heat ≥ threshold against the mask, for each threshold in [0, 1]."""
        index = np.floor(np.atleast_1d(thresholds) * BINS + 1e-6).astype(int)
        true, false = self.found(self.lesion)[index], self.found(self.healthy)[index]
        return 2 * true / np.maximum(1, true + false + self.lesion.sum())

    def share_found(self, thresholds: np.ndarray | float) -> np.ndarray:
        """Share of all pixels with heat at or above each threshold in [0, 1]."""
        pixels = self.lesion + self.healthy
        index = np.floor(np.atleast_1d(thresholds) * BINS + 1e-6).astype(int)
        return self.found(pixels)[index] / max(1, pixels.sum())
