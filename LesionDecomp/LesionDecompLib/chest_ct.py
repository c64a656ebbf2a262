"""Is this volume a chest CT in Hounsfield units? What can't be is refused; what is odd is said in a warning."""

from __future__ import annotations

import numpy as np

from .errors import LesionDecompError
from .geometry import AxialView
from .volume import Volume

STAGE = "Checking the CT"
LEAST_SLICES = 3
LEAST_PIXELS = 32
THICK_SLICE_MM = 5.0
SHORT_SCAN_MM = 100.0
TILT_DEGREES = 3.0
TURN_DEGREES = 20.0
AIR_HU = -500
TISSUE_HU = (-200, 300)
# A look at about this many voxels tells enough.
SAMPLE = 2_000_000


def check_chest_ct(volume: Volume) -> list[str]:
    """Refuse what cannot be a chest CT in HU; return what is unusual, a sentence each.

    :raises LesionDecompError: too few slices or pixels, all one value, all air, 8-bit grey levels, no air (MR, an
        offset that was never applied).
    """
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    _check_size(view)
    _check_values(_sample(volume.array))
    return _geometry_warnings(view)


def _check_size(view: AxialView) -> None:
    slices, rows, columns = view.shape
    if slices < LEAST_SLICES:
        found = f"{slices} axial slice{'s' if slices > 1 else ''} of {columns}×{rows} pixels"
        raise LesionDecompError(STAGE, found, f"a chest CT of at least {LEAST_SLICES} slices")
    if min(rows, columns) < LEAST_PIXELS:
        found = f"axial slices of {columns}×{rows} pixels"
        raise LesionDecompError(STAGE, found, f"at least {LEAST_PIXELS}×{LEAST_PIXELS} pixels")


def _check_values(hu: np.ndarray) -> None:
    expected = "Hounsfield units: air near -1000, soft tissue near 0"
    low, high = float(hu.min()), float(hu.max())
    if low == high:
        raise LesionDecompError(STAGE, f"{low:g} in every voxel", expected)
    if high <= AIR_HU:
        raise LesionDecompError(STAGE, f"nothing but air ({low:g} to {high:g} HU)", expected)
    if low >= 0 and high <= 255:
        advice = "Load the original CT instead of a picture of it."
        raise LesionDecompError(STAGE, f"8-bit grey levels ({low:g} to {high:g})", expected, advice)
    if low > AIR_HU:
        advice = "If it is a CT, apply the rescale slope and intercept first; MR is not supported."
        raise LesionDecompError(STAGE, f"no air: values from {low:g} to {high:g}", expected, advice)
    tissue = np.count_nonzero((hu >= TISSUE_HU[0]) & (hu <= TISSUE_HU[1])) / hu.size
    if tissue < 0.002:
        found = f"{100 * tissue:.2g} % of voxels between {TISSUE_HU[0]} and {TISSUE_HU[1]} HU"
        raise LesionDecompError(STAGE, found, "a patient: at least 0.2 % soft tissue")


def _geometry_warnings(view: AxialView) -> list[str]:
    warnings = []
    distance = view.slice_distance
    if distance > THICK_SLICE_MM + 0.01:
        warnings.append(f"Slices are {distance:.1f} mm apart; beyond {THICK_SLICE_MM:g} mm small lesions are missed.")
    if view.shape[0] * distance < SHORT_SCAN_MM:
        warnings.append(f"The scan is {view.shape[0] * distance:.0f} mm high; whole lungs take more.")
    if view.turn_degrees > TURN_DEGREES:
        warnings.append(
            f"The volume is oblique: its axes are up to {view.turn_degrees:.0f}° off the patient's, and slices are "
            "taken along its axes."
        )
    elif view.tilt_degrees > TILT_DEGREES:
        warnings.append(f"The slices are tilted by {view.tilt_degrees:.0f}° against the patient's axis.")
    if view.axes[0] != int(np.argmax(np.abs(_steps(view)))) and max(view.spacing) > 2 * min(view.spacing):
        warnings.append("The CT was not acquired in axial slices; its axial slices are interpolated from others.")
    return warnings


def _steps(view: AxialView) -> np.ndarray:
    """Spacing along the input's own axes (k, j, i), mm."""
    steps = np.zeros(3)
    for axial_axis, axis in enumerate(view.axes):
        steps[axis] = view.spacing[axial_axis]
    return steps


def _sample(array: np.ndarray) -> np.ndarray:
    # Whole slices would miss what lies between them: every n-th voxel along each axis instead.
    step = max(1, int((array.size / SAMPLE) ** (1 / 3)))
    return array[::step, ::step, ::step]
