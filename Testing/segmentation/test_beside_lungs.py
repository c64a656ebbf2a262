"""Fluid beside a lung and solid tissue in it are reported by volume; healthy chests, masks that follow a mass, and the
liver at the base earn no remark. Thin rims come back, gas does not."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.segmentation.lungs.air import thin_rims
from LesionDecompLib.segmentation.lungs.beside import beside_lungs
from LesionDecompLib.segmentation.lungs.body import beside_patient

SPACING = (4.0, 2.0, 2.0)
SHAPE = (50, 150, 200)
Z, Y, X = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]


def _ellipsoid(center, radii):
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip((Z, Y, X), center, radii, strict=True)) < 1


def _chest():
    """HU, lungs and side of a chest of ellipsoids: two lungs, a shell of rib around each, muscle elsewhere."""
    hu = np.full(SHAPE, 60, dtype=np.int16)
    lungs, side = np.zeros(SHAPE, dtype=bool), np.broadcast_to((X - 99.5).astype(np.float32), SHAPE)
    for x in (60, 140):
        lung = _ellipsoid((25, 75, x), (22, 45, 30))
        hu[_ellipsoid((25, 75, x), (26, 50, 35)) & ~_ellipsoid((25, 75, x), (24, 47.5, 32.5))] = 200
        hu[lung] = -850
        lungs |= lung
    return hu, lungs, side


def _codes(hu, lungs, side):
    return {warning.code: warning.value for warning in beside_lungs(lungs, side, hu, SPACING)}


def test_a_healthy_chest_earns_no_remark():
    assert _codes(*_chest()) == {}


@pytest.mark.parametrize(("x", "name"), [(60, "right"), (140, "left")])
def test_fluid_between_lung_and_ribs_is_reported_with_its_volume(x, name):
    hu, lungs, side = _chest()
    # The lower back of one lung is filled; there is no lung below.
    fluid = lungs & (np.abs(X - x) < 35) & (95 - 2.0 * np.maximum(Z - 20, 0) < Y) & (Z < 28)
    hu[fluid], lungs = 12, lungs & ~fluid
    found = _codes(hu, lungs, side)
    volume_ml = np.count_nonzero(fluid) * np.prod(SPACING) / 1000
    assert set(found) == {f"{name}_lung_effusion"}
    assert 20 < found[f"{name}_lung_effusion"] <= volume_ml


def test_a_mass_at_the_ribs_is_solid_and_no_effusion():
    hu, lungs, side = _chest()
    mass = lungs & _ellipsoid((25, 75, 34), (6, 14, 14))
    hu[mass] = 20
    assert _codes(hu, lungs, side) == {}  # in the mask it is lung
    found = _codes(hu, lungs & ~mass, side)
    assert set(found) == {"right_lung_solid_left_out"}
    assert found["right_lung_solid_left_out"] > 0.5 * np.count_nonzero(mass) * np.prod(SPACING) / 1000


def test_a_mass_within_a_lung_is_reported_where_the_mask_leaves_it_out():
    hu, lungs, side = _chest()
    mass = _ellipsoid((25, 75, 140), (5, 10, 10))
    hu[mass] = 40
    assert _codes(hu, lungs, side) == {}
    expected_ml = np.count_nonzero(mass) * np.prod(SPACING) / 1000
    found = _codes(hu, lungs & ~mass, side)
    assert found == {"left_lung_solid_left_out": pytest.approx(expected_ml, rel=0.1)}


def test_vessels_left_out_of_the_mask_are_not_solid_regions():
    hu, lungs, side = _chest()
    vessel = lungs & (np.hypot(Y - 75, (X - 60)) < 2.5)
    hu[vessel] = 40
    assert _codes(hu, lungs & ~vessel, side) == {}


def test_thin_rims_come_back_and_gas_stays_out():
    hu, lungs, _ = _chest()
    rim = lungs & ~_ellipsoid((25, 75, 60), (22, 43, 28)) & (X < 100)
    missed = lungs & ~rim
    bowel = _ellipsoid((3, 75, 60), (3, 8, 8)) & ~lungs  # touches the lung's base
    hu[bowel] = -990
    found = thin_rims(missed, hu, SPACING)
    assert np.count_nonzero(found & rim) > 0.95 * np.count_nonzero(rim)
    assert not (found & ~rim).any()


def test_gas_that_touches_a_rim_keeps_it_out():
    hu, lungs, _ = _chest()
    missed = lungs & ~((X < 100) & (Z > 44))
    hu[lungs & ~missed] = -990
    assert not thin_rims(missed, hu, SPACING).any()


def test_what_was_left_out_beside_the_patient_is_reported_from_15_ml_on():
    assert beside_patient(14.9) == []
    (warning,) = beside_patient(40.2)
    assert warning.code == "beside_patient" and warning.startswith("40 mL beside the patient")
