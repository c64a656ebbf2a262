"""Neighboring slices as channels of the lung network: which they are, at a scan's ends too, however it is batched."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.networks import UNet
from LesionDecompLib.models.records import SliceInput
from LesionDecompLib.segmentation.body_field import body_slices
from LesionDecompLib.segmentation.lungs.context import Neighborhoods, neighbor_steps
from LesionDecompLib.segmentation.lungs.segment import segment_lungs

IMAGE = {"size": [256, 256], "spacing_mm": 2.0, "hu_window": [-1000, 200], "mean": 0.5, "std": 0.5}
METADATA = {
    "name": "context",
    "version": "1",
    "task": "lungs",
    "description": "",
    "architecture": "unet",
    "architecture_arguments": {"in_channels": 5, "out_channels": 3, "channels": 2, "levels": 2, "norm": "batch"},
    "input": {**IMAGE, "neighbors_mm": [6.0, 12.0]},
    "default_threshold": 0.5,
    "heat": {},
    "training": {},
    "metrics": {},
    "git_revision": "",
}


class OneChannel(torch.nn.Module):
    """Calls a pixel lung where one channel is as gray as lung, right on the left half of the picture."""

    def __init__(self, channel: int) -> None:
        super().__init__()
        self.channel = channel

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dark = torch.where((x[:, self.channel] + 0.75).abs() < 0.1, 20.0, -20.0)
        left = torch.linspace(-20.0, 20.0, x.shape[3]).expand_as(dark)
        return torch.stack([-dark, dark - left, dark + left], dim=1)


@pytest.fixture
def bundle(tmp_path: Path) -> ModelBundle:
    torch.manual_seed(0)
    return ModelBundle.save(tmp_path / "context", UNet(**METADATA["architecture_arguments"]).eval(), METADATA)


@given(
    st.lists(st.floats(0.5, 60.0), min_size=1, max_size=4, unique=True).map(sorted),
    st.floats(0.4, 20.0),
)
def test_the_nearest_slab_is_taken_and_above_mirrors_below(distances, slab_mm):
    offsets = SliceInput(256, 2.0, (-1000.0, 200.0), neighbors_mm=tuple(distances)).offsets_mm
    steps = neighbor_steps(offsets, slab_mm)
    assert steps == [-step for step in reversed(steps)] and steps == sorted(steps)
    for offset, step in zip(offsets, steps, strict=True):
        assert abs(step * slab_mm - offset) <= slab_mm / 2 + 1e-6


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.lists(st.integers(0, 8), max_size=3))
def test_channels_are_those_of_the_whole_stack_however_it_is_batched(count, batch, far):
    steps = [-step for step in sorted(far, reverse=True)] + [0] + sorted(far)
    stack = torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(count))
    made = []

    def pixels(start: int, stop: int) -> torch.Tensor:
        made.extend(range(start, stop))
        return stack[start:stop]

    neighborhoods = Neighborhoods(pixels, count, steps)
    for start in range(0, count, batch):
        stop = min(start + batch, count)
        own, channels = neighborhoods.of(start, stop)
        torch.testing.assert_close(own, stack[start:stop], rtol=0, atol=0)
        wanted = [[min(max(z + step, 0), count - 1) for step in steps] for z in range(start, stop)]
        torch.testing.assert_close(channels, stack[torch.tensor(wanted)], rtol=0, atol=0)
    assert made == list(range(count))  # each slab once


def _chest(spacing_mm: float = 3.0, slices: int = 40) -> Volume:
    """Two lungs that begin at the tenth and end at the thirtieth slice."""
    array = np.full((slices, 128, 160), 30, dtype=np.int16)
    array[:, :8], array[:, -8:], array[..., :8], array[..., -8:] = -1000, -1000, -1000, -1000
    array[10:30, 34:100, 30:66] = -850
    array[10:30, 34:100, 96:132] = -850
    return Volume.from_array(array, np.diag([-2.0, -2.0, spacing_mm, 1.0]))


def _filled(volume: Volume, bundle: ModelBundle, channel: int, **options) -> np.ndarray:
    view = volume.view
    labels, _ = segment_lungs(volume, OneChannel(channel), bundle, precision=torch.float32, **options)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels[..., :80] != 2).all() and (labels[..., 80:] != 1).all()
    return np.flatnonzero(view.to_axial(labels).any(axis=(1, 2)))


@pytest.mark.parametrize(("channel", "shift"), [(0, 4), (1, 2), (2, 0), (3, -2), (4, -4)])
@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_each_channel_is_the_slice_so_many_mm_away(bundle, channel, shift, batch_size):
    found = _filled(_chest(), bundle, channel, batch_size=batch_size)
    assert (found[0], found[-1]) == (10 + shift, 29 + shift)


def test_thin_slices_are_averaged_and_thick_ones_counted_before_neighbors_are_taken(bundle):
    thin = _chest(1.0)  # slabs of 2 mm: 12 mm are six slabs, twelve slices
    found = _filled(thin, bundle, 4)
    assert found[-1] == 29 - 12
    thick = _chest(8.0)  # 12 mm: the second slice
    assert _filled(thick, bundle, 4)[-1] == 27


def test_the_scan_s_order_of_slices_does_not_matter(bundle):
    volume = _chest()
    flipped = Volume.from_array(
        np.ascontiguousarray(volume.array[::-1]),
        volume.ijk_to_ras @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 39], [0, 0, 0, 1.0]]),
    )
    np.testing.assert_array_equal(_filled(volume, bundle, 3), _filled(flipped, bundle, 3))


def test_a_bundle_without_neighbors_has_one_channel():
    assert SliceInput.of({"input": IMAGE}).offsets_mm == (0.0,)


@pytest.mark.parametrize(
    "value", [[6.0, 6.0], [12.0, 6.0], [-6.0], [0], [101.0], [1, 2, 3, 4, 5], "6", None, [True], ["6"]]
)
def test_neighbors_that_cannot_be_are_refused(bundle, value):
    metadata = copy.deepcopy(bundle.metadata)
    metadata["input"]["neighbors_mm"] = value
    with pytest.raises(LesionDecompError, match=r"input\.neighbors_mm"):
        ModelBundle.save(bundle.path.with_name("other"), bundle.network(), metadata)


def test_neighbors_that_the_network_was_not_made_for_are_refused(bundle):
    metadata = copy.deepcopy(bundle.metadata)
    metadata["input"]["neighbors_mm"] = [6.0]
    other = ModelBundle.save(bundle.path.with_name("other"), bundle.network(), metadata)
    with pytest.raises(LesionDecompError, match="do not load"):
        other.network()


def test_a_lesion_bundle_has_no_neighbors(bundle):
    metadata = {**copy.deepcopy(bundle.metadata), "task": "lesions"}
    with pytest.raises(LesionDecompError, match=r"input\.neighbors_mm"):
        ModelBundle.save(bundle.path.with_name("other"), bundle.network(), metadata)


@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 4), st.integers(1, 5))
def test_slices_of_air_around_the_body_are_no_neighbors(count, before, after, batch):
    """Padded or not, the body's slabs have the same channels."""
    steps = [-5, -2, 0, 2, 5]
    body = torch.arange(1.0, count + 1).view(-1, 1, 1)
    padded = torch.cat([torch.zeros(before, 1, 1), body, torch.zeros(after, 1, 1)])
    asked = []
    for slabs, held in ((body, None), (padded, (before, before + count))):
        near = Neighborhoods(lambda start, stop, slabs=slabs: slabs[start:stop], len(slabs), steps, held)
        parts = [near.of(start, min(start + batch, len(slabs))) for start in range(0, len(slabs), batch)]
        asked.append(torch.cat([channels for _, channels in parts]))
        assert torch.equal(torch.cat([own for own, _ in parts]), slabs)
    assert torch.equal(asked[0], asked[1][before : before + count])


def test_body_is_told_from_air_that_was_added():
    stack = np.full((9, 40, 40), -1000, np.int16)
    stack[2:7, 8:32, 8:32] = 40
    assert body_slices(stack) == (2, 7)
    assert body_slices(stack[:2]) == (0, 2)
