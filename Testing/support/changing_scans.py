"""Two scans of one chest: the real small CT with painted lesions, and the same moved by a known field, lesions changed.

The field moves tissue by up to 8 mm and keeps volumes: each component is the same along its own axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.change.scan import Scan
from LesionDecompLib.measurement.statistics import RegionStatistics
from repository import CHEST
from scipy.ndimage import distance_transform_edt, map_coordinates
from segmented_case import segmented

LESION_HU = 0
# Radius in voxels of 4 mm in the earlier and in the later scan; 0 for no lesion.
RADII = {"new": (0.0, 4.0), "grown": (3.0, 5.0), "resolved": (4.0, 0.0), "shrunk": (5.0, 3.0), "same": (4.0, 4.0)}
APART = 13.0  # voxels between the lesions' middles


@dataclass(frozen=True, eq=False)
class ChangingScans:
    """Both scans, and which voxels of the later grid were painted as what."""

    earlier: Scan
    later: Scan
    painted: dict[str, np.ndarray]

    def voxels(self, label: str) -> int:
        """Painted voxels that are to get a label, on the later grid."""
        return int(np.count_nonzero(self.painted[label]))


def chest_scan(volume: Volume, lungs: np.ndarray, lesions: np.ndarray) -> Scan:
    """A scan with these lungs (0 / 1) and lesions, measured."""
    result = segmented(volume, lungs, np.where(lesions, 0.9, 0.0).astype(np.float32), 0.5)
    halves = [RegionStatistics(row.region, row.values) for row in result.regions.of_set("halves")]
    rows = [*result.statistics, *halves]
    return Scan(result.lungs, result.lesions, volume.ijk_to_ras, rows, volume.array)


def small_chest() -> tuple[Volume, np.ndarray]:
    """The small real CT of 4 mm voxels, and its lungs (0 / 1)."""
    ct, _ = read_volume(CHEST / "ct.nrrd")
    mask, _ = read_volume(CHEST / "lungs.nrrd")
    return ct, (mask.array > 0).astype(np.uint8)


def moved_pair() -> ChangingScans:
    """The two scans."""
    ct, lungs = small_chest()
    shape = ct.shape
    place = np.stack(np.mgrid[: shape[0], : shape[1], : shape[2]]).astype(np.float64)
    z, y, x = (axis / n for axis, n in zip(place, shape, strict=True))
    source = place + np.stack(  # of each later voxel in the earlier scan
        [
            2.0 * np.sin(np.pi * y) * np.sin(np.pi * x),
            1.5 * np.sin(np.pi * z + 0.4) * np.cos(np.pi * x),
            0.9 * np.cos(np.pi * z) * np.sin(np.pi * y),
        ]
    )
    later_lungs = map_coordinates(lungs, source, order=0, mode="nearest")
    middles = _middles(lungs)
    earlier_hu, later_hu = ct.array.copy(), map_coordinates(ct.array, source, np.float32, order=1, mode="nearest")
    before, moved, now = (np.zeros(shape, bool) for _ in range(3))
    painted: dict[str, np.ndarray] = {}
    for (name, (radius_before, radius_now)), middle in zip(RADII.items(), middles, strict=True):
        there = _ball(place, middle, radius_before) & (lungs != 0)
        pulled = _ball(source, middle, radius_before) & (later_lungs != 0)
        here = _ball(source, middle, radius_now) & (later_lungs != 0)
        before |= there
        moved |= pulled
        now |= here
        own = {
            "grown": here & ~pulled,
            "shrunk": pulled & ~here,
            "new": here,
            "resolved": there,
            "same": here & pulled,
        }
        painted[name] = own[name]
    painted["persistent"] = now & moved
    earlier_hu[before], later_hu[now] = LESION_HU, LESION_HU
    earlier = chest_scan(Volume.from_array(earlier_hu, ct.ijk_to_ras), lungs, before)
    later = chest_scan(Volume.from_array(np.rint(later_hu).astype(np.int16), ct.ijk_to_ras), later_lungs, now)
    return ChangingScans(earlier, later, painted)


def _middles(lungs: np.ndarray) -> list[tuple[int, int, int]]:
    """Places deep in the lungs and far from each other, the deepest first."""
    depth = distance_transform_edt(lungs)
    found: list[tuple[int, int, int]] = []
    place = np.stack(np.mgrid[tuple(slice(n) for n in lungs.shape)])
    for _ in RADII:
        k, j, i = np.unravel_index(int(np.argmax(depth)), depth.shape)
        found.append((int(k), int(j), int(i)))
        depth[_ball(place, found[-1], APART)] = 0
    return found


def _ball(place: np.ndarray, middle: tuple[int, int, int], radius: float) -> np.ndarray:
    distance = sum((axis - center) ** 2 for axis, center in zip(place, middle, strict=True))
    return (distance <= radius**2) & (radius > 0)
