"""The paper's comparison on slices with pixel masks: every localizer, every mask set, with intervals and floors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError
from ..metrics.pixels import THRESHOLDS, HeatCounts
from ..progress import Cancel, Progress, check_cancel
from ..training.data.slices import SliceSet
from ..training.heat_scale import MASKS, has_masks
from .bootstrap import RESAMPLES, interval, resampled_metrics, scan_weights
from .localizers import FLOORS, Localizer
from .seeds import over_seeds

STAGE = "Evaluation"
METRICS = ("average_precision", "auc_pr", "best_dice", "dice_at_default")
SEED = 0
CHUNK = 64  # slices whose heat is computed at once


@dataclass(frozen=True, eq=False)
class Measured:
    """What one localizer's heat amounts to on a split.

    :param lesion: mask set to counts of in-lung pixels, one for each scan with lesion slices.
    :param normal: counts of all normal slices.
    :param threshold: its default one.
    :param slices: mask set to metrics of single slices at that threshold.
    """

    lesion: dict[str, list[HeatCounts]]
    normal: HeatCounts
    threshold: float
    slices: dict[str, dict[str, float | int | None]]

    def pooled(self, mask: str) -> HeatCounts:
        """Counts of all lesion slices."""
        return HeatCounts.total(self.lesion[mask])


class Comparison:
    """Evaluates localizers on one split and keeps what the metrics need.

    :param data: the split.
    :param val: the split that thresholds are chosen on, for methods without their own.
    :raises LesionDecompError: lesion slices without pixel masks.
    """

    def __init__(self, data: SliceSet, val: SliceSet | None) -> None:
        for part in (data, val):
            if part is not None and not has_masks(part):
                which = "the split to evaluate" if part is data else "val"
                columns = ", ".join(f"mask_{name}" for name in MASKS)
                raise InputError(STAGE, f"lesion slices of {which} without pixel masks", f"the columns {columns}")
        self.data, self.val = data, val
        self.measured: dict[str, Measured] = {}
        self.masks = {name: data.masks(name) for name in MASKS}
        self.lesion_scans = data.scans[data.lesion]
        scans = len(np.unique(self.lesion_scans))
        # Of a single scan there is nothing to resample, and no interval.
        self.weights = scan_weights(scans, seed=SEED) if scans > 1 else np.zeros((1, scans))

    def add(self, localizer: Localizer, cancelled: Cancel | None = None) -> dict[str, Any]:
        """Evaluate one more.

        :return: its entry of ``results.json``.
        :raises LesionDecompError: values that are not heat, or no threshold and no ``val`` split to choose one on.
        :raises Cancelled: ``cancelled`` returned True.
        """
        lesion, normal, heat = _count(localizer, self.data, self.masks, cancelled)
        on_val = None
        if self.val is self.data:
            on_val = _best_threshold(lesion)
        elif self.val is not None:
            masks = {name: self.val.masks(name) for name in MASKS}
            on_val = _best_threshold(_count(localizer, self.val, masks, cancelled)[0])
        threshold = on_val if localizer.threshold is None else localizer.threshold
        if threshold is None:
            raise InputError(STAGE, f"'{localizer.name}' without threshold", "a val split to choose it on")
        inside = self.data.images[self.data.lesion] > 0
        slices = {
            name: single_slice_metrics((heat >= threshold) & inside, mask & inside) for name, mask in self.masks.items()
        }
        measured = self.measured[localizer.name] = Measured(lesion, normal, threshold, slices)
        return self._entry(localizer, measured, on_val)

    def human(self) -> dict[str, Any]:
        """One reader against another: pooled Dice inside the lungs, and its interval over scans."""
        inside = self.data.images[self.data.lesion] > 0
        result = {}
        for a, b in combinations(MASKS, 2):
            both, either = [], []
            for scan in np.unique(self.lesion_scans):
                of_scan = self.lesion_scans == scan
                one, other = self.masks[a][of_scan] & inside[of_scan], self.masks[b][of_scan] & inside[of_scan]
                both.append(2 * np.count_nonzero(one & other))
                either.append(np.count_nonzero(one) + np.count_nonzero(other))
            marked = self.weights @ np.array(either)
            resampled = np.where(marked > 0, (self.weights @ np.array(both)) / np.maximum(marked, 1), np.nan)
            dice = sum(both) / max(sum(either), 1)
            result[f"{a}-{b}"] = {"dice": round(dice, 4), "dice_interval": interval(resampled)}
        result["mean"] = {"dice": round(float(np.mean([row["dice"] for row in result.values()])), 4)}
        return result

    def prevalence(self) -> dict[str, float]:
        """Lesion's share of the lung of lesion slices, by mask set and their mean: the precision of knowing nothing."""
        inside = self.data.images[self.data.lesion] > 0
        shares = {name: float(mask[inside].mean()) for name, mask in self.masks.items()}
        return {
            name: round(share, 4) for name, share in (shares | {"mean": float(np.mean([*shares.values()]))}).items()
        }

    def results(self, entries: dict[str, dict[str, Any]], split: str) -> dict[str, Any]:
        """All of ``results.json``."""
        return {
            "version": __version__,
            "data": self.data.folder.resolve().name,
            "split": split,
            "lesion_slices": int(self.data.lesion.sum()),
            "normal_slices": int((~self.data.lesion).sum()),
            "lesion_scans": len(np.unique(self.lesion_scans)),
            "intervals": {"level": 0.95, "resampled": "scans", "resamples": RESAMPLES, "seed": SEED},
            "masks": list(MASKS),
            "prevalence": self.prevalence(),
            "methods": entries,
            "human": self.human(),
        }

    def _entry(self, localizer: Localizer, measured: Measured, on_val: float | None) -> dict[str, Any]:
        from sklearn.metrics import roc_auc_score  # an extra, slow to import

        entry: dict[str, Any] = {
            "method": localizer.method,
            "floor": localizer.method in FLOORS,
            "default_threshold": round(measured.threshold, 6),
            "threshold_from": "val" if localizer.threshold is None else "bundle",
            "val_threshold": None if on_val is None else round(on_val, 6),
        }
        if localizer.bundle is not None:
            training = localizer.bundle.metadata["training"].get("configuration", {})
            entry["bundle"] = {
                "name": localizer.bundle.name,
                "sha256": localizer.bundle.sha256,
                "steps": training.get("schedule", training).get("steps"),
                "seed": training.get("seed"),
                **localizer.bundle.metadata["training"].get("watched", {}),
            }
        if localizer.scores is not None:
            scores = localizer.scores(self.data.images)
            entry["classifier_auc"] = round(float(roc_auc_score(self.data.lesion, scores)), 4)
        resampled = {}
        for mask in MASKS:
            counts = measured.pooled(mask)
            dice = counts.dice(THRESHOLDS)
            resampled[mask] = resampled_metrics(measured.lesion[mask], self.weights, measured.threshold)
            entry[mask] = {
                "average_precision": round(counts.average_precision(), 4),
                "auc_pr": round(counts.auc_pr(), 4),
                "best_dice": round(float(dice.max()), 4),
                "best_threshold": round(float(THRESHOLDS[dice.argmax()]), 4),
                "dice_at_default": round(float(counts.dice(measured.threshold)[0]), 4),
                "dice_at_val_threshold": None if on_val is None else round(float(counts.dice(on_val)[0]), 4),
                **measured.slices[mask],
                **{f"{key}_interval": interval(resampled[mask][key]) for key in METRICS},
            }
        slice_dice = [value for mask in MASKS if (value := entry[mask]["mean_slice_dice"]) is not None]
        entry["mean"] = (
            {key: round(float(np.mean([entry[mask][key] for mask in MASKS])), 4) for key in METRICS}
            | {"mean_slice_dice": round(float(np.mean(slice_dice)), 4) if slice_dice else None}
            | {
                f"{key}_interval": interval(np.mean([resampled[mask][key] for mask in MASKS], axis=0))
                for key in METRICS
            }
        )
        if on_val is not None:
            values = [entry[mask]["dice_at_val_threshold"] for mask in MASKS]
            entry["mean"]["dice_at_val_threshold"] = round(float(np.mean(values)), 4)
        share = float(measured.normal.share_found(measured.threshold)[0])
        entry["normal_false_positive_fraction"] = round(share, 6)
        return entry


def _best_threshold(lesion: dict[str, list[HeatCounts]]) -> float:
    """The threshold with the best mean Dice over the mask sets."""
    dice = np.mean([HeatCounts.total(counts).dice(THRESHOLDS) for counts in lesion.values()], axis=0)
    return float(THRESHOLDS[dice.argmax()])


def _count(
    localizer: Localizer, data: SliceSet, masks: dict[str, np.ndarray], cancelled: Cancel | None
) -> tuple[dict[str, list[HeatCounts]], HeatCounts, np.ndarray]:
    """Counts scan by scan, and the heat of the lesion slices ``(n_lesion, h, w)`` float32."""
    scans = {scan: {name: HeatCounts() for name in masks} for scan in np.unique(data.scans[data.lesion])}
    normal = HeatCounts()
    order = np.cumsum(data.lesion) - 1  # of a slice among the lesion slices
    kept = np.zeros((int(data.lesion.sum()), *data.images.shape[1:]), dtype=np.float32)
    for start in range(0, len(data.images), CHUNK):
        check_cancel(cancelled, STAGE)
        chunk = slice(start, start + CHUNK)
        heat, inside = localizer.heat(data.images[chunk]), data.images[chunk] > 0
        if not np.isfinite(heat).all() or heat.min() < 0 or heat.max() > 1 or heat[~inside].any():
            found = f"values of '{localizer.name}' that are not heat"
            raise InputError(STAGE, found, "heat in [0, 1], 0 outside the lungs")
        for number, (warm, lung) in enumerate(zip(heat, inside, strict=True), start):
            values = warm[lung]
            if not data.lesion[number]:
                normal.add(values, np.zeros(values.shape, dtype=bool))
                continue
            kept[order[number]] = warm
            for name, mask in masks.items():
                scans[data.scans[number]][name].add(values, mask[order[number]][lung])
    return {name: [counts[name] for counts in scans.values()] for name in masks}, normal, kept


def single_slice_metrics(found: np.ndarray, mask: np.ndarray) -> dict[str, float | int | None]:
    """Metrics of single slices.

    :param found, mask: ``(n, h, w)`` bool.
    :return: the mean of the slices' Dice (where either holds lesion), the median 95th-percentile symmetric surface
        distance in pixels, by MONAI, and on how many slices it is defined (both hold lesion).
    """
    sizes = found.sum(axis=(1, 2)) + mask.sum(axis=(1, 2))
    dice = 2 * (found & mask).sum(axis=(1, 2)) / np.maximum(sizes, 1)
    defined = found.any(axis=(1, 2)) & mask.any(axis=(1, 2))
    distances = surface_distances_95(found[defined], mask[defined])
    return {
        "mean_slice_dice": round(float(dice[sizes > 0].mean()), 4) if (sizes > 0).any() else None,
        "median_hd95_px": round(float(np.median(distances)), 2) if len(distances) else None,
        "hd95_slices": int(defined.sum()),
    }


def surface_distances_95(found: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """95th-percentile symmetric surface distance of each slice, pixels; ``(n, h, w)`` bool, none empty."""
    import torch  # an extra, slow to import
    from monai.metrics import compute_hausdorff_distance

    if not len(found):
        return np.zeros(0)
    one, other = (torch.from_numpy(np.ascontiguousarray(part)).unsqueeze(1).float() for part in (found, mask))
    return compute_hausdorff_distance(one, other, include_background=True, percentile=95).numpy()[:, 0]


def evaluate_localizers(
    localizers: Sequence[Localizer],
    data: SliceSet,
    val: SliceSet | None,
    split: str,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> tuple[Comparison, dict[str, Any]]:
    """Evaluate all ``localizers``; the comparison and the contents of ``results.json``.

    :raises LesionDecompError: slices without masks, or heat that is none.
    :raises Cancelled: ``cancelled`` returned True.
    """
    comparison = Comparison(data, val)
    lacking = next((localizer.name for localizer in localizers if localizer.threshold is None), None)
    if val is None and lacking is not None:
        raise InputError(STAGE, f"'{lacking}' without threshold", "a val split to choose it on")
    entries = {}
    for number, localizer in enumerate(localizers):
        if progress is not None:
            progress("evaluation", number, len(localizers))
        entries[localizer.name] = comparison.add(localizer, cancelled)
    return comparison, comparison.results(entries, split) | {"seeds": over_seeds(localizers, entries)}
