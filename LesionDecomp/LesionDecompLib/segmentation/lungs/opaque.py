"""A lung without air: collapsed, drowned or filled as a whole, it is left out, and reported."""

from __future__ import annotations

import numpy as np

from ...ct.anatomy import LUNGS
from ...ct.oddity import Oddity
from .sides import LEFT, RIGHT

AERATED_HU = -500.0
# Lungs with consolidation everywhere hold a tenth or more of such voxels, healthy ones nine tenths.
LEAST_AERATED = 0.05
# Less of a lung than this need not hold air: it may be the base of one, dense with disease.
LEAST_LUNG_ML = 100.0


def opaque_lungs(mask: np.ndarray, side: np.ndarray, hu: np.ndarray, voxel_ml: float) -> list[tuple[int, float]]:
    """The lungs that hold no air, each with its share of aerated voxels.

    :param mask: ``(z, y, x)`` bool, lungs.
    :param side: ``(z, y, x)`` float32, negative = right lung, positive = left lung.
    :param hu: ``(z, y, x)`` HU.
    """
    found = []
    for label in (RIGHT, LEFT):
        lung = mask & ((side <= 0) == (label == RIGHT))
        count = int(np.count_nonzero(lung))
        if count * voxel_ml < LEAST_LUNG_ML:
            continue
        share = float(np.count_nonzero(hu[lung] < AERATED_HU)) / count
        if share < LEAST_AERATED:
            found.append((label, share))
    return found


def not_aerated(label: int, share: float) -> Oddity:
    """The warning that a lung was left out."""
    name = next(lung.name for lung in LUNGS if lung.label == label)
    text = (
        f"The {name} is not aerated ({100 * share:.0f} % of it holds air) and left out: all measurements are "
        "those of what is aerated beside it."
    )
    return Oddity(text, f"{name.replace(' ', '_')}_not_aerated", share, LEAST_AERATED)
