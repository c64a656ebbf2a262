"""Which slices of a CT tell most: spread over the lungs, and within each stretch where there is most lesion."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def telling_slices(lesion_voxels: np.ndarray, lung_voxels: np.ndarray, count: int) -> list[int]:
    """Choose slices along one axis.

    The stretch that holds lung is cut into ``count`` equal bands; of each the slice with most lesion is taken, or the
    middle one where a band is free of lesion. Slices with next to no lung at the two ends are left out of the bands.

    :param lesion_voxels: ``(n,)`` lesion voxels of each slice.
    :param lung_voxels: ``(n,)`` lung voxels of each slice; all 0 when no lung was found, and the whole axis is then
        used.
    :return: indices, rising; fewer than ``count`` where there are fewer slices.
    """
    n = len(lung_voxels)
    worth = np.flatnonzero((lung_voxels > 0.15 * lung_voxels.max(initial=0)) | (lesion_voxels > 0))
    first, last = (int(worth[0]), int(worth[-1]) + 1) if len(worth) else (0, n)
    bounds = np.linspace(first, last, min(count, last - first) + 1).round().astype(int)
    chosen = []
    for start, stop in pairwise(bounds):
        middle = (start + stop - 1) / 2
        # Halved at the band's ends, so that two bands don't show the same lesion from both sides of their border.
        weight = 1 - 0.5 * np.abs(np.arange(start, stop) - middle) / max((stop - start) / 2, 1)
        area = lesion_voxels[start:stop] * weight
        chosen.append(int(start + np.argmax(area)) if area.any() else int(middle))
    return chosen
