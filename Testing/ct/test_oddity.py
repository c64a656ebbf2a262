"""Warnings are sentences with a code and a number behind them; those of lungs each where it should be."""

from __future__ import annotations

import json
import pickle

import numpy as np
from LesionDecompLib.ct.oddity import Oddity
from LesionDecompLib.ct.plausibility import (
    heat_warnings,
    input_warnings,
    lung_edge_warnings,
    lung_hu_warnings,
    lung_warnings,
)
from LesionDecompLib.ct.volume import Volume


def _codes(warnings) -> list[str]:
    return [warning.code for warning in warnings]


def _sections(low: int, high: int, slices: int = 60) -> np.ndarray:
    sections = np.zeros((slices, 2))
    sections[low:high] = (110.0, 100.0)
    return sections


def test_an_oddity_is_its_sentence_and_survives_another_process():
    oddity = Oddity("Too dense.", "lung_hu", -300.123456, -500.0)
    assert oddity == "Too dense." and " ".join([oddity, "So."]) == "Too dense. So."
    assert json.loads(json.dumps(oddity)) == "Too dense."
    again = pickle.loads(pickle.dumps(oddity))
    expected = {"code": "lung_hu", "value": -300.1235, "limit": -500.0, "text": "Too dense."}
    assert again.record() == oddity.record() == expected


def test_a_whole_chest_is_silent():
    assert lung_warnings(_sections(6, 54), 5.0) == []
    stack, lungs = np.full((20, 30, 30), -780), np.ones((20, 30, 30))
    assert lung_hu_warnings(stack, lungs) == []


def test_each_warning_of_lungs_has_its_own_code():
    assert _codes(lung_warnings(_sections(6, 10), 5.0)) == ["lung_volume"]
    assert _codes(lung_warnings(_sections(6, 54) * (1.0, 0.0), 10.0)) == ["no_left_lung"]
    assert _codes(lung_warnings(_sections(6, 54) * (0.0, 1.0), 10.0)) == ["no_right_lung"]
    assert _codes(lung_warnings(_sections(6, 54) * (1.0, 0.2), 5.0)) == ["lung_share"]
    assert _codes(lung_warnings(_sections(0, 54), 5.0)) == ["lung_cut_lowest"]
    assert _codes(lung_warnings(_sections(6, 60), 5.0)) == ["lung_cut_highest"]


def test_lungs_that_go_on_above_a_scan_of_the_abdomen():
    (cut, abdomen) = lung_warnings(_sections(40, 60), 5.0)
    assert _codes([cut, abdomen]) == ["lung_cut_highest", "abdomen"]
    assert abdomen.value == 200.0 and "200 mm below the lungs" in abdomen
    assert "abdomen" not in _codes(lung_warnings(_sections(40, 59), 5.0))  # the tops are there


def test_lungs_too_dense_or_too_empty_on_average():
    lungs = np.zeros((20, 40, 40))
    lungs[5:15, 10:30, 10:30] = 1
    for mean, limit in ((-300, -500), (-990, -930)):
        stack = np.full(lungs.shape, 40)
        stack[lungs > 0] = mean
        (warning,) = lung_hu_warnings(stack, lungs)
        assert (warning.code, warning.value, warning.limit) == ("lung_hu", mean, limit)
    assert lung_hu_warnings(stack, lungs * 0) == []


def test_warnings_about_a_ct_as_it_came_and_about_heat_have_codes():
    flat = np.full((20, 130, 130), -1000, dtype=np.int16)
    flat[:, 20:110, 20:110] = 45
    flat[:, 40:90, 40:90] = np.arange(50)[:, None] - 870
    flat[7] = -1000
    flat[12] = flat[11]
    reported = input_warnings(Volume.from_array(flat, np.diag([-3.5, -3.5, 6.0, 1.0])))
    assert {"thick_slices", "coarse_pixels", "few_values", "empty_slices", "repeated_slices"} <= set(_codes(reported))
    assert all(np.isfinite([warning.value, warning.limit]).all() for warning in reported)
    assert "clipped_above" in _codes(reported) and "short_scan" not in _codes(reported)
    (hot,) = heat_warnings({"involvement_percent": 75.0, "lung_heat_mean": 0.5})
    assert (hot.code, hot.value, hot.limit) == ("high_involvement", 75.0, 60.0)


def test_lungs_cut_at_the_slices_edge_have_a_code():
    stack = np.full((30, 60, 60), -800, dtype=np.int16)
    lungs = np.zeros(stack.shape, dtype=np.uint8)
    lungs[:, 10:50, :40] = 1
    view = Volume.from_array(stack, np.diag([-2.0, -2.0, 3.0, 1.0])).view
    assert "lung_cut_by_slices" in _codes(lung_edge_warnings(stack, lungs, view))
