"""CT volumes with a label for each slice become a training set that the trainer reads."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import SimpleITK
from LesionDecompLib.cli import main
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.training.data.export import export_slices, read_slice_labels, split_cases
from LesionDecompLib.training.data.labels import SliceLabel
from LesionDecompLib.training.data.slices import SliceSet


@pytest.fixture
def labels_file(tmp_path):
    def write(text):
        path = tmp_path / "labels.csv"
        path.write_text(text, "utf-8")
        return path

    return write


@pytest.mark.slow
def test_a_labeled_scan_becomes_a_training_set(sample_folder, labels_file, tmp_path):
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
    cases = {f"scan{number}": [SliceLabel(0, "normal", "")] for number in range(20)}
    dealt = split_cases(cases)
    assert dealt == split_cases(dict(reversed(cases.items())))
    assert [list(dealt.values()).count(split) for split in ("train", "val", "test")] == [16, 2, 2]
    assert split_cases(cases, seed=1) != dealt


def test_cases_of_one_patient_are_dealt_together():
    cases = {f"scan{n}": [SliceLabel(0, "normal", "", f"patient{n % 7}")] for n in range(28)}
    for seed in range(20):
        dealt = split_cases(cases, seed)
        assert len({(n % 7, dealt[f"scan{n}"]) for n in range(28)}) == 7
        assert set(dealt.values()) == {"train", "val", "test"}


@pytest.mark.parametrize("patients", [6, 10, 20, 31])
def test_patients_of_one_label_each_are_dealt_so_that_the_set_can_be_trained_on(patients):
    cases = {f"scan{n}": [SliceLabel(0, ("normal", "lesion")[n % 2], "")] for n in range(patients)}
    for seed in range(20):
        dealt = split_cases(cases, seed)
        for split in ("train", "val", "test"):
            assert {items[0].label for case, items in cases.items() if dealt[case] == split} == {"normal", "lesion"}


def test_a_patient_of_whom_one_scan_has_a_split_stays_in_it():
    cases = {f"scan{n}": [SliceLabel(0, "normal", "", f"patient{n // 2}")] for n in range(20)}
    cases["scan7"] = [SliceLabel(0, "normal", "test", "patient3")]
    for seed in range(20):
        assert split_cases(cases, seed)["scan6"] == split_cases(cases, seed)["scan7"] == "test"


def test_a_folder_in_the_way_is_refused_before_any_lung_is_looked_for(sample_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("LesionDecompLib.training.data.export.read_volume", lambda path: pytest.fail("a CT was read"))
    (tmp_path / "lesion").mkdir()
    labels = {"chest_ct_tumor": [SliceLabel(40, "normal", "")]}
    with pytest.raises(LesionDecompError, match="an earlier lesion"):
        export_slices([sample_folder / "chest_ct_tumor.nrrd"], labels, tmp_path, find_bundle(None, "lungs"))


def test_unsure_slices_are_left_out_and_patients_read(labels_file):
    text = "case,slice,label,patient\na,1,normal,p\na,2,Unsure,p\nb,0,lesion,p\nc,5,unsure,q\n"
    assert read_slice_labels(labels_file(text)) == {
        "a": [SliceLabel(1, "normal", "", "p")],
        "b": [SliceLabel(0, "lesion", "", "p")],
        "c": [],
    }


@pytest.fixture
def masked_slices(sample_folder, tmp_path):
    """A folder of four scans ``pN_ct.nrrd`` with lung masks ``pN_lung.nrrd``: two of one slice, one without lung."""
    ct = SimpleITK.ReadImage(str(sample_folder / "chest_ct_tumor.nrrd"))
    for name, part in (("p0", slice(20, 30)), ("p1", slice(25, 26)), ("p2", slice(40, 41)), ("p3", slice(30, 40))):
        scan = ct[:, :, part]
        hu = SimpleITK.GetArrayFromImage(scan)
        lungs = np.zeros(hu.shape, np.uint8)
        if name != "p3":
            lungs[:, 90:170, 30:110], lungs[:, 90:170, 150:230] = 1, 2
        mask = SimpleITK.GetImageFromArray(lungs)
        mask.CopyInformation(scan)
        SimpleITK.WriteImage(scan, str(tmp_path / f"{name}_ct.nrrd"))
        SimpleITK.WriteImage(mask, str(tmp_path / f"{name}_lung.nrrd"))
    return tmp_path


def test_lungs_come_from_masks_and_single_slices_will_do(masked_slices, labels_file, tmp_path, capsys):
    rows = ["case,slice,label,split,patient"]
    rows += [
        "p0,0,normal,val,a",
        "p0,9,lesion,val,a",
        "p0,3,unsure,val,a",
        "p1,0,lesion,train,b",
        "p2,0,normal,train,c",
    ]
    rows += ["p3,4,normal,train,d"]
    inputs = [str(masked_slices / f"p{n}_ct.nrrd") for n in range(4)]
    out = tmp_path / "set"
    arguments = ["slices", *inputs, "--labels", str(labels_file("\n".join(rows))), "-o", str(out)]
    assert main([*arguments, "--lung-mask-suffix", "_lung.nrrd", "--device", "cpu"]) == 0
    assert "2 lesion and 2 normal slices; 1 labeled slices" in capsys.readouterr().out
    data = SliceSet.load(out, "train")
    assert sorted(data.files) == ["lesion/p1_0000.png", "normal/p2_0000.png"]
    # 80 × 80 pixels of the scan twice, less a rim of the slices' pixels.
    pixel_mm2 = np.prod(SimpleITK.ReadImage(inputs[0]).GetSpacing()[:2])
    areas = (data.images > 0).sum(axis=(1, 2)) * 1.6**2
    assert areas == pytest.approx(2 * 80 * 80 * pixel_mm2, rel=0.1) and (areas < 2 * 80 * 80 * pixel_mm2).all()
    with open(out / "index.csv", encoding="utf-8") as stream:
        assert {(row["scan"], row["patient"]) for row in csv.DictReader(stream)} == {
            ("p0", "a"),
            ("p1", "b"),
            ("p2", "c"),
        }


def test_a_missing_mask_and_a_patient_in_two_splits_are_refused(masked_slices, labels_file, tmp_path, capsys):
    (masked_slices / "p1_lung.nrrd").unlink()
    torn = labels_file("case,slice,label,split,patient\np0,0,normal,val,a\np1,0,lesion,train,a\n")
    labels = tmp_path / "whole.csv"
    labels.write_text(torn.read_text("utf-8").replace("train", "val"), "utf-8")
    inputs = [str(masked_slices / f"p{n}_ct.nrrd") for n in (0, 1)]
    arguments = ["slices", *inputs, "--labels", str(labels), "-o", str(tmp_path / "set"), "--device", "cpu"]
    assert main([*arguments, "--lung-mask-suffix", "_lung.nrrd"]) == 1
    assert "no lung mask 'p1_lung.nrrd' beside the CT" in capsys.readouterr().err
    # A patient in two splits is noticed before any CT is read.
    arguments[arguments.index(str(labels))] = str(torn)
    assert main([*arguments, "--lung-mask-suffix", "_lung.nrrd"]) == 1
    assert "'a' in the splits train, val" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
