"""From HU slices to the network's pixels and back: nothing leaks over the lungs' edge, nothing shifts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.networks import DecompositionNet
from LesionDecompLib.models.records import HeatDefinition, SliceInput
from LesionDecompLib.segmentation.heat import density_warnings, heat_of_slices, scaled_heat
from LesionDecompLib.segmentation.slices import OUTSIDE, LesionField, LungSlices, grain, lung_mode, mode_shifts
from LesionDecompLib.segmentation.smoothing import blur_inside

WINDOW = (-1300.0, -150.0)


def ellipse(shape=(120, 160), spacing=0.8):
    y, x = np.mgrid[: shape[0], : shape[1]] * spacing
    return ((y - 48) / 34) ** 2 + ((x - 64) / 50) ** 2 < 1


def field(rim=0, shape=(120, 160), spacing=0.8):
    return LesionField.around((slice(0, shape[0]), slice(0, shape[1])), (spacing, spacing), 256, 1.6, WINDOW, rim=rim)


def test_uniform_lung_has_one_gray_up_to_its_very_edge():
    lungs = ellipse()[None]
    hu = np.where(lungs, -860, 50).astype(np.int16)  # bright chest wall all around
    x = field().to_input(hu, lungs)
    assert x.shape[2] % 32 == x.shape[3] % 32 == 0
    inside = x > OUTSIDE
    torch.testing.assert_close(
        x[inside], torch.full((int(inside.sum()),), 2 * (-860 + 1300) / 1150 - 1), atol=1e-4, rtol=0
    )
    assert abs(int(inside.sum()) * 1.6**2 / (lungs.sum() * 0.8**2) - 1) < 0.02


def test_values_beyond_the_window_are_cut_and_never_look_like_outside():
    lungs = ellipse()[None]
    for hu, gray in ((-3000, -1 + 1 / 127.5), (500, 1.0)):
        x = field().to_input(np.where(lungs, hu, 0).astype(np.int16), lungs)
        torch.testing.assert_close(x[x > OUTSIDE].unique(), torch.tensor([gray]))


def test_heat_comes_back_where_it_was():
    lungs = ellipse()[None]
    rows, columns = np.mgrid[:120, :160] * 0.8
    hu = np.where(lungs, -1300 + 1150 * (0.2 + 0.004 * rows + 0.003 * columns), 0).astype(np.float32)
    geometry = field()
    x = geometry.to_input(hu, lungs)
    back = geometry.to_slices((x + 1) / 2, (x > OUTSIDE).float(), lungs)
    expected = (hu + 1300) / 1150
    deep = lungs[0] & (((rows - 48) / 30) ** 2 + ((columns - 64) / 46) ** 2 < 1)
    np.testing.assert_allclose(back[0][deep], expected[0][deep], atol=2e-3)
    assert not back[~lungs].any() and (back[lungs] > 0).all()


def test_chest_wall_in_the_rim_is_not_seen_and_the_rim_gets_its_neighbor_s_heat():
    lungs = ellipse()[None]
    core = np.zeros_like(lungs)
    core[0, 2:-2, 2:-2] = lungs[0, 4:, 2:-2] & lungs[0, :-4, 2:-2] & lungs[0, 2:-2, 4:] & lungs[0, 2:-2, :-4]
    hu = np.where(core, -860, -200).astype(np.int16)
    assert field().to_input(hu, lungs).max() > 0
    geometry = field(rim=2)
    x = geometry.to_input(hu, lungs)
    assert x.max() < -0.2
    heat = geometry.to_slices(torch.full_like(x, 0.7), (x > OUTSIDE).float(), lungs)
    np.testing.assert_allclose(heat[lungs], 0.7, atol=1e-5)


def two_lungs(right: float, left: float, sd: float = 30.0, left_sd: float = 30.0):
    """HU and labels of a stack with a block of lung on each side."""
    rng = np.random.default_rng(0)
    lungs = np.zeros((8, 80, 160), dtype=np.uint8)
    lungs[:, 10:70, 10:70], lungs[:, 10:70, 90:150] = 1, 2
    hu = np.full(lungs.shape, 40.0)
    for label, mean, spread in ((1, right, sd), (2, left, left_sd)):
        hu[lungs == label] = rng.normal(mean, spread, np.count_nonzero(lungs == label))
    return hu.astype(np.int16), lungs


def test_the_mode_is_that_of_aerated_lung():
    hu, lungs = two_lungs(-820, -820)
    assert lung_mode(hu, lungs) == pytest.approx(-820, abs=10)
    assert lung_mode(np.where(lungs, 20, 40).astype(np.int16), lungs) is None


@pytest.mark.parametrize(
    ("scan", "shifts"),
    [
        (two_lungs(-820, -820), (40, 40)),
        (two_lungs(-850, -835), (17, 17)),  # much the same: one shift
        (two_lungs(-900, -780), (-40, 80)),  # each healthy, and different
        (two_lungs(-900, -700, left_sd=150), (-40, -40)),  # no healthy peak on the left
        (two_lungs(30, -800), (60, 60)),  # no air on the right
    ],
    ids=["both", "alike", "different", "ground glass", "opaque"],
)
def test_each_lung_is_shifted_by_its_own_healthy_peak(scan, shifts):
    found = mode_shifts(*scan, target_mode=-860.0)
    assert found == pytest.approx(shifts, abs=10)


def test_without_aerated_lung_nothing_is_shifted():
    assert mode_shifts(*two_lungs(30, 30), target_mode=-860.0) == (0.0, 0.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_lungs_of_different_density_look_alike_to_the_network(mirrored):
    hu, lungs = two_lungs(-900, -790)
    if mirrored:
        hu, lungs = hu[..., ::-1].copy(), lungs[..., ::-1].copy()
    volume = Volume.from_array(hu, np.diag([-1.6, -1.6, 5.0, 1.0]))
    box = (slice(0, 8), slice(10, 70), slice(10, 150))
    image = SliceInput(256, 1.6, WINDOW, lung_mode_hu=-860.0)
    slices = LungSlices.of(volume, lungs, box, image)
    x, _ = slices.to_input([4])
    inside = slices.field.to_input(np.where(lungs[4:5, 10:70, 10:150] == 1, -500, -1200), lungs[4:5, 10:70, 10:150]) > 0
    grays = [float(x[side & (x > OUTSIDE)].median()) for side in (inside, ~inside)]
    assert grays[0] == pytest.approx(grays[1], abs=0.03)
    assert slices.measured_hu == pytest.approx((-40, 70), abs=10)


@pytest.mark.parametrize(("right", "left"), [(-90.0, -90.0), (20.0, 130.0)])
def test_a_capped_shift_is_reported_as_measured(right, left):
    (warning,) = density_warnings(right, left)
    assert warning.code == "lung_density" and abs(warning.value) == max(abs(right), abs(left))
    assert "80 HU, the most there is" in warning
    assert (f"{left:+.0f} HU (left)" in warning) == (left != right)


def test_a_small_shift_is_no_matter():
    assert density_warnings(-50.0, 59.0) == []
    (warning,) = density_warnings(65.0, 65.0)
    assert "+65 HU from" in warning and "shifted with it" in warning


def noisy(slice_mm: float, sd: float):
    """Lung slices with independent noise, 1.6 mm pixels."""
    rng = np.random.default_rng(1)
    lungs = np.zeros((40, 100, 100), dtype=np.uint8)
    lungs[:, 10:90, 10:90] = 1
    hu = np.where(lungs, rng.normal(-860, sd, lungs.shape), 40).astype(np.int16)
    volume = Volume.from_array(hu, np.diag([-1.6, -1.6, slice_mm, 1.0]))
    box = (slice(0, 40), slice(10, 90), slice(10, 90))
    return LungSlices.of(volume, lungs, box, SliceInput(256, 1.6, WINDOW, lung_mode_hu=-860.0))


def test_thin_noisy_slices_are_averaged_until_they_are_no_grainier_than_the_training_s():
    quiet, loud = noisy(1.0, 30), noisy(1.0, 130)
    assert quiet.reach == 0 and 1 <= loud.reach <= 2
    before = grain(replace(loud, reach=0).to_input([20])[0])
    after = grain(loud.to_input([20])[0])
    assert before > 20 and after == pytest.approx(before / np.sqrt(2 * loud.reach + 1), rel=0.15)
    first, _ = loud.to_input([0])  # has neighbors above only
    assert grain(first) == pytest.approx(before / np.sqrt(loud.reach + 1), rel=0.15)


def test_thick_slices_are_never_averaged():
    assert noisy(3.0, 200).reach == 0


def test_the_scale_is_linear_between_its_knots():
    definition = HeatDefinition(raw=(0.0, 0.1, 1.0), scaled=(0.0, 0.4, 1.0))
    scaled = scaled_heat(definition, torch.tensor([0.0, 0.05, 0.1, 0.55, 1.0]))
    torch.testing.assert_close(scaled, torch.tensor([0.0, 0.2, 0.4, 0.7, 1.0]))


@pytest.mark.parametrize(
    "heat",
    [
        {"source": "magic"},
        {"source": "both"},
        {"raw": [0, 0.5, 0.5, 1], "scaled": [0, 0.3, 0.4, 1]},
        {"raw": [0, 1, 2]},
        {"sigma": 3},
    ],
)
def test_a_heat_definition_that_cannot_be_is_refused(heat):
    with pytest.raises(LesionDecompError, match="heat definition"):
        HeatDefinition.of({"heat": heat})


@pytest.mark.slow
@pytest.mark.parametrize("source", ["gate", "difference", "both"])
def test_heat_lies_in_0_to_1_and_inside_the_lungs_and_mirrors_with_the_slice(source):
    torch.manual_seed(0)
    network = DecompositionNet(channels=4, levels=3, gated=True).eval()
    x = torch.full((1, 1, 64, 64), OUTSIDE)
    x[..., 10:50, 12:40] = torch.rand(40, 28) * 1.5 - 0.9
    definition = HeatDefinition(source=source)
    heat = heat_of_slices(definition, network, x)
    assert heat.min() >= 0 and heat.max() <= 1 and not heat[x == OUTSIDE].any() and heat.any()
    torch.testing.assert_close(heat_of_slices(definition, network, x.flip(3)), heat.flip(3), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_heat_of_both_decoders_is_the_geometric_mean_of_theirs():
    torch.manual_seed(0)
    network = DecompositionNet(channels=4, levels=3, gated=True).eval()
    x = torch.full((2, 1, 64, 64), OUTSIDE)
    x[..., 10:50, 12:40] = torch.rand(2, 1, 40, 28) * 1.5 - 0.9
    gate, difference, both = (
        heat_of_slices(HeatDefinition(source=source), network, x) for source in ("gate", "difference", "both")
    )
    assert difference.any()
    torch.testing.assert_close(both, (gate * difference).sqrt(), atol=1e-6, rtol=1e-4)


def test_blurring_inside_keeps_a_constant_and_takes_nothing_from_outside():
    lung = torch.from_numpy(ellipse()).float()[None, None]
    x = torch.where(lung > 0, 0.3, 99.0)
    torch.testing.assert_close(blur_inside(x, lung, 2.0)[lung > 0], torch.full((int(lung.sum()),), 0.3))


@pytest.mark.parametrize(
    ("array", "reported"),
    [
        (np.zeros((4, 5)), "2 dimensions"),
        (np.zeros((0, 5, 5)), "without voxels"),
        (np.full((3, 4, 5), np.nan), "60 voxels that are NaN"),
        (np.zeros((3, 4, 5), dtype=complex), "complex"),
    ],
)
def test_arrays_that_are_no_volume_are_refused(array, reported):
    with pytest.raises(LesionDecompError, match=reported):
        Volume.from_array(array, np.eye(4))


@pytest.mark.parametrize("matrix", [np.diag([1, 1, 0, 1.0]), np.full((4, 4), np.nan), np.ones((4, 4)), np.eye(3)])
def test_geometry_without_volume_is_refused(matrix):
    with pytest.raises(LesionDecompError, match="Input volume: found"):
        Volume.from_array(np.zeros((3, 4, 5), dtype=np.int16), matrix)


def test_types_become_int16_or_float32_without_a_needless_copy():
    short = np.zeros((3, 4, 5), dtype=np.int16)
    assert Volume.from_array(short, np.eye(4)).array is short
    assert Volume.from_array(short.astype(np.int64), np.eye(4)).array.dtype == np.int16
    assert Volume.from_array(short.astype(np.uint16) + 40000, np.eye(4)).array.dtype == np.float32
    assert Volume.from_array(short.astype(np.float64), np.eye(4)).array.dtype == np.float32
