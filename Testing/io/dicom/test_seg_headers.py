"""Headers of all kinds give a DICOM segmentation; one that cannot is found before the work, or costs nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import lungs_in_boxes, names, run_here
from dicom_phantom import drawn_hu, drawn_series, made_uid, write_slices
from LesionDecompLib.errors import InputError, OutputError
from LesionDecompLib.io.dicom.seg import check_dicom_input
from pydicom import dcmread
from written_seg import written

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")

KANJI = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], KANJI),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        (["", "ISO 2022 IR 100"], "Müller^Jörg"),
        (["ISO 2022 IR 6", "ISO 2022 IR 159"], "Yamada^Tarou=丂^丄"),
        ("GB18030", "Wang^XiaoDong=王^小东="),
        ("GBK", "Wang^XiaoDong=王^小东="),
        ("ISO_IR 192", "Müller^Øystein=王^小东="),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 166", "สมชาย"),
    ],
)
def test_names_of_all_character_sets_are_kept(tmp_path, charset, name):
    folder = write_slices(tmp_path / "ct", drawn_series(SpecificCharacterSet=charset, PatientName=name))
    seg = written(folder, tmp_path / "seg.dcm")
    assert str(seg.PatientName) == name.rstrip("=") or str(seg.PatientName) == name
    assert seg.SpecificCharacterSet == "ISO_IR 192"


def test_a_chinese_name_in_the_standard_s_own_bytes_is_kept(tmp_path):
    """The example of PS3.5, annex K.2: GB 2312 in ISO 2022, designated anew behind each delimiter."""
    stored = b"Zhang^XiaoDong=\x1b\x24\x29\x41\xd5\xc5^\x1b\x24\x29\x41\xd0\xa1\xb6\xab= "
    held = "N" * len(stored)
    folder = write_slices(tmp_path / "ct", drawn_series(SpecificCharacterSet=["", "ISO 2022 IR 58"], PatientName=held))
    for path in folder.iterdir():
        data = path.read_bytes()
        assert data.count(held.encode()) == 1
        path.write_bytes(data.replace(held.encode(), stored))
    seg = written(folder, tmp_path / "seg.dcm")
    assert str(seg.PatientName).rstrip("= ") == "Zhang^XiaoDong=张^小东"
    assert seg.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize("charset", ["ISO_IR 999", "latin", ""])
def test_an_unknown_character_set_costs_nothing(tmp_path, charset):
    folder = write_slices(tmp_path / "ct", drawn_series(SpecificCharacterSet=charset))
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"Drawn^Body", b"Dr\xfcwn^Body"))
    assert written(folder, tmp_path / "seg.dcm").PatientID == "D-1"


PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "ReferringPhysicianName")
STUDY = ("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "SeriesNumber", "InstanceNumber", "AcquisitionNumber")
IMAGE = ("Manufacturer", "ImageType", "FrameOfReferenceUID", "SliceThickness", "RescaleType")
EMPTY = PATIENT + STUDY + IMAGE


@pytest.mark.parametrize("keywords", [PATIENT, STUDY, IMAGE])
def test_missing_elements_are_filled(tmp_path, keywords):
    folder = write_slices(tmp_path / "ct", drawn_series(**dict.fromkeys(keywords)))
    written(folder, tmp_path / "seg.dcm")


def test_all_of_them_missing_at_once(tmp_path):
    seg = written(write_slices(tmp_path / "ct", drawn_series(**dict.fromkeys(EMPTY))), tmp_path / "seg.dcm")
    assert seg.PatientID == "" and seg.StudyDate == "" and seg.FrameOfReferenceUID


@pytest.mark.parametrize(
    "wrong",
    [
        {b"20240229": b"29.02.24"},
        {b"081500": b"8h15  "},
        {b"CS\x02\x00O ": b"CS\x02\x00X "},
    ],
)
def test_wrong_values_are_left_out(tmp_path, wrong):
    folder = write_slices(tmp_path / "ct", drawn_series())
    for file in folder.iterdir():
        data = file.read_bytes()
        for right, other in wrong.items():
            assert right in data
            data = data.replace(right, other)
        file.write_bytes(data)
    written(folder, tmp_path / "seg.dcm")


def test_the_series_that_was_asked_for_is_the_one_referred_to(tmp_path):
    folder = write_slices(tmp_path / "ct", [*drawn_series(), *drawn_series(drawn_hu(2), 2)])
    for series in ("1", "2"):
        seg = written(folder, tmp_path / "seg.dcm", series)
        (referred,) = seg.ReferencedSeriesSequence
        uids = {image.SeriesInstanceUID: image.SeriesNumber for image in map(dcmread, folder.iterdir())}
        assert uids[referred.SeriesInstanceUID] == int(series)


def test_slices_with_series_uids_of_their_own(tmp_path):
    slices = drawn_series()
    for k, data in enumerate(slices):
        data.SeriesInstanceUID = f"1.2.3.{k}"
    written(write_slices(tmp_path / "ct", slices), tmp_path / "seg.dcm")


def test_a_header_that_gives_none_is_refused_before_the_work(tmp_path):
    folder = write_slices(tmp_path / "ct", drawn_series(StudyInstanceUID=None))
    with pytest.raises(OutputError) as error:
        check_dicom_input(folder)
    assert error.value.code == "seg_source" and error.value.remedy == "dicom_seg"


@pytest.fixture
def models(models, monkeypatch):
    """Small untrained models, and boxes for lungs."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)


def test_an_image_that_cannot_be_opened_is_named_before_the_work(tmp_path, monkeypatch):
    folder = write_slices(tmp_path / "ct", drawn_series())

    def refused(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("LesionDecompLib.io.dicom.files.read_images", refused)
    with pytest.raises(InputError, match=r"found 'ct', which cannot be opened \(Permission denied\)") as error:
        check_dicom_input(folder)
    assert error.value.code == "cannot_be_opened"


def test_what_fails_while_it_is_written_costs_no_other_result(tmp_path, capsys, models, monkeypatch):
    hu = np.repeat(np.repeat(drawn_hu(), 2, axis=1), 2, axis=2)
    folder = write_slices(tmp_path / "ct", drawn_series(hu))

    def fails(*_, **__):
        raise OutputError("Writing the DICOM segmentation", "a header that was never seen (Drawn^Body)", "another one")

    monkeypatch.setattr("LesionDecompLib.report.case.write_dicom_seg", fails)
    done = run_here(capsys, "segment", folder, "-o", tmp_path / "out", "--dicom-seg", "--quiet")
    assert done.status == 0, done.err
    assert {"heatmap.nrrd", "lesions.nrrd", "lungs.nrrd", "report.json", "statistics.csv"} <= set(
        names(tmp_path / "out")
    )
    assert "segmentation.dcm" not in names(tmp_path / "out")
    assert "No segmentation.dcm was written: found a header that was never seen." in done.err
    report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert [warning["code"] for warning in report["warning_codes"]].count("dicom_seg_not_written") == 1
    assert "Drawn" not in json.dumps(report)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/ct/Drawn Body.dcm"),
        InputError("Reading", "a damaged or truncated DICOM file 'Drawn Body.dcm'", "a complete file"),
    ],
    ids=["refused", "damaged"],
)
def test_a_series_that_can_no_longer_be_read_costs_no_other_result(tmp_path, capsys, models, monkeypatch, error):
    hu = np.repeat(np.repeat(drawn_hu(), 2, axis=1), 2, axis=2)
    folder = write_slices(tmp_path / "ct", drawn_series(hu))

    def fails(*_, **__):
        raise error

    monkeypatch.setattr("LesionDecompLib.io.dicom.seg.series_files", fails)
    done = run_here(capsys, "segment", folder, "-o", tmp_path / "out", "--dicom-seg", "--quiet")
    assert done.status == 0, done.err
    assert "No segmentation.dcm was written: found a DICOM series that can no longer be read." in done.err
    assert {"heatmap.nrrd", "report.json", "statistics.csv"} <= set(names(tmp_path / "out"))
    text = (tmp_path / "out" / "report.json").read_text("utf-8")
    assert "dicom_seg_not_written" in text and "Drawn" not in text + done.err


@pytest.mark.slow
def test_a_case_whose_segmentation_cannot_be_written_is_done_all_the_same(tmp_path, capsys, models):
    hu = np.repeat(np.repeat(drawn_hu(), 2, axis=1), 2, axis=2)
    write_slices(tmp_path / "in" / "a", drawn_series(hu))
    nameless = drawn_series(hu, 2)
    nameless[6].SOPInstanceUID = ""
    write_slices(tmp_path / "in" / "b", nameless)
    command = ["segment", tmp_path / "in", "-o", tmp_path / "out", "--dicom-seg", "--quiet"]
    assert run_here(capsys, *command).status == 0
    assert "segmentation.dcm" in names(tmp_path / "out" / "a")
    assert "segmentation.dcm" not in names(tmp_path / "out" / "b")
    again = run_here(capsys, *command)
    assert again.status == 0 and "2 of 2 cases are done already" in again.err, again.err
    (tmp_path / "out" / "a" / "segmentation.dcm").unlink()  # one that was written is missed
    assert run_here(capsys, *command).status == 1


@pytest.mark.slow
@pytest.mark.parametrize("is_written", [True, False])
def test_a_repetition_writes_a_segmentation_too(tmp_path, capsys, models, is_written):
    slices = drawn_series(np.repeat(np.repeat(drawn_hu(), 2, axis=1), 2, axis=2))
    slices[6].SOPInstanceUID = made_uid("own") if is_written else ""
    folder = write_slices(tmp_path / "ct", slices)
    assert run_here(capsys, "segment", folder, "-o", tmp_path / "out", "--dicom-seg", "--quiet").status == 0
    done = run_here(capsys, "rerun", tmp_path / "out", folder, "-o", tmp_path / "again", "--quiet")
    assert done.status == 0, done.out + done.err
    assert names(tmp_path / "again") == names(tmp_path / "out")
    assert ("segmentation.dcm" in names(tmp_path / "again")) == is_written
