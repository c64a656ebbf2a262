"""What the scan's air says about the lungs: very dark lung is lung all the same, and the large airways are not.

Both on the lung network's pixels, ``(z, y, x)``, with the mask of what the network found.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# Aerated lung, emphysema included, and air; their borders with vessels and walls are lighter at 2 mm.
DARK_HU = -850.0
# Air in trachea and main bronchi; healthy lung is lighter.
AIRWAY_HU = -920.0
# A wall of trachea, bowel or diaphragm, blurred by the pixels, is denser.
WALL_HU = -700.0
THICK_MM = 10.0
BORDERING_THICK_MM = 7.0
LEAST_DARK_ML = 3.0
AIRWAY_REACH_MM = 9.0
LEAST_AIRWAY_ML = 4.0
AIRWAY_TOP = 0.75
# Lungs as dark as air don't tell where a bronchus ends.
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
    dark = hu < DARK_HU
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
    bordering = _thick(bordering & ~outside[regions], spacing, BORDERING_THICK_MM)
    return missed | _with_lung_around(bordering, mask | missed, hu, spacing)


def _thick(region: np.ndarray, spacing: tuple[float, float, float], radius: float) -> np.ndarray:
    """The parts of a region that hold a disc of this radius (mm) in their slice, and what lies around the disc."""
    out = np.zeros_like(region)
    for z in np.flatnonzero(region.any(axis=(1, 2))):
        core = ndimage.distance_transform_edt(region[z], sampling=spacing[1:]) >= radius
        if core.any():
            out[z] = region[z] & (ndimage.distance_transform_edt(~core, sampling=spacing[1:]) < 1.6 * radius)
    return out


def _with_lung_around(
    region: np.ndarray, mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """The pieces of a region of which at least a quarter of the surface is lung, without a wall between."""
    pieces, count = ndimage.label(region)
    if count == 0:
        return region
    # A few unclaimed voxels may lie between what the network found and what it missed.
    mask = mask | ndimage.binary_dilation(mask, iterations=3, mask=(hu < WALL_HU) & ~region)
    shell = ndimage.grey_dilation(pieces, footprint=ndimage.generate_binary_structure(3, 1))
    shell[region] = 0
    surface = np.bincount(shell.ravel(), minlength=count + 1)
    lung = np.bincount(shell[mask], minlength=count + 1)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    keep = (lung >= 0.25 * surface) & (size >= LEAST_DARK_ML * 1000.0 / float(np.prod(spacing)))
    keep[0] = False
    return keep[pieces]


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
    steps = max(1, round(AIRWAY_REACH_MM / spacing[1]))
    return ndimage.binary_dilation(airway, iterations=steps, mask=inside | airway) & mask
