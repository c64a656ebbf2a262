"""95 % intervals over scans: slices of one patient are not independent samples, scans are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..metrics.pixels import BINS, HeatCounts

RESAMPLES = 1000
AT_ONCE = 50  # resamples in memory at a time
LEVELS = (2.5, 97.5)


def scan_weights(scans: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """How often each scan is drawn in each resample, ``(resamples, scans)`` float64; rows sum to ``scans``."""
    return np.random.default_rng(seed).multinomial(scans, np.full(scans, 1 / scans), size=resamples).astype(float)


def resampled_metrics(counts: Sequence[HeatCounts], weights: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Average precision, area under the curve, best Dice and Dice at ``threshold`` of each resample, pooled pixels.

    :param counts: one for each scan.
    :param weights: ``(resamples, scans)``.
    :return: ``(resamples,)`` each; NaN where a resample holds no lesion.
    """
    lesion = np.stack([count.lesion for count in counts])[:, ::-1].astype(float)
    healthy = np.stack([count.healthy for count in counts])[:, ::-1].astype(float)
    at = BINS - int(np.floor(threshold * BINS + 1e-6))
    metrics: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(weights), AT_ONCE):
        part = weights[start : start + AT_ONCE]
        true, false = np.cumsum(part @ lesion, axis=1), np.cumsum(part @ healthy, axis=1)
        positives = true[:, -1:]
        precision = true / np.maximum(true + false, 1)
        recall = true / np.maximum(positives, 1)
        gained = np.diff(recall, axis=1, prepend=0.0)
        # Where nothing is found yet the curve starts at the first precision there is.
        found = true + false > 0
        first = np.take_along_axis(precision, found.argmax(axis=1)[:, None], axis=1)
        drawn = np.where(found, precision, first)
        before = np.concatenate([first, drawn[:, :-1]], axis=1)
        dice = 2 * true / np.maximum(true + false + positives, 1)
        for key, value in (
            ("average_precision", (precision * gained).sum(axis=1)),
            ("auc_pr", ((drawn + before) / 2 * gained).sum(axis=1)),
            ("best_dice", dice[:, :-1].max(axis=1)),  # the last threshold, 0, finds everything
            ("dice_at_default", dice[:, at]),
        ):
            metrics.setdefault(key, []).append(np.where(positives[:, 0] > 0, value, np.nan))
    return {key: np.concatenate(values) for key, values in metrics.items()}


def interval(values: np.ndarray) -> list[float] | None:
    """The 95 % interval of resampled metrics, [low, high]; NaN does not count, and of NaN alone there is none."""
    values = values[~np.isnan(values)]
    return [round(float(value), 4) for value in np.percentile(values, LEVELS)] if len(values) else None
