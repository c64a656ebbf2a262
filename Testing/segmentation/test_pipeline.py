"""The main job keeps its promises whatever the model: grid, orientation, progress, cancel, a user's lung mask."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.checks import check_chest_ct
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.plausibility import input_warnings
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.segmentation.lungs.given import lungs_from_mask


@pytest.fixture(scope="module")
def ct(sample_folder) -> Volume:
    """The bundled sample at a quarter of its resolution, still a whole chest."""
    volume, _ = read_volume(sample_folder / "chest_ct_tumor.nrrd")
    coarse = volume.ijk_to_ras @ np.diag([4.0, 4.0, 2.0, 1.0])
    return Volume.from_array(np.ascontiguousarray(volume.array[::2, ::4, ::4]), coarse)


@pytest.fixture(scope="module")
def lungs(ct) -> np.ndarray:
    """A rough lung mask, right enough for tests of what follows it: air inside the middle of the body."""
    mask = np.zeros(ct.shape, dtype=np.uint8)
    mask[4:-4, 20:-24, 14:-14] = ct.array[4:-4, 20:-24, 14:-14] < -500
    return mask


@pytest.fixture(scope="module")
def result(ct, lungs, untrained_segmenter):
    return untrained_segmenter.run(ct, lungs, min_volume_ml=0.0)


def stored_otherwise(array, matrix, order, flips):
    """The same voxels with permuted and flipped axes, and the matrix that keeps them where they are."""
    flipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in flips)].transpose(order)
    out = matrix.copy()
    for axis, flip in enumerate(flips):
        if flip:
            out[:3, 3] += out[:3, 2 - axis] * (array.shape[axis] - 1)
            out[:3, 2 - axis] *= -1
    out[:3, :3] = out[:3, [2 - order[2], 2 - order[1], 2 - order[0]]]
    return flipped, out


@pytest.mark.slow
def test_outputs_lie_on_the_input_s_grid(ct, result, lungs):
    assert result.heat.shape == result.lungs.shape == result.lesions.shape == ct.shape
    assert (result.heat.dtype, result.lungs.dtype, result.lesions.dtype) == (np.float32, np.uint8, np.uint8)
    assert result.heat.min() >= 0 and result.heat.max() <= 1
    assert not result.heat[lungs == 0].any() and np.ptp(result.heat[lungs != 0]) > 0
    np.testing.assert_array_equal(result.lungs != 0, lungs != 0)
    np.testing.assert_array_equal(result.lesions != 0, (result.heat >= result.threshold) & (lungs != 0))


@pytest.mark.parametrize(("order", "flips"), [((0, 1, 2), (True, False, False)), ((2, 0, 1), (False, True, True))])
def test_the_box_of_a_result_is_that_of_its_lungs_along_the_input_s_axes(ct, lungs, untrained_segmenter, order, flips):
    hu, matrix = stored_otherwise(ct.array, ct.ijk_to_ras, order, flips)
    mask, _ = stored_otherwise(lungs, ct.ijk_to_ras, order, flips)
    result = untrained_segmenter.run(Volume.from_array(hu, matrix), mask)
    inside = [np.flatnonzero((mask != 0).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    assert result.box == tuple(slice(found[0], found[-1] + 1) for found in inside)
    for name in ("heat", "lungs", "lesions"):
        whole = np.zeros_like(getattr(result, name))
        whole[result.box] = result.boxed(name)
        np.testing.assert_array_equal(whole, getattr(result, name))


def test_right_is_the_patient_s_right(ct, result):
    i = np.arange(ct.shape[2]) * np.ones(ct.shape)
    right_i, left_i = (i[result.lungs == label].mean() for label in (1, 2))
    right_ras, left_ras = ((ct.ijk_to_ras @ [value, 0, 0, 1])[0] for value in (right_i, left_i))
    assert right_ras > left_ras + 50  # RAS grows to the right, mm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "flips"),
    [((0, 1, 2), (True, False, True)), ((2, 0, 1), (False, False, False)), ((1, 2, 0), (True, True, False))],
)
def test_storing_the_axes_otherwise_changes_nothing_else(ct, lungs, result, untrained_segmenter, order, flips):
    array, matrix = stored_otherwise(ct.array, ct.ijk_to_ras, order, flips)
    mask, _ = stored_otherwise(lungs, ct.ijk_to_ras, order, flips)
    other = untrained_segmenter.run(Volume.from_array(array, matrix), mask, min_volume_ml=0.0)
    expected, _ = stored_otherwise(result.heat, ct.ijk_to_ras, order, flips)
    np.testing.assert_allclose(other.heat, expected, atol=1e-3)
    np.testing.assert_array_equal(other.lungs, stored_otherwise(result.lungs, ct.ijk_to_ras, order, flips)[0])


@pytest.mark.slow
@pytest.mark.parametrize("change", ["oblique", "left-handed", "sheared"])
def test_a_grid_laid_otherwise_in_space_has_the_same_heat(ct, lungs, result, untrained_segmenter, change):
    matrix = ct.ijk_to_ras.copy()
    if change == "oblique":
        a = np.radians(14)
        matrix = (
            np.array([[1, 0, 0, 0], [0, np.cos(a), -np.sin(a), 0], [0, np.sin(a), np.cos(a), 0], [0, 0, 0, 1]]) @ matrix
        )
    elif change == "sheared":
        matrix[1, 2] += 1.2
    array, mask, heat = ct.array, lungs, result.heat
    if change == "left-handed":
        matrix[:3, 3] += matrix[:3, 0] * (ct.shape[2] - 1)
        matrix[:3, 0] *= -1
        array, mask, heat = (item[:, :, ::-1] for item in (array, mask, heat))
    other = untrained_segmenter.run(Volume.from_array(array, matrix), mask)
    np.testing.assert_allclose(other.heat, heat, atol=1e-3)


@pytest.mark.slow
def test_batches_do_not_change_the_outcome(ct, lungs, result, untrained_segmenter):
    one = Segmenter(untrained_segmenter.lesion_bundle, untrained_segmenter.lung_bundle, "cpu", batch_size=1)
    # The untrained model's scale stretches float32 rounding seventeenfold.
    np.testing.assert_allclose(one.run(ct, lungs, min_volume_ml=0.0).heat, result.heat, atol=5e-3)


@pytest.mark.slow
def test_progress_reports_stage_and_slice(ct, lungs, untrained_segmenter):
    seen = []
    untrained_segmenter.run(ct, lungs, progress=lambda *reported: seen.append(reported))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["heat", "lesions", "statistics"]
    heat = [(done, total) for stage, done, total in seen if stage == "heat"]
    assert (
        heat[-1][0]
        == heat[-1][1]
        == np.count_nonzero(AxialView.of(ct.shape, ct.ijk_to_ras).to_axial(lungs).any((1, 2)))
    )
    assert [done for done, _ in heat] == sorted(done for done, _ in heat)


@pytest.mark.slow
@pytest.mark.parametrize("after", range(4))
def test_cancel_is_heard_at_every_batch_and_leaves_the_input_alone(ct, lungs, untrained_segmenter, after):
    before, asked = ct.array.copy(), []

    def cancelled():
        asked.append(1)
        return len(asked) > after

    with pytest.raises(Cancelled):
        untrained_segmenter.run(ct, lungs, cancelled=cancelled)
    np.testing.assert_array_equal(ct.array, before)


def test_the_input_is_never_changed(ct, lungs, untrained_segmenter):
    before, mask = ct.array.copy(), lungs.copy()
    untrained_segmenter.run(ct, lungs)
    np.testing.assert_array_equal(ct.array, before)
    np.testing.assert_array_equal(lungs, mask)


def test_labels_of_a_user_s_mask_are_kept_and_exchanged_where_they_lie_on_the_other_side(
    ct, result, untrained_segmenter
):
    kept = untrained_segmenter.run(ct, result.lungs)
    np.testing.assert_array_equal(kept.lungs, result.lungs)
    swapped = np.where(result.lungs == 0, 0, 3 - result.lungs).astype(np.uint8)
    exchanged = untrained_segmenter.run(ct, swapped)
    np.testing.assert_array_equal(exchanged.lungs, result.lungs)
    codes = [getattr(warning, "code", "") for warning in exchanged.warnings]
    assert "mask_sides_swapped" in codes
    assert "mask_sides_swapped" not in [getattr(warning, "code", "") for warning in kept.warnings]


def test_labels_that_are_no_sides_are_parted_anew(ct, result):
    mask = (result.lungs != 0).astype(np.uint8)
    mask[(mask != 0) & (ct.array > -700)] = 2  # what is dense in both lungs
    labels, warnings = lungs_from_mask(mask, ct)
    assert "mask_labels_not_sides" in [getattr(warning, "code", "") for warning in warnings]
    assert np.mean(labels[result.lungs != 0] == result.lungs[result.lungs != 0]) > 0.99


def test_organs_given_as_lungs_are_refused_by_their_numbers(ct, result):
    organs = result.lungs.astype(np.int16)
    organs[(organs == 0) & (ct.array > 0)] = 5
    with pytest.raises(LesionDecompError, match="the labels 1, 2, 5") as error:
        lungs_from_mask(organs, ct)
    assert error.value.code == "mask_labels"
    with pytest.raises(LesionDecompError, match="different values") as error:
        lungs_from_mask(ct.array, ct)
    assert error.value.code == "mask_not_labels"


@pytest.mark.parametrize("side", [1, 2])
def test_a_mask_of_one_lung_lies_on_its_side_of_the_body_wherever_the_body_lies_in_the_field(ct, result, side):
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    shift = 80 if side == 2 else -80  # so far that the lung lies in the other half of the field
    pads = [(0, 0), (0, 0), (0, shift) if shift > 0 else (-shift, 0)]
    stack = np.pad(view.to_axial(ct.array), pads, constant_values=-1000)
    mask = np.pad(view.to_axial(result.lungs) == side, pads)
    columns = np.flatnonzero(mask.any(axis=(0, 1)))
    assert (columns.mean() < mask.shape[2] / 2) == (side == 2)
    volume = Volume.from_array(stack, view.axial_to_ras)
    labels, _ = lungs_from_mask(mask, volume)
    assert set(np.unique(labels)) == {0, side}


def test_a_mask_that_does_not_fit_is_refused(ct, lungs, untrained_segmenter):
    with pytest.raises(LesionDecompError, match="Lung mask: found a mask of"):
        untrained_segmenter.run(ct, lungs[1:])
    with pytest.raises(LesionDecompError, match="empty mask"):
        untrained_segmenter.run(ct, np.zeros_like(lungs))


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0.0}, {"threshold": 1.5}, {"threshold": float("nan")}, {"min_volume_ml": -1.0}]
)
def test_parameters_out_of_range_are_refused(ct, lungs, untrained_segmenter, wrong):
    with pytest.raises(LesionDecompError, match="Segmentation: found"):
        untrained_segmenter.run(ct, lungs, **wrong)


def test_an_unknown_device_is_refused():
    with pytest.raises(LesionDecompError, match="Choosing the device"):
        Segmenter(device="quantum")


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda hu: hu[:1], "1 axial slice"),
        (lambda hu: hu[:2], "2 axial slices"),
        (lambda hu: np.zeros_like(hu), "0 in every voxel"),
        (lambda hu: np.minimum(hu, -800), "nothing but air"),
        (lambda hu: np.clip((hu + 1000) / 8, 0, 255).astype(np.uint8), "8-bit gray levels"),
        (lambda hu: (hu.astype(np.int32) + 1200).astype(np.int16), "no air"),
    ],
)
def test_what_is_no_chest_ct_is_refused(ct, change, reported):
    with pytest.raises(LesionDecompError, match=reported):
        check_chest_ct(Volume.from_array(change(ct.array), ct.ijk_to_ras))


def test_odd_geometry_is_warned_about(ct):
    assert any("oblique" in text for text in input_warnings(Volume(ct.array, turned(ct.ijk_to_ras, 30))))
    assert any("tilted by 10°" in text for text in input_warnings(Volume(ct.array, turned(ct.ijk_to_ras, 10))))
    thick = ct.ijk_to_ras @ np.diag([1, 1, 8 / ct.spacing[2], 1.0])
    assert any("8.0 mm apart" in text for text in input_warnings(Volume(ct.array, thick)))


def turned(matrix, degrees):
    """The grid turned about the patient's right-left axis."""
    a = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return turn @ matrix
