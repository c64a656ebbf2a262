"""Fit the rule that brings a network's raw values to heat, so that the threshold slider is well conditioned.

Fitted on a finished network: the range of thresholds within which mean Dice on ``val`` stays close to the best becomes
0.2 to 0.6; the highest in it that is as good as the best becomes 0.4, or a higher one where that finds lesions in
normal slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch

from ..metrics.pixels import BINS, HeatCounts
from ..models.networks import DecompositionNet
from ..models.records import HeatDefinition
from ..segmentation.heat import heat_of_slices
from .config import SIDE_MULTIPLE
from .data.slices import SliceSet

MASKS = ("ann0", "ann1", "sel")
DEFAULT_THRESHOLD = 0.4
SCALED = (0.0, 0.2, 0.4, 0.6, 1.0)
# Within 10 % of the best from 0.2 to 0.6. Below the best threshold much closer on val: in whole CT, where heat
# is higher, Dice falls sooner there.
CLOSE_ABOVE, CLOSE_BELOW = 0.91, 0.99
MOST_FOUND_IN_NORMAL = 0.001  # of the lung of normal slices, each set by itself
# Heat for raw value: where it rises faster, the rounding of bfloat16 (0.003 of a raw value) shows in the heat.
STEEPEST = 3.5
# Among thresholds as good as the best to this share, the highest: in whole CT of other scanners heat is higher than in
# the slices, and a false alarm in a healthy lung costs more trust than a lesion drawn too small.
AS_GOOD_AS_BEST = 0.95
UNIT = HeatDefinition()


def slice_heat(
    network: torch.nn.Module, definition: HeatDefinition, images: np.ndarray, device: torch.device, batch: int = 16
) -> np.ndarray:
    """Heat of lung-masked slices. Of each batch only the part that holds lung, and a margin, meets the network.

    :param images: ``(n, h, w)`` uint8, 0 outside the lungs.
    :return: ``(n, h, w)`` float32, 0 outside.
    """
    heat = np.zeros(images.shape, dtype=np.float32)
    decomposition = cast(DecompositionNet, network)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        window = [_span(np.any(part, axis=(0, 2 - axis))) for axis in (0, 1)]
        x = torch.from_numpy(part[:, window[0], window[1]]).to(device, torch.float32).unsqueeze(1) / 127.5 - 1.0
        x = x.contiguous(memory_format=torch.channels_last)
        heat[start : start + batch, window[0], window[1]] = (
            heat_of_slices(definition, decomposition, x)[:, 0].cpu().numpy()
        )
    return heat


def _span(inside: np.ndarray, margin: int = 16, multiple: int = SIDE_MULTIPLE) -> slice:
    """Where ``inside`` is true, with a margin, as many pixels as networks can halve five times."""
    size = len(inside)
    found = np.flatnonzero(inside)
    if len(found) == 0 or size % multiple:
        return slice(0, size)
    low, high = max(found[0] - margin, 0), min(found[-1] + 1 + margin, size)
    length = -(-(high - low) // multiple) * multiple
    low = min(low, size - length)
    return slice(low, low + length)


def count_heat(heat: np.ndarray, data: SliceSet) -> tuple[dict[str, HeatCounts], HeatCounts]:
    """In-lung pixels: of the lesion slices against each annotator, and of the normal slices.

    :param heat: ``(n, h, w)`` of the slices of ``data``.
    """
    lung = data.images > 0
    counts = {name: HeatCounts() for name in MASKS}
    for name, count in counts.items():
        inside = lung[data.lesion]
        count.add(heat[data.lesion][inside], data.masks(name)[inside])
    return counts, _count_normal(heat, data)


def _count_normal(heat: np.ndarray, data: SliceSet) -> HeatCounts:
    normal = HeatCounts()
    values = heat[~data.lesion][data.images[~data.lesion] > 0]
    normal.add(values, np.zeros(values.shape, dtype=bool))
    return normal


def has_masks(data: SliceSet) -> bool:
    """Whether the lesion slices have the pixel masks that evaluation needs.

    :raises LesionDecompError: masks of all readers are listed, but not for all slices, or one cannot be read.
    """
    if not all(data.lists_masks(name) for name in MASKS):
        return False
    for name in MASKS:
        data.masks(name)
    return True


def fit_scale_without_masks(
    network: torch.nn.Module, definition: HeatDefinition, val: SliceSet, device: torch.device
) -> HeatDefinition:
    """The definition with the raw value that ``MOST_FOUND_IN_NORMAL`` of normal lung exceeds brought to 0.4."""
    plain = replace(definition, raw=UNIT.raw, scaled=UNIT.scaled)
    images = val.images[~val.lesion]
    heat = slice_heat(network, plain, images, device)
    knot = float(np.clip(np.quantile(heat[images > 0], 1 - MOST_FOUND_IN_NORMAL), 0.01, 0.9))
    return replace(definition, raw=(0.0, float(f"{knot:.5g}"), 1.0), scaled=(0.0, DEFAULT_THRESHOLD, 1.0))


def fit_scale(
    network: torch.nn.Module,
    definition: HeatDefinition,
    val: SliceSet,
    device: torch.device,
    sources: Sequence[str] = (),
    more: Sequence[SliceSet] = (),
) -> HeatDefinition:
    """The definition with its scale fitted: best threshold on ``val`` to 0.4, its neighborhood to 0.2 … 0.6.

    :param sources: to choose the heat's source from, by mean average precision on ``val``; none keeps the definition's.
    :param more: further sets, of other scanners; in the normal slices of each, as in those of ``val``, the threshold
        should find next to nothing.
    """
    chosen: tuple[float, dict[str, HeatCounts], HeatCounts] | None = None
    for source in sources or (definition.source,):
        plain = replace(definition, source=source, raw=UNIT.raw, scaled=UNIT.scaled)
        of_masks, of_normal = count_heat(slice_heat(network, plain, val.images, device), val)
        precision = float(np.mean([count.average_precision() for count in of_masks.values()]))
        if chosen is None or precision > chosen[0]:
            chosen = precision, of_masks, of_normal
            definition = plain
    if chosen is None:
        raise ValueError("no source of heat to choose from")
    _, counts, normal = chosen
    quiet = [normal, *(_count_normal(slice_heat(network, definition, part.images, device), part) for part in more)]
    thresholds = np.arange(1, BINS) / BINS
    dice = np.mean([count.dice(thresholds) for count in counts.values()], axis=0)
    found = np.max([count.share_found(thresholds) for count in quiet], axis=0)
    return replace(definition, raw=knots(thresholds, dice, found), scaled=SCALED)


def knots(thresholds: np.ndarray, dice: np.ndarray, found: np.ndarray) -> tuple[float, ...]:
    """Raw values of heat 0, 0.2, 0.4, 0.6 and 1.

    :param thresholds: raw values, rising.
    :param dice: mean Dice at each.
    :param found: share of normal lung at each.
    """

    def range_of(share: float) -> np.ndarray:
        """Thresholds, rising, whose Dice is at least so much of the best."""
        return thresholds[dice >= share * dice.max()]

    below, good, above = (
        float(part) for part in (range_of(CLOSE_BELOW)[0], range_of(AS_GOOD_AS_BEST)[-1], range_of(CLOSE_ABOVE)[-1])
    )
    quiet = float(thresholds[min(int(np.sum(found > MOST_FOUND_IN_NORMAL)), len(thresholds) - 1)])
    step = (SCALED[2] - SCALED[1]) / STEEPEST
    # Where the range is narrow the default keeps off its end; where normal lung is found it goes there, but not beyond.
    middle = max(min(good, max(above - step, below + step)), min(quiet, above))
    # Knots must rise strictly, also where the neighborhood is empty on one side or ends near 0 or 1.
    below = min(max(min(below, middle - step), SCALED[1] / STEEPEST), 0.9 * middle)
    above = max(min(max(above, middle + step), 1 - (1 - SCALED[3]) / STEEPEST), middle + 0.02 * (1 - middle))
    return tuple(float(f"{knot:.5g}") for knot in (0.0, below, middle, above, 1.0))


def slice_metrics(
    network: torch.nn.Module, definition: HeatDefinition, data: SliceSet, device: torch.device
) -> dict[str, float | dict[str, float]]:
    """Average precision and Dice for each annotator and their mean, and the share of normal lung called lesion."""
    counts, normal = count_heat(slice_heat(network, definition, data.images, device), data)
    grid = np.arange(1, 100) / 100
    of_masks: dict[str, dict[str, float]] = {}
    for name, count in counts.items():
        dice = count.dice(grid)
        of_masks[name] = {
            "average_precision": round(count.average_precision(), 4),
            "best_dice": round(float(dice.max()), 4),
            "best_threshold": float(grid[dice.argmax()]),
            "dice_at_default": round(float(count.dice(DEFAULT_THRESHOLD)[0]), 4),
        }
    metrics: dict[str, float | dict[str, float]] = {**of_masks}
    for key in ("average_precision", "best_dice", "dice_at_default"):
        metrics[f"mean_{key}"] = round(float(np.mean([of_masks[name][key] for name in MASKS])), 4)
    metrics["normal_false_positive_fraction"] = round(float(normal.share_found(DEFAULT_THRESHOLD)[0]), 6)
    return metrics
