"""What looks wrong about a CT, its lungs or its heat, a sentence each; the measurements come all the same.

What cannot be a chest CT at all is refused by :mod:`.checks`. Every bound here was set so that none of the whole
chest CTs that the method was developed on (18, of nine sources) crosses it, but for what is really odd about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from scipy import ndimage

from .grid import AxialView
from .oddity import Oddity
from .orientation import orientation_warnings
from .steps import steps_within
from .volume import Volume

SAMPLE = 2_000_000  # voxels

THICK_SLICE_MM = 5.0
COARSE_PIXEL_MM = 3.0
SHORT_SCAN_MM = 100.0
TILT_DEGREES = 3.0
TURN_DEGREES = 20.0
SHEAR_DEGREES = 0.1

PADDING_HU = -1500  # what scanners write where nothing was measured lies below, air above
AIR_HU = (-1075, -925)  # the commonest value in the slices' corners
SOFT_TISSUE_HU = ((-140, -70), (-10, 90))  # the commonest value in the patient: fat or muscle
HIGHEST_HU = 3100  # 12-bit scanners end at 3071; metal fills a small part
HIGH_SHARE = 0.002
CLIPPED_SHARE = 0.001
CLIPPED_BELOW_HU = 1000  # bone goes beyond
CLIPPED_ABOVE_HU = -950  # air goes beyond
FEWEST_VALUES = 300  # a picture of 8 bits has 256

JUMP = 1.6  # times the usual difference between neighbors; two lost slices make 1.8 to 2.4, whole scans reach 1.35
JUMP_NEIGHBORS = 4  # on either side, whose median is the usual
PICTURE_PIXELS = 128  # along each side of a slice, for comparing slices

PLAUSIBLE_LUNGS_ML = (1000.0, 10000.0)
PLAUSIBLE_SHARE_OF_RIGHT = (0.35, 0.72)
CUT_SECTION_CM2 = 15.0  # in the lowest or highest slice
CUT_SIDE_CM2 = 5.0  # at the slices' edges
BELOW_LUNGS_MM = 80.0  # without lung, below lungs that go on above the scan
LEAST_WALL_MM = 5.0  # between the lungs and the edge of the slices; whole scans have 13 and more
WALL_SIDES = 2  # nearer than that: one may be a small field of view
WALL_BLOCK_MM = 4.0
WALL_HU = -300.0
LEAST_TISSUE_AROUND = 0.6  # of a shell around the lungs; whole scans reach 0.92 to 1
PLAUSIBLE_LUNG_HU = (-930.0, -500.0)  # mean; 23 volumes of lungs with disease lie between -895 and -653

HIGH_INVOLVEMENT_PERCENT = 60.0
HIGH_HEAT_MEAN = 0.4


def input_warnings(volume: Volume) -> list[str]:
    """Everything that looks wrong about a CT as it came: its grid, values, order of slices, orientation."""
    view = volume.view
    stack = view.to_axial(volume.array)
    odd = geometry_warnings(view) + value_warnings(stack, sampled(volume.array)) + slice_warnings(stack)
    return odd + orientation_warnings(stack, view)


def sampled(array: np.ndarray) -> np.ndarray:
    """Every n-th voxel along each axis, two million or so: whole slices would miss what lies between them."""
    step = max(1, int((array.size / SAMPLE) ** (1 / 3)))
    return np.ascontiguousarray(array[::step, ::step, ::step])


def geometry_warnings(view: AxialView) -> list[str]:
    """What is odd about the grid: thick slices, a short scan, oblique, tilted or sheared slices, another plane."""
    warnings: list[str] = []
    distance = view.slice_distance
    if distance > THICK_SLICE_MM + 0.01:
        text = f"Slices are {distance:.1f} mm apart; beyond {THICK_SLICE_MM:g} mm small lesions are missed."
        warnings.append(Oddity(text, "thick_slices", distance, THICK_SLICE_MM))
    if max(view.spacing[1:]) > COARSE_PIXEL_MM:
        text = (
            f"Pixels are {max(view.spacing[1:]):.1f} mm wide; beyond {COARSE_PIXEL_MM:g} mm vessels and edges of the "
            "lungs look like lesions."
        )
        warnings.append(Oddity(text, "coarse_pixels", max(view.spacing[1:]), COARSE_PIXEL_MM))
    if view.shape[0] * distance < SHORT_SCAN_MM:
        text = f"The scan is {view.shape[0] * distance:.0f} mm high; whole lungs take more."
        warnings.append(Oddity(text, "short_scan", view.shape[0] * distance, SHORT_SCAN_MM))
    if view.turn_degrees > TURN_DEGREES:
        text = (
            f"The volume is oblique: its axes are up to {view.turn_degrees:.0f}° off the patient's, and slices are "
            "taken along its axes."
        )
        warnings.append(Oddity(text, "oblique", view.turn_degrees, TURN_DEGREES))
    elif view.tilt_degrees > TILT_DEGREES:
        text = f"The slices are tilted by {view.tilt_degrees:.0f}° against the patient's axis."
        warnings.append(Oddity(text, "tilted_slices", view.tilt_degrees, TILT_DEGREES))
    if view.shear_degrees > SHEAR_DEGREES:
        text = f"Gantry tilt: slices are sheared by {view.shear_degrees:.1f}°; the voxel grid follows them."
        warnings.append(Oddity(text, "gantry_tilt", view.shear_degrees, SHEAR_DEGREES))
    if view.axes[0] != int(np.argmax(np.abs(_steps(view)))) and max(view.spacing) > 2 * min(view.spacing):
        text = "The CT was not acquired in axial slices; its axial slices are interpolated from others."
        warnings.append(Oddity(text, "not_axial", max(view.spacing) / min(view.spacing), 2.0))
    return warnings


def value_warnings(stack: np.ndarray, sample: np.ndarray) -> list[str]:
    """What is odd about the values: another zero or scale than HU, clipped contrast, too few or too high values.

    :param stack: ``(z, y, x)`` HU.
    :param sample: every n-th voxel of it.
    """
    warnings: list[str] = []
    low, high = float(sample.min()), float(sample.max())
    air, tissue = _air(stack), _commonest(sample, (-250, 250))
    if air is not None and not AIR_HU[0] <= air <= AIR_HU[1]:
        text = f"Air around the patient lies at {air:.0f} HU, not near -1000: check the rescaling to HU."
        warnings.append(Oddity(text, "air_hu", air, AIR_HU[0] if air < AIR_HU[0] else AIR_HU[1]))
    elif tissue is not None and not any(a <= tissue <= b for a, b in SOFT_TISSUE_HU):
        text = (
            f"The commonest soft tissue lies at {tissue:.0f} HU; fat (near -100) or muscle (near 50) is expected: "
            "check the rescaling to HU."
        )
        bounds = [bound for pair in SOFT_TISSUE_HU for bound in pair]
        nearest = min(bounds, key=lambda bound: abs(bound - tissue))
        warnings.append(Oddity(text, "soft_tissue_hu", tissue, nearest))
    if high < CLIPPED_BELOW_HU and np.mean(sample == high) > CLIPPED_SHARE:
        text = f"Values are cut off at {high:.0f} HU: the CT was saved in a window, denser tissue is lost."
        warnings.append(Oddity(text, "clipped_above", high, CLIPPED_BELOW_HU))
    if low > CLIPPED_ABOVE_HU and np.mean(sample == low) > CLIPPED_SHARE:
        text = f"Values are cut off at {low:.0f} HU: the CT was saved in a window, air is lost."
        warnings.append(Oddity(text, "clipped_below", low, CLIPPED_ABOVE_HU))
    share = float(np.mean(sample > HIGHEST_HU))
    if share > HIGH_SHARE:
        text = f"{100 * share:.1f} % of the voxels are above {HIGHEST_HU} HU: check the rescaling to HU."
        warnings.append(Oddity(text, "high_values", share, HIGH_SHARE))
    if (different := _different(sample)) < FEWEST_VALUES:
        text = f"The CT holds only {different} different values: it looks like a picture turned into HU."
        warnings.append(Oddity(text, "few_values", different, FEWEST_VALUES))
    return warnings


def slice_warnings(stack: np.ndarray) -> list[str]:
    """What is odd about the order of slices: empty ones, repeated ones, jumps between neighbors.

    :param stack: ``(z, y, x)`` HU.
    """
    steps = [max(1, n // PICTURE_PIXELS) for n in stack.shape[1:]]
    pictures = np.ascontiguousarray(stack[:, :: steps[0], :: steps[1]], dtype=np.float32)
    np.clip(pictures, -1000, 200, out=pictures)
    empty = pictures.min(axis=(1, 2)) == pictures.max(axis=(1, 2))
    change = np.array([float(np.abs(b - a).mean()) for a, b in pairwise(pictures)])
    known = ~(empty[1:] | empty[:-1])
    warnings: list[str] = []
    if empty.any():
        text = f"{_slices(int(empty.sum()))} without an image: each pixel has the same value."
        warnings.append(Oddity(text, "empty_slices", empty.sum(), 0.0))
    repeated = int(np.count_nonzero(known & (change == 0)))
    if repeated:
        text = f"{_slices(repeated)} the same as the one below: copies may stand for missing slices."
        warnings.append(Oddity(text, "repeated_slices", repeated, 0.0))
    known &= change > 0
    jumps = []
    for z in np.flatnonzero(known):
        near = slice(max(0, z - JUMP_NEIGHBORS), z + JUMP_NEIGHBORS + 1)
        if change[z] > JUMP * np.median(change[near][known[near]]):
            jumps.append(int(z))
    if jumps:
        places = ", ".join(f"{z + 1} and {z + 2}" for z in jumps[:3]) + (" and more" if len(jumps) > 3 else "")
        text = (
            f"The image jumps between the axial slices {places} (counted from the lowest): slices may be missing or "
            "out of order, or the patient moved."
        )
        warnings.append(Oddity(text, "jumps_between_slices", len(jumps), 0.0))
    return warnings


def lung_warnings(sections_cm2: np.ndarray, slice_mm: float) -> list[str]:
    """What is implausible about segmented lungs: their volume, their sides, a cut at the lowest or highest slice.

    :param sections_cm2: ``(z, 2)`` area of the right and of the left lung in each axial slice, from inferior.
    :param slice_mm: distance between slices.
    """
    right, left = sections_cm2.sum(axis=0) * slice_mm / 10.0
    both = right + left
    warnings: list[str] = []
    low, high = PLAUSIBLE_LUNGS_ML
    if not low <= both <= high:
        text = f"The lungs measure {both:.0f} mL; {low:.0f} to {high:.0f} mL is usual in adults."
        warnings.append(Oddity(text, "lung_volume", both, low if both < low else high))
    for name, volume in (("right", right), ("left", left)):
        if both > 0 and volume == 0:
            warnings.append(Oddity(f"No {name} lung was found.", f"no_{name}_lung", 0.0, 0.0))
    low, high = PLAUSIBLE_SHARE_OF_RIGHT
    if right > 0 and left > 0 and not low <= right / both <= high:
        text = (
            f"The right lung is {100 * right / both:.0f} % of both; {100 * low:.0f} to {100 * high:.0f} % is usual: "
            "part of a lung may be missing from the mask."
        )
        warnings.append(Oddity(text, "lung_share", right / both, low if right / both < low else high))
    for name, section in (("lowest", sections_cm2[0].sum()), ("highest", sections_cm2[-1].sum())):
        if section > CUT_SECTION_CM2:
            text = f"The lungs are cut off at the {name} slice ({section:.0f} cm² of lung in it)."
            warnings.append(Oddity(text, f"lung_cut_{name}", section, CUT_SECTION_CM2))
    held = np.flatnonzero(sections_cm2.any(axis=1))
    below = held[0] * slice_mm if len(held) else 0.0
    if below > BELOW_LUNGS_MM and sections_cm2[-1].sum() > CUT_SECTION_CM2:
        text = (
            f"The scan shows {below:.0f} mm below the lungs and not their tops: it is one of the abdomen; measurements "
            "of the lungs are those of their bases."
        )
        warnings.append(Oddity(text, "abdomen", below, BELOW_LUNGS_MM))
    return warnings


def lung_hu_warnings(stack: np.ndarray, lungs: np.ndarray) -> list[str]:
    """Whether the lungs are, on average, too dense or too empty for lungs.

    :param stack: ``(z, y, x)`` HU.
    :param lungs: ``(z, y, x)``, lung where not 0.
    """
    step = max(1, int((stack.size / SAMPLE) ** (1 / 3)))
    part = (slice(None, None, step),) * 3
    inside = stack[part][lungs[part] != 0]
    if not inside.size:
        return []
    mean = float(inside.mean(dtype=np.float64))
    low, high = PLAUSIBLE_LUNG_HU
    if low <= mean <= high:
        return []
    text = (
        f"The lungs have {mean:.0f} HU on average; {low:.0f} to {high:.0f} HU is usual: check the rescaling to HU and "
        "the lung mask."
    )
    return [Oddity(text, "lung_hu", mean, low if mean < low else high)]


def lung_edge_warnings(stack: np.ndarray, lungs: np.ndarray, view: AxialView) -> list[str]:
    """Whether the lungs reach the edge of the slices, or of the circle that the scanner reconstructed.

    :param stack: ``(z, y, x)`` HU.
    :param lungs: ``(z, y, x)`` uint8, lung where not 0.
    """
    z_mm, y_mm, x_mm = view.slice_distance, *view.spacing[1:]
    held = np.flatnonzero(lungs.any(axis=(1, 2)))
    if not len(held):
        return []
    part = slice(held[0], held[-1] + 1)
    names = ("anterior", "posterior", "right", "left")
    faces = (lungs[part, 0], lungs[part, -1], lungs[part, :, 0], lungs[part, :, -1])
    warnings: list[str] = []
    for name, face, mm in zip(names, faces, (x_mm, x_mm, y_mm, y_mm), strict=True):
        area = np.count_nonzero(face) * mm * z_mm / 100.0
        if area > CUT_SIDE_CM2:
            text = f"The lungs are cut off at the {name} edge of the slices ({area:.0f} cm² of lung on it)."
            warnings.append(Oddity(text, "lung_cut_by_slices", area, CUT_SIDE_CM2))
    unseen = _unseen(stack[part])
    hidden = 0.0
    for axis, mm in ((0, x_mm), (1, y_mm)):
        for step in (1, -1):
            beside = np.roll(unseen, step, axis) & ~unseen
            hidden += np.count_nonzero(lungs[part][:, beside]) * mm * z_mm / 100.0
    if hidden > CUT_SIDE_CM2:
        text = f"The lungs are cut off by the scanner's field of view ({hidden:.0f} cm² of lung on its edge)."
        warnings.append(Oddity(text, "lung_cut_by_field", hidden, CUT_SIDE_CM2))
    return warnings


def chest_wall_warnings(stack: np.ndarray, lungs: np.ndarray, view: AxialView) -> list[str]:
    """Whether the chest wall around the lungs is missing: cropped away, or masked.

    :param stack: ``(z, y, x)`` HU.
    :param lungs: ``(z, y, x)``, lung where not 0.
    """
    steps = [max(1, steps_within(WALL_BLOCK_MM, s)) for s in (view.slice_distance, *view.spacing[1:])]
    part = tuple(slice(None, None, step) for step in steps)
    lung, hu = lungs[part] != 0, stack[part]
    if not lung.any():
        return []
    rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    gaps = np.array([rows[0], lungs.shape[1] - 1 - rows[-1]]) * view.spacing[1]
    gaps = np.concatenate([gaps, np.array([columns[0], lungs.shape[2] - 1 - columns[-1]]) * view.spacing[2]])
    near = int(np.count_nonzero(gaps < LEAST_WALL_MM))
    if near >= WALL_SIDES:
        text = (
            f"The lungs reach {near} of the slices' 4 edges: the chest wall around them was cut away. What touches the "
            "edges may be missed; use the whole scan."
        )
        return [Oddity(text, "chest_wall_cropped", near, WALL_SIDES - 1)]
    shell = ndimage.binary_dilation(lung, iterations=3) & ~ndimage.binary_dilation(lung)
    tissue = float(np.mean(hu[shell] > WALL_HU)) if shell.any() else 1.0
    if tissue < LEAST_TISSUE_AROUND:
        text = (
            f"Only {100 * tissue:.0f} % of what surrounds the lungs is tissue: the CT was masked. Lungs and lesions "
            "are then found worse; use the scan as it was."
        )
        return [Oddity(text, "chest_wall_masked", tissue, LEAST_TISSUE_AROUND)]
    return []


def heat_warnings(measurements: Mapping[str, float]) -> list[str]:
    """Whether nearly all of the lungs are hot.

    :param measurements: of both lungs, by the keys of :data:`LesionDecompLib.measurement.statistics.MEASUREMENTS`.
    """
    share, mean = measurements["involvement_percent"], measurements["lung_heat_mean"]
    if share > HIGH_INVOLVEMENT_PERCENT:
        text = f"{share:.0f} % of the lungs are called lesion: check the CT's HU and the lung mask."
        return [Oddity(text, "high_involvement", share, HIGH_INVOLVEMENT_PERCENT)]
    if mean > HIGH_HEAT_MEAN:
        text = f"Heat is high all over the lungs (mean {mean:.2f}): check the CT's HU and the lung mask."
        return [Oddity(text, "high_heat", mean, HIGH_HEAT_MEAN)]
    return []


def _steps(view: AxialView) -> np.ndarray:
    """Spacing along the input's own axes (k, j, i), mm."""
    steps = np.zeros(3)
    for axial_axis, axis in enumerate(view.axes):
        steps[axis] = view.spacing[axial_axis]
    return steps


def _air(stack: np.ndarray) -> float | None:
    """The commonest value of air in the slices' corners; None where there is none, or nothing was measured.

    The edges between the corners will not do: they may cut through the lungs. Foam of a mattress (-900 HU) fills some
    corners, so the darkest counts.
    """
    some = stack[:: max(1, len(stack) // 32)]
    high, wide = (max(1, n // 16) for n in stack.shape[1:])
    corners = [some[:, y, x] for y in (slice(high), slice(-high, None)) for x in (slice(wide), slice(-wide, None))]
    of_air = [_commonest(c, (PADDING_HU, -500)) for c in corners if PADDING_HU < np.median(c) < -500]
    known = [value for value in of_air if value is not None]
    return min(known) if len(known) >= 2 else None


def _commonest(values: np.ndarray, bounds: tuple[int, int]) -> float | None:
    """The commonest of the values within bounds, of a histogram smoothed over 15 HU."""
    inside = values[(values >= bounds[0]) & (values <= bounds[1])]
    if not inside.size:
        return None
    counts = np.bincount(np.rint(inside).astype(np.int64).ravel() - bounds[0], minlength=bounds[1] - bounds[0] + 1)
    return float(bounds[0] + np.argmax(np.convolve(counts, np.ones(15), "same")))


def _different(sample: np.ndarray) -> int:
    """How many different values there are; one in sixteen voxels is enough to recognize a picture."""
    return len(np.unique(sample[::2, ::4, ::2]))


def _unseen(stack: np.ndarray) -> np.ndarray:
    """``(y, x)``: pixels that hold the lowest value in every slice, as outside of a scanner's circle."""
    low = stack[:, 0, 0].min()
    unseen = np.ones(stack.shape[1:], dtype=bool)
    for plane in stack:
        unseen &= plane == low
    return unseen


def _slices(count: int) -> str:
    return "1 axial slice is" if count == 1 else f"{count} axial slices are"
