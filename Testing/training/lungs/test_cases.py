"""A lung training set: scans of one patient stay together, names mean what they state, doubtful regions are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.training.data.labels import read_slice_labels
from LesionDecompLib.training.lungs.caselist import IgnoredBox, LungCase, cases_in, chosen, read_cases, read_ignored
from LesionDecompLib.training.lungs.cases import read_patient, read_patients

TABLES = Path(__file__).parents[2] / "tools" / "lung_training"


def _table(folder: Path, text: str) -> Path:
    file = folder / "table.csv"
    file.write_text(text, "utf-8")
    return file


def _scan(folder: Path, name: str, lungs: np.ndarray) -> np.ndarray:
    """Write a scan whose lungs are where the mask is not 0 (k, j, i), 3 mm slices of 2 mm pixels; returns its HU."""
    hu = np.where(lungs > 0, -850, 30).astype(np.int16)
    for kind, array in (("ct", hu), ("lung", lungs.astype(np.uint8))):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((2.0, 2.0, 3.0))
        SimpleITK.WriteImage(image, folder / f"{name}_{kind}.nii.gz")
    return hu


def test_a_patient_is_left_out_whole_by_any_name():
    cases = [
        LungCase("a/one", "P1", 0, ("whole",)),
        LungCase("a/two", "P1", 0, ("whole", "sharp")),
        LungCase("b/three", "P2", 1),
    ]
    assert chosen(cases, []) == cases
    for text in ("a/one", "P1", "sharp", "fold:0"):
        assert [case.name for case in chosen(cases, [text])] == ["b/three"]
    with pytest.raises(LesionDecompError, match="no patient named Nobody"):
        chosen(cases, ["Nobody"])
    with pytest.raises(LesionDecompError, match="every patient left out"):
        chosen(cases, ["P1", "fold:1"])


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("case,patient,fold\na,P,0\n", "other columns"),
        ("case,patient,fold,tags\na,P,zero,\n", "the fold 'zero'"),
        ("case,patient,fold,tags\na,P,0,\na,P,0,\n", "'a' twice"),
        ("case,patient,fold,tags\na,P,0,\nb,P,1,\n", "'P' in two folds"),
    ],
)
def test_a_table_of_cases_that_cannot_be_meant_is_refused(tmp_path, text, reported):
    with pytest.raises(LesionDecompError, match=reported):
        read_cases(_table(tmp_path, text))


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(LesionDecompError, match="cannot be read"):
        read_cases(tmp_path / "none.csv")


@pytest.mark.parametrize("box", ["5,4,0,1,0,1,all", "0,1,0,1,0,1,bone", "a,1,0,1,0,1,all", "-1,1,0,1,0,1,air"])
def test_a_box_that_is_no_box_is_refused(tmp_path, box):
    with pytest.raises(LesionDecompError, match="no box"):
        read_ignored(_table(tmp_path, f"case,i0,i1,j0,j1,k0,k1,tissue,reason\nx,{box},why\n"))


def test_background_of_a_box_is_ignored_and_lung_is_not():
    hu = np.full((3, 4, 5), 40)
    hu[:, :, 0] = -900
    mask = np.zeros((3, 4, 5), dtype=np.uint8)
    mask[1] = 1
    counts = {}
    for tissue in ("all", "solid", "air"):
        ignored = IgnoredBox("x", (0, 2, 0, 3, 0, 1), tissue, "").of(hu, mask)
        assert not ignored[mask > 0].any() and not ignored[2].any() and not ignored[..., 3:].any()
        counts[tissue] = int(ignored.sum())
    assert counts == {"all": 12, "solid": 8, "air": 4}


def test_a_folder_without_a_table_holds_its_pairs(tmp_path):
    lungs = np.zeros((2, 20, 30))
    lungs[:, 5:15, 3:12] = 1
    _scan(tmp_path, "b", lungs)
    _scan(tmp_path, "a", lungs)
    (tmp_path / "b_lung.nii.gz").rename(tmp_path / "c_lung.nii.gz")
    assert cases_in(tmp_path) == [LungCase("a", "a")]


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(LesionDecompError, match=r"NAME_ct\.nii\.gz beside NAME_lung\.nii\.gz"):
        cases_in(tmp_path)


def test_labels_report_the_sides_where_there_are_two_or_the_case_states_so(tmp_path):
    lungs = np.zeros((6, 60, 100))
    lungs[:, 10:50, 55:95] = 1  # on the left half of the picture's columns from the middle on
    _scan(tmp_path, "one", lungs)
    by_place = read_patient(tmp_path, LungCase("one", "one"))
    reported = read_patient(tmp_path, LungCase("one", "one", tags=("sides",)))
    assert set(by_place.labels.unique().tolist()) == {0, 2} and set(reported.labels.unique().tolist()) == {0, 1}
    lungs[:, 10:50, 5:45] = 2  # both, with the labels the other way round
    _scan(tmp_path, "both", lungs)
    both = read_patient(tmp_path, LungCase("both", "both"))
    columns = [(both.labels == side).nonzero()[:, 2].float().mean() for side in (1, 2)]
    assert columns[0] > columns[1]


def test_scans_without_lung_and_single_slices_are_read(tmp_path):
    _scan(tmp_path, "none", np.zeros((1, 40, 60)))
    patient = read_patient(tmp_path, LungCase("none", "none"))
    assert patient.labels.shape == (1, 256, 256) and not patient.labels.any() and not patient.depth_mm.any()


def test_ignored_boxes_come_to_the_network_s_pixels(tmp_path):
    lungs = np.zeros((4, 100, 120))
    lungs[:, 30:70, 20:50] = 1
    _scan(tmp_path, "x", lungs)
    boxes = [IgnoredBox("x", (40, 79, 30, 69, 1, 2), "solid", "why"), IgnoredBox("y", (0, 9, 0, 9, 0, 0), "all", "no")]
    patient = read_patient(tmp_path, LungCase("x", "x"), boxes)
    assert patient.ignored is not None
    assert patient.ignored.sum(dim=(1, 2)).tolist()[::3] == [0, 0]
    assert int(patient.ignored[1].sum()) == pytest.approx(30 * 40, rel=0.12)  # of 40 by 40 pixels 10 by 40 are lung
    assert not (patient.ignored & (patient.labels > 0)).any()
    assert read_patient(tmp_path, LungCase("x", "x"), boxes[1:]).ignored is None


def test_the_tables_fit_the_data(data_folder):
    cases = read_cases(TABLES / "cases.csv")
    files = sorted(p for d in ("lung_ct", "lung_ct_more") for p in (data_folder / d).glob("*_ct.nii.gz"))
    assert sorted(case.name for case in cases) == sorted(
        f"{p.parent.name}/{p.name.removesuffix('_ct.nii.gz')}" for p in files
    )
    assert {case.fold for case in cases} == set(range(5))
    for fold in range(5):
        held_out = [case for case in cases if case.fold == fold]
        assert any("lctsc" in case.tags for case in held_out) and any("whole" in case.tags for case in held_out)
    kept = chosen(cases, ["landmarks"])
    assert len(cases) - len(kept) == 9 and not [case for case in kept if "landmarks" in case.tags]
    names = {case.name for case in cases}
    for box in read_ignored(TABLES / "ignored.csv"):
        assert box.case in names and box.reason
        reader = SimpleITK.ImageFileReader()
        reader.SetFileName(str(data_folder / f"{box.case}_ct.nii.gz"))
        reader.ReadImageInformation()
        shape = reader.GetSize()
        assert all(last < n for last, n in zip(box.box[1::2], shape, strict=True))


@pytest.mark.parametrize("table", ["lung_ct_more.csv", "lung_ct_normal.csv"])
def test_the_heat_is_trained_on_no_patient_that_models_are_judged_by(table):
    cases = {case.name.split("/")[-1]: case for case in read_cases(TABLES / "cases.csv")}
    listed = set(read_slice_labels(TABLES.parent / "heat_training" / table))
    assert listed and listed <= set(cases)
    assert not [name for name in listed if "landmarks" in cases[name].tags]


def test_a_patient_of_the_data_is_read(data_folder):
    cases = cases_in(data_folder / "lung_ct")
    (patient,) = read_patients(data_folder / "lung_ct", cases[:1])
    right, left = (int((patient.labels == side).sum()) for side in (1, 2))
    assert right > left > 0.5 * right
