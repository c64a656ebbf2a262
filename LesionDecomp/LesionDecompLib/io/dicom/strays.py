"""Single slices that lie where none of the others do: beside the stack, or between two slices of a regular one.

Scanners put such images into a series: one to see when contrast has arrived, one of a test.
"""

from __future__ import annotations

import numpy as np

from .header import DicomSlice
from .stacks import MIN_SLICES, places_of

MOST_SHARE = 0.05  # of the slices
MOST = 2
REGULAR = 0.1  # of the slice distance
ASIDE_MM = 5.0  # sideways, off the line through the others


def without_strays(items: list[DicomSlice]) -> tuple[list[DicomSlice], list[DicomSlice]]:
    """The slices less those that are astray, and these.

    :param items: of one orientation, in any order.
    """
    most = max(1, min(MOST, int(MOST_SHARE * len(items))))
    kept = items
    strays: list[DicomSlice] = []
    for find in (_aside, _between):
        found = find(kept)
        if found and len(found) + len(strays) <= most and len(kept) - len(found) >= MIN_SLICES + 2:
            strays += [kept[n] for n in found]
            kept = [item for n, item in enumerate(kept) if n not in found]
    return kept, strays


def _aside(items: list[DicomSlice]) -> set[int]:
    """Slices off the straight line that the others make."""
    if len(items) < MIN_SLICES + 2:
        return set()
    places = places_of(items)
    positions = np.array([item.numbers("position") for item in items])
    if not np.isfinite(positions).all() or np.ptp(places) == 0:
        return set()
    order = np.argsort(places)
    a, b = order[len(order) // 4], order[3 * len(order) // 4]
    if places[b] == places[a]:
        return set()
    # A line through the medians of the lower and of the upper half: no single slice moves it.
    low, high = order[: len(order) // 2], order[len(order) // 2 :]
    from_, to = np.median(positions[low], axis=0), np.median(positions[high], axis=0)
    start, end = float(np.median(places[low])), float(np.median(places[high]))
    if end == start:
        return set()
    line = from_ + np.outer((places - start) / (end - start), to - from_)
    off = np.linalg.norm(positions - line, axis=1)
    return {int(n) for n in np.flatnonzero(off > ASIDE_MM)}


def _between(items: list[DicomSlice]) -> set[int]:
    """Slices between two that are a slice distance apart, where all others are regular."""
    if len(items) < MIN_SLICES + 2:
        return set()
    places = places_of(items)
    order = np.argsort(places)
    gaps = np.diff(places[order])
    step = float(np.median(gaps))
    if not step > 0:
        return set()
    extra = {
        int(order[n])
        for n in range(1, len(order) - 1)
        if gaps[n - 1] > 0
        and abs(gaps[n - 1] + gaps[n] - step) <= REGULAR * step
        and min(gaps[n - 1], gaps[n]) >= 0.05 * step
    }
    if not extra:
        return set()
    rest = np.diff(np.delete(places[order], [int(np.flatnonzero(order == n)[0]) for n in extra]))
    return extra if np.all(np.abs(rest - step) <= REGULAR * step) else set()
