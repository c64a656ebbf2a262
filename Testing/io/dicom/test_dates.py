"""When a series was acquired, by the first of its date fields that reads."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from dicom_files import copy_slice, series_files
from dicom_phantom import drawn_series, write_slices
from LesionDecompLib.io.dicom.dates import acquisition_date

ACQUIRED, OF_SERIES, OF_STUDY, CONTENT = "g0008e0022", "g0008e0021", "g0008e0020", "g0008e0023"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({ACQUIRED: "20310502", OF_STUDY: "20310401"}, date(2031, 5, 2)),
        ({ACQUIRED: "", OF_SERIES: "20310503"}, date(2031, 5, 3)),
        ({ACQUIRED: "2031.05.04"}, date(2031, 5, 4)),
        ({ACQUIRED: "20319999", OF_SERIES: "", OF_STUDY: "20310401"}, date(2031, 4, 1)),
    ],
)
def test_first_date_that_reads_counts(tmp_path, fields, expected):
    empty = dict.fromkeys((ACQUIRED, OF_SERIES, OF_STUDY, CONTENT), "")
    for path in series_files()[30:36]:
        copy_slice(path, tmp_path / path.name, **{**empty, **fields})
    assert acquisition_date(tmp_path) == expected


def test_date_of_a_chosen_series_also_in_an_archive(tmp_path):
    for number, day in ((1, "20310502"), (2, "20310817")):
        write_slices(tmp_path / "studies", drawn_series(series=number, AcquisitionDate=day), f"S{number}-")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "studies")
    for source in (tmp_path / "studies", Path(packed)):
        assert acquisition_date(source, "1") == date(2031, 5, 2)
        assert acquisition_date(source, "2") == date(2031, 8, 17)
    (tmp_path / "cut.zip").write_bytes(Path(packed).read_bytes()[:1000])
    assert acquisition_date(tmp_path / "cut.zip") is None


def test_what_is_no_series_has_no_date(tmp_path):
    assert acquisition_date(tmp_path) is None
