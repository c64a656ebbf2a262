"""Anatomy that contradicts the header's orientation is found, and a chest as it should be is never complained about."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.orientation import orientation_warnings
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_volume
from repository import CHEST

SAMPLE = "chest_ct_tumor.nrrd"


@pytest.fixture(scope="module", params=["of 4 mm", "sample"])
def stack(request, sample_folder) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A chest ``(z, y, x)`` as its header has it, and its spacing."""
    path = CHEST / "ct.nrrd" if request.param == "of 4 mm" else sample_folder / SAMPLE
    volume, _ = read_volume(path)
    return volume.view.to_axial(volume.array), (volume.view.slice_distance, *volume.view.spacing[1:])


def codes(stack: np.ndarray, spacing: tuple[float, float, float]) -> list[str]:
    view = AxialView.of(stack.shape, np.diag([-spacing[2], -spacing[1], spacing[0], 1.0]))
    return [warning.code for warning in orientation_warnings(view.to_axial(stack), view)]


def test_a_chest_as_it_should_be_is_not_complained_about(stack):
    assert codes(*stack) == []


@pytest.mark.parametrize(
    ("turn", "axes", "expected"),
    [
        (np.s_[::-1], (0, 1, 2), {"anatomy_upside_down"}),
        (np.s_[:, ::-1], (0, 1, 2), {"anatomy_front_back"}),
        (np.s_[:, ::-1, ::-1], (0, 1, 2), {"anatomy_front_back"}),
        (np.s_[::-1, ::-1], (0, 1, 2), {"anatomy_upside_down", "anatomy_front_back"}),
        (np.s_[:, ::-1], (0, 2, 1), {"anatomy_turned"}),
        (np.s_[:], (1, 0, 2), {"anatomy_turned"}),
    ],
    ids=["upside down", "front-back", "half a turn", "head first and prone", "quarter of a turn", "coronal"],
)
def test_a_chest_that_is_turned_is_found(stack, turn, axes, expected):
    array, spacing = stack
    found = codes(array[turn].transpose(axes), tuple(spacing[axis] for axis in axes))
    assert set(found) - {"anatomy_mirrored"} == expected


def test_a_heart_far_to_the_right_is_found(sample_folder):
    volume, _ = read_volume(sample_folder / SAMPLE)
    view = volume.view
    spacing = (view.slice_distance, *view.spacing[1:])
    assert codes(view.to_axial(volume.array)[:, :, ::-1], spacing) == ["anatomy_mirrored"]


@pytest.mark.parametrize("part", [np.s_[:12], np.s_[20:40], np.s_[:, :, :30], np.s_[:, 20:40, 20:44]])
def test_too_little_of_a_chest_is_not_judged(part):
    volume, _ = read_volume(CHEST / "ct.nrrd")
    array, spacing = volume.view.to_axial(volume.array), volume.view.spacing
    assert codes(array[part], spacing) == codes(array[::-1][part], spacing) == []


def test_neither_noise_nor_a_box_is_judged():
    noise = np.random.default_rng(1).integers(-1000, 1000, (60, 80, 80)).astype(np.int16)
    box = np.full((60, 80, 80), -1000, np.int16)
    box[5:55, 10:70, 10:70] = 40
    for array in (noise, box, np.zeros((4, 40, 40), np.int16)):
        assert codes(array, (4.0, 4.0, 4.0)) == []


@pytest.mark.slow
def test_all_real_chests_are_silent(data_folder):
    files = sorted(data_folder.glob("*/*_ct.nii.gz"))
    assert len(files) > 50
    found = {}
    for path in files:
        volume, _ = read_volume(path)
        assert isinstance(volume, Volume)
        warnings = orientation_warnings(volume.view.to_axial(volume.array), volume.view)
        if warnings:
            found[path.name] = [warning.code for warning in warnings]
    assert found == {}
