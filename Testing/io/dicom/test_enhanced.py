"""Enhanced (multi-frame) CT reads like the single slices that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_objects import enhanced
from dicom_phantom import ORIGIN, SLICE_MM, drawn_hu, drawn_series, made_uid, write_slices
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.readers import read_volume
from pydicom.uid import RLELossless


def test_frames_are_slices_whatever_their_order(tmp_path):
    expected, _ = read_volume(write_slices(tmp_path / "single", drawn_series()))
    order = np.random.default_rng(5).permutation(len(drawn_hu()))
    folder = write_slices(tmp_path / "enhanced", [enhanced(drawn_hu(), order=order)])
    for source in (folder, next(folder.iterdir())):
        volume, info = read_volume(source)
        np.testing.assert_array_equal(volume.array, drawn_hu())
        np.testing.assert_allclose(volume.ijk_to_ras, expected.ijk_to_ras)
        assert not info.warnings
    assert info.dicom["kernel"] == "B30f" and info.dicom["files"] == 1
    assert info.dicom["slice_thickness_mm"] == SLICE_MM


def test_compressed_frames(tmp_path):
    data = enhanced(drawn_hu())
    write_slices(tmp_path / "plain", [data])
    data.compress(RLELossless)
    folder = write_slices(tmp_path / "packed", [data], syntax=RLELossless)
    np.testing.assert_array_equal(read_volume(folder)[0].array, drawn_hu())


def test_acquisitions_between_each_other_are_kept_apart(tmp_path):
    both = np.concatenate([drawn_hu(), drawn_hu(2)])
    acquisitions = [1] * len(drawn_hu()) + [2] * len(drawn_hu())
    folder = write_slices(tmp_path, [enhanced(both, acquisitions=acquisitions)])
    volume, info = read_volume(folder)
    np.testing.assert_array_equal(volume.array, drawn_hu())
    assert [warning.code for warning in info.warnings] == ["series_chosen"]
    np.testing.assert_array_equal(read_volume(folder, series="acquisition 2")[0].array, drawn_hu(2))


def test_beside_single_slices_the_rule_decides(tmp_path):
    folder = write_slices(tmp_path, [enhanced(drawn_hu(2), 2), *drawn_series()])
    assert read_volume(folder)[1].warnings[0].code == "series_chosen"
    np.testing.assert_array_equal(read_volume(folder, series="2")[0].array, drawn_hu(2))


def test_parts_of_one_image_in_several_files_are_one_volume(tmp_path):
    first, second = enhanced(drawn_hu()[:6]), enhanced(drawn_hu()[6:])
    for frame in second.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 6 * SLICE_MM
    second.SOPInstanceUID = made_uid("second")
    np.testing.assert_array_equal(read_volume(write_slices(tmp_path, [first, second]))[0].array, drawn_hu())


def test_more_frames_than_are_described_or_stored_are_refused(tmp_path):
    data = enhanced(drawn_hu())
    data.NumberOfFrames = 13
    with pytest.raises(InputError, match="damaged"):
        read_volume(write_slices(tmp_path / "described", [data]))
    data = enhanced(drawn_hu())
    data.PixelData = data.PixelData[:-200]
    with pytest.raises(InputError, match="damaged"):
        read_volume(write_slices(tmp_path / "stored", [data]))


def test_a_series_that_an_archive_has_converted(tmp_path):
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")
    write_slices(tmp_path / "single", drawn_series(PositionReferenceIndicator="", FrameOfReferenceUID="1.2.4"))
    from pydicom import dcmread

    images = [dcmread(file) for file in sorted((tmp_path / "single").iterdir())]
    for image in images:
        image.PatientOrientation = ["L", "P"]
        image.AcquisitionDateTime = "20240229081500"
    converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(images, made_uid("c"), 7, made_uid("c", 1), 1)
    converted.save_as(tmp_path / "converted.dcm")
    expected, _ = read_volume(tmp_path / "single")
    volume, _ = read_volume(tmp_path / "converted.dcm")
    np.testing.assert_array_equal(volume.array, drawn_hu())
    np.testing.assert_allclose(volume.ijk_to_ras, expected.ijk_to_ras)


def test_a_segmentation_of_an_enhanced_ct_refers_to_its_frames(tmp_path):
    pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")
    from written_seg import written

    order = np.random.default_rng(5).permutation(len(drawn_hu()))
    data = enhanced(drawn_hu(), order=order)
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    seg = written(write_slices(tmp_path / "ct", [data]), tmp_path / "seg.dcm")
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        k = order[source.ReferencedFrameNumber - 1]
        assert frame.PlanePositionSequence[0].ImagePositionPatient[2] == ORIGIN[2] + k * SLICE_MM
