"""Orientation changes nothing but the orientation; resampling is exact where it can be."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.grid import FINEST_MM, AxialView, nominal_mm, resampling_matrix
from scipy.optimize import linear_sum_assignment
from scipy.spatial.transform import Rotation

SHAPE = (4, 6, 5)
SPACING = (0.7, 0.8, 2.5)  # i, j, k


def lps_matrix() -> np.ndarray:
    """The usual axial CT: i to the left, j to the back, k up."""
    matrix = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])
    matrix[:3, 3] = (80.0, 95.0, -310.0)
    return matrix


def reoriented(array, matrix, order, flips):
    """The same CT stored with its axes permuted and flipped, and the matrix that states so."""
    columns = matrix[:3, [2, 1, 0]]
    out = np.eye(4)
    out[:3, 3] = matrix[:3, 3]
    for position, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        step = columns[:, axis]
        out[:3, 2 - position] = -step if flip else step
        if flip:
            out[:3, 3] += step * (array.shape[axis] - 1)
    turned = array.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return turned, out


def rotation(axis: int, degrees: float) -> np.ndarray:
    turn = np.eye(4)
    a, b = [index for index in range(3) if index != axis]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[a, a] = turn[b, b] = cosine
    turn[a, b], turn[b, a] = -sine, sine
    return turn


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
def test_every_storage_order_gives_the_same_axial_stack(order, flips):
    ct = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    expected_view = AxialView.of(SHAPE, lps_matrix())
    stored, matrix = reoriented(ct, lps_matrix(), order, flips)
    view = AxialView.of(stored.shape, matrix)
    np.testing.assert_array_equal(view.to_axial(stored), expected_view.to_axial(ct))
    np.testing.assert_allclose(view.axial_to_ras, expected_view.axial_to_ras, atol=1e-9)
    np.testing.assert_array_equal(view.from_axial(view.to_axial(stored)), stored)


def test_the_usual_ct_is_shown_as_radiologists_expect():
    view = AxialView.of(SHAPE, lps_matrix())
    assert view.axes == (0, 1, 2) and view.flips == (False, False, False)
    x_of_left = (np.linalg.inv(view.axial_to_ras)[:3, :3] @ [-1, 0, 0])[0]
    y_of_posterior = (np.linalg.inv(view.axial_to_ras)[:3, :3] @ [0, -1, 0])[1]
    z_of_superior = (np.linalg.inv(view.axial_to_ras)[:3, :3] @ [0, 0, 1])[2]
    assert x_of_left > 0 and y_of_posterior > 0 and z_of_superior > 0


@settings(max_examples=60, deadline=None)
@given(
    axis=st.integers(0, 2),
    degrees=st.floats(-40, 40),
    shear=st.floats(-0.4, 0.4),
    mirrored=st.booleans(),
)
def test_oblique_sheared_and_left_handed_grids_come_back_exactly(axis, degrees, shear, mirrored):
    matrix = rotation(axis, degrees) @ lps_matrix()
    matrix[1, 2] += shear * SPACING[2]
    if mirrored:
        matrix[:3, 0] *= -1
    ct = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    view = AxialView.of(SHAPE, matrix)
    stack = view.to_axial(ct)
    np.testing.assert_array_equal(view.from_axial(stack), ct)
    # The voxel at axial index (x, y, z) lies where the input's own matrix states.
    inverse = np.linalg.inv(matrix)
    for z, y, x in [(0, 0, 0), tuple(n - 1 for n in stack.shape)]:
        i, j, k = np.rint((inverse @ view.axial_to_ras @ [x, y, z, 1])[:3]).astype(int)
        assert ct[k, j, i] == stack[z, y, x]
    steps = [float(s) for s in np.linalg.norm(view.axial_to_ras[:3, [2, 1, 0]], axis=0)]
    assert view.spacing == pytest.approx(steps, abs=FINEST_MM)


def test_tilt_and_slice_distance_of_a_tilted_gantry():
    matrix = lps_matrix()
    tilt = np.radians(12.0)
    matrix[:3, 1] = SPACING[1] * np.array([0.0, -np.cos(tilt), np.sin(tilt)])  # the image plane leans
    view = AxialView.of(SHAPE, matrix)
    assert view.tilt_degrees == pytest.approx(12.0)
    assert view.slice_distance == pytest.approx(SPACING[2] * np.cos(tilt), abs=FINEST_MM)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [-30.0, 0.0, 12.0])
def test_angles_of_a_turned_patient_are_reported_whatever_the_order_in_memory(axis, degrees):
    turned = rotation(axis, degrees) @ lps_matrix()
    for order, flips in product(permutations(range(3)), product([False, True], repeat=3)):
        stored, matrix = reoriented(np.empty(SHAPE), turned, order, flips)
        view = AxialView.of(stored.shape, matrix)
        assert view.shape == SHAPE and view.spacing == pytest.approx(SPACING[::-1])
        assert view.turn_degrees == pytest.approx(abs(degrees), abs=1e-5)
        assert view.tilt_degrees == pytest.approx(0.0 if axis == 2 else abs(degrees), abs=1e-5)
        assert view.shear_degrees == pytest.approx(0.0, abs=1e-5)
        assert view.slice_distance == pytest.approx(SPACING[2])


def test_a_straight_ct_is_straight_whatever_its_spacing():
    rng = np.random.default_rng(1)
    for spacing in rng.uniform(0.2, 6.0, (500, 3)):  # rounding makes some cosines a little larger than 1
        view = AxialView.of(SHAPE, np.diag([*spacing, 1.0]))
        angles = (view.tilt_degrees, view.shear_degrees, view.turn_degrees)
        assert angles == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)


@given(st.one_of(st.integers(1, 60000).map(lambda n: n / 10000), st.integers(100, 1600).map(lambda n: n / 512)),
       st.floats(-1e-6, 1e-6))  # fmt: skip
def test_formats_that_round_a_spacing_differently_give_one(spacing, noise):
    assert nominal_mm(spacing + noise) == nominal_mm(spacing)
    assert abs(nominal_mm(spacing) - spacing) <= 0.52 * FINEST_MM


@pytest.mark.parametrize("lean", [(0.3, 0.0), (0.0, -0.2), (0.3, 0.2)])
def test_shear_is_the_angle_by_which_slices_are_displaced(lean):
    matrix = lps_matrix()
    matrix[:2, 2] = lean
    view = AxialView.of(SHAPE, matrix)
    assert view.shear_degrees == pytest.approx(np.degrees(np.arctan(np.hypot(*lean) / SPACING[2])))
    assert view.tilt_degrees == pytest.approx(0.0, abs=1e-5)
    assert view.slice_distance == pytest.approx(SPACING[2])
    assert view.spacing == pytest.approx((np.hypot(SPACING[2], np.hypot(*lean)), *SPACING[1::-1]), abs=FINEST_MM)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_each_voxel_axis_stands_for_the_body_axis_it_is_nearest_to(axis):
    swapped = [2 - index for index in range(3) if index != axis]  # array axes of the two that turn
    for degrees in (-44.0, 44.0):
        assert AxialView.of(SHAPE, rotation(axis, degrees) @ lps_matrix()).axes == (0, 1, 2)
    for degrees in (-46.0, 46.0, 134.0):
        axes = [0, 1, 2]
        axes[swapped[0]], axes[swapped[1]] = axes[swapped[1]], axes[swapped[0]]
        view = AxialView.of(SHAPE, rotation(axis, degrees) @ lps_matrix())
        assert view.axes == tuple(axes)
        assert view.turn_degrees == pytest.approx(44.0)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_however_a_volume_is_turned_its_axes_stand_for_the_nearest_of_the_patient_s(quaternion):
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_quat(quaternion).as_matrix()
    matrix = turn @ lps_matrix()
    view = AxialView.of(SHAPE, matrix)
    steps = matrix[:3, [2, 1, 0]] / np.linalg.norm(matrix[:3, :3], axis=0)[::-1]
    to_body = np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]]) @ steps  # up, to the back, to the left
    _, nearest = linear_sum_assignment(-np.abs(to_body))
    cosines = np.abs(to_body)[range(3), list(view.axes)]
    assert cosines.sum() == pytest.approx(np.abs(to_body)[range(3), nearest].sum())
    assert view.turn_degrees == pytest.approx(np.degrees(np.arccos(np.clip(cosines.min(), 0, 1))), abs=1e-4)
    assert list(view.flips) == [bool(to_body[a, view.axes[a]] < 0) for a in range(3)]


def test_height_is_that_of_the_slice_in_the_patient():
    view = AxialView.of(SHAPE, lps_matrix())
    np.testing.assert_allclose(view.height_mm(np.arange(4)), -310.0 + 2.5 * np.arange(4))


def test_height_of_a_slice_tilted_both_ways_is_that_of_its_middle():
    matrix = np.array([[-1.0, 0, 0.1, 5], [0, -1.2, -0.3, 7], [0.2, 0.35, 2.5, -40], [0, 0, 0, 1]])
    view = AxialView.of((5, 8, 13), matrix)
    assert view.shape == (5, 8, 13)
    for z in (0, 3):
        x, y = (view.shape[2] - 1) / 2, (view.shape[1] - 1) / 2
        assert view.height_mm(z) == pytest.approx((view.axial_to_ras @ [x, y, z, 1])[2])
    np.testing.assert_allclose(view.height_mm(np.array([0, 3])), [view.height_mm(0), view.height_mm(3)])


def test_resampling_to_the_same_grid_is_the_identity():
    np.testing.assert_array_equal(resampling_matrix(7, 1.3, 7, 1.3), np.eye(7, dtype=np.float32))


def test_halving_averages_without_aliasing():
    stripes = np.tile([0.0, 1.0], 32)  # finer than the output can hold
    coarse = resampling_matrix(64, 0.7, 32, 1.4) @ stripes
    np.testing.assert_allclose(coarse[1:-1], 0.5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    n_in=st.integers(8, 90),
    spacing_in=st.floats(0.3, 5.0),
    spacing_out=st.floats(0.3, 5.0),
    slope=st.floats(-3, 3),
    center=st.floats(0.2, 0.8),
)
def test_a_ramp_stays_the_same_ramp_in_millimeters(n_in, spacing_in, spacing_out, slope, center):
    middle = center * (n_in - 1)
    matrix = resampling_matrix(n_in, spacing_in, 16, spacing_out, middle).astype(np.float64)
    position = middle + (np.arange(16) - 7.5) * spacing_out / spacing_in
    reach = max(1.0, spacing_out / spacing_in)
    well_inside = (position >= reach) & (position <= n_in - 1 - reach)
    ramp = slope * np.arange(n_in)
    # A triangle sampled at a fractional width leans by 0.0718 output pixels at most (1.18 input pixels wide).
    error = np.abs(matrix @ ramp - slope * position)[well_inside]
    assert (error <= 0.0719 * reach * abs(slope) + 1e-3).all()
    beyond = (position < -0.5 - reach) | (position > n_in - 0.5 + reach)
    assert not matrix[beyond].any()
    assert (matrix.sum(axis=1) <= 1 + 1e-5).all()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.floats(-1000, 1000), min_size=1, max_size=12),
    n_out=st.integers(1, 30),
    scale=st.floats(0.05, 1.0),
    spacing=st.floats(0.3, 5.0),
    center=st.none() | st.floats(0.0, 11.0),
)
def test_finer_samples_are_those_of_linear_interpolation_up_to_half_a_sample_beyond_the_last(
    values, n_out, scale, spacing, center
):
    n = len(values)
    matrix = resampling_matrix(n, spacing, n_out, scale * spacing, center)
    assert matrix.shape == (n_out, n) and matrix.dtype == np.float32
    middle = (n - 1) / 2 if center is None else center
    position = middle + (np.arange(n_out) - (n_out - 1) / 2) * scale
    inside = (position > -0.5) & (position < n - 0.5)
    expected = np.interp(position, np.arange(n), values)
    np.testing.assert_allclose((matrix @ np.array(values))[inside], expected[inside], atol=1e-3)


def test_half_a_sample_beyond_the_last_still_belongs_to_it_and_rows_fade_out_from_there():
    sums = resampling_matrix(4, 1.0, 7, 1.0, 1.5).sum(axis=1)  # from -1.5 to 4.5
    np.testing.assert_allclose(sums, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    sums = resampling_matrix(4, 1.0, 9, 0.75, 1.5).sum(axis=1)  # from -1.5 in steps of 0.75
    np.testing.assert_allclose(sums, [0.0, 0.25, 1.0, 1.0, 1.0, 1.0, 1.0, 0.25, 0.0])
    # However the edge's place is rounded: 0.1 mm pixels in a sixth of their number.
    for n in range(2, 60):
        np.testing.assert_allclose(resampling_matrix(n, 0.1, 2, 0.1 * n).sum(axis=1), 1.0, atol=1e-6)


def test_coarser_samples_are_weighted_by_a_triangle_as_wide_as_they_are():
    expected = [[0.5, 0.375, 0.125, 0.0], [0.0, 0.125, 0.375, 0.5]]
    assert resampling_matrix(4, 1.0, 2, 2.0).tolist() == expected
    inner = resampling_matrix(13, 1.0, 1, 3.0)[0]
    np.testing.assert_allclose(inner[3:10], np.array([0, 1, 2, 3, 2, 1, 0]) / 9, atol=1e-7)
    assert not inner[:4].any() and not inner[9:].any()
