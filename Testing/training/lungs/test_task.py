"""Training of the lung network: what is painted, what stays lung, and that a seed gives the same batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.lungs import augmentation
from LesionDecompLib.training.lungs.cases import LungPatient, patient_names, read_patients, slice_weights
from LesionDecompLib.training.lungs.task import LungConfig, LungTask, lung_losses


@pytest.fixture(scope="module")
def patient() -> LungPatient:
    """A body with two lungs, drawn."""
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")

    def ellipse(row, column, height, width):
        return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1

    hu = torch.full((9, 256, 256), -1000, dtype=torch.int16)
    labels = torch.zeros((9, 256, 256), dtype=torch.uint8)
    depth = torch.zeros_like(labels)
    for z in range(9):
        hu[z][ellipse(128, 128, 70, 105)] = 30
        for side, column in ((1, 80), (2, 176)):
            lung = ellipse(128, column, 8 + 5 * z, 5 + 4 * z)
            hu[z][lung] = -820
            labels[z][lung] = side
            depth[z][lung] = 10
    return LungPatient("drawn", hu, labels, depth, 3.0)


@pytest.fixture
def chance() -> augmentation.Chance:
    return augmentation.Chance(torch.Generator().manual_seed(5), 16)


def _batch(patient: LungPatient, n: int = 16):
    index = torch.arange(n) % 5 + 4
    return patient.hu[index].float(), patient.labels[index], patient.depth_mm[index].float()


def test_disease_is_painted_into_the_lungs_and_nowhere_else(patient, chance):
    hu, labels, depth = _batch(patient)
    painted = augmentation.paint_disease(hu, labels, depth, chance)
    assert torch.isfinite(painted).all()
    lung = labels > 0
    assert (painted[lung] > -300).float().mean() > 0.02  # consolidation, effusion, nodules
    assert ((painted[lung] > -700) & (painted[lung] < -350)).float().mean() > 0.05  # ground glass
    beyond = torch.nn.functional.max_pool2d(lung.float(), 5, 1, 2) == 0
    torch.testing.assert_close(painted[beyond], hu[beyond])


def test_gas_is_painted_outside_the_lungs(patient, chance):
    hu, labels, _ = _batch(patient)
    painted = augmentation.paint_bowel_gas(hu, labels, torch.ones(16, 1, 1), chance)
    changed = painted != hu
    assert changed.any()
    assert not changed[labels > 0].any()
    none = augmentation.paint_bowel_gas(hu, labels, torch.zeros(16, 1, 1), chance)
    torch.testing.assert_close(none, hu)


def test_mirrored_bodies_keep_the_right_lung_on_the_left_of_the_picture(patient):
    hu, labels, _ = _batch(patient)
    for seed in range(4):
        chance = augmentation.Chance(torch.Generator().manual_seed(seed), 16)
        _, warped = augmentation.warp(hu, labels, (256, 256), chance)
        columns = torch.arange(256.0)
        for plane in warped:
            counts = [(plane == side).sum(dim=0).float() for side in (1, 2)]
            if min(count.sum() for count in counts) > 200:
                middles = [float(columns @ count / count.sum()) for count in counts]
                # A turn of up to 45 degrees leaves the order as it is.
                assert middles[0] < middles[1]


def test_what_the_field_of_view_cuts_off_is_not_lung(patient, chance):
    hu, labels, _ = _batch(patient)
    cut, left = augmentation.cut_field(hu, labels, chance)
    gone = (cut != hu) & (labels > 0)
    assert not left[gone].any()


def test_a_seed_gives_the_same_batch(patient):
    task = LungTask(LungConfig(batch=4), [patient])
    x, labels = task.batch(np.random.default_rng([0, 7]))
    again, _ = task.batch(np.random.default_rng([0, 7]))
    other, _ = task.batch(np.random.default_rng([0, 8]))
    torch.testing.assert_close(x, again, rtol=0, atol=0)
    assert x.shape != other.shape or not torch.equal(x, other)
    assert x.min() >= -1 and x.max() <= 1
    assert labels.dtype == torch.int64 and set(labels.unique().tolist()) <= {0, 1, 2}


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


def test_a_patient_is_left_out_by_name(data_folder):
    folder = data_folder / "lung_ct"
    names = patient_names(folder)
    patients = read_patients(folder, names[1:])
    assert [patient.name for patient in patients] == names[:1]
    right, left = (int((patients[0].labels == side).sum()) for side in (1, 2))
    assert right > left > 0.5 * right
    with pytest.raises(LesionDecompError, match="no patient named Nobody"):
        read_patients(folder, ["Nobody"])


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(LesionDecompError, match=r"NAME_ct\.nii\.gz beside NAME_lung\.nii\.gz"):
        patient_names(tmp_path)
