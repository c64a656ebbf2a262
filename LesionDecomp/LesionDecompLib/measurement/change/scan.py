"""A segmented scan as the comparison takes it: where its lungs and lesions lie, and what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...ct.grid import AxialView
from ...errors import InputError
from ...segmentation.lesions import lung_box
from ..statistics import RegionStatistics

STAGE = "Comparing scans"


@dataclass(frozen=True, eq=False)
class Scan:
    """One finished result.

    :param lungs: ``(k, j, i)`` uint8, 1 right, 2 left.
    :param lesions: of that shape, lesion where not 0.
    :param ijk_to_ras: ``(4, 4)`` mm.
    :param statistics: rows of the result, see :func:`LesionDecompLib.measurement.statistics.lesion_statistics`.
    :param hu: of that shape; None where the CT is not at hand.
    :param identity: the input's SHA-256; may be empty.
    """

    lungs: np.ndarray
    lesions: np.ndarray
    ijk_to_ras: np.ndarray
    statistics: Sequence[RegionStatistics]
    hu: np.ndarray | None = None
    identity: str = ""

    def __post_init__(self) -> None:
        shapes = {self.lungs.shape, self.lesions.shape, *({self.hu.shape} if self.hu is not None else ())}
        if len(shapes) != 1 or self.lungs.ndim != 3:
            found = ", ".join(str(shape) for shape in sorted(shapes))
            raise InputError(STAGE, f"lungs, lesions and CT of the shapes {found}", "one grid", "Segment the CT again.")
        if not self.lungs.any():
            raise InputError(STAGE, "a scan without lungs", "lungs in each scan", code="no_lungs")

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel, mL."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000.0

    @cached_property
    def view(self) -> AxialView:
        """The arrays as axial stacks."""
        return AxialView.of(self.lungs.shape, self.ijk_to_ras)

    @cached_property
    def box(self) -> tuple[slice, slice, slice]:
        """Of the lungs, along the array's axes."""
        return lung_box(self.lungs)

    @cached_property
    def lung_ml(self) -> float:
        """Volume of both lungs, mL."""
        return float(np.count_nonzero(self.lungs)) * self.voxel_ml

    def values(self, region: str) -> dict[str, float]:
        """Measurements of a region of :data:`LesionDecompLib.measurement.statistics.REGIONS`; empty where unknown."""
        return next((row.values for row in self.statistics if row.region == region), {})
