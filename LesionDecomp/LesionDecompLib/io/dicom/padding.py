"""Pixels outside the scanner's field of view, as the header's padding value marks them, become air.

A header may state a padding value that pixels of the patient have. So pixels are taken for padding only where they
reach the picture's edge, or where no tissue has their value.
"""

from __future__ import annotations

import numpy as np

from ...ct.oddity import Oddity
from .header import DicomSlice
from .pixels import FILLED_ABOVE_HU, hu_of, padding_of

HIGHEST_HU = 3100.0  # 12-bit scanners end at 3071
IN_BODY_SHARE = 0.001  # of all pixels: then the padding value is one of the patient's


class Padding:
    """Finds the padding of a series' slices, one after the other."""

    def __init__(self) -> None:
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # pixels of the padding value, and which are padding
        self._inside, self._pixels, self._value = 0, 0, 0.0

    def of(self, item: DicomSlice, stored: np.ndarray) -> np.ndarray | None:
        """``(rows, columns)`` bool: what was not measured and does not look like air; None where that is nothing.

        :param stored: the slice's stored values.
        """
        marked = padding_of(item, stored)
        if marked is None or not marked.any():
            return None
        value = float(hu_of(item, stored[marked][:1].reshape(1, 1), np.zeros((1, 1), bool))[0, 0])
        if value <= FILLED_ABOVE_HU:
            return None
        if value > HIGHEST_HU:
            return marked
        if self._last is None or not np.array_equal(self._last[0], marked):
            self._last = marked, _reaching_edges(marked)
        outside = self._last[1]
        self._inside += int(np.count_nonzero(marked)) - int(np.count_nonzero(outside))
        self._pixels += marked.size
        self._value = value
        return outside

    def warnings(self) -> list[str]:
        """What was odd, a sentence each."""
        if self._inside <= IN_BODY_SHARE * self._pixels:
            return []
        share = self._inside / self._pixels
        text = (
            f"The header states a padding value of {self._value:g} HU, which {100 * share:.1f} % of the pixels have "
            "inside the picture: those were taken for measured."
        )
        return [Oddity(text, "padding_in_body", share, IN_BODY_SHARE)]


def _reaching_edges(marked: np.ndarray) -> np.ndarray:
    from skimage.measure import label  # slow to import

    areas = label(marked, connectivity=1)
    edges = np.unique(np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]]))
    return marked & np.isin(areas, edges[edges > 0])
