"""Pieces of "lung" beside the patient are no lung; lungs at the edge of the field of view are."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.segmentation.lungs.body import pieces_outside_body
from LesionDecompLib.segmentation.lungs.cleanup import clean_lungs

SHAPE = (12, 100, 140)
LUNGS = ((slice(20, 70), slice(35, 60)), (slice(20, 70), slice(80, 105)))


def _chest() -> tuple[np.ndarray, np.ndarray]:
    """A chest of columns 20 to 119 and rows 10 to 79 with two lungs, in air; and the lungs."""
    hu = np.full(SHAPE, -1000, dtype=np.int16)
    hu[:, 10:80, 20:120] = 40
    mask = np.zeros(SHAPE, dtype=bool)
    for lung in LUNGS:
        hu[:, *lung], mask[:, *lung] = -820, True
    return hu, mask


def test_lungs_lie_in_the_body():
    hu, mask = _chest()
    assert not pieces_outside_body(mask, hu, (0, 0)).any()


@pytest.mark.parametrize(
    "place",
    [
        (slice(30, 70), slice(4, 18)),  # beside the chest, before an arm
        (slice(84, 92), slice(30, 110)),  # foam of a table
        (slice(0, 8), slice(40, 90)),  # a blanket
    ],
)
def test_what_lies_beside_the_patient_is_found(place):
    hu, mask = _chest()
    hu[:, 20:80, 0:3] = 40  # an arm
    hu[:, 93:95] = 100  # a table
    hu[:, *place] = -850
    mask[:, *place] = True
    outside = pieces_outside_body(mask, hu, (0, 0))
    assert outside[:, *place].all() and np.count_nonzero(outside) == np.count_nonzero(outside[:, *place])


def test_a_part_of_the_slices_is_looked_at_where_it_lies():
    hu, mask = _chest()
    mask[:, 30:70, 4:18] = True
    whole = pieces_outside_body(mask, hu, (0, 0))
    part = pieces_outside_body(mask[:, 15:90, 2:], hu, (15, 2))
    np.testing.assert_array_equal(part, whole[:, 15:90, 2:])


@pytest.mark.parametrize("cut", [slice(40, None), slice(None, 95), slice(45, 97)])
def test_lungs_cut_off_by_the_field_of_view_stay(cut):
    hu, mask = _chest()
    assert not pieces_outside_body(mask[:, :, cut], hu[:, :, cut], (0, 0)).any()


def test_a_scan_of_a_rim_of_lung_keeps_it():
    hu, mask = _chest()
    assert not pieces_outside_body(mask[:, 25:65, 80:], hu[:, 25:65, 80:], (0, 0)).any()


def test_cleaned_lungs_have_no_piece_beside_the_patient():
    hu, mask = _chest()
    place = (slice(30, 70), slice(4, 18))
    hu[:, *place] = -850
    probability = mask.astype(np.float32)
    probability[:, *place] = 0.9
    cleaned = clean_lungs(probability, np.zeros_like(probability), (3.0, 2.0, 2.0), 0.5, hu)
    found = cleaned.probability >= 0.5
    assert not found[:, *place].any()
    assert found[mask].all()
    assert (cleaned.side[:, *LUNGS[0]] < 0).all() and (cleaned.side[:, *LUNGS[1]] > 0).all()
