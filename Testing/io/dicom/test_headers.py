"""Headers of DICOM images are reported as their files have them, and what holds no image is passed over."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest
from LesionDecompLib.io.dicom.images import read_header
from pydicom.data import get_testdata_file


def example(name: str) -> Path:
    """One of the files that pydicom brings along for tests."""
    return Path(get_testdata_file(name, download=False))


def test_fields_are_reported_as_the_file_has_them():
    found = read_header(example("CT_small.dcm"))
    assert found.size == (128, 128, 1)
    assert found.tags["position"] == "-158.135803\\-179.035797\\-75.699997"
    assert found.numbers("orientation") == (1, 0, 0, 0, 1, 0) and found.numbers("pixel_spacing") == (0.661468, 0.661468)
    assert (found.tags["samples"], found.tags["bits"], found.tags["modality"]) == ("1", "16", "CT")
    assert found.tags["sop_class"] == "1.2.840.10008.5.1.4.1.1.2" and found.tags["kernel"] == "STANDARD"
    assert found.is_placed and found.is_uncompressed and not found.is_localizer


@pytest.mark.parametrize(
    ("name", "size", "is_uncompressed"),
    [
        ("MR_small_bigendian.dcm", (64, 64, 1), True),
        ("MR_small_implicit.dcm", (64, 64, 1), True),
        ("MR_small_jpeg_ls_lossless.dcm", (64, 64, 1), False),
        ("rtdose.dcm", (10, 10, 15), True),
    ],
)
def test_whether_pixels_are_compressed_is_known_of_every_encoding(name, size, is_uncompressed):
    found = read_header(example(name))
    assert found.size == size and found.is_uncompressed == is_uncompressed


@pytest.mark.parametrize("name", ["rtplan.dcm", "reportsi.dcm"])
def test_objects_without_an_image_are_none(name):
    assert read_header(example(name)) is None


def test_a_field_that_is_no_number_is_no_number_and_no_warning_of_the_reader_is_shown(tmp_path, recwarn, capfd):
    data = pydicom.dcmread(example("CT_small.dcm"))
    data.add(pydicom.DataElement("SliceThickness", "DS", "5.0"))
    data.save_as(tmp_path / "good.dcm")
    text = (tmp_path / "good.dcm").read_bytes()
    at = text.index(b"\x18\0\x50\0DS") + 8
    (tmp_path / "bad.dcm").write_bytes(text[:at] + b"x.y " + text[at + 4 :])
    assert read_header(tmp_path / "good.dcm").numbers("thickness") == (5.0,)
    assert read_header(tmp_path / "bad.dcm").numbers("thickness") == ()
    assert not list(recwarn) and capfd.readouterr() == ("", "")
