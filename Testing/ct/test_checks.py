"""What is no chest CT in HU is refused as what it is, with a code; a chest wall that is missing is reported."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.checks import check_chest_ct
from LesionDecompLib.ct.plausibility import chest_wall_warnings
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from repository import CHEST


@pytest.fixture(scope="module")
def chest() -> Volume:
    return read_volume(CHEST / "ct.nrrd")[0]


def changed(chest: Volume, array: np.ndarray) -> Volume:
    return Volume.from_array(array, chest.ijk_to_ras)


def test_a_chest_ct_passes(chest):
    check_chest_ct(chest)


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        (lambda hu: (np.clip(hu, -1000, 400) + 1000) / np.float32(1400), "normalized", "0 to 1: the CT was normalized"),
        (lambda hu: (hu - hu.mean()) / hu.std(), "normalized", "was normalized"),
        (lambda hu: (hu > -400).astype(np.int16), "labelmap", "whole numbers 0 to 1: a labelmap"),
        (lambda hu: np.clip((hu + 1000) / 8, 0, 255).astype(np.uint8), "eight_bit", "8-bit gray levels"),
        (lambda hu: hu - 1024, "intercept_twice", "rescale intercept was applied twice"),
        (lambda hu: hu + 1024, "no_air", "no air: values from"),
        (lambda hu: np.full_like(hu, 7), "one_value", "7 in every voxel"),
        (lambda hu: np.clip(hu, -1024, -600), "only_air", "nothing but air"),
        (lambda hu: hu[:2], "few_slices", "axial slices"),
        (lambda hu: hu[:, :20], "few_pixels", "axial slices of"),
    ],
)
def test_what_is_none_is_refused_by_name(chest, change, code, sentence):
    array = np.asarray(change(chest.array.astype(np.float32)))
    array = array if code == "normalized" else array.astype(np.int16)
    with pytest.raises(InputError, match=sentence) as error:
        check_chest_ct(changed(chest, array))
    assert error.value.code == code


def wall_codes(volume: Volume, lungs: np.ndarray) -> list[str]:
    view = volume.view
    return [w.code for w in chest_wall_warnings(view.to_axial(volume.array), view.to_axial(lungs), view)]


def test_a_chest_wall_that_was_cut_away_or_masked_is_reported(chest):
    lungs = read_mask(CHEST / "lungs.nrrd", chest)
    assert wall_codes(chest, lungs) == []
    rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    box = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert wall_codes(changed(chest, np.ascontiguousarray(chest.array[box])), lungs[box]) == ["chest_wall_cropped"]
    for outside in (-1024, 0 - 1000):
        masked = np.where(lungs > 0, chest.array, outside).astype(np.int16)
        assert wall_codes(changed(chest, masked), lungs) == ["chest_wall_masked"]
    assert wall_codes(chest, np.zeros_like(lungs)) == []
