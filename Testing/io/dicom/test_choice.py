"""Which of several series is read: the one asked for, or the best for lungs; and how the others are named."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_phantom import drawn_hu, drawn_series, made_uid, write_slices
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.dicom.choice import recorded
from LesionDecompLib.io.dicom.kernels import sharpness
from LesionDecompLib.io.readers import read_volume

SHARP, CORONAL = drawn_hu(2), [1, 0, 0, 0, 0, -1]


def codes(info) -> list[str]:
    return [warning.code for warning in info.warnings]


def reformats(series: int = 3) -> list:
    slices = drawn_series(drawn_hu(3), series, ImageType=["DERIVED", "SECONDARY", "REFORMATTED"], SliceThickness=1)
    for k, data in enumerate(slices):
        data.ImageOrientationPatient = CORONAL
        data.ImagePositionPatient = [-20, -30 + k, 148]
        data.SeriesDescription = "CHEST COR"
    return slices


@pytest.fixture
def flat(tmp_path):
    """A soft and a sharp reconstruction and coronal reformats, in one folder."""
    soft = drawn_series(SeriesDescription="CHEST SOFT", ConvolutionKernel="B30f")
    sharp = drawn_series(SHARP, 2, SeriesDescription="CHEST SHARP", ConvolutionKernel="B70f")
    return write_slices(tmp_path / "flat", [*reformats(), *sharp, *soft])


def test_the_rule_reads_the_soft_original_axial_series_and_names_the_others(flat):
    volume, info = read_volume(flat)
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert [str(warning) for warning in info.warnings] == [
        "Read 'CHEST SOFT' (series 1, 12 slices of 4 mm), one of 3 CT volumes in the folder; the others are "
        "'CHEST SHARP' (series 2, 12 slices of 4 mm); 'CHEST COR' (series 3, 12 slices of 1 mm, coronal)."
    ]
    assert info.warnings[0].record()["code"] == "series_chosen"
    assert info.warnings[0].record()["value"] == 3


UID_2 = str(made_uid("series", 2))


@pytest.mark.parametrize(
    "asked", ["2", "CHEST SHARP", "sharp", "b70", UID_2, ".".join(UID_2.split(".")[-2:]), recorded(UID_2)]
)
def test_a_series_is_chosen_by_uid_number_or_text(flat, asked):
    volume, info = read_volume(flat, series=asked)
    np.testing.assert_array_equal(volume.array, SHARP)
    assert codes(info) == []  # what was asked for needs no comment


def test_a_choice_that_is_none_lists_what_there_is(flat):
    for asked in ("LUNG", "7", "1.2.3", ""):
        with pytest.raises(InputError, match=r"'CHEST SOFT' \(series 1.*'CHEST SHARP' \(series 2") as error:
            read_volume(flat, series=asked)
        assert error.value.code == "series_not_found" and error.value.remedy == "series"


def test_a_choice_that_fits_several_is_decided_by_the_rule(flat):
    volume, info = read_volume(flat, series="chest")
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert codes(info) == ["series_chosen"] and "that could be meant" in info.warnings[0]


def test_a_reformat_is_read_when_it_is_asked_for(flat):
    volume, _ = read_volume(flat, series="COR")
    np.testing.assert_array_equal(np.sort(volume.array, axis=None), np.sort(drawn_hu(3), axis=None))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"SliceThickness": 5}, {"SliceThickness": 4}),
        ({"ConvolutionKernel": "LUNG"}, {"ConvolutionKernel": "STANDARD"}),
        ({"ConvolutionKernel": "Bl57d"}, {"ConvolutionKernel": "Br40d"}),
        ({"SeriesDescription": "Head 4.0"}, {"SeriesDescription": "Thorax 4.0"}),
        ({"BodyPartExamined": "ABDOMEN"}, {"BodyPartExamined": "CHEST"}),
        ({"SeriesDescription": "Schädel", "SpecificCharacterSet": "ISO_IR 100"}, {}),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, {}),
        ({"SeriesNumber": 9}, {}),
    ],
)
def test_the_rule_in_its_steps(tmp_path, first, second):
    write_slices(tmp_path, drawn_series(SHARP, 1, **first), "A")
    write_slices(tmp_path, drawn_series(series=2, **second), "B")
    volume, info = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert codes(info) == ["series_chosen"]


def test_a_few_thin_slices_do_not_stand_for_the_chest(tmp_path):
    few = drawn_series(SHARP[:4], 1, SliceThickness=1)
    for k, data in enumerate(few):
        data.ImagePositionPatient[2] = 100 + k
    apart = drawn_series(SHARP[::3], 3, SliceThickness=1)
    for k, data in enumerate(apart):
        data.ImagePositionPatient[2] = 100 + 12 * k
    write_slices(tmp_path, [*few, *apart, *drawn_series(series=2)])
    np.testing.assert_array_equal(read_volume(tmp_path)[0].array, drawn_hu())


def test_series_of_one_description_are_told_apart_by_what_differs(tmp_path):
    write_slices(tmp_path, drawn_series(series=1, SeriesDescription="CHEST", SeriesNumber=4, ConvolutionKernel="B30f"))
    write_slices(
        tmp_path, drawn_series(SHARP, 2, SeriesDescription="CHEST", SeriesNumber=4, ConvolutionKernel="B70f"), "B"
    )
    text = str(read_volume(tmp_path)[1].warnings[0])
    assert "kernel B30f" in text and "kernel B70f" in text
    for file in tmp_path.iterdir():
        file.unlink()
    for number in (1, 2):
        write_slices(tmp_path, drawn_series(series=number, SeriesDescription="CHEST", SeriesNumber=None), f"{number}")
    text = str(read_volume(tmp_path)[1].warnings[0])
    ends = [".".join(str(made_uid("series", number)).split(".")[-1:]) for number in (1, 2)]
    assert all(end in text for end in ends)
    assert read_volume(tmp_path, series=UID_2)[1].warnings == ()


def test_series_of_two_patients_are_refused_until_one_is_chosen(tmp_path):
    other = {"PatientID": "D-2", "PatientName": "Somebody^Else", "StudyInstanceUID": made_uid("other study")}
    write_slices(tmp_path, [*drawn_series(), *drawn_series(SHARP, 2, **other)])
    with pytest.raises(InputError, match="2 patients") as error:
        read_volume(tmp_path)
    assert error.value.code == "several_patients" and "Somebody" not in str(error.value)
    np.testing.assert_array_equal(read_volume(tmp_path, series="2")[0].array, SHARP)


def test_a_series_cannot_be_chosen_where_there_is_none(tmp_path):
    from LesionDecompLib.io.readers import write_image

    volume, _ = read_volume(write_slices(tmp_path / "d", drawn_series()))
    write_image(tmp_path / "ct.nrrd", volume.array, volume)
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / "ct.nrrd", series="2")
    assert error.value.code == "series_without_dicom"


def test_a_report_holds_no_uid_that_was_asked_for():
    assert recorded(None) is None and recorded("CHEST") == "CHEST" and recorded("3") == "3"
    assert "1.2.840" not in recorded("1.2.840.1") and recorded("1.2.840.1") != recorded("1.2.840.2")


def test_kernels_are_ordered_within_and_between_makers():
    for softer, sharper in (("B30f", "B70f"), ("STANDARD", "LUNG"), ("SOFT", "BONEPLUS"), ("FC08", "FC51"),
                            ("Br36d", "Bl57d"), ("A", "L"), ("I30f", "I70f"), ("FC18", "FC30")):  # fmt: skip
        assert sharpness(softer) < sharpness(sharper), (softer, sharper)
    assert sharpness("") == sharpness("who knows")
