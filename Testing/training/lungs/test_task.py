"""Training of the lung network: what is painted, what stays lung, and that a seed gives the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_chest import drawn_patient
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.training.lungs import scanner, surroundings
from LesionDecompLib.training.lungs.cases import LungPatient, scan_weights, slice_weights
from LesionDecompLib.training.lungs.chance import Chance
from LesionDecompLib.training.lungs.disease import paint_disease
from LesionDecompLib.training.lungs.slabs import SlabSource
from LesionDecompLib.training.lungs.task import IGNORED, LungConfig, LungTask, lung_losses
from LesionDecompLib.training.warm_start import start_from

OFFSETS = (-12.0, -6.0, 0.0, 6.0, 12.0)


@pytest.fixture(scope="module")
def patient() -> LungPatient:
    return drawn_patient()


def _batch(patient: LungPatient, n: int = 16):
    """Slices with their neighbors at the same place of a body, and a generator's draws for them."""
    index = (torch.arange(n) % 3 + 4).view(-1, 1) + torch.tensor([-2, -1, 0, 1, 2])
    z = (torch.tensor([[-2.0, -1.0, 0.0, 1.0, 2.0]]) * patient.slice_mm / 2.0).expand(n, -1)
    return patient.hu[index].float(), patient.labels[index], patient.depth_mm[index].float(), z


def _chance(seed: int, z: torch.Tensor) -> Chance:
    return Chance(torch.Generator().manual_seed(seed), z)


def test_noise_goes_on_smoothly_from_a_slice_to_its_neighbors():
    z = torch.tensor([[-6.0, -3.0, 0.0, 3.0, 6.0]]).expand(24, -1)
    noise = _chance(1, z).smooth(96, 96, 12.0)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.25)

    def likeness(a: int, b: int) -> float:
        return float((noise[:, a] * noise[:, b]).mean() / noise[:, 2].square().mean())

    assert likeness(2, 3) > 0.85 > likeness(1, 4) > likeness(0, 4)
    again = _chance(1, torch.zeros(24, 2)).smooth(96, 96, 12.0)
    torch.testing.assert_close(again[:, 0], again[:, 1])


@pytest.mark.slow
def test_disease_is_painted_into_the_lungs_and_nowhere_else(patient):
    hu, labels, depth, z = _batch(patient)
    painted, _ = paint_disease(hu, labels, depth, _chance(5, z))
    assert torch.isfinite(painted).all()
    lung = labels > 0
    assert (painted[lung] > -300).float().mean() > 0.02  # consolidation, tumors, nodules, effusion
    assert ((painted[lung] > -700) & (painted[lung] < -350)).float().mean() > 0.05  # ground glass
    beyond = torch.nn.functional.max_pool2d(lung.float(), 5, 1, 2) == 0
    torch.testing.assert_close(painted[beyond], hu[beyond])


def test_diseased_lung_stays_lung_and_effusion_does_not(patient):
    hu, labels, depth, z = _batch(patient)
    solid_lung = water = 0
    for seed in range(6):
        painted, left = paint_disease(hu, labels, depth, _chance(seed, z))
        assert not ((left > 0) & (labels == 0)).any()
        assert torch.equal(left[left > 0], labels[left > 0])
        solid_lung += int(((painted > -100) & (left > 0)).sum())
        gone = (labels > 0) & (left == 0)
        water += int(gone.sum())
        assert not gone.any() or -100 < float(painted[gone].median()) < 60
    assert solid_lung > water > 1000


def test_solid_disease_touches_the_border_of_the_lungs(patient):
    hu, labels, depth, z = _batch(patient)
    at_border = (labels > 0) & (torch.nn.functional.max_pool2d((labels == 0).float(), 3, 1, 1) > 0)
    painted, left = paint_disease(hu, labels, depth, _chance(2, z))
    assert ((painted > -50) & at_border & (left > 0)).sum() > 200


def test_contrast_is_painted_between_the_lungs_and_into_vessels(patient):
    hu, labels, _, z = _batch(patient, 32)
    hu[:, :, 120:123, 70:75] = -100.0  # a vessel in the right lung
    painted = surroundings.paint_contrast(hu, labels, _chance(3, z))
    changed = painted != hu
    assert (painted >= hu).all()
    assert (painted[changed & (labels == 0)] > 60).float().mean() > 0.3
    assert changed[:, :, 121, 72].any()
    assert not changed[(labels > 0) & (hu < -500)].any()
    assert not changed[:, :, :, :20].any()  # the body's wall keeps its gray


def test_gas_is_painted_outside_the_lungs(patient):
    hu, labels, _, z = _batch(patient)
    painted = surroundings.paint_bowel_gas(hu, labels, torch.ones(16, dtype=torch.bool), _chance(5, z))
    changed = painted != hu
    assert changed.any()
    assert not changed[labels > 0].any()
    none = surroundings.paint_bowel_gas(hu, labels, torch.zeros(16, dtype=torch.bool), _chance(5, z))
    torch.testing.assert_close(none, hu)


def test_arms_and_tables_are_painted_on_air_outside_the_body(patient):
    hu, labels, _, z = _batch(patient)
    painted = surroundings.paint_surroundings(hu.clone(), _chance(7, z))
    changed = painted != hu
    assert changed.any()
    assert not changed[(hu > -500) | (labels > 0)].any()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_mirrored_bodies_keep_the_right_lung_on_the_left_of_the_picture(patient, seed):
    hu, labels, depth, z = _batch(patient)
    none = torch.zeros(labels[:, 0].shape, dtype=torch.bool)
    _, warped, _, _ = scanner.warp(hu, labels, depth, none, (256, 256), _chance(seed, z))
    columns = torch.arange(256.0)
    for plane in warped.flatten(0, 1):
        counts = [(plane == side).sum(dim=0).float() for side in (1, 2)]
        if min(count.sum() for count in counts) > 200:
            middles = [float(columns @ count / count.sum()) for count in counts]
            # A turn of up to 45 degrees leaves the order as it is.
            assert middles[0] < middles[1]


def test_a_slice_and_its_neighbors_are_warped_alike(patient):
    hu, labels, depth, z = (part[:, :1].expand(-1, 5, *part.shape[2:]) for part in _batch(patient))
    ignored = labels[:, 0] == 2
    warped = scanner.warp(hu, labels, depth, ignored, (128, 192), _chance(1, torch.zeros_like(z)))
    for part in warped[:3]:
        torch.testing.assert_close(part, part[:, :1].expand_as(part))
    # What is ignored moves with the picture: it was the left lung, mirrored ones included.
    reported = warped[3] & (warped[1][:, 0] > 0)
    assert reported.sum() > 0.9 * (warped[1][:, 0] > 0).sum() * float((labels == 2).sum() / (labels > 0).sum())


def test_what_the_field_of_view_cuts_off_is_not_lung(patient):
    hu, labels, _, z = _batch(patient)
    cut, left = scanner.cut_field(hu, labels[:, 2], _chance(5, z))
    gone = (cut[:, 2] != hu[:, 2]) & (labels[:, 2] > 0)
    assert gone.any()
    assert not left[gone].any()


@pytest.mark.slow
def test_a_seed_gives_the_same_batch(patient):
    task = LungTask(LungConfig(batch=4), [patient])
    x, labels = task.batch(np.random.default_rng([0, 7]))
    again, _ = task.batch(np.random.default_rng([0, 7]))
    other, _ = task.batch(np.random.default_rng([0, 8]))
    torch.testing.assert_close(x, again, rtol=0, atol=0)
    assert x.shape != other.shape or not torch.equal(x, other)
    assert x.shape[1] == 5 and x.min() >= -1 and x.max() <= 1
    assert labels.dtype == torch.int64 and set(labels.unique().tolist()) <= {0, 1, 2}


def test_a_network_of_single_slices_is_trained_as_before(patient):
    task = LungTask(LungConfig(batch=2, neighbors_mm=(), channels=4, levels=2), [patient])
    x, _ = task.batch(np.random.default_rng(1))
    assert x.shape[1] == 1
    assert np.isfinite(task.step(0, np.random.default_rng(1))["loss"])


def test_scans_without_lung_and_single_slices_are_trained_on(patient):
    legs = LungPatient("legs", patient.hu, patient.labels * 0, patient.depth_mm * 0, 3.0)
    single = LungPatient("single", patient.hu[6:7], patient.labels[6:7], patient.depth_mm[6:7], 5.0)
    task = LungTask(LungConfig(batch=8, channels=4, levels=2, phantom_share=0.0), [legs, single])
    x, labels = task.batch(np.random.default_rng(3))
    empty = (labels == 0).flatten(1).all(dim=1)
    assert 0 < int(empty.sum()) < 8
    for picture in x[~empty]:  # a single slice is its own neighbor
        torch.testing.assert_close(picture, picture[:1].expand_as(picture), rtol=0, atol=0)
    assert np.isfinite(task.step(0, np.random.default_rng(3))["loss"])
    weights = scan_weights([legs, single])
    assert weights.sum() == pytest.approx(1.0) and weights[0] == pytest.approx(3 * weights[1])


def test_a_slab_s_neighbors_lie_where_it_states_and_end_with_the_scan(patient):
    heights = torch.arange(9, dtype=torch.int16).view(-1, 1, 1).expand(9, 256, 256) * 10
    ramp = LungPatient("ramp", heights.contiguous(), patient.labels, patient.depth_mm, 3.0)
    drawn = SlabSource([ramp], OFFSETS, 192).draw(np.random.default_rng(4), 64)
    assert drawn.hu.shape == (64, 5, 192, 256)
    level = drawn.hu[:, :, 0, 0] / 10 * 3.0 / 2.0  # the place of each channel, in pixels
    torch.testing.assert_close(level - level[:, 2:3], drawn.z, rtol=0, atol=1e-4)
    assert (drawn.z[:, 1:] >= drawn.z[:, :-1]).all()
    assert drawn.z.abs().max() <= 6.0 + 1.5  # 12 mm, or the nearest slab
    assert (drawn.z[:, 4] == 0).any() and (drawn.z[:, 4] >= 4.5).any()


def test_what_is_ignored_has_no_part_in_the_loss(patient):
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    labels = torch.randint(0, 3, (2, 8, 8))
    labels[:, :, :4] = IGNORED
    entropy, dice = lung_losses(logits, labels)
    (entropy - dice).backward()
    assert (logits.grad[..., :4] == 0).all() and (logits.grad[..., 4:] != 0).any()

    everywhere = torch.ones_like(patient.labels, dtype=torch.bool) & (patient.labels == 0)
    doubtful = LungPatient("doubtful", patient.hu, patient.labels, patient.depth_mm, 3.0, everywhere)
    task = LungTask(LungConfig(batch=4, phantom_share=0.0), [doubtful])
    _, labels = task.batch(np.random.default_rng(2))
    assert (labels == IGNORED).float().mean() > 0.2 and ((labels == 1) | (labels == 2)).any()


def test_solid_lung_weighs_more_than_the_rest(patient):
    """Lung like soft tissue counts ``solid_weight`` times; aerated lung, its edge and background count once."""
    x = torch.full((1, 5, 12, 12), -0.8)
    x[:, 2, :6] = 0.6  # 160 HU in the slice itself; its neighbors do not count
    x[:, 0, 6:] = 0.6
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 1:, 1:11] = 1
    labels[:, :, 11] = IGNORED
    logits = torch.zeros(1, 3, 12, 12, requires_grad=True)
    task = LungTask(LungConfig(solid_weight=4.0), [patient])
    entropy, _ = lung_losses(logits, labels, task.entropy_weight(x, labels))
    entropy.backward()
    size = logits.grad.abs().sum(dim=1)[0]
    wanted = torch.ones(12, 12)
    wanted[3:6, 3:9] = 4.0
    wanted[:, 11] = 0.0
    torch.testing.assert_close(size / size[0, 1], wanted)


def test_training_may_begin_with_a_bundle_s_weights(patient):
    bundle = find_bundle("lungs-unet", "lungs")
    task = LungTask(LungConfig(), [patient])
    start_from(task.network, bundle.path, "lungs")
    held = bundle.network().state_dict()
    assert all(torch.equal(value, held[key]) for key, value in task.network.state_dict().items())
    with pytest.raises(LesionDecompError, match="do not fit"):
        start_from(LungTask(LungConfig(neighbors_mm=()), [patient]).network, bundle.path, "lungs")
    with pytest.raises(LesionDecompError, match="do not fit"):
        start_from(task.network, find_bundle("lesions-decomposition", "lesions").path, "lungs")


@pytest.mark.slow
def test_a_few_steps_teach_something(patient):
    config = LungConfig(steps=8, batch=2, channels=8, levels=4, learning_rate=3e-3)
    task = LungTask(config, [patient])
    values = [task.step(number, np.random.default_rng([0, number])) for number in range(8)]
    assert all(np.isfinite(list(value.values())).all() for value in values)
    assert np.mean([value["entropy"] for value in values[-2:]]) < np.mean([value["entropy"] for value in values[:2]])


def test_perfect_answers_cost_nothing():
    labels = torch.tensor([[[0, 1], [2, 0]]]).repeat(1, 40, 40)
    logits = 40.0 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    entropy, dice = lung_losses(logits, labels)
    assert float(entropy) < 1e-6
    assert float(dice) == pytest.approx(1.0)


def test_tips_and_bases_are_shown_more_often(patient):
    weights = slice_weights(patient)
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > weights[-1]
