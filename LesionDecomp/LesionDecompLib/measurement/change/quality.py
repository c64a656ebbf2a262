"""How well two scans' lungs were registered, and how alike the breath was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from ...ct.oddity import Oddity
from .coarse import CoarseGrid, lesion_share, lung_image, lung_share
from .motion import Motion
from .registration import SPACING_MM, Registered
from .scan import Scan

FINE_MM = 2.0  # grid on which vessels are looked for
VESSEL_GRAY = 0.45  # about -550 HU where healthy lung has -850
RIM_MM = 6.0  # at the lungs' edge that vessels are not looked for in
FEWEST_VESSELS = 200  # points; with fewer their distance means little
MOST_VOLUME_PERCENT = 30.0
LEAST_DICE = 0.90
MOST_VESSEL_MM = 3.0
Sample = Callable[[Scan, CoarseGrid], np.ndarray]


@dataclass(frozen=True)
class Quality:
    """What speaks for or against a comparison.

    :param lung_dice: overlap of the lungs once registered, 0 to 1, on a grid of 4 mm.
    :param vessel_mm: mean distance from a vessel of one scan to the nearest of the other, both ways, mm; NaN where
        there is no CT, or hardly a vessel.
    :param lung_volume_percent: by how much the larger lungs exceed the smaller, %.
    :param motion_mm: mean and 95th percentile of the motion inside the later lungs, mm.
    :param by: what was registered.
    """

    lung_dice: float
    vessel_mm: float
    lung_volume_percent: float
    motion_mm: tuple[float, float]
    by: str

    @property
    def warnings(self) -> list[str]:
        """What is odd, a sentence each."""
        found: list[str] = []
        if self.lung_volume_percent > MOST_VOLUME_PERCENT:
            text = (
                f"The lung volumes differ by {self.lung_volume_percent:.0f} % (above {MOST_VOLUME_PERCENT:.0f} %): "
                "another breath or a cut lung changes densities and volumes of lesions, too."
            )
            found.append(Oddity(text, "follow_lung_volumes", self.lung_volume_percent, MOST_VOLUME_PERCENT))
        if self.lung_dice < LEAST_DICE:
            text = (
                f"Registration is poor: the lungs overlap by a Dice of {self.lung_dice:.2f} only (below "
                f"{LEAST_DICE:g}); lesions may be called new or resolved that only lie elsewhere."
            )
            found.append(Oddity(text, "follow_lung_overlap", self.lung_dice, LEAST_DICE))
        if self.vessel_mm > MOST_VESSEL_MM:
            text = (
                f"Registration is poor: vessels lie {self.vessel_mm:.1f} mm from the nearest of the other scan on "
                f"average (above {MOST_VESSEL_MM:g} mm); grown and shrunk rims may be due to that."
            )
            found.append(Oddity(text, "follow_vessels_apart", self.vessel_mm, MOST_VESSEL_MM))
        if self.by != "CT":
            text = "The CTs were not given: the lungs' masks alone were registered, and vessels were not compared."
            found.append(Oddity(text, "follow_without_ct", 0, 1))
        return found


def registration_quality(earlier: Scan, later: Scan, registered: Registered) -> Quality:
    """Judge a registration."""
    grid = CoarseGrid.around(later, SPACING_MM)
    motion = registered.motion
    lungs = lung_share(later, grid) > 0.5
    moved = _at_earlier(motion, grid, lung_share, earlier) > 0.5
    both = np.count_nonzero(lungs) + np.count_nonzero(moved)
    length = np.linalg.norm(motion.displacement[:, lungs], axis=0) if lungs.any() else np.zeros(1)
    small, large = sorted((earlier.lung_ml, later.lung_ml))
    return Quality(
        lung_dice=2.0 * np.count_nonzero(lungs & moved) / both if both else 0.0,
        vessel_mm=_vessel_distance(earlier, later, motion) if registered.by == "CT" else float("nan"),
        lung_volume_percent=100.0 * (large / small - 1.0),
        motion_mm=(float(length.mean()), float(np.percentile(length, 95))),
        by=registered.by,
    )


def _vessel_distance(earlier: Scan, later: Scan, motion: Motion) -> float:
    grid = CoarseGrid.around(later, FINE_MM)
    here = _vessels(lung_image(later, grid), lung_share(later, grid), lesion_share(later, grid))
    there = _vessels(*(_at_earlier(motion, grid, sample, earlier) for sample in (lung_image, lung_share, lesion_share)))
    if min(np.count_nonzero(here), np.count_nonzero(there)) < FEWEST_VESSELS:
        return float("nan")
    to_here, to_there = (distance_transform_edt(~vessels, sampling=FINE_MM) for vessels in (here, there))
    return float((to_there[here].mean() + to_here[there].mean()) / 2)


def _vessels(gray: np.ndarray, lungs: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Vessels in the depth of the lungs, outside of lesions."""
    depth = distance_transform_edt(lungs > 0.5, sampling=FINE_MM)
    return (gray > VESSEL_GRAY) & (depth > RIM_MM) & (lesions == 0)


def _at_earlier(
    motion: Motion, grid: CoarseGrid, sample: Callable[[Scan, CoarseGrid], np.ndarray], earlier: Scan
) -> np.ndarray:
    """What an earlier scan holds where the points of a grid around the later one came from."""
    own = CoarseGrid.around(earlier, grid.spacing)
    values = sample(earlier, own)
    places = motion.earlier(grid.points().reshape(-1, 3))
    index = ((places - own.origin) / own.spacing).T[::-1]
    return map_coordinates(values, index, order=1, mode="nearest").reshape(grid.shape)
