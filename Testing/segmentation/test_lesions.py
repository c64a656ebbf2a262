"""What the lesion labelmap and the volume curve promise."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.segmentation.components import find_components
from LesionDecompLib.segmentation.lesions import lesion_labelmap, lung_box, smallest_count, volume_curve
from segmented_case import segmented_covid_case, segmented_sample
from skimage.measure import label

SMALL_SHAPES = st.tuples(*[st.integers(1, 7)] * 3)


@pytest.fixture(params=["sample", "COVID-19"])
def real_case(request):
    if request.param == "sample":
        return segmented_sample(request.getfixturevalue("sample_folder"))
    return segmented_covid_case(request.getfixturevalue("data_folder"))


def _random_case(seed: int, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    # Many voxels exactly on the steps of the curve: there rounding would show.
    heat = np.where(rng.random(shape) < 0.5, rng.integers(0, 1001, shape) / 1000, rng.random(shape)).astype(np.float32)
    return heat, rng.integers(0, 3, shape, dtype=np.uint8)


def test_heat_at_the_threshold_is_lesion_and_heat_outside_the_lungs_is_not():
    heat = np.array([[[0.4, 0.39999, 0.9, 1.0, 0.0]]], dtype=np.float32)
    lungs = np.array([[[1, 1, 2, 0, 2]]], dtype=np.uint8)
    assert lesion_labelmap(heat, lungs, 0.4, 0.0, 0.001).tolist() == [[[1, 0, 1, 0, 0]]]


def test_components_below_the_minimum_volume_go_and_one_of_exactly_that_volume_stays():
    heat = np.zeros((3, 5, 12), dtype=np.float32)
    heat[1, 1, 0:3] = 1  # three voxels
    heat[1, 3, 6:10] = 1  # four voxels
    lungs = np.ones(heat.shape, dtype=np.uint8)
    lesions = lesion_labelmap(heat, lungs, 0.5, 0.1, 0.025)
    assert np.argwhere(lesions).tolist() == [[1, 3, x] for x in range(6, 10)]
    assert lesion_labelmap(heat, lungs, 0.5, 0.1001, 0.025).sum() == 0
    assert lesion_labelmap(heat, lungs, 0.5, 0.0, 0.025).sum() == 7


@pytest.mark.parametrize(("voxels", "voxel_ml"), [(3, 0.003), (3, 0.025), (7, 0.01), (12, 0.006)])
def test_rounding_does_not_cost_a_lesion_of_exactly_the_minimum_volume(voxels, voxel_ml):
    assert smallest_count(round(voxels * voxel_ml, 6), voxel_ml) == voxels
    assert smallest_count(voxels * voxel_ml, voxel_ml) == voxels
    assert smallest_count(voxels * voxel_ml * 1.001, voxel_ml) == voxels + 1


def test_voxels_that_touch_by_a_corner_are_one_lesion():
    heat = np.zeros((2, 2, 2), dtype=np.float32)
    heat[0, 0, 0] = heat[1, 1, 1] = 1
    lungs = np.ones(heat.shape, dtype=np.uint8)
    assert lesion_labelmap(heat, lungs, 0.5, 0.002, 0.001).sum() == 2


def test_lesions_at_opposite_edges_of_the_image_are_not_one():
    mask = np.zeros((3, 3, 4), dtype=bool)
    mask[0, 0, 3] = mask[0, 2, 0] = mask[1, 0, 3] = mask[2, 2, 0] = True
    assert find_components(mask).count == label(mask, connectivity=3).max() == 3


@settings(deadline=None, max_examples=150)
@given(SMALL_SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.2, 0.5, 0.9]))
def test_components_are_those_of_scikit_image(shape, seed, density):
    mask = np.random.default_rng(seed).random(shape) < density
    components = find_components(mask)
    found = np.zeros(shape, dtype=np.int64)
    found[components.voxels()] = 1 + np.repeat(components.labels, components.lengths)
    expected, count = label(mask, connectivity=3, return_num=True)
    assert components.count == count
    # The same partition, whatever the numbers of the components are.
    assert len({*zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True)}) == count + (not mask.all())
    assert np.bincount(found.ravel(), minlength=count + 1)[1:].tolist() == components.sizes.tolist()


@settings(deadline=None, max_examples=60)
@given(SMALL_SHAPES, st.integers(0, 2**32 - 1), st.permutations(range(3)), st.tuples(*[st.sampled_from([1, -1])] * 3))
def test_permuting_and_flipping_the_arrays_permutes_and_flips_the_lesions(shape, seed, axes, steps):
    heat, lungs = _random_case(seed, shape)
    view = tuple(slice(None, None, step) for step in steps)

    def turned(array: np.ndarray) -> np.ndarray:
        return array.transpose(axes)[view]

    straight = lesion_labelmap(heat, lungs, 0.6, 0.003, 0.001)
    assert np.array_equal(lesion_labelmap(turned(heat), turned(lungs), 0.6, 0.003, 0.001), turned(straight))
    copied = lesion_labelmap(turned(heat).copy(), turned(lungs).copy(), 0.6, 0.003, 0.001)
    assert np.array_equal(copied, turned(straight))


@settings(deadline=None, max_examples=60)
@given(SMALL_SHAPES, st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_the_curve_reports_the_volume_of_the_labelmap(shape, seed, step):
    heat, lungs = _random_case(seed, shape)
    thresholds, volumes = volume_curve(heat, lungs, 0.25)
    assert thresholds[step] == step / 1000
    assert volumes[step] == lesion_labelmap(heat, lungs, thresholds[step], 0.0, 0.25).sum() * 0.25
    assert (np.diff(volumes) <= 0).all()


def test_the_curve_is_exact_on_its_steps_and_right_beside_them():
    steps = (np.arange(1001) / 1000).astype(np.float32)
    beside = [steps, np.nextafter(steps, np.float32(-1)), np.nextafter(steps, np.float32(2))]
    heat = np.clip(np.concatenate(beside), 0, None)[None, None]
    lungs = np.ones(heat.shape, np.uint8)
    thresholds, volumes = volume_curve(heat, lungs, 1.0)
    assert volumes.tolist() == [lesion_labelmap(heat, lungs, t, 0.0, 1.0).sum() for t in thresholds]


def test_the_inputs_stay_as_they_are():
    heat, lungs = _random_case(1, (4, 5, 6))
    heat.setflags(write=False)
    lungs.setflags(write=False)
    lesions = lesion_labelmap(heat, lungs, 0.3, 0.002, 0.001)
    assert lesions.dtype == np.uint8
    assert set(np.unique(lesions)) <= {0, 1}


@pytest.mark.parametrize("axes", list(permutations(range(3))))
def test_the_lung_box_is_tight_in_any_memory_order(axes):
    lungs = np.zeros((5, 6, 7), dtype=np.uint8).transpose(axes)
    low, high = (1, 2, 0), (3, 4, 4)
    lungs[low] = lungs[high] = 2
    assert lung_box(lungs) == tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))


def test_without_lungs_there_is_no_lesion():
    heat, lungs = np.ones((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.uint8)
    assert lesion_labelmap(heat, lungs, 0.0, 0.1, 0.001).sum() == 0
    assert volume_curve(heat, lungs, 0.001)[1].tolist() == [0.0] * 1001


def test_on_a_real_ct_the_lesions_are_those_of_simpleitk(real_case):
    volume, result = real_case
    expected = SimpleITK.GetImageFromArray(((result.heat >= np.float32(0.25)) & (result.lungs > 0)).astype(np.uint8))
    expected = SimpleITK.ConnectedComponent(expected, True)
    voxels = smallest_count(0.5, volume.voxel_volume_ml)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.RelabelComponent(expected, minimumObjectSize=voxels)) > 0
    lesions = lesion_labelmap(result.heat, result.lungs, 0.25, 0.5, volume.voxel_volume_ml)
    assert expected.any()
    assert np.array_equal(lesions, expected)
    assert lesions.sum() < lesion_labelmap(result.heat, result.lungs, 0.25, 0.0, volume.voxel_volume_ml).sum()


@pytest.mark.parametrize(
    ("shape", "threshold", "minimum", "named"),
    [
        ((2, 3, 5), 0.4, 0.1, "same shape"),
        ((2, 3, 4), float("nan"), 0.1, "threshold of nan"),
        ((2, 3, 4), -0.1, 0.1, "threshold of -0.1"),
        ((2, 3, 4), 0.4, -1.0, "minimum lesion volume (mL) of -1.0"),
    ],
)
def test_what_can_not_be_is_refused_in_one_sentence(shape, threshold, minimum, named):
    with pytest.raises(LesionDecompError) as caught:
        lesion_labelmap(np.zeros((2, 3, 4), np.float32), np.zeros(shape, np.uint8), threshold, minimum, 0.001)
    assert named in str(caught.value)
