"""Every method of the comparison on whole CT, inside lungs that are given with it: how well its heat ranks voxels.

Trained on slices of one data set, judged on volumes of another: the paper's cross-data-set evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..ct.volume import Volume
from ..errors import InputError
from ..io.masks import read_labels, read_mask
from ..io.readers import read_volume
from ..metrics.pixels import THRESHOLDS, HeatCounts
from ..models.records import SliceInput
from ..progress import Cancel, Progress, check_cancel
from ..segmentation.heat import heat_on_grid
from ..segmentation.lesions import lung_box
from ..segmentation.slices import OUTSIDE, LungSlices
from ..training.data.input import slice_input
from .localizers import BATCH, Localizer
from .volumes import CT_SUFFIX, find_cases, naming

STAGE = "Evaluation"
LUNG_SUFFIX = "_lung.nii.gz"

Metrics = dict[str, float | int | None]


def given_lungs(ct: Path) -> Path:
    """Where the lungs of a CT are, if they are given."""
    return ct.with_name(ct.name.removesuffix(CT_SUFFIX) + LUNG_SUFFIX)


def evaluate_inside(
    localizers: Sequence[Localizer],
    data: Path,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> dict[str, dict[str, Metrics]]:
    """The metrics of all ``localizers`` on all cases below ``data`` that have a lesion mask: localizer, case, metric.

    :raises LesionDecompError: no such case, or one without given lungs.
    :raises Cancelled: ``cancelled`` returned True.
    """
    cases = {name: (ct, mask) for name, (ct, mask) in find_cases(data).items() if mask is not None}
    if not cases:
        raise InputError(STAGE, f"no case in '{data.name}'", "NAME_ct.nii.gz and NAME_lesion.nii.gz")
    for name, (ct, _) in cases.items():
        if not given_lungs(ct).is_file():
            raise InputError(STAGE, f"no lungs beside '{name}'", f"{name}{LUNG_SUFFIX}, for several methods")
    results: dict[str, dict[str, Metrics]] = {localizer.name: {} for localizer in localizers}
    for number, (name, (ct, mask)) in enumerate(cases.items()):
        with naming(name):
            volume, _ = read_volume(ct)
            lungs = read_mask(given_lungs(ct), volume)
            lesion = read_labels(mask, volume, "Reading the lesion mask").array != 0
        for turn, localizer in enumerate(localizers):
            check_cancel(cancelled, STAGE)
            if progress is not None:
                progress("cases", number * len(localizers) + turn, len(cases) * len(localizers))
            results[localizer.name][name] = metrics_inside(volume_heat(localizer, volume, lungs), lungs, lesion)
    return results


def volume_heat(localizer: Localizer, volume: Volume, lungs: np.ndarray) -> np.ndarray:
    """A localizer's heat of a CT, through slices like those it was trained on.

    :param lungs: ``(k, j, i)``, lung where not 0.
    :return: ``(k, j, i)`` float32 in [0, 1], 0 outside.
    """
    image = SliceInput.of({"input": slice_input()}) if localizer.bundle is None else localizer.bundle.slice_input

    def answer(x: torch.Tensor) -> torch.Tensor:
        gray = ((x[:, 0] + 1) * 127.5).round().clamp(1, 255)
        images = torch.where(x[:, 0] > OUTSIDE, gray, 0).to(torch.uint8).cpu().numpy()
        return torch.from_numpy(localizer.heat(images)).unsqueeze(1)

    box = lung_box(volume.view.to_axial(lungs))
    return heat_on_grid(volume, LungSlices.of(volume, lungs, box, image), answer, BATCH)


def metrics_inside(heat: np.ndarray, lungs: np.ndarray, lesion: np.ndarray) -> Metrics:
    """Average precision and best Dice of heat, over the voxels inside the lungs alone.

    :param heat: ``(k, j, i)`` in [0, 1].
    :param lungs: the same shape, lung where not 0.
    :param lesion: the same shape, bool; what of it lies outside the lungs is left out.
    :return: ``prevalence`` is the lesion's share of lung: the average precision of heat that knows nothing. Without
        lesion there nothing but it is a number.
    """
    inside = lungs != 0
    counts = HeatCounts()
    counts.add(heat[inside], lesion[inside])
    voxels = int(counts.lesion.sum())
    prevalence = round(voxels / max(1, int(np.count_nonzero(inside))), 6)
    if voxels == 0:
        return {"average_precision": None, "best_dice": None, "best_threshold": None, "prevalence": prevalence}
    dice = counts.dice(THRESHOLDS)
    return {
        "average_precision": round(counts.average_precision(), 4),
        "best_dice": round(float(dice.max()), 4),
        "best_threshold": round(float(THRESHOLDS[dice.argmax()]), 4),
        "prevalence": prevalence,
    }
