"""Stored values become HU: by slope and intercept, whatever else the header states about them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_phantom import drawn_hu, drawn_series, write_slices
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.readers import read_volume
from pydicom import dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

CORNER = np.s_[:, :6, :6]


def read(folder) -> tuple[np.ndarray, list[str]]:
    volume, info = read_volume(folder)
    return volume.array, [warning.record()["code"] for warning in info.warnings]


def test_the_photometric_interpretation_does_not_matter(tmp_path):
    for kind in ("MONOCHROME1", "MONOCHROME2", "", "PALETTE COLOR"):
        array, warnings = read(write_slices(tmp_path / f"k{kind}", drawn_series(PhotometricInterpretation=kind)))
        np.testing.assert_array_equal(array, drawn_hu())
        assert not warnings


def padded(value: int, kind: type = np.uint16, offset: int = 1024) -> np.ndarray:
    stored = (drawn_hu().astype(np.int32) + offset).astype(kind)
    stored[CORNER] = value
    return stored


@pytest.mark.parametrize(
    ("stored", "elements"),
    [
        (padded(63536), {"PixelPaddingValue": 63536}),
        (padded(63536), {"PixelPaddingValue": 63536, "PixelPaddingRangeLimit": 65535}),
        (padded(65000), {"PixelPaddingValue": 63536, "PixelPaddingRangeLimit": 65535}),
        (padded(4095), {"PixelPaddingValue": 4095, "BitsStored": 12, "HighBit": 11}),
        (padded(63536), {"PixelPaddingValue": 63536, "BitsStored": 12, "HighBit": 11}),
        (padded(0, np.int16, 0), {"PixelPaddingValue": 0, "RescaleIntercept": 0}),
        (padded(32767, np.int16, 0), {"PixelPaddingValue": 32767, "RescaleIntercept": 0}),
    ],
)
def test_padding_outside_the_patient_is_air(tmp_path, stored, elements):
    array, _ = read(write_slices(tmp_path, drawn_series(stored, **{"RescaleIntercept": -1024, **elements})))
    expected = drawn_hu()
    expected[CORNER] = -1024
    elsewhere = (drawn_hu() == 0) & (elements["PixelPaddingValue"] == 0)
    np.testing.assert_array_equal(array[~elsewhere], expected[~elsewhere])
    np.testing.assert_array_equal(array[CORNER], expected[CORNER])


def test_padding_that_is_air_already_stays(tmp_path):
    for value in (-2000, -3024):
        stored = drawn_hu()
        stored[CORNER] = value
        array, _ = read(write_slices(tmp_path / str(value), drawn_series(stored, PixelPaddingValue=value)))
        np.testing.assert_array_equal(array, stored)


def test_padding_stated_with_the_other_sign(tmp_path):
    """63536 is -2000 as an unsigned number: headers hold either for the same word."""
    stored = drawn_hu()
    stored[CORNER] = -2000
    folder = write_slices(tmp_path / "a", drawn_series(stored, PixelPaddingValue=-2000, RescaleIntercept=1500))
    for file in folder.iterdir():
        data = file.read_bytes()
        assert b"\x28\x00\x20\x01SS" in data
        file.write_bytes(data.replace(b"\x28\x00\x20\x01SS", b"\x28\x00\x20\x01US"))
    np.testing.assert_array_equal(read(folder)[0][CORNER], -1024)


def test_a_padding_value_that_the_patient_has_too_is_left_where_it_was_measured(tmp_path):
    stored = drawn_hu()
    stored[:, 15:25, 12:24] = 40  # in the body
    stored[CORNER] = 40
    array, warnings = read(write_slices(tmp_path, drawn_series(stored, PixelPaddingValue=40)))
    assert (array[:, 15:25, 12:24] == 40).all() and (array[CORNER] == -1024).all()
    assert warnings == ["padding_in_body"]


def test_slope_and_intercept_with_decimal_commas_and_without(tmp_path):
    stored = ((drawn_hu().astype(np.int32) + 1024) * 2).astype(np.uint16)
    series = drawn_series(stored, RescaleSlope="0.50", RescaleIntercept="-1024.0")
    folder = write_slices(tmp_path, series)
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes().replace(b"0.50", b"0,50").replace(b"-1024.0", b"-1024,0"))
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())


def test_scaling_that_a_header_lacks_or_that_differs_is_reported(tmp_path):
    assert read(write_slices(tmp_path / "none", drawn_series(RescaleSlope=None)))[1] == ["no_rescale_slope"]
    assert read(write_slices(tmp_path / "zero", drawn_series(RescaleSlope=0)))[1] == ["no_rescale_slope"]
    some = drawn_series()
    del some[4].RescaleSlope
    assert read(write_slices(tmp_path / "some", some))[1] == ["no_rescale_slope"]
    some = drawn_series()
    some[4].RescaleIntercept = -1024
    assert read(write_slices(tmp_path / "other", some))[1] == ["rescale_differs"]


def test_overlays_above_the_bits_stored_are_no_hu(tmp_path):
    stored = (drawn_hu().astype(np.int32) + 1024).astype(np.uint16)
    elements = {"RescaleIntercept": -1024, "BitsStored": 12, "HighBit": 11}
    with_overlay = stored.copy()
    with_overlay[:, 10:12] |= 0x4000
    np.testing.assert_array_equal(read(write_slices(tmp_path, drawn_series(with_overlay, **elements)))[0], drawn_hu())


TWELVE = {"BitsStored": 12, "HighBit": 11}


def test_a_sign_that_is_not_extended_beyond_the_bits_stored_is_a_sign(tmp_path):
    stored = (drawn_hu() & 0xFFF).astype(np.int16)
    folder = write_slices(tmp_path, drawn_series(stored, **TWELVE))
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())
    np.testing.assert_array_equal(pixel_array(folder / "IM001.dcm"), drawn_hu()[0])
    extended = write_slices(tmp_path / "extended", drawn_series(**TWELVE))
    np.testing.assert_array_equal(read(extended)[0], drawn_hu())


@pytest.mark.parametrize("pixel", [-2000, -2000 & 0xFFF])
@pytest.mark.parametrize("stated", [-2000, -2000 & 0xFFF])
def test_padding_with_and_without_an_extended_sign(tmp_path, pixel, stated):
    values = drawn_hu()
    values = values if pixel < 0 else (values & 0xFFF).astype(np.int16)
    values[CORNER] = pixel
    series = drawn_series(values, PixelPaddingValue=stated, RescaleIntercept=1500, **TWELVE)
    array, warnings = read(write_slices(tmp_path, series))
    assert (array[CORNER] == -1024).all() and not warnings
    np.testing.assert_array_equal(array[:, 15:25, 12:24], drawn_hu()[:, 15:25, 12:24] + 1500)


def test_padding_beyond_the_bits_stored_is_no_tissue(tmp_path):
    values = drawn_hu()
    values[CORNER] = -32768  # 0 in the lower twelve bits
    array, _ = read(write_slices(tmp_path, drawn_series(values, PixelPaddingValue=-32768, **TWELVE)))
    assert (array[CORNER] <= -1024).all()
    inside = np.ones(array.shape, bool)
    inside[CORNER] = False
    np.testing.assert_array_equal(array[inside], drawn_hu()[inside])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_plain_encoding(tmp_path, syntax):
    hu = drawn_hu().astype(">i2") if syntax == ExplicitVRBigEndian else drawn_hu()
    series = drawn_series(drawn_hu(), PixelPaddingValue=-2000)
    for data, plane in zip(series, hu, strict=True):
        data.PixelData = plane.tobytes()
        data["PixelData"].VR = "OW"
    array, warnings = read(write_slices(tmp_path, series, syntax=syntax))
    np.testing.assert_array_equal(array, drawn_hu())
    assert not warnings


def rewritten_by_gdcm(folder, compressor: str):
    for file in folder.iterdir():
        image = sitk.ReadImage(str(file))
        writer = sitk.ImageFileWriter()
        writer.SetUseCompression(True)
        writer.KeepOriginalImageUIDOn()
        writer.SetCompressor(compressor)
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        for key in reader.GetMetaDataKeys():
            image.SetMetaData(key, reader.GetMetaData(key))
        writer.SetFileName(str(file))
        writer.Execute(image)
    return folder


@pytest.mark.parametrize("compressor", ["JPEGLS", "JPEG2000"])
def test_compressed_pixels_are_unpacked_without_their_header_s_other_elements(tmp_path, compressor):
    folder = rewritten_by_gdcm(write_slices(tmp_path, drawn_series()), compressor)
    assert dcmread(next(folder.iterdir())).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())
    for file in folder.iterdir():
        data = dcmread(file)
        data.PhotometricInterpretation, data.SpacingBetweenSlices = "MONOCHROME1", 0
        data.save_as(file)
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())


def test_run_length_encoding(tmp_path):
    series = drawn_series((drawn_hu() + 1024).astype(np.uint16), RescaleIntercept=-1024)
    folder = write_slices(tmp_path, series)
    for file in folder.iterdir():
        data = dcmread(file)
        data.compress(RLELossless)
        data.save_as(file)
    np.testing.assert_array_equal(read(folder)[0], drawn_hu())


@pytest.mark.parametrize(
    ("syntax", "words"),
    [
        ("1.3.46.670589.33.1.4.1", "the private transfer syntax 1.3.46.670589.33.1.4.1"),
        ("1.2.840.113619.5.2", "the private transfer syntax 1.2.840.113619.5.2"),
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"),
        ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.100"),
    ],
)
def test_a_transfer_syntax_that_cannot_be_read_is_named(tmp_path, syntax, words):
    folder = write_slices(tmp_path, drawn_series())
    old, new = b"1.2.840.10008.1.2.1\0", syntax.encode() + b"\0" * (len(syntax) % 2)
    for file in folder.iterdir():
        data = file.read_bytes()
        element = b"\x02\x00\x10\x00UI"
        assert element + b"\x14\x00" + old in data
        file.write_bytes(data.replace(element + b"\x14\x00" + old, element + bytes([len(new), 0]) + new))
    with pytest.raises(InputError, match=words) as error:
        read_volume(folder)
    assert error.value.code == "transfer_syntax" and "damaged" not in str(error.value)
