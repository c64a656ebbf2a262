"""Labels of the slices that a reader has seen: what was left in them is lesion, what holds none is normal."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LESION, NORMAL = "lesion", "normal"


def labels_of_seen(seen: Iterable[int], held: np.ndarray) -> dict[int, str]:
    """The image-level label of each slice that was seen; slices that were not have none.

    :param seen: of the axial stack, from 0 at the lowest; those beyond it are left out.
    :param held: ``(slices,)`` bool, which slices hold a voxel of the lesions as the reader has left them.

    >>> labels_of_seen([0, 2, 7], np.array([False, True, True]))
    {0: 'normal', 2: 'lesion'}
    """
    return {index: LESION if held[index] else NORMAL for index in sorted(seen) if index < len(held)}


def ranges_of_labels(labels: dict[int, str]) -> list[tuple[int, int, str]]:
    """Slices of one label that follow one another: first, last (included) and label of each range.

    >>> ranges_of_labels({0: "normal", 1: "normal", 2: "lesion", 4: "lesion"})
    [(0, 1, 'normal'), (2, 2, 'lesion'), (4, 4, 'lesion')]
    """
    ranges: list[tuple[int, int, str]] = []
    for index, label in sorted(labels.items()):
        if ranges and ranges[-1][1:] == (index - 1, label):
            ranges[-1] = (ranges[-1][0], index, label)
        else:
            ranges.append((index, index, label))
    return ranges
