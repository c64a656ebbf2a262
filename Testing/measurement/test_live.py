"""What the lesions at another threshold promise: those of a new run, voxel for voxel and figure for figure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement import live as live_lesions
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.statistics import lesion_statistics, statistics_csv
from LesionDecompLib.segmentation.lesions import lesion_labelmap
from segmented_case import segmented_covid_case, segmented_sample


@pytest.fixture(params=["sample", "COVID-19"])
def real_case(request):
    if request.param == "sample":
        return segmented_sample(request.getfixturevalue("sample_folder"), step=2)
    return segmented_covid_case(request.getfixturevalue("data_folder"), step=2)


def _random_case(seed: int, shape=(5, 6, 7), fractions: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 300, shape).astype(np.float32 if fractions else np.int16)
    if fractions:
        hu += rng.random(shape, dtype=np.float32)
    # Many voxels exactly on a threshold.
    heat = np.where(rng.random(shape) < 0.5, rng.integers(0, 11, shape) / 10, rng.random(shape)).astype(np.float32)
    return [hu, rng.integers(0, 3, shape, dtype=np.uint8), heat]


def _same(a, b) -> bool:
    return [row.region for row in a] == [row.region for row in b] and all(
        x.values == pytest.approx(y.values, rel=0, abs=0, nan_ok=True) for x, y in zip(a, b, strict=True)
    )


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.sampled_from([0.0, 0.1, 0.3, 0.55, 1.0]),
    st.sampled_from([0.0, 0.9]),
)
def test_any_threshold_gives_what_a_run_with_it_gives(seed, fractions, axes, steps, threshold, minimum):
    # Stacks as they are seen through arrays that are stored in another order and direction.
    view = tuple(slice(None, None, step) for step in steps)
    hu, lungs, heat = (a.transpose(axes)[view] for a in _random_case(seed, fractions=fractions))
    lesions = LiveLesions.of(hu, lungs, heat, 0.3).at(threshold, minimum)
    expected = lesion_labelmap(heat, lungs, threshold, minimum, 0.3)
    painted = np.full_like(lungs, 7)
    lesions.paint(painted)
    assert np.array_equal(painted, expected)
    assert _same(lesions.statistics(), lesion_statistics(hu, lungs, expected, heat, 0.3))
    assert lesions.volume_ml == pytest.approx(np.count_nonzero(expected) * 0.3)


def test_a_labelmap_of_another_memory_order_is_painted_all_the_same():
    hu, lungs, heat = _random_case(5)
    painted = np.full(lungs.shape, 7, np.uint8, order="F")
    LiveLesions.of(hu, lungs, heat, 0.3).at(0.4, 0.5).paint(painted)
    assert np.array_equal(painted, lesion_labelmap(heat, lungs, 0.4, 0.5, 0.3))


def test_thresholds_below_the_list_are_as_exact(monkeypatch):
    hu, lungs, heat = _random_case(3)
    monkeypatch.setattr(live_lesions, "MOST_LISTED", 20)
    live = LiveLesions.of(hu, lungs, heat, 0.3)
    assert 0.5 < live.floor < 1
    assert len(live.listed) <= 20
    for threshold in (0.0, 0.2, live.floor, 0.99):
        lesions = live.at(threshold, 0.5)
        painted = np.zeros_like(lungs)
        lesions.paint(painted)
        expected = lesion_labelmap(heat, lungs, threshold, 0.5, 0.3)
        assert np.array_equal(painted, expected)
        assert _same(lesions.statistics(), lesion_statistics(hu, lungs, expected, heat, 0.3))


def test_on_a_real_ct_dragging_the_threshold_gives_the_files_of_a_run(real_case):
    volume, result = real_case
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    hu, lungs, heat = (view.to_axial(a) for a in (volume.array, result.lungs, result.heat))
    live = LiveLesions.of(hu, lungs, heat, volume.voxel_volume_ml)
    labelmap = np.zeros(volume.shape, np.uint8)
    counts = []
    for threshold in (0.9, 0.4, 0.15, 0.4):
        lesions = live.at(threshold, 0.1)
        lesions.paint(view.to_axial(labelmap))
        expected = lesion_labelmap(result.heat, result.lungs, threshold, 0.1, volume.voxel_volume_ml)
        assert np.array_equal(labelmap, expected)
        rows = lesion_statistics(hu, lungs, view.to_axial(expected), heat, volume.voxel_volume_ml)
        assert statistics_csv(lesions.statistics()) == statistics_csv(rows)
        counts.append(int(labelmap.sum()))
    assert counts[0] < counts[1] < counts[2]
    assert counts[3] == counts[1]
    step = round(0.4 * 1000)
    assert live.curve[1][step] == live.at(0.4, 0.0).volume_ml


def test_without_lungs_there_are_no_lesions_and_twelve_rows():
    hu, lungs, heat = _random_case(2)
    lesions = LiveLesions.of(hu, np.zeros_like(lungs), heat, 0.3).at(0.0, 0.1)
    painted = np.ones_like(lungs)
    lesions.paint(painted)
    assert not painted.any()
    assert len(lesions.statistics()) == 12


@pytest.mark.parametrize(("threshold", "minimum"), [(-0.1, 0.0), (float("nan"), 0.0), (0.4, -1.0), (0.4, float("inf"))])
def test_numbers_out_of_range_are_refused(threshold, minimum):
    live = LiveLesions.of(*_random_case(2), 0.3)
    with pytest.raises(LesionDecompError, match="a number from 0 up"):
        live.at(threshold, minimum)


def test_a_labelmap_that_does_not_fit_is_refused():
    hu, lungs, heat = _random_case(2)
    with pytest.raises(LesionDecompError, match="a labelmap of shape"):
        LiveLesions.of(hu, lungs, heat, 0.3).at(0.4, 0.0).paint(np.zeros((2, 3, 4), np.uint8))
