"""What lies in the patient: clothes, table and the air between arm and chest can look like lung, but lie beside it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...ct.oddity import Oddity
from ..components import find_components

TISSUE_HU = -300.0
LARGEST_OUTSIDE = 0.35  # of all that was found
# So many slices of a piece are looked at.
LOOKS = 7
BESIDE_PATIENT_ML = 15.0


def pieces_outside_body(mask: np.ndarray, hu: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
    """The pieces of the mask most of which lies outside the patient.

    A voxel lies in the patient when the slice's largest piece of soft tissue is on both sides of it, or before and
    behind it: either is enough, since the field of view may cut a lung off. Where more than a third of what was found
    would lie outside nothing is taken: that may be a lung.

    :param mask: ``(z, y, x)`` bool, part of the slices.
    :param hu: ``(z, rows, columns)`` HU of the whole slices.
    :param corner: row and column of the slices where the mask begins.
    :return: ``(z, y, x)`` bool, to be taken from the mask.
    """
    out = np.zeros_like(mask)
    pieces = find_components(mask)
    if pieces.count < 2:
        return out
    outside = np.zeros(pieces.count, dtype=bool)
    patients: dict[int, np.ndarray] = {}
    for number in range(pieces.count):
        runs = np.flatnonzero(pieces.labels == number)
        heights = np.unique(pieces.z[runs])
        looked_at = heights[np.linspace(0, len(heights) - 1, min(LOOKS, len(heights))).round().astype(int)]
        inside = count = 0
        for height in looked_at.tolist():
            if height not in patients:
                patients[height] = _patient(hu[height])
            _, y, x = pieces.voxels(runs[pieces.z[runs] == height])
            inside += int(np.count_nonzero(patients[height][y + corner[0], x + corner[1]]))
            count += len(y)
        outside[number] = inside < 0.5 * count
    if not outside.any() or pieces.sizes[outside].sum() > LARGEST_OUTSIDE * pieces.sizes.sum():
        return out
    out[pieces.voxels(outside[pieces.labels])] = True
    return out


def beside_patient(volume_ml: float) -> list[Oddity]:
    """The warning that much beside the patient looked like lung; none for little."""
    if volume_ml <= BESIDE_PATIENT_ML:
        return []
    text = (
        f"{volume_ml:.0f} mL beside the patient look like lung (table, clothes, or air between arm and chest) and were "
        "left out."
    )
    return [Oddity(text, "beside_patient", volume_ml, BESIDE_PATIENT_ML)]


def _patient(plane: np.ndarray) -> np.ndarray:
    """Where the slice's largest piece of soft tissue is on both sides, or before and behind, ``(rows, columns)``."""
    tissue, count = ndimage.label(plane > TISSUE_HU)
    if count == 0:
        return np.zeros(plane.shape, dtype=bool)
    sizes = np.bincount(tissue.ravel())
    sizes[0] = 0
    body = tissue == sizes.argmax()
    between = np.zeros_like(body)
    for axis in (0, 1):
        before = np.logical_or.accumulate(body, axis=axis)
        behind = np.flip(np.logical_or.accumulate(np.flip(body, axis), axis=axis), axis)
        between |= before & behind
    return between
