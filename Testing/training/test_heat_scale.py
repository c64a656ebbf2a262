"""The rule that brings raw values to heat, on curves as they occur."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.training.heat_scale import MOST_FOUND_IN_NORMAL, SCALED, STEEPEST, knots

THRESHOLDS = np.arange(1, 1000) / 1000


def curves(peak: float, width: float, quiet_from: float) -> tuple[np.ndarray, np.ndarray]:
    """Dice with its best at ``peak``, and a share of normal lung found that is small from ``quiet_from`` on."""
    dice = 0.7 * np.exp(-(((THRESHOLDS - peak) / width) ** 2))
    found = np.where(quiet_from > THRESHOLDS, 0.05, MOST_FOUND_IN_NORMAL / 2)
    return dice, found


@settings(deadline=None, max_examples=60)
@given(st.floats(0.02, 0.95), st.floats(0.01, 0.6), st.floats(0.0, 0.98))
def test_knots_rise_and_never_too_steeply_where_there_is_room(peak, width, quiet_from):
    raw = knots(THRESHOLDS, *curves(peak, width, quiet_from))
    assert raw[0] == 0 and raw[-1] == 1 and np.all(np.diff(raw) > 0)
    if 0.2 < raw[2] < 0.8:
        assert np.all(np.diff(SCALED) / np.diff(raw) <= STEEPEST * 1.01)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.15, 0.5), st.floats(0.1, 0.3), st.floats(0.0, 0.98))
def test_a_threshold_that_finds_lesions_in_normal_lung_is_raised_within_the_range(peak, width, quiet_from):
    dice, found = curves(peak, width, quiet_from)
    free, held = (knots(THRESHOLDS, dice, share)[2] for share in (np.zeros_like(found), found))
    end = THRESHOLDS[np.flatnonzero(dice >= 0.91 * dice.max())[-1]]
    assert free <= held <= max(end, free) + 1e-5
    assert held >= min(quiet_from, end) - 1e-5


def test_the_default_is_close_to_the_best_threshold():
    dice, found = curves(0.4, 0.3, 0.0)
    raw = knots(THRESHOLDS, dice, found)
    at = dict(zip(SCALED, (float(np.interp(value, THRESHOLDS, dice)) / dice.max() for value in raw), strict=True))
    assert at[0.4] >= 0.95 and min(at[0.2], at[0.6]) >= 0.9
