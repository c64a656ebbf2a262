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
NORMALIZED = 20.0  # HU: fractions within so little are no CT's
LABELS = 20  # highest of a labelmap of few structures
AIR_TWICE = -2024  # air with -1024 added twice
TWICE_SHIFTED = 1200.0


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
        raise InputError(STAGE, found, f"a chest CT of at least {least_slices} slices", code="few_slices")
    if min(rows, columns) < LEAST_PIXELS:
        found = f"axial slices of {columns}×{rows} pixels"
        raise InputError(STAGE, found, f"at least {LEAST_PIXELS}×{LEAST_PIXELS} pixels", code="few_pixels")


def _check_values(hu: np.ndarray) -> None:
    expected = "Hounsfield units: air near -1000, soft tissue near 0"
    low, high = float(hu.min()), float(hu.max())
    if low == high:
        raise InputError(STAGE, f"{low:g} in every voxel", expected, code="one_value")
    if high <= AIR_HU:
        raise InputError(STAGE, f"nothing but air ({low:g} to {high:g} HU)", expected, code="only_air")
    whole = bool(np.array_equal(hu, np.rint(hu)))
    if high - low <= NORMALIZED and not whole:
        found = f"values from {low:.3g} to {high:.3g}: the CT was normalized, as for training a network"
        raise InputError(STAGE, found, expected, "Load the CT as it was, in HU.", code="normalized")
    if low >= 0 and high <= LABELS and whole:
        found = f"the whole numbers {low:g} to {high:g}: a labelmap"
        raise InputError(STAGE, found, expected, "Load the CT instead of its labelmap.", code="labelmap")
    if low >= 0 and high <= 255:
        advice = "Load the original CT instead of a picture of it."
        raise InputError(STAGE, f"8-bit gray levels ({low:g} to {high:g})", expected, advice, code="eight_bit")
    if low > AIR_HU:
        advice = "If it is a CT, apply the rescale slope and intercept first; MR is not supported."
        raise InputError(STAGE, f"no air: values from {low:g} to {high:g}", expected, advice, code="no_air")
    if high - low > TWICE_SHIFTED and _is_shifted_twice(hu):
        found = f"air near {AIR_TWICE} HU: the rescale intercept was applied twice"
        raise InputError(STAGE, found, expected, "Add 1024 to every voxel.", code="intercept_twice")
    tissue = np.count_nonzero((hu >= TISSUE_HU[0]) & (hu <= TISSUE_HU[1])) / hu.size
    if tissue < 0.002:
        found = f"{100 * tissue:.2g} % of voxels between {TISSUE_HU[0]} and {TISSUE_HU[1]} HU"
        raise InputError(STAGE, found, "a patient: at least 0.2 % soft tissue", code="no_tissue")


def _is_shifted_twice(hu: np.ndarray) -> bool:
    """Whether both air and soft tissue lie 1024 HU too low: an intercept that was applied twice."""
    counts = np.array([np.count_nonzero((hu >= low) & (hu <= high)) for low, high in (
        (AIR_TWICE - 80, AIR_TWICE + 120), (-1124, -924), TISSUE_HU)])  # fmt: skip
    return bool(counts[0] > 0.05 * hu.size and counts[1] > 0.1 * hu.size and counts[2] < 0.02 * hu.size)
