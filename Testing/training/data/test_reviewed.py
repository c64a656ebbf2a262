"""A training set that grows by reviews: cases join it with their seen slices, and the existing training takes it."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from LesionDecompLib.__main__ import main
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.processes.training import check_training_set
from LesionDecompLib.training.data.export import export_slices
from LesionDecompLib.training.data.labels import SliceLabel
from LesionDecompLib.training.data.reviewed import add_reviewed_case
from LesionDecompLib.training.data.slices import SliceSet, read_index
from segmented_case import segmented_sample
from tiny_training import TINY


@pytest.fixture(scope="module")
def case(sample_folder):
    """The sample CT, thinned, its lungs, and a slice that holds lung and one that holds none."""
    volume, result = segmented_sample(sample_folder, step=8)
    held = volume.view.to_axial(result.lungs).any(axis=(1, 2))
    return volume, result.lungs, np.flatnonzero(held)


def _add(folder, case, labels: dict[int, str], identity: str, patient: str = ""):
    volume, lungs, _ = case
    return add_reviewed_case(folder, volume, lungs, labels, identity * 32, patient)


def test_cases_join_one_after_the_other_until_the_set_can_be_trained_on(case, tmp_path):
    low, middle, high = (int(case[2][n]) for n in (5, len(case[2]) // 2, -5))
    both = {low: "lesion", middle: "normal"}
    first = _add(tmp_path, case, both, "aa")
    assert (first.split, first.lesion, first.normal, first.cases) == ("train", 1, 1, 1)
    assert first.missing == (("val", "lesion"), ("val", "normal"))
    with pytest.raises(LesionDecompError, match="without lesion slices in 'val'"):
        check_training_set(tmp_path)
    second = _add(tmp_path, case, {high: "lesion"}, "bb")
    assert second.split == "val" and second.missing == (("val", "normal"),)
    third = _add(tmp_path, case, {high: "normal", low: "normal"}, "cc")
    assert third.split == "val" and third.missing == () and "can be trained on" in third.text()
    check_training_set(tmp_path)
    assert _add(tmp_path, case, both, "dd").split == "train"
    train, val = (SliceSet.load(tmp_path, split) for split in ("train", "val"))
    assert train.images.shape == (4, 256, 256) and train.lesion.tolist() == [True, False, True, False]
    assert set(val.scans) == {f"ct-{'bb' * 6}", f"ct-{'cc' * 6}"}


def test_a_case_that_was_reviewed_again_is_replaced_and_keeps_its_split(case, tmp_path):
    low, middle = int(case[2][5]), int(case[2][len(case[2]) // 2])
    for identity in ("aa", "bb"):
        _add(tmp_path, case, {low: "lesion", middle: "normal"}, identity)
    again = _add(tmp_path, case, {low: "normal"}, "bb")
    assert again.split == "val" and again.cases == 2
    mine = [row for row in read_index(tmp_path) if row["scan"] == f"ct-{'bb' * 6}"]
    assert [(row["label"], row["slice"]) for row in mine] == [("normal", str(low))]
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    assert files == sorted(row["file"] for row in read_index(tmp_path))


def test_all_cts_of_a_patient_are_in_one_split(case, tmp_path):
    low, middle = int(case[2][5]), int(case[2][len(case[2]) // 2])
    labels = {low: "lesion", middle: "normal"}
    assert [_add(tmp_path, case, labels, one, "p1").split for one in ("aa", "bb")] == ["train", "train"]
    assert [_add(tmp_path, case, labels, one, "p2").split for one in ("cc", "dd")] == ["val", "val"]


def test_cts_that_turn_out_to_be_of_one_patient_are_brought_into_one_split(case, tmp_path):
    low, middle = int(case[2][5]), int(case[2][len(case[2]) // 2])
    labels = {low: "lesion", middle: "normal"}
    assert [_add(tmp_path, case, labels, one).split for one in ("aa", "bb")] == ["train", "val"]
    assert [_add(tmp_path, case, labels, one, "p").split for one in ("aa", "bb")] == ["train", "train"]
    assert {(row["patient"], row["split"]) for row in read_index(tmp_path)} == {("p", "train")}


def test_of_ten_patients_and_more_a_tenth_validates(case, tmp_path):
    low, middle = int(case[2][5]), int(case[2][len(case[2]) // 2])
    splits = [_add(tmp_path, case, {low: "lesion", middle: "normal"}, f"{n:02d}").split for n in range(16)]
    assert splits.count("val") == 2


def test_slices_are_those_that_the_export_with_a_label_file_writes(case, tmp_path):
    """Same pixels, whether labels come from a review or from a table."""
    from LesionDecompLib.io.nrrd import write_image

    volume, lungs, held = case
    middle = int(held[len(held) // 2])
    write_image(tmp_path / "x_ct.nrrd", volume.array, volume)
    write_image(tmp_path / "x_lung.nrrd", lungs, volume)
    labels = {"x": [SliceLabel(middle, "lesion", "train")]}
    export_slices([tmp_path / "x_ct.nrrd"], labels, tmp_path / "exported", None, lung_mask_suffix="_lung.nrrd")
    _add(tmp_path / "grown", case, {middle: "lesion"}, "aa")
    images = [SliceSet.load(tmp_path / name, "train", ("lesion",)).images for name in ("exported", "grown")]
    assert images[0].any()
    np.testing.assert_array_equal(*images)
    with open(tmp_path / "grown" / "index.csv", encoding="utf-8") as stream:
        assert csv.DictReader(stream).fieldnames == ["file", "label", "split", "scan", "slice", "patient"]


def test_without_a_seen_slice_that_holds_lung_nothing_is_written(case, tmp_path):
    empty = [n for n in range(case[0].view.shape[0]) if n not in case[2]]
    for labels in ({}, *([{empty[0]: "normal"}] if empty else [])):
        with pytest.raises(LesionDecompError, match="Adding to the training set") as error:
            _add(tmp_path / "set", case, labels, "aa")
        assert error.value.code == "none_seen"
    assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_the_training_there_is_learns_from_a_set_that_reviews_have_made(case, tmp_path):
    """From reviewed cases to a model, by the command that everybody trains with."""
    held = [int(n) for n in case[2]]
    for identity in ("aa", "bb"):
        _add(tmp_path / "set", case, {n: "lesion" if n % 2 else "normal" for n in held[5:-5]}, identity)
    options = [text for one in TINY for text in ("--set", one)]
    run = tmp_path / "run"
    assert main(["train", "--data", str(tmp_path / "set"), "-o", str(run), "--device", "cpu", *options]) == 0
    assert ModelBundle.load(run / "bundle").task == "lesions"
