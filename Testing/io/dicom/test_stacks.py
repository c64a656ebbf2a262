"""Slices that make one volume, and those that must not get into it: every odd series gives the volume it should."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from dicom_objects import group, item_of
from dicom_phantom import SLICE_MM, drawn_hu, drawn_series, made_uid, write_slices
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.readers import read_volume
from pydicom.uid import CTImageStorage

OTHER = drawn_hu(2)


def codes(folder, **options) -> list[str]:
    """Read a folder, see that the drawn volume comes out, and return the warnings' codes."""
    volume, info = read_volume(folder, **options)
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert volume.spacing[2] == pytest.approx(SLICE_MM)
    return [warning.record()["code"] for warning in info.warnings]


def second(shift: float, **elements: object) -> list:
    """Another volume with the drawn series' UID, its slices moved along the patient, mm."""
    slices = drawn_series(OTHER, **elements)
    for k, data in enumerate(slices):
        data.ImagePositionPatient[2] += shift
        data.SOPInstanceUID = made_uid("second", k)
    return slices


@pytest.mark.parametrize("shift", [0.0, SLICE_MM / 2, SLICE_MM / 4])
@pytest.mark.parametrize(
    "elements",
    [
        {"AcquisitionNumber": 2},
        {"TemporalPositionIndex": 2},
        {"TemporalPositionIdentifier": 2},
        {"AcquisitionTime": "081510"},
        {"NominalPercentageOfCardiacPhase": 75.0},
        {"SeriesDescription": "Second"},
        {"ConvolutionKernel": "B70f"},
        {"SeriesNumber": 2},
    ],
)
def test_two_volumes_in_one_series_are_never_one(tmp_path, shift, elements):
    write_slices(tmp_path, drawn_series(AcquisitionTime="081500"), "a")
    write_slices(tmp_path, second(shift, **{"AcquisitionTime": "081500", **elements}), "b")
    assert codes(tmp_path) == ["series_chosen"]


def test_the_other_acquisition_can_be_asked_for(tmp_path):
    write_slices(tmp_path, [*drawn_series(), *second(SLICE_MM / 2, AcquisitionNumber=2)])
    assert "acquisition 2" in read_volume(tmp_path)[1].warnings[0]
    volume, info = read_volume(tmp_path, series="acquisition 2")
    np.testing.assert_array_equal(volume.array, OTHER)
    assert not info.warnings


def test_acquisitions_that_go_on_where_others_end_are_one_volume(tmp_path):
    slices = drawn_series()
    for k, data in enumerate(slices):
        data.AcquisitionNumber = k // 4  # a step of the table each
        data.AcquisitionTime = f"0815{k:02d}"
    assert codes(write_slices(tmp_path / "steps", slices)) == []
    for k, data in enumerate(slices):
        data.AcquisitionNumber = k
        data.SliceThickness = 4 + 0.01 * (k % 2)
    assert codes(write_slices(tmp_path / "each", slices)) == []
    for k, data in enumerate(slices):
        data.AcquisitionNumber = 2 if k == 5 else 1  # acquired again, in its own place
    assert codes(write_slices(tmp_path / "again", slices)) == []


def test_several_images_at_one_place_that_nothing_distinguishes_are_refused_by_name(tmp_path):
    write_slices(tmp_path, [*drawn_series(), *second(0.0)[3:5]])
    with pytest.raises(InputError, match=r"2 slice positions .*IM0\d\d\.dcm, IM01[34]\.dcm") as error:
        read_volume(tmp_path)
    assert error.value.code == "several_images_at_one_position"


def test_slices_that_share_a_uid_are_no_copies(tmp_path):
    slices = drawn_series()
    for k, data in enumerate(slices):
        data.SOPInstanceUID = made_uid("pair", k // 2)
    assert codes(write_slices(tmp_path / "pairs", slices)) == []
    assert codes(write_slices(tmp_path / "none", drawn_series(SOPInstanceUID="1.2.3"))) == []


@pytest.mark.parametrize("elements", [{}, {"AcquisitionNumber": 2}, {"SOPInstanceUID": "1.2.3", "InstanceNumber": 99}])
def test_a_slice_twice_counts_once_whatever_its_uid(tmp_path, elements):
    slices = drawn_series()
    twin = copy.deepcopy(slices[-1])
    for keyword, value in elements.items():
        setattr(twin, keyword, value)
    write_slices(tmp_path, [twin, *slices])
    assert codes(tmp_path) == ["duplicate_slices"]
    assert ".dcm" not in read_volume(tmp_path)[1].warnings[0]


def scout(series: int = 1, **elements: object):
    (image,) = drawn_series(np.zeros((1, 20, 36), np.int16), series, SOPInstanceUID="1.2.9", **elements)
    image.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    return image


def test_scouts_marked_or_not_and_odd_images_are_left_out(tmp_path):
    assert codes(write_slices(tmp_path / "unmarked", [*drawn_series(), scout()])) == ["odd_images"]
    marked = scout(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert codes(write_slices(tmp_path / "marked", [marked, *drawn_series()])) == ["left_out"]
    assert codes(write_slices(tmp_path / "own", [scout(5), *drawn_series()])) == ["left_out"]
    (larger,) = drawn_series(np.zeros((1, 50, 50), np.int16), SOPInstanceUID="1.2.9", InstanceNumber=13)
    assert codes(write_slices(tmp_path / "larger", [*drawn_series(), larger])) == ["odd_images"]
    _, info = read_volume(tmp_path / "larger")
    text = "Left out: 1 image that does not fit the others of the series (instance number 13)."
    assert info.warnings[0] == text  # not the file's name, which may be the patient's


@pytest.mark.parametrize("move", [(0.0, 0.0, 1.6), (60.0, 0.0, 46.0), (0.0, -25.0, 1.0)])
def test_an_image_of_a_test_between_the_slices_or_beside_them_is_left_out(tmp_path, move):
    extra = drawn_series(OTHER, SOPInstanceUID="1.2.9")[3]
    extra.ImagePositionPatient = [a + b for a, b in zip(extra.ImagePositionPatient, move, strict=True)]
    write_slices(tmp_path, [*drawn_series(), extra])
    assert codes(tmp_path) == ["odd_images"]


def test_reports_and_screens_beside_the_series_are_left_out(tmp_path):
    sr = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"}
    (report,) = drawn_series(drawn_hu()[:1], 9, PixelData=None, Rows=None, Columns=None, **sr)
    (screen,) = drawn_series(drawn_hu()[:1], 8, ImagePositionPatient=None, ImageOrientationPatient=None)
    write_slices(tmp_path, [report, screen, *drawn_series()])
    assert codes(tmp_path) == ["left_out", "left_out"]


def referring(kind: str, name: str, **elements: object):
    """An object without an image that refers to the drawn series' first slice."""
    image = item_of({})
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CTImageStorage, made_uid(1, 0)
    (data,) = drawn_series(drawn_hu()[:1], 9, SOPClassUID=kind, Modality=name, PixelData=None, Rows=None, Columns=None)
    data.ReferencedSeriesSequence = group("s", SeriesInstanceUID=made_uid("series", 1), ReferencedSOPSequence=[image])[
        "s"
    ]
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    return data


@pytest.mark.parametrize("place", ["", "../other"])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.59", "KO"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        ("1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
    ],
)
def test_objects_that_refer_to_the_slices_are_left_out(tmp_path, kind, name, place):
    folder = write_slices(tmp_path / "study" / "ct", drawn_series())
    write_slices(folder / place, [referring(kind, name)], name)
    assert codes(tmp_path / "study") == ["left_out"]
    assert "DICOM object without an image" in read_volume(tmp_path / "study")[1].warnings[0]
    bare = referring(kind, name)  # without file meta information
    bare.save_as(folder / place / f"{name}001.dcm", implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert codes(tmp_path / "study") == ["left_out"]


def test_a_ct_image_that_refers_to_others_and_lost_its_pixels_is_still_damaged(tmp_path):
    folder = write_slices(tmp_path, drawn_series())
    write_slices(folder, [referring(CTImageStorage, "CT")], "cut")
    with pytest.raises(InputError, match=r"truncated DICOM file 'cut001\.dcm'"):
        read_volume(folder)


def test_a_series_uid_of_its_own_for_each_slice(tmp_path):
    slices = drawn_series()
    for k, data in enumerate(slices):
        data.SeriesInstanceUID = f"1.2.3.{k}"
    assert codes(write_slices(tmp_path / "own", slices)) == ["series_uids"]
    assert codes(write_slices(tmp_path / "none", drawn_series(SeriesInstanceUID=None, SOPInstanceUID=None))) == []
    assert codes(write_slices(tmp_path / "file", slices) / "IM004.dcm") == ["series_uids"]


def test_one_uid_for_two_series(tmp_path):
    write_slices(tmp_path, drawn_series(), "a")
    write_slices(tmp_path, drawn_series(OTHER, 2, SeriesInstanceUID=made_uid("series", 1)), "b")
    assert codes(tmp_path) == ["series_chosen"]
    np.testing.assert_array_equal(read_volume(tmp_path, series="Drawn 2")[0].array, OTHER)


@pytest.mark.parametrize("shift", [0.0, SLICE_MM / 2, 12 * SLICE_MM])
@pytest.mark.parametrize("one", [{"PatientID": "D-2"}, {"PatientName": "Other^One"}, {"StudyInstanceUID": "1.2.9"}])
def test_patients_and_studies_under_one_series_uid_are_never_one_volume(tmp_path, shift, one):
    write_slices(tmp_path, drawn_series(), "a")
    write_slices(tmp_path, second(shift, **one), "b")
    assert codes(tmp_path) == ["series_chosen"]
    which = "study" if "StudyInstanceUID" in one else "patient"
    for secret in ("D-1", "D-2", "Other", "Drawn^Body", "1.2.9"):
        assert secret not in read_volume(tmp_path)[1].warnings[0]
    volume, info = read_volume(tmp_path, series=f"{which} 2")
    np.testing.assert_array_equal(volume.array, OTHER)
    assert not info.warnings
    assert read_volume(tmp_path / "b003.dcm")[1].sha256 == read_volume(tmp_path, series=f"{which} 2")[1].sha256


def test_patients_and_studies_under_one_series_uid_are_refused_until_one_is_chosen(tmp_path):
    write_slices(tmp_path, [*drawn_series(), *second(2.0, PatientID="D-2", StudyInstanceUID="1.2.9")])
    with pytest.raises(InputError, match=r"CT series of 2 patients \(.*patient 1\); .*patient 2\)\)") as error:
        read_volume(tmp_path)
    assert error.value.code == "several_patients" and "D-2" not in str(error.value)
    assert codes(tmp_path, series="patient 1") == []


def test_a_slice_of_another_patient_is_left_out_and_one_of_nobody_is_not(tmp_path):
    slices = drawn_series()
    slices[5].PatientID = slices[5].PatientName = ""
    slices[6].StudyInstanceUID = ""
    assert codes(write_slices(tmp_path / "nobody", slices)) == []
    for k, data in enumerate(slices):
        data.StudyInstanceUID = f"1.2.3.{k}"
    assert codes(write_slices(tmp_path / "each", slices)) == []
    stray = second(0.0, PatientID="D-2")[3]
    assert codes(write_slices(tmp_path / "stray", [*drawn_series(), stray])) == ["left_out"]


@pytest.mark.parametrize("value", [0, -4, 400])
def test_the_spacing_between_slices_that_a_header_states_does_not_matter(tmp_path, value):
    assert codes(write_slices(tmp_path, drawn_series(SpacingBetweenSlices=value))) == []


def test_elements_that_may_be_missing_are_not_missed(tmp_path):
    keywords = ("PatientName", "PatientID", "StudyDate", "StudyID", "SeriesNumber", "InstanceNumber", "ImageType",
                "AcquisitionNumber", "SliceThickness", "Manufacturer", "SeriesDescription", "RescaleType",
                "PhotometricInterpretation", "SOPClassUID", "StudyInstanceUID")  # fmt: skip
    assert codes(write_slices(tmp_path, drawn_series(**dict.fromkeys(keywords)))) == []


def test_decimal_commas(tmp_path):
    folder = write_slices(tmp_path / "ct", drawn_series(PixelSpacing=["2.00", "1.50"], SliceThickness="4.00"))
    for file in folder.iterdir():
        data = file.read_bytes()
        assert b"2.00\\1.50" in data and b"4.00" in data and b"-20.0\\-30.0\\1" in data
        data = data.replace(b"2.00\\1.50 ", b"2,00\\1,50 ").replace(b"4.00", b"4,00")
        file.write_bytes(data.replace(b"-20.0\\-30.0\\1", b"-20,0\\-30,0\\1"))
    assert codes(folder) == []
    assert read_volume(folder)[0].spacing.tolist() == [1.5, 2.0, 4.0]


@pytest.mark.parametrize("left", [b"", bytes(3000), b"\0" * 100, b"MM\0*" + bytes(90)])
@pytest.mark.parametrize("name", ["IM{:03}.dcm", "IM{:03}.DCM", "IM{:03}", "1.2.840.99.{}"])
def test_slices_of_which_an_interrupted_copy_left_nothing_are_refused_by_name(tmp_path, left, name):
    for number, file in enumerate(sorted(write_slices(tmp_path, drawn_series()).iterdir()), start=101):
        file.rename(tmp_path / name.format(number))
    assert codes(tmp_path) == []
    for number in (111, 112):
        (tmp_path / name.format(number)).write_bytes(left)
    found = rf"truncated DICOM file '{name.format(111)}' \(2 files named like the slices are empty or without a header"
    with pytest.raises(InputError, match=found) as error:
        read_volume(tmp_path)
    assert error.value.code == "damaged"


def test_small_and_empty_files_of_other_kinds_beside_the_slices_do_not_matter(tmp_path):
    write_slices(tmp_path, drawn_series())
    for name in ("DICOMDIR", "LOCKFILE", "VERSION", "notes.txt", ".DS_Store", "scan.1", "mask.raw", "._IM001.dcm"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "zeros.raw").write_bytes(bytes(3000))
    assert codes(tmp_path) == []
    for file in tmp_path.glob("IM*.dcm"):
        file.rename(file.with_suffix(""))
    (tmp_path / "scan.1").unlink()
    (tmp_path / "001.dcm").write_bytes(b"")
    assert codes(tmp_path) == []
