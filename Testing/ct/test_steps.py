"""The same voxels a hair's breadth nearer to each other make the same steps, wherever millimeters become steps."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.steps import nearest_steps, steps_covering, steps_within
from LesionDecompLib.models.records import SliceInput
from LesionDecompLib.segmentation.lungs.context import neighbor_steps

NOISE = (np.nextafter(3.0, 0.0), np.nextafter(3.0, 4.0), np.float64(np.float32(3.0000002)), 2.9999998)


@pytest.mark.parametrize("step", NOISE)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_whole_number_of_steps_stays_one(step, count):
    assert (
        steps_covering(3.0 * count, step)
        == steps_within(3.0 * count, step)
        == nearest_steps(3.0 * count, step)
        == count
    )


@pytest.mark.parametrize("step", NOISE)
def test_half_steps_fall_to_the_same_side(step):
    assert nearest_steps(4.5, step) == 2
    assert neighbor_steps((-4.5, 4.5), step) == [-2, 2]


def test_the_axial_view_has_no_noise_of_the_last_bits():
    exact, noisy = (AxialView.of((9, 8, 7), np.diag([-0.7, -0.7, z, 1.0])) for z in (3.0, np.nextafter(3.0, 0.0)))
    assert exact.spacing == noisy.spacing and exact.slice_distance == noisy.slice_distance == 3.0


@pytest.mark.parametrize("step", NOISE)
def test_lung_slices_look_as_far_up_and_down(step):
    from LesionDecompLib.ct.volume import Volume
    from LesionDecompLib.segmentation.slices import LungSlices

    array = np.full((8, 64, 64), -850, np.int16)
    lungs = np.ones(array.shape, np.uint8)
    volume = Volume.from_array(array, np.diag([-2.0, -2.0, step, 1.0]))
    image = SliceInput.of(
        {"input": {"size": [64, 64], "spacing_mm": 2.0, "hu_window": [-1300, -150], "rim_slab_mm": 3.0}}
    )
    assert LungSlices.of(volume, lungs, (slice(0, 8), slice(0, 64), slice(0, 64)), image).depth == 1
