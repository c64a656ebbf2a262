"""What touches the edges of axial slices: where nothing was measured, NaN or a constant may stand."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..errors import InputError
from .grid import AxialView

OUTSIDE_HU = -1024
LEAST_REGION = 25  # pixels


def at_the_edge(plane: np.ndarray) -> np.ndarray:
    """Of a slice's pixels ``(y, x)`` bool the regions that touch its edge, but for the smallest."""
    pieces, _ = ndimage.label(plane)
    touching = np.zeros(int(pieces.max(initial=0)) + 1, dtype=bool)
    for edge in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
        touching[edge] = True
    touching &= np.bincount(pieces.ravel(), minlength=len(touching)) >= LEAST_REGION
    touching[0] = False
    return touching[pieces]


def without_gaps(array: np.ndarray, ijk_to_ras: np.ndarray, stage: str) -> np.ndarray:
    """The array with air in the place of NaN and infinity at the edges of axial slices.

    :raises LesionDecompError: there are such values elsewhere, too.
    """
    # One reduction finds NaN and infinity without a boolean copy of the volume.
    if array.dtype.kind != "f" or np.isfinite(np.add.reduce(array, axis=None, dtype=np.float64)):
        return array
    filled = array.copy()
    stack = AxialView.of(array.shape, ijk_to_ras).to_axial(filled)
    inside = 0
    for plane in stack:
        gaps = ~np.isfinite(plane)
        if gaps.any():
            outside = at_the_edge(gaps)
            inside += int(np.count_nonzero(gaps & ~outside))
            plane[outside] = OUTSIDE_HU
    if inside:
        raise InputError(
            stage,
            f"{inside} voxels that are NaN or infinite inside the image",
            "finite HU everywhere",
            f"Put {OUTSIDE_HU} (air) there, or what was measured.",
            code="not_finite",
        )
    return filled
