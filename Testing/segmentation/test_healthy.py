"""The healthy version is the CT where heat is 0 and G1 where it is hot, in HU, however the voxels are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, ModelError
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.segmentation.healthy import check_healthy_support, healthy_version
from LesionDecompLib.segmentation.lesions import lung_box
from torch import nn

SHAPE = (12, 100, 140)
GRAY = -0.25


class UniformLung(nn.Module):
    """G1 that gives one gray."""

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, GRAY)


@pytest.fixture
def case():
    """A CT of two blocks of lung of different density with a dense spot in one, its lungs, and a heat for the spot."""
    rng = np.random.default_rng(0)
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[2:10, 10:90, 10:60], lungs[2:10, 10:90, 80:130] = 1, 2
    hu = np.full(SHAPE, 40)
    for label, mean in ((1, -900), (2, -840)):
        hu[lungs == label] = rng.normal(mean, 20, np.count_nonzero(lungs == label))
    hu[4:7, 40:60, 20:40] = 30
    heat = np.zeros(SHAPE, np.float32)
    heat[4:7, 38:62, 18:42] = 0.1
    heat[4:7, 40:60, 20:40] = 0.9
    return Volume.from_array(hu.astype(np.int16), np.diag([-1.6, -1.6, 5.0, 1.0])), lungs, heat


def made(volume, lungs, heat, **options):
    box = lung_box(volume.view.to_axial(lungs))
    return healthy_version(volume, lungs, box, heat, UniformLung(), find_bundle(None, "lesions"), **options)


def test_the_ct_stays_where_there_is_no_heat_and_g1_stands_where_it_is_hot(case):
    volume, lungs, heat = case
    before = volume.array.copy()
    healthy = made(volume, lungs, heat)
    assert healthy.dtype == np.int16 and healthy.shape == volume.shape
    np.testing.assert_array_equal(healthy[heat == 0], volume.array[heat == 0])
    np.testing.assert_array_equal(volume.array, before)
    image = find_bundle(None, "lesions").slice_input
    low, high = image.hu_window
    # The right lung's own mode, not the other's, moves the window.
    g1 = low + (GRAY + 1) / 2 * (high - low) + (-900 - image.lung_mode_hu)
    assert healthy[heat == np.float32(0.9)] == pytest.approx(g1, abs=8)
    warm = heat == np.float32(0.1)
    threshold = find_bundle(None, "lesions").default_threshold
    expected = 0.1 / threshold * g1 + (1 - 0.1 / threshold) * volume.array[warm]
    assert healthy[warm] == pytest.approx(expected, abs=8)


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0)])
def test_axes_stored_otherwise_change_nothing_else(case, order):
    volume, lungs, heat = case
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, :3] = matrix[:3, [2 - order[2], 2 - order[1], 2 - order[0]]]
    turned = Volume.from_array(volume.array.transpose(order), matrix)
    found = made(turned, lungs.transpose(order), heat.transpose(order))
    np.testing.assert_allclose(found, made(volume, lungs, heat).transpose(order), atol=1)


def test_slices_without_heat_cost_nothing(case):
    volume, lungs, heat = case
    seen = []
    made(volume, lungs, heat, progress=lambda *step: seen.append(step), batch_size=1)
    assert seen[-1] == ("healthy", len(seen), len(seen)) and len(seen) <= 5  # three hot slices and their neighbors
    np.testing.assert_array_equal(made(volume, lungs, np.zeros_like(heat)), volume.array)


def test_it_can_be_canceled(case):
    with pytest.raises(Cancelled):
        made(*case, cancelled=lambda: True)


def test_a_model_without_normal_decoder_is_refused(untrained_segmenter):
    bundle = find_bundle(None, "lesions")
    check_healthy_support(bundle)
    changed = dict(bundle.metadata, architecture_arguments={"normal_decoder": False})

    class Other:
        name, metadata = "gate", changed

    with pytest.raises(ModelError) as error:
        check_healthy_support(Other())
    assert error.value.code == "model_without_normal_decoder" and "gate" in error.value.found
