"""Is this volume a chest CT in Hounsfield units? What cannot be is refused; :mod:`.plausibility` warns of the odd."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .grid import AxialView
from .plausibility import sampled
from .volume import Volume

STAGE = "Checking the CT"
LEAST_SLICES = 3
LEAST_PIXELS = 32
AIR_HU = -500
TISSUE_HU = (-200, 300)


def check_chest_ct(volume: Volume, least_slices: int = LEAST_SLICES) -> None:
    """Refuse what cannot be a chest CT in HU.

    :param least_slices: fewer are refused.
    :raises LesionDecompError: too few slices or pixels, all one value, all air, 8-bit gray levels, no air (MR, an
        offset that was never applied).
    """
    _check_size(volume.view, least_slices)
    _check_values(sampled(volume.array))


def _check_size(view: AxialView, least_slices: int) -> None:
    slices, rows, columns = view.shape
    if slices < least_slices:
        found = f"{slices} axial slice{'s' if slices > 1 else ''} of {columns}×{rows} pixels"
        raise InputError(STAGE, found, f"a chest CT of at least {least_slices} slices")
    if min(rows, columns) < LEAST_PIXELS:
        found = f"axial slices of {columns}×{rows} pixels"
        raise InputError(STAGE, found, f"at least {LEAST_PIXELS}×{LEAST_PIXELS} pixels")


def _check_values(hu: np.ndarray) -> None:
    expected = "Hounsfield units: air near -1000, soft tissue near 0"
    low, high = float(hu.min()), float(hu.max())
    if low == high:
        raise InputError(STAGE, f"{low:g} in every voxel", expected)
    if high <= AIR_HU:
        raise InputError(STAGE, f"nothing but air ({low:g} to {high:g} HU)", expected)
    if low >= 0 and high <= 255:
        advice = "Load the original CT instead of a picture of it."
        raise InputError(STAGE, f"8-bit gray levels ({low:g} to {high:g})", expected, advice)
    if low > AIR_HU:
        advice = "If it is a CT, apply the rescale slope and intercept first; MR is not supported."
        raise InputError(STAGE, f"no air: values from {low:g} to {high:g}", expected, advice)
    tissue = np.count_nonzero((hu >= TISSUE_HU[0]) & (hu <= TISSUE_HU[1])) / hu.size
    if tissue < 0.002:
        found = f"{100 * tissue:.2g} % of voxels between {TISSUE_HU[0]} and {TISSUE_HU[1]} HU"
        raise InputError(STAGE, found, "a patient: at least 0.2 % soft tissue")
