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
THICK_MM = 10.0
AIRWAY_REACH_MM = 9.0
LEAST_AIRWAY_ML = 4.0
AIRWAY_TOP = 0.75
# Lungs as dark as air don't tell where a bronchus ends.
LARGEST_DARK_SHARE = 0.2

IN_PLANE = np.zeros((3, 3, 3), dtype=bool)
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)


def dark_lung(mask: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Thick parts of dark regions of a slice of which the network called more than half lung: emphysema it missed.

    Trachea and bowel are regions of their own; main bronchi, which join the lung's air, are not thick enough.

    :param mask: ``(z, y, x)`` bool, lungs. :param hu: ``(z, y, x)``, HU. :param spacing: of (z, y, x), mm.
    :return: ``(z, y, x)`` bool, to be added to the lungs.
    """
    regions, count = ndimage.label(hu < DARK_HU, structure=IN_PLANE)
    size = np.bincount(regions.ravel(), minlength=count + 1)
    found = np.bincount(regions[mask], minlength=count + 1)
    mostly = (found > 0.5 * size) & (found < size)
    mostly[0] = False
    missed = mostly[regions] & ~mask
    if not missed.any():
        return missed
    # What holds a disc of this radius, and the missed air around it.
    core = _in_plane_distance(missed, spacing) >= THICK_MM
    for z in np.flatnonzero(core.any(axis=(1, 2))):
        core[z] = missed[z] & (ndimage.distance_transform_edt(~core[z], sampling=spacing[1:]) < 1.6 * THICK_MM)
    return core


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


def _in_plane_distance(mask: np.ndarray, spacing) -> np.ndarray:
    """Distance of each voxel of the mask from the nearest one outside it in its slice, mm, ``(z, y, x)`` float32."""
    out = np.zeros(mask.shape, dtype=np.float32)
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        out[z] = ndimage.distance_transform_edt(mask[z], sampling=spacing[1:])
    return out
