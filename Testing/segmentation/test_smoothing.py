"""Heat across slices: a Gaussian inside the lungs, the same however the slices come, first and last slice included."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionDecompLib.segmentation.smoothing import AcrossSlices


def stack(count: int, seed: int = 0):
    """Heat and lungs of some slices."""
    generator = torch.Generator().manual_seed(seed)
    inside = (torch.rand(count, 1, 6, 5, generator=generator) > 0.3).float()
    return torch.rand(count, 1, 6, 5, generator=generator) * inside, inside


def smoothed(numbers, heat, inside, sigma, batch):
    across, found = AcrossSlices(sigma), {}
    parts = [
        across.add(numbers[n : n + batch], heat[n : n + batch], inside[n : n + batch])
        for n in range(0, len(heat), batch)
    ]
    for done, values, lung in [*parts, across.rest()]:
        for z, value, where in zip(done, values, lung, strict=True):
            assert z not in found and torch.equal(where, inside[numbers.index(z)])
            found[z] = value
    assert list(found) == list(numbers)
    return torch.stack(list(found.values()))


@pytest.mark.parametrize("batch", [1, 3, 8, 50])
@pytest.mark.parametrize("sigma", [0.75, 1.0, 2.6])
def test_it_is_a_gaussian_inside_the_lungs_however_the_slices_come(sigma, batch):
    heat, inside = stack(17)
    numbers = [n + 4 if n < 9 else n + 7 for n in range(17)]  # three slices without lung in between
    expected = torch.zeros_like(heat)
    for n, z in enumerate(numbers):
        steps = torch.tensor(numbers) - z
        weight = torch.exp(-0.5 * (steps / sigma) ** 2) * (steps.abs() <= int(2 * sigma))
        weight = weight.view(-1, 1, 1, 1) * inside
        expected[n] = inside[n] * (weight * heat).sum(0) / weight.sum(0).clamp_min(1e-9)
    torch.testing.assert_close(smoothed(numbers, heat, inside, sigma, batch), expected, atol=1e-6, rtol=1e-5)


def test_thick_slices_and_no_smoothing_change_nothing():
    heat, inside = stack(5)
    for sigma in (0.0, 0.3):
        assert torch.equal(smoothed(list(range(5)), heat, inside, sigma, 2), heat)


def test_slices_turned_over_give_heat_turned_over():
    heat, inside = stack(12, 3)
    numbers = list(range(12))
    there = smoothed(numbers, heat, inside, 1.5, 4)
    back = smoothed(numbers, heat.flip(0), inside.flip(0), 1.5, 5).flip(0)
    torch.testing.assert_close(there, back)


def test_uniform_heat_stays_and_a_single_slice_passes():
    _, inside = stack(9)
    assert np.allclose(smoothed(list(range(9)), 0.4 * inside, inside, 2.0, 3), 0.4 * inside)
    assert torch.equal(smoothed([7], 0.4 * inside[:1], inside[:1], 2.0, 3), 0.4 * inside[:1])
