"""Chest CT with lung contours as training material: axial slices on the lung network's pixels, right and left lung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from ...io.masks import read_mask
from ...io.readers import read_volume
from ...segmentation.body_field import AIR_HU, FieldOfView, body_center
from ...segmentation.lungs.sides import LEFT, RIGHT, split_right_left
from .caselist import IgnoredBox, LungCase

# Slices from which on a scan is shown as often as any; a single slice is shown an eighth as often.
WHOLE_SCAN_SLICES = 64


@dataclass(frozen=True, eq=False)
class LungPatient:
    """One scan on the network's pixels.

    :param hu: ``(z, size, size)`` int16, HU, -1000 outside the scan.
    :param labels: ``(z, size, size)`` uint8: 0 background, 1 right lung, 2 left lung; all 0 where there is no lung.
    :param depth_mm: ``(z, size, size)`` uint8: distance from the lung's edge in the slice, mm (0 outside).
    :param slice_mm: distance between slices, mm.
    :param ignored: ``(z, size, size)`` bool, background not to be learned from; None for nowhere.
    """

    name: str
    hu: torch.Tensor
    labels: torch.Tensor
    depth_mm: torch.Tensor
    slice_mm: float
    ignored: torch.Tensor | None = None


def read_patient(
    folder: Path, case: LungCase, ignored: Sequence[IgnoredBox] = (), size: int = 256, pixel_mm: float = 2.0
) -> LungPatient:
    """Read one scan and bring it to the network's pixels.

    A mask with label 2 names the sides, as does one of a case with the tag ``sides``; otherwise right and
    left are distinguished by patient coordinates.

    :param ignored: boxes, of which those of this case count.
    :raises LesionDecompError: unreadable.
    """
    volume, _ = read_volume(Path(folder) / f"{case.name}_ct.nii.gz")
    mask = read_mask(Path(folder) / f"{case.name}_lung.nii.gz", volume, may_be_empty=True)
    view = volume.view
    stack, lungs = view.to_axial(volume.array), view.to_axial(mask)
    known = "sides" in case.tags or bool((lungs == LEFT).any())
    sides = lungs if known else split_right_left(lungs > 0, view.spacing)
    field = FieldOfView.around(stack.shape[1:], view.spacing[1:], body_center(stack), size, pixel_mm)
    hu = field.to_pixels(torch.from_numpy(np.maximum(stack, AIR_HU).astype(np.float32)), AIR_HU)
    right, left = (field.to_pixels(torch.from_numpy((sides == side).astype(np.float32))) for side in (RIGHT, LEFT))
    labels = torch.where(right + left >= 0.5, torch.where(right >= left, 1, 2), 0).to(torch.uint8)
    depth_mm = np.stack([ndimage.distance_transform_edt(s) for s in (labels > 0).numpy()]) * pixel_mm
    depth = torch.from_numpy(np.minimum(depth_mm, 255).astype(np.uint8))
    own = [box.of(volume.array, mask) for box in ignored if box.case == case.name]
    unknown = None
    if own:
        boxes = np.ascontiguousarray(view.to_axial(np.logical_or.reduce(own)), dtype=np.float32)
        unknown = (field.to_pixels(torch.from_numpy(boxes)) > 0.2) & (labels == 0)
    return LungPatient(case.name, hu.round().to(torch.int16), labels, depth, view.spacing[0], unknown)


def read_patients(
    folder: Path,
    cases: Sequence[LungCase],
    ignored: Sequence[IgnoredBox] = (),
    size: int = 256,
    pixel_mm: float = 2.0,
) -> list[LungPatient]:
    """All of these cases, as a list of :class:`LungPatient`."""
    return [read_patient(folder, case, ignored, size, pixel_mm) for case in cases]


def slice_weights(patient: LungPatient) -> np.ndarray:
    """How often each slice is to be shown, ``(z,)`` float64, sum 1: tips and bases of the lungs twice as often."""
    area = (patient.labels > 0).sum(dim=(1, 2)).numpy().astype(np.float64)
    weight = np.where(area > 0, 1.0, 0.6)
    weight[(area > 0) & (area < 0.3 * area.max())] = 2.0
    return weight / weight.sum()


def scan_weights(patients: Sequence[LungPatient]) -> np.ndarray:
    """How often each scan is to be shown, ``(n,)`` float64, sum 1: by the root of its slices, whole scans alike."""
    slices = np.array([len(patient.hu) for patient in patients], dtype=np.float64)
    weight = np.sqrt(np.minimum(slices, WHOLE_SCAN_SLICES))
    return weight / weight.sum()


def belly_begins(patient: LungPatient) -> float:
    """The slice below which there may be bowel: the lungs' lowest third stands for the belly; all of a scan without."""
    held = np.flatnonzero((patient.labels.amax(dim=(1, 2)) > 0).numpy())
    if not len(held):
        return float(len(patient.labels))
    return float(held[0] + 0.35 * (held[-1] - held[0]))
