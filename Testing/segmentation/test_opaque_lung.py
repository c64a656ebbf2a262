"""A lung without air is left out and reported; one with some air in it stays, and so do the sides of the other."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.anatomy import RIGHT_LUNG
from LesionDecompLib.segmentation.lungs.cleanup import clean_lungs
from LesionDecompLib.segmentation.lungs.opaque import not_aerated

SHAPE = (40, 110, 150)
RIGHT_BOX = (slice(5, 35), slice(20, 90), slice(20, 60))
LEFT_BOX = (slice(5, 35), slice(20, 90), slice(90, 130))


def _cleaned(right_hu: float, left_hu: float, aerated_right: float = 0.0):
    probability = np.zeros(SHAPE, dtype=np.float32)
    evidence, hu = np.zeros_like(probability), np.full(SHAPE, 40, dtype=np.int16)
    for box, side, value in ((RIGHT_BOX, -1.0, right_hu), (LEFT_BOX, 1.0, left_hu)):
        probability[box], evidence[box], hu[box] = 1.0, side, value
    top = round(30 * (1 - aerated_right))
    hu[(slice(5 + top, 35), *RIGHT_BOX[1:])] = -800
    return clean_lungs(probability, evidence, (3.0, 2.0, 2.0), 0.5, hu)


def test_a_lung_without_air_is_left_out_and_the_other_keeps_its_side():
    lungs = _cleaned(40.0, -820.0)
    assert [warning.code for warning in lungs.warnings] == ["right_lung_not_aerated"]
    found = lungs.probability >= 0.5
    assert not found[RIGHT_BOX].any() and found[LEFT_BOX].all()
    assert (lungs.side[LEFT_BOX] > 0).all()
    assert lungs.volume_ml == pytest.approx(30 * 70 * 40 * 12 / 1000)


def test_the_side_left_out_is_the_one_without_air():
    lungs = _cleaned(-820.0, 30.0)
    assert [warning.code for warning in lungs.warnings] == ["left_lung_not_aerated"]
    assert (lungs.probability >= 0.5)[RIGHT_BOX].all() and (lungs.side[RIGHT_BOX] < 0).all()


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_a_consolidated_lung_with_some_air_in_it_stays(share):
    lungs = _cleaned(40.0, -820.0, share)
    assert lungs.warnings == ()
    assert (lungs.probability >= 0.5)[RIGHT_BOX].all()


def test_without_any_air_there_are_no_lungs():
    lungs = _cleaned(40.0, 40.0)
    assert len(lungs.warnings) == 2 and lungs.volume_ml == 0


def test_the_warning_names_the_lung_and_the_number():
    warning = not_aerated(RIGHT_LUNG.label, 0.021)
    assert warning.startswith("The right lung is not aerated (2 % of it holds air)")
    assert warning.record() == {
        "code": "right_lung_not_aerated", "value": 0.021, "limit": 0.05, "text": str(warning)
    }  # fmt: skip
