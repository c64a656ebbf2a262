"""The lungs made whole in 3-D: crumbs, gas and airways out, vessels and enclosed disease in, right and left told apart.

Works on the lung network's pixels, where 200 slices of a chest are a few million voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .lung_air import airway_in_lungs, dark_lung
from .lung_sides import bounding_box, side_planes

# A lung that disease has cut into pieces keeps those of at least this volume, or of this share of all.
LEAST_PIECE_ML = 15.0
LEAST_PIECE_SHARE = 0.02
LARGE_PIECE_SHARE = 0.1
# Sections of vessels and bronchi inside a slice of lung; the top of the diaphragm's dome is a larger hole.
LARGEST_HOLE_MM2 = 250.0
# The network's own word on the side counts near the surface that parts the lungs.
EVIDENCE_MM = 6.0


@dataclass(frozen=True, eq=False)
class CleanLungs:
    """Lungs on the network's pixels, ready to be brought back to the scan.

    :param probability: ``(z, y, x)`` float32 in [0, 1]; the lungs are where it is at least the threshold.
    :param side: ``(z, y, x)`` float32, negative = right lung, positive = left lung.
    :param volume_ml: of both lungs.
    """

    probability: np.ndarray
    side: np.ndarray
    volume_ml: float


def clean_lungs(
    probability: np.ndarray,
    evidence: np.ndarray,
    spacing: tuple[float, float, float],
    threshold: float = 0.5,
    midline: float | None = None,
    hu: np.ndarray | None = None,
) -> CleanLungs:
    """Make lungs of a network's opinion.

    :param probability: ``(z, y, x)`` float32, of lung, in [0, 1].
    :param evidence: ``(z, y, x)`` float32 in [-1, 1], > 0 where the network sees left lung, < 0 for right lung.
    :param spacing: of (z, y, x), mm.
    :param threshold: on the probability.
    :param midline: column of the body's middle; default the field's middle.
    :param hu: ``(z, y, x)`` HU; what is known from the air (:mod:`.lung_air`) is left out without it.
    """
    soft = np.zeros(probability.shape, dtype=np.float32)
    side = np.full(probability.shape, -1.0, dtype=np.float32)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    box = bounding_box(probability >= threshold, margin=8)
    if box is None:
        return CleanLungs(soft, side, 0.0)
    part = probability[box]
    raw = part >= threshold
    mask = keep_large_pieces(raw, voxel_ml)
    if hu is not None:
        mask |= dark_lung(mask, hu[box], spacing)
    mask = fill_holes(mask, spacing)
    if hu is not None:
        mask &= ~airway_in_lungs(mask, hu[box], spacing)
    # Just enough to cross the threshold: the edge of the lung stays where the network put it.
    grown = np.where(mask, np.maximum(part, np.where(raw, threshold, 1.0)), part)
    near = ndimage.binary_dilation(mask, iterations=1)
    soft[box] = np.where(mask, grown, np.where(near & ~raw, np.minimum(part, threshold * 0.98), 0.0))
    middle = (probability.shape[2] - 1) / 2 if midline is None else midline
    side[box] = _sides(mask, evidence[box], spacing, middle - box[2].start)
    return CleanLungs(soft, side, float(np.count_nonzero(mask)) * voxel_ml)


def keep_large_pieces(mask: np.ndarray, voxel_ml: float) -> np.ndarray:
    """The mask without connected pieces that are no lung: crumbs, and gas or fat in slices below or above the lungs.

    :param mask: ``(z, y, x)`` bool.
    """
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3, 3), dtype=bool))
    if count == 0:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    total = sizes.sum()
    keep = sizes >= max(min(LEAST_PIECE_ML / voxel_ml, LEAST_PIECE_SHARE * total), 1)
    # What disease has cut off a lung lies beside the other lung, or is large.
    large = np.flatnonzero(sizes >= LARGE_PIECE_SHARE * total)
    heights = ndimage.find_objects(pieces)
    low = min((heights[piece - 1][0].start for piece in large), default=0)
    high = max((heights[piece - 1][0].stop for piece in large), default=mask.shape[0])
    for piece in np.flatnonzero(keep & (sizes < LARGE_PIECE_SHARE * total)):
        own = heights[piece - 1][0]
        keep[piece] = min(own.stop, high) - max(own.start, low) >= 0.5 * (own.stop - own.start)
    keep[0] = False
    return keep[pieces]


def fill_holes(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Fill what is enclosed in 3-D, and small holes of axial slices (vessels, which leave the lung at the hilum)."""
    mask = mask | _enclosed(mask, ndimage.generate_binary_structure(3, 1), np.inf)
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = ndimage.generate_binary_structure(2, 1)
    return mask | _enclosed(mask, in_plane, LARGEST_HOLE_MM2 / (spacing[1] * spacing[2]))


def _enclosed(mask: np.ndarray, structure: np.ndarray, largest: float) -> np.ndarray:
    """Pieces of the background that touch no border of a slice (nor, in 3-D, the first or last one)."""
    background, _ = ndimage.label(~mask, structure=structure)
    sizes = np.bincount(background.ravel())
    inside = sizes <= largest
    inside[0] = False
    borders = [background[:, [0, -1], :], background[:, :, [0, -1]]]
    if structure[0].any():
        borders.append(background[[0, -1]])
    for border in borders:
        inside[np.unique(border)] = False
    return inside[background]


def _sides(mask: np.ndarray, evidence: np.ndarray, spacing: tuple[float, float, float], midline: float) -> np.ndarray:
    """The side field of :func:`LesionDecompLib.lung_sides.side_field` on all of the box, ``(z, y, x)`` float32."""
    side = np.empty(mask.shape, dtype=np.float32)
    for z, plane in side_planes(mask, spacing, midline, evidence):
        side[z] = plane
    if np.ptp(side) > 1e-3:  # two lungs; where there is one, the network's opinion on the odd pixel doesn't count
        side += EVIDENCE_MM * evidence
    return side
