"""Heat that finished models give the lesion slices of a training set, for a new model to learn from.

Models that differ (painted lesions or none, group or batch norm, seeds) err in different places: their mean is better
than each, and one network can learn it. No label beyond theirs enters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..models.bundle import ModelBundle
from ..progress import Cancel, Progress, check_cancel
from .data.slices import SliceSet
from .heat_scale import UNIT, slice_heat

STAGE = "Teachers' heat"
CHUNK = 64  # slices between two looks at the cancel hook


def taught_heat(
    teachers: Sequence[str | Path],
    data: SliceSet,
    device: torch.device,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> np.ndarray:
    """Mean over ``teachers`` of the heat of the lesion slices of ``data``, as the networks give it (not scaled).

    The scale of a bundle's heat is fitted on ``val`` with pixel masks: it stays out of training.

    :param teachers: folders of lesion bundles.
    :param progress: called with ``("teachers", slices done, slices of all teachers)``.
    :return: ``(n_lesion, h, w)`` uint8, 255 for certain; mirrored slices averaged, 0 outside the lungs.
    :raises LesionDecompError: no usable lesion bundle.
    :raises Cancelled: ``cancelled`` returned True.
    """
    images = data.images[data.lesion]
    total = np.zeros(images.shape, dtype=np.float32)
    for number, folder in enumerate(teachers):
        bundle = ModelBundle.load(folder, "lesions")
        definition = replace(bundle.heat_definition, raw=UNIT.raw, scaled=UNIT.scaled, smoothing_px=0.0)
        if definition.source == "both":  # P is learned: a mean with G1's difference is not a share of certainty
            definition = replace(definition, source="gate")
        network = bundle.network(device)
        for start in range(0, len(images), CHUNK):
            check_cancel(cancelled, STAGE)
            part = images[start : start + CHUNK]
            total[start : start + CHUNK] += slice_heat(network, definition, part, device)
            if progress is not None:
                progress("teachers", number * len(images) + start + len(part), len(teachers) * len(images))
    return np.round(255 * total / len(teachers)).astype(np.uint8)
