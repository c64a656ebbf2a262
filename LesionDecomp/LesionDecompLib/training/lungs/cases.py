"""Chest CT with lung contours as training material: axial slices on the lung network's pixels, right and left lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ...errors import InputError
from ...io.readers import read_mask, read_volume
from ...segmentation.body_field import AIR_HU, FieldOfView, body_center
from ...segmentation.lungs.sides import LEFT, RIGHT, split_right_left

STAGE = "Reading the lung training set"


@dataclass(frozen=True, eq=False)
class LungPatient:
    """One patient on the network's pixels.

    :param hu: ``(z, size, size)`` int16, HU, -1000 outside the scan.
    :param labels: ``(z, size, size)`` uint8: 0 background, 1 right lung, 2 left lung.
    :param depth_mm: ``(z, size, size)`` uint8: distance from the lung's edge in the slice, mm (0 outside).
    :param slice_mm: distance between slices, mm.
    """

    name: str
    hu: torch.Tensor
    labels: torch.Tensor
    depth_mm: torch.Tensor
    slice_mm: float


def patient_names(folder: Path) -> list[str]:
    """Names of the patients of a training set: ``NAME_ct.nii.gz`` beside ``NAME_lung.nii.gz``.

    :raises LesionDecompError: no such pair.
    """
    names = sorted(path.name.removesuffix("_ct.nii.gz") for path in Path(folder).glob("*_ct.nii.gz"))
    names = [name for name in names if (Path(folder) / f"{name}_lung.nii.gz").is_file()]
    if not names:
        raise InputError(STAGE, f"no pair of files in '{Path(folder).name}'", "NAME_ct.nii.gz beside NAME_lung.nii.gz")
    return names


def read_patient(folder: Path, name: str, size: int = 256, pixel_mm: float = 2.0) -> LungPatient:
    """Read one patient and bring it to the network's pixels; right and left by patient coordinates."""
    volume, _ = read_volume(Path(folder) / f"{name}_ct.nii.gz")
    mask = read_mask(Path(folder) / f"{name}_lung.nii.gz", volume)
    view = volume.view
    stack, lungs = view.to_axial(volume.array), view.to_axial(mask) > 0
    sides = split_right_left(lungs, view.spacing)
    field = FieldOfView.around(stack.shape[1:], view.spacing[1:], body_center(stack), size, pixel_mm)
    hu = field.to_pixels(torch.from_numpy(np.maximum(stack, AIR_HU).astype(np.float32)), AIR_HU)
    right, left = (field.to_pixels(torch.from_numpy((sides == side).astype(np.float32))) for side in (RIGHT, LEFT))
    labels = torch.where(right + left >= 0.5, torch.where(right >= left, 1, 2), 0).to(torch.uint8)
    depth_mm = np.stack([ndimage.distance_transform_edt(s) for s in (labels > 0).numpy()]) * pixel_mm
    depth = torch.from_numpy(np.minimum(depth_mm, 255).astype(np.uint8))
    return LungPatient(name, hu.round().to(torch.int16), labels, depth, view.spacing[0])


def read_patients(
    folder: Path, leave_out: Sequence[str] = (), size: int = 256, pixel_mm: float = 2.0
) -> list[LungPatient]:
    """All patients of ``folder`` but those named in ``leave_out``, as a list of :class:`LungPatient`.

    :raises LesionDecompError: a name in ``leave_out`` that the folder does not hold, or nobody left.
    """
    names = patient_names(folder)
    unknown = sorted(set(leave_out) - set(names))
    if unknown:
        raise InputError(STAGE, f"no patient named {unknown[0]}", "one of " + ", ".join(names))
    kept = [name for name in names if name not in set(leave_out)]
    if not kept:
        raise InputError(STAGE, "every patient left out", "at least one patient to train on")
    return [read_patient(folder, name, size, pixel_mm) for name in kept]


def slice_weights(patient: LungPatient) -> np.ndarray:
    """How often each slice is to be shown, ``(z,)`` float64, sum 1: tips and bases of the lungs twice as often."""
    area = (patient.labels > 0).sum(dim=(1, 2)).numpy().astype(np.float64)
    weight = np.where(area > 0, 1.0, 0.6)
    weight[(area > 0) & (area < 0.3 * area.max())] = 2.0
    return weight / weight.sum()
