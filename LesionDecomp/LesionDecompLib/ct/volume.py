"""A CT volume as the method sees it: HU array and the matrix that places it in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..errors import InputError
from .edges import without_gaps
from .grid import AxialView

STAGE = "Input volume"
LEAST_SPACING_MM = 1e-4


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT volume; never modified once made.

    :param array: ``(k, j, i)`` int16 or float32, HU.
    :param ijk_to_ras: ``(4, 4)`` float64, voxel index (i, j, k) to RAS, mm. Any invertible affine will do: permuted,
        flipped, oblique, sheared (gantry tilt), left-handed.
    :param name: what to call the volume in messages; may be empty.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    name: str = ""

    @classmethod
    def from_array(cls, array: np.ndarray, ijk_to_ras: np.ndarray, name: str = "") -> Volume:
        """Check an array and its geometry and wrap them, without a copy where the type already fits.

        :param array: ``(k, j, i)``, any real numeric type; integers that fit become int16, the rest float32. HU. NaN
            and infinity at the edges of axial slices become air.
        :param ijk_to_ras: ``(4, 4)`` mm.
        :raises LesionDecompError: not 3-D, empty, not numeric, not finite inside, or a geometry without volume.

        >>> volume = Volume.from_array(np.zeros((40, 128, 128)), np.diag([-2.0, -2.0, 5.0, 1.0]))
        >>> volume.shape, volume.spacing.tolist(), round(volume.voxel_volume_ml, 6)
        ((40, 128, 128), [2.0, 2.0, 5.0], 0.02)
        """
        array = np.asarray(array)
        if array.ndim != 3:
            shape = "×".join(str(n) for n in array.shape) or "a single number"
            raise InputError(STAGE, f"an array with {array.ndim} dimensions ({shape})", "a 3-D chest CT", code="not_3d")
        if array.size == 0:
            raise InputError(STAGE, "a volume without voxels", "a 3-D chest CT", code="no_voxels")
        if array.dtype.kind not in "iuf":
            raise InputError(STAGE, f"voxels of type {array.dtype}", "real numbers (HU)", code="voxel_type")
        matrix = _checked_matrix(ijk_to_ras)
        return cls(_as_hu(without_gaps(array, matrix, STAGE)), matrix, name)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along (k, j, i)."""
        return self.array.shape

    @cached_property
    def view(self) -> AxialView:
        """The array as axial slices."""
        return AxialView.of(self.shape, self.ijk_to_ras)

    @property
    def spacing(self) -> np.ndarray:
        """``(3,)`` float64: distance between neighboring voxels along i, j and k, mm."""
        return np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel, mL; right for sheared grids too."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / 1000.0


def _checked_matrix(ijk_to_ras: np.ndarray) -> np.ndarray:
    matrix = np.array(ijk_to_ras, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise InputError(
            STAGE,
            "an IJK to RAS matrix that is not a finite 4×4 affine",
            "a finite 4×4 affine",
            code="matrix_not_finite",
        )
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if (spacing < LEAST_SPACING_MM).any():
        raise InputError(
            STAGE,
            "a voxel spacing of {:g}×{:g}×{:g} mm".format(*spacing),
            "a positive spacing along each axis",
            "Correct the spacing in the file's header.",
            code="spacing_not_positive",
        )
    # The volume spanned by unit axes: 1 for a right-angled grid, 0 when two axes are parallel.
    if abs(np.linalg.det(matrix[:3, :3] / spacing)) < 1e-3:
        raise InputError(STAGE, "axes that span no volume", "three independent axes", code="matrix_singular")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise InputError(
            STAGE, "a projective IJK to RAS matrix", "an affine one (last row 0 0 0 1)", code="matrix_projective"
        )
    return matrix


def _as_hu(array: np.ndarray) -> np.ndarray:
    if array.dtype in (np.int16, np.float32) or array.dtype.kind == "f":
        return array if array.dtype == np.int16 else array.astype(np.float32, copy=False)
    low, high = int(array.min()), int(array.max())
    int16 = np.iinfo(np.int16)
    return array.astype(np.int16 if int16.min <= low and high <= int16.max else np.float32)
