"""Labelmaps put on a CT's grid: they may be stored with other axes, cropped, or moved by whole voxels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError, LesionDecompError
from .grid import AxialView, corner_distance
from .oddity import Oddity
from .volume import Volume

SAME_GRID = 0.05  # of the smallest spacing: what a labelmap's corners may lie off the CT's lattice
MOST_LABELS = 512  # different ones; a CT has thousands
HIGHEST_LABEL = np.iinfo(np.uint16).max
RESAMPLE = "Resample it to the CT with the nearest neighbor (in 3D Slicer: Resample Scalar/Vector/DWI Volume)."


def as_labels(array: np.ndarray, stage: str) -> np.ndarray:
    """Voxels as labels: whole numbers of 0 and above; a single fraction stands for 1.

    :param array: ``(k, j, i)`` of any real type.
    :return: the same shape, uint8 or uint16.
    :raises LesionDecompError: not finite, fractions, below 0, or as many values as a CT has.
    """
    expected = "a labelmap: a whole number for each structure, 0 outside"
    if not np.isfinite(array).all():
        raise InputError(stage, "a mask with NaN or infinite voxels", expected, code="mask_not_finite")
    low, high = float(array.min(initial=0)), float(array.max(initial=0))
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        if low < 0 or len(np.unique(array[array != 0])) > 1:
            found = f"fractions between {low:g} and {high:g}"
            raise InputError(stage, found, expected, "Save it with whole numbers.", code="mask_not_labels")
        return (array > 0).astype(np.uint8)
    if low < 0 or high > HIGHEST_LABEL:
        advice = "Choose the lung mask, not the CT." if low < -500 else ""
        raise InputError(stage, f"values from {low:g} to {high:g}", expected, advice, code="mask_not_labels")
    labels = np.ascontiguousarray(array, dtype=np.uint8 if high < 256 else np.uint16)
    different = int(np.count_nonzero(np.bincount(labels.ravel())))
    if different > MOST_LABELS:
        found = f"{different} different values from {low:g} to {high:g}"
        raise InputError(stage, found, expected, "Choose the lung mask, not the CT.", code="mask_not_labels")
    return labels


def labels_on_grid(labels: np.ndarray, ijk_to_ras: np.ndarray, like: Volume, stage: str) -> tuple[np.ndarray, float]:
    """Put labels on the CT's grid.

    :param labels: ``(k, j, i)``, which ``ijk_to_ras`` ``(4, 4)``, mm, places in the patient.
    :param like: the CT.
    :return: ``(k, j, i)``, and the share of the labeled voxels that lie beyond the CT.
    :raises LesionDecompError: another lattice than the CT's, or wholly beside the CT.
    """
    here, there = like.view, AxialView.of(_shape(labels), ijk_to_ras)
    steps = np.linalg.solve(here.axial_to_ras, there.axial_to_ras)  # (x, y, z) of the labelmap to those of the CT
    offset = np.rint(steps[:3, 3])
    lattice = here.axial_to_ras.copy()
    lattice[:3, 3] += lattice[:3, :3] @ offset
    distance = corner_distance(there.shape, there.axial_to_ras, lattice)
    if distance > SAME_GRID * like.spacing.min():
        _refuse_grid(there, here, stage)
    source, target = [], []
    for start, count, room in zip(offset[::-1].astype(np.int64), there.shape, here.shape, strict=True):
        low, high = max(int(start), 0), min(int(start) + count, room)
        source.append(slice(low - int(start), max(high, low) - int(start)))
        target.append(slice(low, max(high, low)))
    whole = there.to_axial(labels)
    part = whole[tuple(source)]
    if part.shape == here.shape == there.shape:
        return np.ascontiguousarray(here.from_axial(part)), 0.0
    labeled, held = np.count_nonzero(whole), np.count_nonzero(part)
    if labeled and not held:
        raise beside_ct(stage)
    array = np.zeros(like.shape, labels.dtype)
    here.to_axial(array)[tuple(target)] = part
    return array, 1 - held / labeled if labeled else 0.0


def beside_ct(stage: str) -> LesionDecompError:
    """Error for a labelmap none of whose labeled voxels lies within the CT."""
    return InputError(stage, "a mask that lies beside the CT", "one on the CT's grid", code="mask_beside_ct")


def beyond_warnings(what: str, share: float) -> list[Oddity]:
    """What is reported of a labelmap of which a share of the labeled voxels lies beyond the CT.

    :param what: what the labelmap is, as ``"the lung mask"``; this gets into files, so no file's name, which may be
        the patient's.
    """
    if not share:
        return []
    text = f"{100 * share:.1f} % of {what} lie beyond the CT and were left out."
    return [Oddity(text, "mask_beyond_ct", share, 0.0)]


def _refuse_grid(there: AxialView, here: AxialView, stage: str) -> None:
    expected = f"the CT's grid of {_size(here.shape)} voxels"
    voxels = ["×".join(f"{s:.4g}" for s in reversed(view.spacing)) for view in (there, here)]
    if there.shape == here.shape and voxels[0] == voxels[1]:
        distance = corner_distance(here.shape, there.axial_to_ras, here.axial_to_ras)
        found = f"a mask that lies up to {distance:.3g} mm beside the CT"
    else:
        found = f"a mask of {_size(there.shape)} voxels of {voxels[0]} mm"
        expected += f" of {voxels[1]} mm, or a part of it"
    raise InputError(stage, found, expected, RESAMPLE, code="mask_other_grid")


def _shape(array: np.ndarray) -> tuple[int, int, int]:
    depth, rows, columns = array.shape
    return depth, rows, columns


def _size(shape: Sequence[int]) -> str:
    return "×".join(str(n) for n in reversed(shape))
