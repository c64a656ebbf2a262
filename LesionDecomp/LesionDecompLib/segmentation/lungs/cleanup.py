"""The lungs made whole in 3-D: crumbs, gas and airways out, vessels and enclosed disease in, right and left parted.

Works on the lung network's pixels, where 200 slices of a chest are a few million voxels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...ct.oddity import Oddity
from ...threads import over_slices
from ..components import find_components
from .air import IN_PLANE, airway_in_lungs, dark_lung, thin_rims
from .beside import beside_lungs
from .body import beside_patient, pieces_outside_body
from .opaque import not_aerated, opaque_lungs
from .sides import RIGHT, bounding_box, side_planes

# A lung that disease has cut into pieces keeps those of at least this volume, or of this share of all.
LEAST_PIECE_ML = 15.0
LEAST_PIECE_SHARE = 0.02
LARGE_PIECE_SHARE = 0.1
# Lungs fill a stretch of the body: what lies beyond so much without any lung is bowel.
GAP_MM = 40.0
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
    :param warnings: what was left out that looked like lung, and what lies beside the lungs.
    """

    probability: np.ndarray
    side: np.ndarray
    volume_ml: float
    warnings: tuple[Oddity, ...] = ()


def clean_lungs(
    probability: np.ndarray,
    evidence: np.ndarray,
    spacing: tuple[float, float, float],
    threshold: float = 0.5,
    hu: np.ndarray | None = None,
) -> CleanLungs:
    """Make lungs of a network's opinion. A single lung lies on its side of the field's middle, where the body's is.

    :param probability: ``(z, y, x)`` float32, of lung, in [0, 1].
    :param evidence: ``(z, y, x)`` float32 in [-1, 1], > 0 where the network sees left lung, < 0 for right lung.
    :param spacing: of (z, y, x), mm.
    :param threshold: on the probability.
    :param hu: ``(z, y, x)`` HU; what is known from the air (:mod:`.air`) is left out without it.
    """
    soft = np.zeros(probability.shape, dtype=np.float32)
    side = np.full(probability.shape, -1.0, dtype=np.float32)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    box = bounding_box(probability >= threshold, margin=8)
    if box is None:
        return CleanLungs(soft, side, 0.0)
    part = probability[box]
    raw = part >= threshold
    mask = keep_large_pieces(raw, voxel_ml, spacing[0])
    warnings: list[Oddity] = []
    if hu is not None:
        outside = pieces_outside_body(mask, hu[box[0]], (box[1].start, box[2].start))
        mask &= ~outside
        warnings += beside_patient(float(np.count_nonzero(outside)) * voxel_ml)
        mask |= dark_lung(mask, hu[box], spacing)
        mask |= thin_rims(mask, hu[box], spacing)
    mask = fill_holes(mask, spacing)
    if hu is not None:
        mask &= ~airway_in_lungs(mask, hu[box], spacing)
    middle = (probability.shape[2] - 1) / 2
    side[box] = _sides(mask, evidence[box], spacing, middle - box[2].start)
    if hu is not None:
        for label, share in opaque_lungs(mask, side[box], hu[box], voxel_ml):
            warnings.append(not_aerated(label, share))
            mask &= (side[box] <= 0) != (label == RIGHT)
        whole = np.zeros((len(mask), *hu.shape[1:]), dtype=bool)
        whole[:, box[1], box[2]] = mask
        warnings += beside_lungs(whole, side[box[0]], hu[box[0]], spacing)
    soft_part = soft[box]

    def soften(some: slice) -> None:
        soft_part[some] = _softened(part[some], raw[some], mask[some], _near(mask, some), threshold)

    over_slices(soften, len(mask))
    return CleanLungs(soft, side, float(np.count_nonzero(mask)) * voxel_ml, tuple(warnings))


def keep_large_pieces(mask: np.ndarray, voxel_ml: float, slice_mm: float) -> np.ndarray:
    """The mask without connected pieces that are not lung: crumbs, and gas or fat in slices below or above the lungs.

    :param mask: ``(z, y, x)`` bool.
    :param slice_mm: distance of its slices.
    """
    pieces = find_components(mask)
    out = mask.copy()
    if pieces.count == 0:
        return out
    sizes, total = pieces.sizes, pieces.sizes.sum()
    keep = sizes >= max(min(LEAST_PIECE_ML / voxel_ml, LEAST_PIECE_SHARE * total), 1)
    if not keep.any():
        return np.zeros_like(mask)
    # What disease has cut off a lung lies beside the other lung, or is large.
    start, stop = np.full(pieces.count, len(mask)), np.zeros(pieces.count, dtype=np.int64)
    np.minimum.at(start, pieces.labels, pieces.z)
    np.maximum.at(stop, pieces.labels, pieces.z + 1)
    large = sizes >= LARGE_PIECE_SHARE * total
    large[keep] &= _in_chest(start[keep], stop[keep], sizes[keep], math.ceil(GAP_MM / slice_mm))
    low, high = (start[large].min(), stop[large].max()) if large.any() else (0, len(mask))
    keep &= large | (np.minimum(stop, high) - np.maximum(start, low) >= 0.5 * (stop - start))
    out[pieces.voxels(~keep[pieces.labels])] = False
    return out


def _in_chest(start: np.ndarray, stop: np.ndarray, sizes: np.ndarray, gap: int) -> np.ndarray:
    """Which pieces belong to the stretch of slices that holds most of them: lungs are not in two parts of a body.

    :param start, stop: first slice of each piece, and the one after its last.
    :param gap: slices without a piece that end a stretch.
    """
    order = np.argsort(start, kind="stable")
    reached = np.maximum.accumulate(stop[order])
    stretch = np.zeros(len(order), dtype=np.int64)
    stretch[order[1:]] = np.cumsum(start[order[1:]] - reached[:-1] >= gap)
    return stretch == np.argmax(np.bincount(stretch, weights=sizes))


def fill_holes(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Fill what is enclosed in 3-D, and small holes of axial slices (vessels, which leave the lung at the hilum)."""
    holes, filled = np.empty_like(mask), np.empty_like(mask)
    largest = LARGEST_HOLE_MM2 / (spacing[1] * spacing[2])

    def look(part: slice) -> None:
        holes[part], small = _holes_of_slices(mask[part], largest)
        filled[part] = mask[part] | small

    over_slices(look, len(mask))
    # A piece of the background is enclosed in 3-D when it is made of holes, and has none of the rest above or below.
    pieces, count = ndimage.label(holes)
    if count:
        inside = np.ones(count + 1, dtype=bool)
        rest = ~(mask | holes)
        above, below = holes[1:] & rest[:-1], holes[:-1] & rest[1:]
        for open_to in (pieces[[0, -1]], pieces[1:][above], pieces[:-1][below]):
            inside[np.unique(open_to)] = False
        inside[0] = False
        filled |= inside[pieces]
    return filled


def _holes_of_slices(mask: np.ndarray, largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of each slice's background that touch no border of it; and those of at most ``largest`` voxels."""
    background, count = ndimage.label(~mask, structure=IN_PLANE)
    inside = np.ones(count + 1, dtype=bool)
    inside[0] = False
    for border in (background[:, [0, -1], :], background[:, :, [0, -1]]):
        inside[np.unique(border)] = False
    small = inside & (np.bincount(background.ravel(), minlength=count + 1) <= largest)
    return inside[background], small[background]


def _softened(
    probability: np.ndarray, raw: np.ndarray, mask: np.ndarray, near: np.ndarray, threshold: float
) -> np.ndarray:
    """Probability that crosses the threshold where the mask does, by just enough: its edge stays where it was put."""
    inside = np.maximum(probability, np.where(raw, np.float32(threshold), np.float32(1.0)))
    beside = np.minimum(probability, np.float32(0.98 * threshold))
    return np.where(mask, inside, np.where(near & ~raw, beside, np.float32(0.0)))


def _near(mask: np.ndarray, part: slice) -> np.ndarray:
    """Some slices of the mask grown by one voxel along each axis."""
    here = mask[part]
    near = here.copy()
    near[:, 1:] |= here[:, :-1]
    near[:, :-1] |= here[:, 1:]
    near[:, :, 1:] |= here[:, :, :-1]
    near[:, :, :-1] |= here[:, :, 1:]
    near[int(part.start == 0) :] |= mask[max(part.start - 1, 0) : part.stop - 1]
    above = mask[part.start + 1 : part.stop + 1]
    near[: len(above)] |= above
    return near


def _sides(mask: np.ndarray, evidence: np.ndarray, spacing: tuple[float, float, float], midline: float) -> np.ndarray:
    """The side field of :func:`.sides.side_field` on all of the box, ``(z, y, x)`` float32."""
    side = np.empty(mask.shape, dtype=np.float32)
    for z, plane in side_planes(mask, spacing, midline, evidence):
        side[z] = plane
    if np.ptp(side) > 1e-3:  # two lungs; where there is one, the network's opinion on the odd pixel doesn't count
        side += EVIDENCE_MM * evidence
    return side
