"""CT volumes with a label for each slice become a training set that the trainer reads."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from LesionDecompLib.cli import main
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.data.export import read_slice_labels, split_cases
from LesionDecompLib.training.data.slices import SliceSet


@pytest.fixture
def labels_file(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.mark.slow
def test_a_labelled_scan_becomes_a_training_set(sample_folder, labels_file, tmp_path):
    rows = ["case,slice,label,split"]
    rows += [f"chest_ct_tumor,{z},{label},train" for z, label in ((0, 0), (14, 1), (16, "lesion"), (40, "normal"))]
    out = tmp_path / "set"
    arguments = [str(sample_folder / "chest_ct_tumor.nrrd"), "--labels", str(labels_file("\n".join(rows)))]
    assert main(["slices", *arguments, "-o", str(out), "--device", "cpu"]) == 0
    data = SliceSet.load(out, "train")
    assert sorted(data.files) == [
        "lesion/chest_ct_tumor_0014.png",
        "lesion/chest_ct_tumor_0016.png",
        "normal/chest_ct_tumor_0040.png",  # the lowest slice holds no lung
    ]
    assert data.images.shape == (3, 256, 256)
    lungs = data.images > 0
    assert (lungs.sum(axis=(1, 2)) * 1.6**2 / 100 > 40).all()  # cm²
    normal = data.images[~data.lesion][lungs[~data.lesion]]
    assert np.bincount(normal).argmax() == pytest.approx(97, abs=6)  # healthy lung's gray in the released slices
    with open(out / "index.csv", encoding="utf-8") as stream:
        assert {row["scan"] for row in csv.DictReader(stream)} == {"chest_ct_tumor"}


@pytest.mark.slow
def test_a_training_set_is_not_replaced_unasked(sample_folder, labels_file, tmp_path, capsys):
    out = tmp_path / "set"
    out.mkdir()
    (out / "index.csv").write_text("mine", "utf-8")
    labels = labels_file("case,slice,label\nchest_ct_tumor,40,normal\n")
    arguments = ["slices", str(sample_folder / "chest_ct_tumor.nrrd"), "--labels", str(labels), "-o", str(out)]
    assert main([*arguments, "--device", "cpu"]) == 1
    assert (out / "index.csv").read_text("utf-8") == "mine"
    assert sorted(path.name for path in out.iterdir()) == ["index.csv"]
    assert "index.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("case,slice,label\nchest_ct_tumor,1000,normal\n", "slice 1000"),
        ("case,slice,label\nother,3,normal\n", "no labels for case 'chest_ct_tumor'"),
        ("case,slice,label\nchest_ct_tumor,3,normal\nother,3,normal\n", "no inputs for case 'other'"),
    ],
)
def test_labels_that_do_not_go_with_the_inputs_are_refused(
    sample_folder, labels_file, tmp_path, capsys, text, reported
):
    out = tmp_path / "set"
    arguments = [str(sample_folder / "chest_ct_tumor.nrrd"), "--labels", str(labels_file(text)), "-o", str(out)]
    assert main(["slices", *arguments, "--device", "cpu"]) == 1
    assert reported in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "case,slice,label\n",
        "case,slice\na,1\n",
        "case,slice,label\na,-1,normal\n",
        "case,slice,label\na,1,perhaps\n",
        "case,slice,label,split\na,1,normal,exam\n",
        "case,slice,label\na,1,normal\na,1,lesion\n",
        "case,slice,label\n,1,normal\n",
    ],
)
def test_labels_that_make_no_sense_are_refused(labels_file, text):
    with pytest.raises(LesionDecompError, match="Making the training set: found"):
        read_slice_labels(labels_file(text))


@pytest.mark.slow
def test_cases_are_dealt_whole_and_repeatably():
    cases = [f"scan{number}" for number in range(20)]
    dealt = split_cases(cases)
    assert dealt == split_cases(cases[::-1])
    assert [list(dealt.values()).count(split) for split in ("train", "val", "test")] == [16, 2, 2]
    assert split_cases(cases, seed=1) != dealt
