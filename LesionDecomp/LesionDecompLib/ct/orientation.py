"""Does the anatomy agree with the orientation that the header gives? Trachea, lungs, spine and heart show it.

Everything is seen on blocks of about 4 mm, in the air inside the body, before and without any network. Where too
little of the lungs is in the scan nothing is reported. The bounds were set so that none of the chest CTs that the
method was developed on (39 that hold enough lung) crosses them, and most cross them when they are turned. The table
is not looked at: it lies in front of a patient who was scanned prone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from .grid import AxialView
from .oddity import Oddity
from .steps import steps_within

BLOCK_MM = 4.0
AIR_HU = -400.0
TISSUE_HU = -200.0
SPINE_HU = 80.0
SPINE_SHARE = 30  # percentile along the lungs: the spine is dense in seven of ten slices, ribs and vessels are not
LEAST_LUNG_ML = 300.0
LEAST_HEIGHT_MM = 150.0
LEAST_PART = 0.15  # of the largest piece of air: the other lung, where they do not touch
TIP_CM2 = 2.0
CUT_CM2 = 15.0  # of lung in the outermost slice: more than a tip

TRACHEA_CM2 = (0.6, 7.0)
TRACHEA_MM = (60.0, 25.0)  # off the lungs' middle: to front and back, to the sides
TRACHEA_BELOW = 0.3  # share of slices with a trachea in the lowest quarter of the lungs less that in the highest
WIDER_ABOVE = (0.5, 0.55)  # where the lungs' width lies between bottom and top: with a trachea below, and without one
SPINE_BEHIND_MM = -12.0  # behind the lungs' middle: 21 to 62 in whole chests
LEAST_SPINE = 0.15  # dm² HU above 80, divided by 100
HEART_LEFT_MM = -25.0  # to the left of the spine: -16 to 39 in whole chests
ASIDE_MM = (60.0, 80.0)  # between both lungs' middles: less than this from side to side, more from front to back
LUNG_SECTION_CM2 = 25.0
OTHER_SPINE = 2.0  # times as strong a spine along another axis


@dataclass(frozen=True, eq=False)
class _Chest:
    """Blocks of a chest: ``(z, y, x)`` HU, lungs, all air inside the body; the blocks' sides, mm."""

    hu: np.ndarray
    lungs: np.ndarray
    air: np.ndarray
    sides_mm: np.ndarray

    @cached_property
    def box(self) -> tuple[slice, slice, slice]:
        """Around the lungs, tips of less than 2 cm² left out."""
        sections = np.count_nonzero(self.lungs, axis=(1, 2)) * self.cm2
        held = np.flatnonzero(sections > TIP_CM2)
        _, rows, columns = ndimage.find_objects(self.lungs.astype(np.int8))[0]
        return slice(int(held[0]), int(held[-1]) + 1) if len(held) else slice(0, 0), rows, columns

    @cached_property
    def middle(self) -> tuple[float, float]:
        """Row and column of the lungs' middle."""
        held = np.nonzero(self.lungs)
        return float(held[1].mean()), float(held[2].mean())

    @property
    def cm2(self) -> float:
        """Area of a block in an axial slice."""
        return float(self.sides_mm[1] * self.sides_mm[2] / 100)


def orientation_warnings(stack: np.ndarray, view: AxialView) -> list[str]:
    """What contradicts the header's orientation: upside down, front-back, mirrored, turned.

    :param stack: ``(z, y, x)`` HU, as the header has it.
    """
    spacing = np.array([view.slice_distance, *view.spacing[1:]])
    chest = _chest(stack, spacing)
    if chest is None:
        # The trachea opens the lungs to the edge of the slices where these are not axial.
        others = [_chest(stack.transpose(axes), spacing[list(axes)]) for axes in ((1, 0, 2), (2, 1, 0))]
        return _other_axis([_spine_strengths(other) for other in others if other is not None])
    if (chest.box[0].stop - chest.box[0].start) * chest.sides_mm[0] < LEAST_HEIGHT_MM:
        return []
    return _turned(chest) or [*_upside_down(chest), *_front_back(chest), *_mirrored(chest)]


def _chest(stack: np.ndarray, spacing: np.ndarray) -> _Chest | None:
    """The chest in blocks; None where there is too little air inside the body that could be lung.

    :param spacing: of (z, y, x), mm.
    """
    steps = [max(1, steps_within(BLOCK_MM, s)) for s in spacing]
    skips = [max(1, step // 2) for step in steps]  # two voxels of a block along each axis say enough
    some = stack[:: skips[0], :: skips[1], :: skips[2]]
    parts = [step // skip for step, skip in zip(steps, skips, strict=True)]
    counts = [n // part for n, part in zip(some.shape, parts, strict=True)]
    if min(counts) < 8:
        return None
    some = some[: counts[0] * parts[0], : counts[1] * parts[1], : counts[2] * parts[2]].astype(np.float32)
    hu = some.reshape(counts[0], parts[0], counts[1], parts[1], counts[2], parts[2]).mean(axis=(1, 3, 5))
    sides = spacing * [part * skip for part, skip in zip(parts, skips, strict=True)]
    pieces, _ = ndimage.label(hu < AIR_HU)
    outside = np.unique(np.concatenate([pieces[:, [0, -1]].ravel(), pieces[:, :, [0, -1]].ravel()]))
    sizes = np.bincount(pieces.ravel())
    sizes[outside] = 0
    sizes[0] = 0
    if sizes.max() * np.prod(sides) / 1000 < LEAST_LUNG_ML:
        return None
    lungs = np.isin(pieces, np.flatnonzero(sizes > LEAST_PART * sizes.max()))
    return _Chest(hu, lungs, (pieces > 0) & ~np.isin(pieces, outside), sides)


def _upside_down(chest: _Chest) -> list[str]:
    """The trachea leads into the upper part of the lungs, and their tops are narrower than their bases."""
    levels = range(chest.box[0].start, chest.box[0].stop)
    trachea = np.array([_has_trachea(chest, z) for z in levels])
    quarter = max(1, len(levels) // 4)
    below = float(trachea[:quarter].mean() - trachea[-quarter:].mean())
    widths = np.array([_width(chest.lungs[z]) for z in levels], dtype=np.float64)
    center = float((np.arange(len(levels)) + 0.5) @ widths / max(1e-9, widths.sum()) / len(levels))
    ends = [np.count_nonzero(chest.lungs[z]) * chest.cm2 for z in (levels[0], levels[-1])]
    is_whole = max(ends) < CUT_CM2
    if (below >= TRACHEA_BELOW and center > WIDER_ABOVE[0]) or (is_whole and center >= WIDER_ABOVE[1]):
        text = (
            "The anatomy contradicts the header: the chest stands upside down (trachea and tops of the lungs lie where "
            "the header has the feet). Sides and thirds may be exchanged; check the orientation."
        )
        return [Oddity(text, "anatomy_upside_down", center, WIDER_ABOVE[0])]
    return []


def _width(plane: np.ndarray) -> int:
    held = np.flatnonzero(plane.any(axis=0))
    return int(held[-1] - held[0]) + 1 if len(held) else 0


def _has_trachea(chest: _Chest, z: int) -> bool:
    """Whether a slice shows a small round of air between the lungs."""
    pieces, count = ndimage.label(chest.air[z])
    if not count:
        return False
    areas = np.bincount(pieces.ravel())[1:] * chest.cm2
    small = np.flatnonzero((areas >= TRACHEA_CM2[0]) & (areas <= TRACHEA_CM2[1])) + 1
    row, column = chest.middle
    return any(
        abs(y - row) * chest.sides_mm[1] < TRACHEA_MM[0] and abs(x - column) * chest.sides_mm[2] < TRACHEA_MM[1]
        for y, x in ndimage.center_of_mass(pieces > 0, pieces, small)
    )


def _front_back(chest: _Chest) -> list[str]:
    """The spine lies behind the lungs' middle."""
    found = _spine(chest)
    if found is None or found[0] >= SPINE_BEHIND_MM:
        return []
    text = (
        f"The anatomy contradicts the header: the spine lies {-found[0]:.0f} mm in front of the lungs' middle, as if "
        "front and back were exchanged; check the orientation."
    )
    return [Oddity(text, "anatomy_front_back", found[0], SPINE_BEHIND_MM)]


def _spine(chest: _Chest) -> tuple[float, float] | None:
    """How far the spine lies behind the lungs' middle, and its column; None where none is seen.

    It is looked for beside the upper half of the lungs: below, contrast fills organs as dense as bone.
    """
    levels = chest.box[0]
    upper = chest.hu[(levels.start + levels.stop) // 2 : levels.stop]
    dense = np.clip(np.percentile(upper, SPINE_SHARE, axis=0) - SPINE_HU, 0, 300)
    (row, column), (rows, columns) = chest.middle, np.indices(dense.shape)
    dense *= (np.abs(columns - column) * chest.sides_mm[2] < 60) & (np.abs(rows - row) * chest.sides_mm[1] < 130)
    if dense.sum() * chest.cm2 / 100 < LEAST_SPINE:
        return None
    behind = float((rows * dense).sum() / dense.sum() - row) * chest.sides_mm[1]
    return float(behind), float((columns * dense).sum() / dense.sum())


def _mirrored(chest: _Chest) -> list[str]:
    """The heart lies to the left of the spine, in the lower half of the lungs, in front."""
    spine = _spine(chest)
    if spine is None:
        return []
    levels, rows = chest.box[0], chest.box[1]
    count = levels.stop - levels.start
    total, weight = 0.0, 0
    for z in range(levels.start + int(0.15 * count), levels.start + count // 2 + 1):
        for y in range(rows.start, int(chest.middle[0]) + 1):
            lung = chest.lungs[z, y]
            held = np.flatnonzero(lung)
            if len(held) < 2:
                continue
            between = np.arange(held[0], held[-1] + 1)
            tissue = between[~lung[between] & (chest.hu[z, y, between] > TISSUE_HU)]
            total, weight = total + float(tissue.sum()), weight + len(tissue)
    if weight * np.prod(chest.sides_mm) / 1000 < 100:  # mL: less is no heart
        return []
    left = float((total / weight - spine[1]) * chest.sides_mm[2])
    if left >= HEART_LEFT_MM:
        return []
    text = (
        f"The heart lies {-left:.0f} mm to the right of the spine: right and left may be exchanged, unless disease has "
        "moved it or the patient's organs are mirrored; check the orientation."
    )
    return [Oddity(text, "anatomy_mirrored", left, HEART_LEFT_MM)]


def _turned(chest: _Chest) -> list[str]:
    """The lungs lie side by side, and the spine runs from slice to slice."""
    apart = []
    for z in range(chest.box[0].start, chest.box[0].stop):
        pieces, _ = ndimage.label(chest.air[z])
        large = np.flatnonzero(np.bincount(pieces.ravel(), minlength=2)[1:] * chest.cm2 > LUNG_SECTION_CM2) + 1
        if len(large) == 2:
            first, second = ndimage.center_of_mass(pieces > 0, pieces, large)
            apart.append([abs(first[0] - second[0]) * chest.sides_mm[1], abs(first[1] - second[1]) * chest.sides_mm[2]])
    if len(apart) * chest.sides_mm[0] > LEAST_HEIGHT_MM / 3:
        deep, wide = np.median(apart, axis=0)
        if deep > ASIDE_MM[1] and wide < ASIDE_MM[0]:
            text = (
                "The anatomy contradicts the header: the lungs lie one in front of the other, as if the slices were "
                "turned by 90°; check the orientation."
            )
            return [Oddity(text, "anatomy_turned", float(deep), ASIDE_MM[1])]
    return []


def _spine_strengths(chest: _Chest) -> list[float]:
    """How much bone goes on along each axis (z, y, x) of the lungs' box: the spine does so along one."""
    inside = chest.hu[chest.box]
    if min(inside.shape) == 0:
        return [0.0] * 3
    strengths = []
    for axis in range(3):
        dense = np.clip(np.percentile(inside, SPINE_SHARE, axis=axis) - SPINE_HU, 0, 300)
        strengths.append(float(dense.sum() * np.prod(np.delete(chest.sides_mm, axis)) / 1e4))
    return strengths


def _other_axis(found: list[list[float]]) -> list[str]:
    """Whether a chest is seen along another axis than the one that the header has for the body's.

    :param found: of chests seen along other axes, the strengths of their spines.
    """
    for own, *others in found:
        if own > 2 * LEAST_SPINE and own > OTHER_SPINE * max(others):
            text = (
                "The anatomy contradicts the header: the spine runs within the slices that the header has for axial "
                "ones, as if the axes were exchanged; check the orientation."
            )
            return [Oddity(text, "anatomy_turned", own / max(*others, 0.01), OTHER_SPINE)]
    return []
