"""When a series was acquired, by the first of its date fields that reads."""

from __future__ import annotations

from datetime import date

import pytest
from dicom_files import copy_slice, series_files
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


def test_what_is_no_series_has_no_date(tmp_path):
    assert acquisition_date(tmp_path) is None
