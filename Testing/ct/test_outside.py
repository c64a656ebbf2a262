"""Constants and NaN outside of the field of view become air, whatever they are; what is measured stays."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.outside import OUTSIDE_HU, with_air_outside
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.readers import read_volume
from repository import CHEST


@pytest.fixture(scope="module")
def chest() -> Volume:
    return read_volume(CHEST / "ct.nrrd")[0]


def circle(volume: Volume) -> np.ndarray:
    """``(y, x)``: outside the largest circle in a slice."""
    rows, columns = volume.view.shape[1:]
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    return x**2 + y**2 > 1


def filled(volume: Volume, value: float, outside: np.ndarray) -> Volume:
    array = volume.array.astype(np.float32 if value != int(value) or abs(value) > 30000 else np.int16)
    volume.view.to_axial(array)[:, outside] = value
    return Volume.from_array(array, volume.ijk_to_ras)


@pytest.mark.parametrize("value", [0, 40, 3071, 62512, -500, 0.5])
def test_a_constant_outside_becomes_air(chest, value):
    outside = circle(chest)
    volume = filled(chest, value, outside)
    before = volume.array.copy()
    clean, (warning,) = with_air_outside(volume)
    expected = filled(chest, OUTSIDE_HU, outside)
    # Voxels of the very value that touch the circle can't be told from it.
    assert np.mean(clean.array == expected.array) > 0.999
    assert (warning.code, warning.value) == ("filled_outside", value)
    np.testing.assert_array_equal(volume.array, before)


def test_what_is_filled_may_differ_from_slice_to_slice_and_lie_along_any_axis(chest):
    array = chest.array.copy()
    stack = chest.view.to_axial(array)
    for z, plane in enumerate(stack):
        plane[: 5 + z // 8] = 0
        plane[:, -6:] = 0
    turned = Volume.from_array(array.transpose(2, 0, 1), chest.ijk_to_ras[:, [1, 2, 0, 3]])
    clean, (warning,) = with_air_outside(turned)
    assert warning.code == "filled_outside"
    again = clean.view.to_axial(clean.array)
    assert (again[:, :5] == OUTSIDE_HU).all() and (again[:, :, -6:] == OUTSIDE_HU).all()


@pytest.mark.parametrize("value", [-1024, -1000, -2000, -3024])
def test_air_and_what_is_darker_stays(chest, value):
    volume = filled(chest, value, circle(chest))
    clean, warnings = with_air_outside(volume)
    assert clean is volume and warnings == []


def test_a_chest_cropped_into_the_body_stays(chest):
    stack = chest.view.to_axial(chest.array)[:, 20:48, 12:52]
    for array in (stack, np.clip(stack, -1000, 150)):
        volume = Volume.from_array(array, np.diag([-4.0, -4.0, 4.0, 1.0]))
        assert with_air_outside(volume)[0] is volume


def test_nan_outside_becomes_air_and_inside_is_refused(chest):
    outside = circle(chest)
    array = chest.array.astype(np.float32)
    chest.view.to_axial(array)[:, outside] = np.nan
    volume = Volume.from_array(array, chest.ijk_to_ras)
    np.testing.assert_array_equal(volume.array, filled(chest, OUTSIDE_HU, outside).array)
    assert np.isnan(array).any()  # the given one is not changed
    chest.view.to_axial(array)[40, 30:33, 30] = np.nan
    with pytest.raises(InputError, match=r"found 3 voxels that are NaN.* Put -1024 \(air\)") as error:
        Volume.from_array(array, chest.ijk_to_ras)
    assert error.value.code == "not_finite"
