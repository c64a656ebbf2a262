"""Lung masks that somebody gave: which label is the right lung is seen from where they lie, whatever they say."""

from __future__ import annotations

import numpy as np

from ...ct.lung_names import lung_labels
from ...ct.oddity import Oddity
from ...ct.plausibility import chest_wall_warnings, lung_edge_warnings, lung_hu_warnings, lung_warnings
from ...ct.volume import Volume
from ...errors import InputError
from ..body_field import body_center
from .sides import LEFT, RIGHT, split_right_left

STAGE = "Lung mask"
# Of a lung's voxels, what may lie on the other side of the line half-way between both lungs' middles.
BEYOND_MIDDLE = 0.3


def lungs_from_mask(mask: np.ndarray, volume: Volume) -> tuple[np.ndarray, list[str]]:
    """Turn a user's lung mask into lung labels, and say what is odd about it.

    :param mask: ``(k, j, i)``, one label that is lung, or 1 for the right and 2 for the left one. Labels that lie on
        the other side are exchanged; those of which neither is a side are taken for lung, and parted anew.
    :return: ``(k, j, i)`` uint8, 1 the patient's right lung, 2 the left one; warnings.
    :raises LesionDecompError: another shape than the volume's, empty, or other labels.
    """
    mask, view = np.asarray(mask), volume.view
    if mask.shape != volume.shape:
        found, expected = ("×".join(str(n) for n in reversed(shape)) for shape in (mask.shape, volume.shape))
        advice = "Resample the mask to the CT's grid."
        raise InputError(
            STAGE, f"a mask of {found} voxels", f"{expected}, as the CT has", advice, code="mask_other_grid"
        )
    inside = mask != 0
    if not inside.any():
        raise InputError(STAGE, "an empty mask", "lung marked by values other than 0", code="mask_empty")
    warnings: list[str] = []
    labels = np.zeros(volume.shape, dtype=np.uint8)
    stack = view.to_axial(labels)
    told = None
    if _has_sides(mask[inside]):
        told, warnings = placed_sides(view.to_axial(mask))
    if told is not None:
        stack[:] = told
    else:
        # A single lung lies on the side of the body's middle, wherever the body lies in the field.
        midline = body_center(view.to_axial(volume.array))[1]
        distance = (view.slice_distance, *view.spacing[1:])
        stack[:] = split_right_left(view.to_axial(inside), distance, midline)
    cm2 = view.spacing[1] * view.spacing[2] / 100
    sections = np.stack([np.count_nonzero(stack == label, axis=(1, 2)) for label in (RIGHT, LEFT)], axis=1) * cm2
    warnings += lung_warnings(sections, view.slice_distance) + lung_hu_warnings(view.to_axial(volume.array), stack)
    hu = view.to_axial(volume.array)
    return labels, warnings + lung_edge_warnings(hu, stack, view) + chest_wall_warnings(hu, stack, view)


def placed_sides(stack: np.ndarray) -> tuple[np.ndarray | None, list[str]]:
    """Labels 1 and 2 as the sides on which they lie.

    :param stack: ``(z, y, x)``, labels 1 and 2, both there.
    :return: ``(z, y, x)`` uint8, 1 right, 2 left, or None where the labels are none of sides; warnings.
    """
    columns = np.arange(stack.shape[2])
    profiles = [np.count_nonzero(stack == label, axis=(0, 1)) for label in (RIGHT, LEFT)]
    right, left = (float(columns @ profile) / profile.sum() for profile in profiles)
    beyond_left = columns > (right + left) / 2  # the patient's left, of the columns
    if right > left:
        beyond_left = ~beyond_left
    shares = [float(profile[beyond].sum() / profile.sum()) for profile, beyond in
              zip(profiles, (beyond_left, ~beyond_left), strict=True)]  # fmt: skip
    if right == left or max(shares) > BEYOND_MIDDLE:
        text = "The labels 1 and 2 of the lung mask are no sides: both were taken for lung, and the sides found anew."
        return None, [Oddity(text, "mask_labels_not_sides", max(shares), BEYOND_MIDDLE)]
    if right < left:
        return stack.astype(np.uint8), []
    text = "Label 1 of the lung mask lies on the patient's left and label 2 on the right: the labels were exchanged."
    exchanged = np.where(stack == RIGHT, LEFT, np.where(stack == LEFT, RIGHT, 0)).astype(np.uint8)
    return exchanged, [Oddity(text, "mask_sides_swapped", right - left, 0.0)]


def _has_sides(values: np.ndarray) -> bool:
    """Whether a mask's values are 1 and 2; one value of any kind stands for lung.

    :raises LesionDecompError: they are others.
    """
    if values.dtype == bool:
        return False
    different = np.unique(values)
    if len(different) == 1:
        return False
    if different.dtype.kind == "f" and np.array_equal(different, np.rint(different)):
        different = different.astype(np.int64)
    if different.dtype.kind == "f" or different[0] < 0 or len(different) > 1000:
        found = f"{len(different)} different values from {different[0]:g} to {different[-1]:g}"
        raise InputError(STAGE, found, "one label for lung, or 1 (right) and 2 (left)", code="mask_not_labels")
    lung_labels([int(value) for value in different], {}, None, STAGE)
    return True
