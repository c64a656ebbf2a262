"""What lies beside the lungs in the chest: fluid between a lung and its ribs, solid tissue that a lung surrounds.

Neither is lung as the mask means it, or the mask left a tumor out: who reads the measurements has to know. All on the
lung network's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...ct.anatomy import LUNGS
from ...ct.oddity import Oddity
from ...ct.steps import SAME_MM, nearest_steps
from ..components import find_components
from .sides import RIGHT, bounding_box

# Bone fills the window's upper end. Ribs slope: seen over some height they close to a ring.
BONE_HU = 190.0
RIB_REACH_MM = 12.0
# Rays from the middle of a lung's section, 0° straight to the side, 90° straight to the back.
ANGLES = np.deg2rad(np.arange(-50.0, 101.0, 2.0))
LONGEST_RAY_MM = 220.0
STEP_MM = 2.0
# Pleura and the muscles between the ribs are thinner.
THICK_GAP_MM = 12.0
BLURRED_STEPS = 2  # of a ray at the lung's border
# Smaller sections of a lung, of its largest, are those of its base, where liver and spleen lie at the ribs.
LEAST_SECTION = 0.2
FLUID_HU = (-15.0, 50.0)
SOLID_HU = (-15.0, 150.0)
TISSUE_HU = -300.0
LEAST_OF_RAY = 0.7
# Of 36 lungs without an effusion none has more than 9 mL of such tissue there, one with an effusion 86 mL.
EFFUSION_ML = 20.0
# In masks that follow every tumor there is none; of 40 lungs three reach it, each for a tumor that was left out.
SOLID_ML = 10.0
SOLID_RADIUS_MM = 6.0


def beside_lungs(
    mask: np.ndarray, side: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]
) -> list[Oddity]:
    """Warnings about fluid beside each lung, and about solid tissue in it that the mask leaves out.

    :param mask: ``(z, y, x)`` bool, lungs.
    :param side: ``(z, y, x)`` float32, negative = right lung, positive = left lung.
    :param hu: ``(z, y, x)`` HU, of the whole slices or as much of them as holds the ribs.
    :param spacing: of (z, y, x), mm.
    """
    reach = max(1, nearest_steps(RIB_REACH_MM, spacing[0]))
    bone = _over_height(hu >= BONE_HU, reach)
    warnings: list[Oddity] = []
    for lung in LUNGS:
        own = mask & ((side <= 0) == (lung.label == RIGHT))
        if not own.any():
            continue
        gaps = _gaps(own, bone, spacing, -1 if lung.label == RIGHT else 1)
        code = lung.name.replace(" ", "_")
        # Fluid sinks: it has no lung below, as a mass or a consolidation has.
        fluid_ml, fluid_hu = gaps.tissue(hu, FLUID_HU, ~gaps.between)
        if fluid_ml > EFFUSION_ML:
            text = (
                f"At least {fluid_ml:.0f} mL as dense as fluid ({fluid_hu:.0f} HU) lie between the {lung.name} and the "
                "ribs: a pleural effusion is suspected; it does not count as lung."
            )
            warnings.append(Oddity(text, f"{code}_effusion", fluid_ml, EFFUSION_ML))
        solid_ml = gaps.tissue(hu, SOLID_HU, gaps.between)[0] + _surrounded_ml(own, hu, spacing)
        if solid_ml > SOLID_ML:
            text = (
                f"{solid_ml:.0f} mL of solid tissue that the {lung.name} surrounds are not in the lung mask: a mass or "
                "collapsed lung may be left out. Check the mask."
            )
            warnings.append(Oddity(text, f"{code}_solid_left_out", solid_ml, SOLID_ML))
    return warnings


@dataclass(frozen=True, eq=False)
class _Gaps:
    """What lies on rays between a lung and its ribs where that is thick; arrays ``(rays, steps)``.

    :param places: z, y and x of the rays' steps.
    :param inside: steps in the gap, less those blurred by its borders.
    :param between: steps with lung above and below.
    :param volume_ml: of each ray's whole gap, ``(rays,)``.
    """

    places: tuple[np.ndarray, np.ndarray, np.ndarray]
    inside: np.ndarray
    between: np.ndarray
    volume_ml: np.ndarray

    def tissue(self, hu: np.ndarray, bounds: tuple[float, float], where: np.ndarray) -> tuple[float, float]:
        """Volume of the gaps that are filled with tissue between some HU, mL, and its median HU.

        :param where: steps that can be such tissue.
        """
        values = hu[self.places]
        fits = self.inside & where & (values > bounds[0]) & (values < bounds[1])
        filled = fits.sum(axis=1) >= LEAST_OF_RAY * self.inside.sum(axis=1)
        filled &= self.inside.any(axis=1)
        if not filled.any():
            return 0.0, float("nan")
        return float(self.volume_ml[filled].sum()), float(np.median(values[filled][self.inside[filled]]))


def _gaps(lung: np.ndarray, bone: np.ndarray, spacing: tuple[float, float, float], lateral: int) -> _Gaps:
    """The thick gaps beside one lung.

    :param lateral: -1 where the patient's side lies toward lower x, 1 where toward higher x.
    """
    area = lung.sum(axis=(1, 2))
    heights = np.flatnonzero(area > LEAST_SECTION * area.max())
    y = (lung[heights].sum(axis=2) @ np.arange(lung.shape[1])) / area[heights]
    x = (lung[heights].sum(axis=1) @ np.arange(lung.shape[2])) / area[heights]
    radius = np.arange(0.0, LONGEST_RAY_MM, STEP_MM)
    rows = np.rint(y[:, None, None] + np.sin(ANGLES)[:, None] * radius / spacing[1]).astype(np.intp)
    columns = np.rint(x[:, None, None] + lateral * np.cos(ANGLES)[:, None] * radius / spacing[2]).astype(np.intp)
    held = (rows >= 0) & (rows < lung.shape[1]) & (columns >= 0) & (columns < lung.shape[2])
    planes = np.broadcast_to(heights[:, None, None], rows.shape)
    places = (planes, np.clip(rows, 0, lung.shape[1] - 1), np.clip(columns, 0, lung.shape[2] - 1))
    of_lung, of_bone = lung[places] & held, bone[places] & held
    steps = np.arange(len(radius))
    last = np.where(of_lung, steps, -1).max(axis=2)[..., None]
    first = np.where(of_bone & (steps >= last), steps, len(radius)).min(axis=2)[..., None]
    thick = (last >= 0) & (first < len(radius)) & ((first - last) * STEP_MM > THICK_GAP_MM)
    whole = thick & (steps >= last) & (steps < first)
    inside = whole & (steps >= last + BLURRED_STEPS) & (steps < first - 1)
    # The area of a step of a ray is that of its piece of a ring.
    area_mm2 = radius * STEP_MM * float(ANGLES[1] - ANGLES[0])
    chosen = thick[..., 0]
    z, y, x = (place[chosen] for place in places)
    return _Gaps(
        (z, y, x),
        inside[chosen],
        _between(lung, 0, (z, y, x)),
        (whole[chosen] @ area_mm2) * spacing[0] / 1000.0,
    )


def _surrounded_ml(lung: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float]) -> float:
    """Volume of tissue with lung above and below, before and behind, and on both sides, in thick pieces, mL."""
    box = bounding_box(lung)
    if box is None:
        return 0.0
    lung = lung[box]
    part = ~lung & (hu[box] > TISSUE_HU)
    for axis in range(3):
        part &= _between(lung, axis)
    voxel_ml = float(np.prod(spacing)) / 1000.0
    pieces = find_components(part)
    large = pieces.sizes >= SOLID_ML / 2 / voxel_ml
    if not large.any():
        return 0.0
    part = np.zeros_like(part)
    part[pieces.voxels(large[pieces.labels])] = True
    held = bounding_box(part, margin=1)
    part = part if held is None else part[held]
    core = ndimage.distance_transform_edt(part, sampling=spacing) >= SOLID_RADIUS_MM - SAME_MM
    if not core.any():
        return 0.0
    near = ndimage.distance_transform_edt(~core, sampling=spacing) < SOLID_RADIUS_MM + STEP_MM - SAME_MM
    return float(np.count_nonzero(part & near)) * voxel_ml


def _between(lung: np.ndarray, axis: int, places: tuple[np.ndarray, ...] | None = None) -> np.ndarray:
    """Where there is lung both before and behind along an axis: everywhere, or at some places."""
    held = lung.any(axis=axis, keepdims=True)
    first = np.where(held, lung.argmax(axis=axis, keepdims=True), lung.shape[axis])
    last = np.where(held, lung.shape[axis] - 1 - np.flip(lung, axis).argmax(axis=axis, keepdims=True), -1)
    if places is None:
        number = np.arange(lung.shape[axis]).reshape([-1 if n == axis else 1 for n in range(3)])
        return (number > first) & (number < last)
    index = tuple(np.zeros_like(place) if n == axis else place for n, place in enumerate(places))
    return (places[axis] > first[index]) & (places[axis] < last[index])


def _over_height(mask: np.ndarray, reach: int) -> np.ndarray:
    """A mask and what lies at most ``reach`` slices above or below it."""
    out = mask.copy()
    for step in range(1, min(reach, len(mask) - 1) + 1):
        out[step:] |= mask[:-step]
        out[:-step] |= mask[step:]
    return out
