"""What the scan's air shows about the lungs: very dark lung is lung all the same, and the large airways are not.

Both on the lung network's pixels, ``(z, y, x)``, with the mask of what the network found.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...ct.steps import SAME_MM, nearest_steps
from ...threads import over_slices
from ..components import find_components
from .sides import bounding_box

# Aerated lung, emphysema included, and air; their borders with vessels and walls are lighter at 2 mm.
DARK_HU = -850.0
# Air in trachea and main bronchi; healthy lung is lighter.
AIRWAY_HU = -920.0
# A wall of trachea, bowel or diaphragm, blurred by the pixels, is denser.
WALL_HU = -700.0
THICK_MM = 10.0
BORDERING_THICK_MM = 7.0
LEAST_DARK_ML = 3.0
LEAST_LUNG_AROUND = 0.25
UNCLAIMED = 3  # voxels
AIRWAY_REACH_MM = 9.0
LEAST_AIRWAY_ML = 4.0
AIRWAY_TOP = 0.75
# The thin edge of a lung beside diaphragm and ribs, blurred by the pixels with both.
RIM_HU = -500.0
RIM_REACH_MM = 10.0
LARGEST_GAS_SHARE = 0.02
# Lungs as dark as air do not show where a bronchus ends.
LARGEST_DARK_SHARE = 0.2

IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def dark_lung(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Emphysema that the network missed: thick dark regions that are lung by most of their slice or by their borders.

    Such a region belongs to the lungs when the network called more than half of the dark region of its slice lung, or
    when a quarter of its surface in 3-D is lung: trachea and bowel have walls all around. Main bronchi, which join the
    lung's air, are not thick enough.

    :param mask: ``(z, y, x)`` bool, lungs.
    :param hu: ``(z, y, x)``, HU.
    :param spacing: of (z, y, x), mm.
    :return: ``(z, y, x)`` bool, to be added to the lungs.
    """
    missed, bordering = np.zeros_like(mask), np.zeros_like(mask)

    def look(part: slice) -> None:
        missed[part], bordering[part] = _dark_of_slices(mask[part], hu[part] < DARK_HU, spacing)

    over_slices(look, len(mask))
    return missed | _with_lung_around(bordering, mask | missed, hu, spacing)


def _dark_of_slices(
    mask: np.ndarray, dark: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Thick dark regions beside the mask: those that are mostly lung, and others but for the air around the patient."""
    regions, count = ndimage.label(dark, structure=IN_PLANE)
    size = np.bincount(regions.ravel(), minlength=count + 1)
    found = np.bincount(regions[mask], minlength=count + 1)
    mostly = (found > 0.5 * size) & (found < size)
    mostly[0] = False
    missed = _thick(mostly[regions] & ~mask, spacing, THICK_MM)
    bordering = dark & ~mask & ~missed
    # Outside air need not be looked at any further.
    outside = np.zeros(count + 1, dtype=bool)
    for border in (regions[:, [0, -1], :], regions[:, :, [0, -1]]):
        outside[np.unique(border)] = True
    outside[0] = False
    return missed, _thick(bordering & ~outside[regions], spacing, BORDERING_THICK_MM)


def _thick(region: np.ndarray, spacing: tuple[float, float, float], radius: float) -> np.ndarray:
    """The parts of a region that hold a disc of this radius (mm) in their slice, and what lies around the disc."""
    out = np.zeros_like(region)
    for z in np.flatnonzero(region.any(axis=(1, 2))):
        # What lies beyond a margin of one pixel is nearest to nothing in the region.
        _, rows, columns = bounding_box(region[z : z + 1], margin=1) or (slice(0), slice(0), slice(0))
        part = region[z, rows, columns]
        core = ndimage.distance_transform_edt(part, sampling=spacing[1:]) >= radius - SAME_MM
        if core.any():
            near = ndimage.distance_transform_edt(~core, sampling=spacing[1:]) < 1.6 * radius - SAME_MM
            out[z, rows, columns] = part & near
    return out


def _with_lung_around(
    region: np.ndarray, mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """The pieces of a region of which at least a quarter of the surface is lung, without a wall between."""
    pieces, count = ndimage.label(region)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = size >= LEAST_DARK_ML * 1000.0 / float(np.prod(spacing))
    keep[0] = False
    for number, box in enumerate(ndimage.find_objects(pieces), start=1):
        if keep[number]:
            # As far as the surface and what is looked at around it reach.
            near = tuple(slice(max(s.start - UNCLAIMED - 1, 0), s.stop + UNCLAIMED + 1) for s in box)
            keep[number] = _lung_share_of_surface(pieces[near], number, mask[near], hu[near]) >= LEAST_LUNG_AROUND
    return keep[pieces] if keep.any() else np.zeros_like(region)


def _lung_share_of_surface(pieces: np.ndarray, number: int, mask: np.ndarray, hu: np.ndarray) -> float:
    """How much of the surface of a piece is lung, 0 to 1."""
    # A few unclaimed voxels may lie between what the network found and what it missed.
    free = (hu < WALL_HU) & (pieces == 0)
    mask = mask | ndimage.binary_dilation(mask, iterations=UNCLAIMED, mask=free)
    shell = ndimage.grey_dilation(pieces, footprint=ndimage.generate_binary_structure(3, 1))
    surface = (shell == number) & (pieces == 0)
    return int(np.count_nonzero(surface & mask)) / max(int(np.count_nonzero(surface)), 1)


def thin_rims(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The thin edges of the lungs in the costophrenic angles and along the ribs, where the network stopped short.

    They are aerated, go on from what was found for at most 10 mm, and hold no gas: bowel, airways and the air around
    the patient do.

    :return: ``(z, y, x)`` bool, to be added to the lungs.
    """
    aerated = (hu < RIM_HU) & ~mask
    pieces = find_components(aerated)
    if pieces.count == 0:
        return aerated
    gas = np.bincount(
        np.repeat(pieces.labels, pieces.lengths), weights=hu[pieces.voxels()] < AIRWAY_HU, minlength=pieces.count
    )
    rims = np.zeros_like(mask)
    rims[pieces.voxels((gas <= LARGEST_GAS_SHARE * pieces.sizes)[pieces.labels])] = True
    steps = max(1, nearest_steps(RIM_REACH_MM, spacing[1]))
    return ndimage.binary_dilation(mask, structure=IN_PLANE, iterations=steps, mask=rims | mask) & rims


def airway_in_lungs(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The parts of the mask that continue the airway the network left out: carina and main bronchi.

    The airway is air outside the mask that comes from above, in one piece; it is followed into the mask for at most
    9 mm, through air alone.

    :return: ``(z, y, x)`` bool, to be taken from the lungs; empty where the lungs are nearly as dark as air.
    """
    air = hu < AIRWAY_HU
    inside = air & mask
    nothing = np.zeros_like(mask)
    heights = np.flatnonzero(mask.any(axis=(1, 2)))
    if heights.size == 0 or np.count_nonzero(inside) > LARGEST_DARK_SHARE * np.count_nonzero(mask):
        return nothing
    pieces, count = ndimage.label(air & ~mask)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = size >= LEAST_AIRWAY_ML * 1000.0 / float(np.prod(spacing))
    keep[0] = False
    # Bowel and lung that the network missed don't reach up to the tops of the lungs; outside air reaches a border.
    from_above = heights[0] + int(AIRWAY_TOP * (heights[-1] - heights[0]))
    keep &= np.isin(np.arange(count + 1), pieces[from_above:])
    for border in (pieces[:, [0, -1], :], pieces[:, :, [0, -1]]):
        keep[np.unique(border)] = False
    airway = keep[pieces]
    if not airway.any():
        return nothing
    steps = max(1, nearest_steps(AIRWAY_REACH_MM, spacing[1]))
    return ndimage.binary_dilation(airway, iterations=steps, mask=inside | airway) & mask
