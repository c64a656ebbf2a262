"""A DICOM SEG is valid, belongs to the study of its CT, and holds the very voxels of lungs.nrrd and lesions.nrrd."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from command_line import names, run_here, small_models, snapshot
from dicom_files import SECRET_ID, SECRET_NAME, copy_slice, series_files
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.dicom.seg import write_dicom_seg
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.definitions import measurement
from LesionDecompLib.measurement.statistics import read_statistics_csv
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.pipeline import Segmenter
from repository import CHEST

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed (pip install .[dicom])")
highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")

SLICES = slice(30, 42)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Twelve slices of a real series, stored in an order that is not the one they lie in, for a named patient."""
    folder = tmp_path_factory.mktemp("Müller") / "CT"
    folder.mkdir()
    for number, file in enumerate(series_files()[SLICES]):
        copy_slice(file, folder / f"{(number * 5) % 12:02d}.dcm")
    return folder


@pytest.fixture(scope="module")
def lung_mask(series, tmp_path_factory):
    """The lungs of these slices, as a file on their grid."""
    from LesionDecompLib.io.readers import write_image

    volume, _ = read_volume(series)
    whole, _ = read_volume(CHEST / "lungs.nrrd")
    z = round((volume.ijk_to_ras[2, 3] - whole.ijk_to_ras[2, 3]) / whole.ijk_to_ras[2, 2])
    file = tmp_path_factory.mktemp("mask") / "lungs.nrrd"
    write_image(file, (whole.array[z : z + 12] > 0).astype(np.uint8), volume)
    return file


@pytest.fixture(scope="module")
def segmented(series, lung_mask, models):
    """The volume and what the pipeline makes of it, the threshold set so that half of the lung is lesion."""
    volume, _ = read_volume(series)
    segmenter = Segmenter(models / "untrained-lesions", models / "untrained-lungs", device="cpu")
    result = segmenter.run(volume, lung_mask=read_mask(lung_mask, volume), threshold=0.5)
    half = float(np.median(result.heat[result.lungs > 0]))
    return volume, segmenter.run(volume, lung_mask=read_mask(lung_mask, volume), threshold=half)


def source_uids(folder) -> list[str]:
    """SOP instance UIDs of a folder's images, from the lowest slice up."""
    images = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.iterdir()]
    return [image.SOPInstanceUID for image in sorted(images, key=lambda i: float(i.ImagePositionPatient[2]))]


@pytest.mark.slow
def test_command_writes_what_the_labelmaps_hold_with_references_and_codes(
    series, lung_mask, segmented, models, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(bundles, "model_folders", lambda: [models])
    out, threshold = tmp_path / "out", segmented[1].threshold
    mask = ["--lung-mask", lung_mask, "--threshold", threshold]
    done = run_here(capsys, "segment", series, "-o", out, *mask, "--dicom-seg", "--quiet")
    assert done.status == 0, done.err
    lungs, lesions = (read_volume_labels(out / name) for name in ("lungs.nrrd", "lesions.nrrd"))
    assert 0 < np.count_nonzero(lesions[0]) < np.count_nonzero(lungs[0])

    seg = highdicom.seg.segread(out / "segmentation.dcm")
    labels = {seg.get_segment_description(n).segment_label: n for n in seg.segment_numbers}
    assert list(labels) == ["right lung", "left lung", "lesion"]
    stacked = seg.get_pixels_by_source_instance(
        source_uids(series), assert_missing_frames_are_empty=True, ignore_spatial_locations=False
    )
    for label, expected in (("right lung", lungs[0] == 1), ("left lung", lungs[0] == 2), ("lesion", lesions[0] != 0)):
        np.testing.assert_array_equal(stacked[..., labels[label] - 1], expected)

    # Its own geometry, without the series: the same place in the patient.
    lesion = [labels["lesion"]]
    volume = seg.get_volume(segment_numbers=lesion, combine_segments=True, allow_missing_positions=True)
    there = np.argwhere(volume.array != 0) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    k, j, i = np.nonzero(lesions[0])
    ras = np.stack([i, j, k], axis=-1) @ lesions[1][:3, :3].T + lesions[1][:3, 3]
    np.testing.assert_allclose(
        sorted_rows(there), sorted_rows(ras * (-1, -1, 1)), atol=0.02
    )  # positions are decimal text

    image = pydicom.dcmread(series / "00.dcm", stop_before_pixels=True)
    assert seg.StudyInstanceUID == image.StudyInstanceUID
    assert seg.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert seg.SeriesInstanceUID != image.SeriesInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced <= set(source_uids(series))
    assert (str(seg.PatientName), seg.PatientID) == (SECRET_NAME, SECRET_ID)
    for label, type_code, modifier in (("right lung", "39607008", "24028007"), ("left lung", "39607008", "7771000")):
        kind = seg.get_segment_description(labels[label]).SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodingSchemeDesignator, kind.CodeValue) == ("SCT", type_code)
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == modifier
    lesion = seg.get_segment_description(labels["lesion"])
    assert (lesion.segmented_property_category.value, lesion.segmented_property_type.value) == ("49755003", "52988006")
    assert lesion.anatomic_regions[0].value == "39607008"
    assert lesion.algorithm_type.value == "AUTOMATIC"
    # The lung mask was the user's, and the object states so.
    assert seg.get_segment_description(1).algorithm_type.value == "SEMIAUTOMATIC"
    # Each segment states its measurements, with their definitions, as the table has them.
    both = read_statistics_csv(out / "statistics.csv")[0].values
    for key in ("lesion_volume_ml", "involvement_percent"):
        measured = measurement(key)
        assert f"{measured.title} {measured.text(both[key])} {measured.unit} ({measured.definition[:-1]}" in (
            lesion.SegmentDescription
        )
    descriptions = [segment.SegmentDescription for segment in seg.SegmentSequence]
    assert all(text.isascii() and len(text) <= 1024 for text in descriptions) and len(set(descriptions)) == 3
    # Who the patient is stays in the one file that was asked to state it.
    for name in set(names(out)) - {"segmentation.dcm"}:
        assert b"Zyzzogeton" not in (out / name).read_bytes() and SECRET_ID.encode() not in (out / name).read_bytes()


def write(path, source, volume, result) -> list[str]:
    return write_dicom_seg(
        path,
        source,
        volume,
        result.lungs,
        result.lesions,
        lesion_algorithm=result.lesion_bundle,
        lung_algorithm=result.lung_bundle,
    )


def read_volume_labels(path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # noqa: N813
    from LesionDecompLib.io.nrrd import read_nrrd

    stored = read_nrrd(path, "test")
    np.testing.assert_array_equal(stored.array, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    return stored.array, stored.ijk_to_ras


def sorted_rows(points: np.ndarray) -> np.ndarray:
    return points[np.lexsort(np.round(points).T)]


def test_structures_without_a_voxel_are_left_out(segmented, series, tmp_path):
    volume, result = segmented
    result = replace(result, lesions=np.zeros_like(result.lesions))
    assert write(tmp_path / "seg.dcm", series, volume, result) == ["right lung", "left lung"]
    assert list(highdicom.seg.segread(tmp_path / "seg.dcm").segment_numbers) == [1, 2]
    result = replace(result, lungs=np.zeros_like(result.lungs))
    with pytest.raises(LesionDecompError, match="neither lung nor lesion"):
        write(tmp_path / "none.dcm", series, volume, result)
    assert names(tmp_path) == ["seg.dcm"]


def test_a_tilted_series_keeps_its_slices_places(segmented, series, lung_mask, tmp_path):
    """Slices shifted against each other, as by a gantry tilt: each frame lies where its image lies."""
    tilted = tmp_path / "tilted"
    tilted.mkdir()
    for number, file in enumerate(sorted(series.iterdir())):
        image = pydicom.dcmread(file)
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x, y + 0.3 * (z - 1000), z]
        image.save_as(tilted / f"{number}.dcm")
    volume, _ = read_volume(tilted)
    _, result = segmented
    write(tmp_path / "seg.dcm", tilted, volume, result)
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    stacked = seg.get_pixels_by_source_instance(source_uids(tilted), assert_missing_frames_are_empty=True)
    np.testing.assert_array_equal(stacked[..., 2], result.lesions != 0)
    images = [pydicom.dcmread(file) for file in tilted.iterdir()]
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        image = next(i for i in images if source == i.SOPInstanceUID)
        there = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.float64(there), np.float64(image.ImagePositionPatient), atol=1e-3)


def test_a_series_that_has_changed_meanwhile_or_lacks_its_study_is_refused(segmented, series, tmp_path):
    volume, result = segmented
    fewer, without = tmp_path / "fewer", tmp_path / "without"
    for folder in (fewer, without):
        folder.mkdir()
    for file in sorted(series.iterdir()):
        image = pydicom.dcmread(file)
        image.save_as(fewer / file.name)
        del image.StudyInstanceUID
        image.save_as(without / file.name)
    lowest = min(fewer.iterdir(), key=lambda file: float(pydicom.dcmread(file).ImagePositionPatient[2]))
    lowest.unlink()
    with pytest.raises(LesionDecompError, match="found 11 images in the series; expected the 12"):
        write(tmp_path / "seg.dcm", fewer, volume, result)
    with pytest.raises(LesionDecompError, match="no UID of its study"):
        write(tmp_path / "seg.dcm", without, volume, result)
    assert not (tmp_path / "seg.dcm").exists()


def test_an_input_that_is_not_dicom_and_a_missing_extra_are_reported_before_any_work(
    series, lung_mask, models, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(bundles, "model_folders", lambda: [models])
    before = snapshot(tmp_path)
    done = run_here(capsys, "segment", lung_mask, "-o", tmp_path / "out", "--dicom-seg")
    assert done.status == 1
    assert "found the input 'lungs.nrrd', which is not a DICOM series" in done.err
    monkeypatch.setitem(sys.modules, "highdicom", None)
    done = run_here(capsys, "segment", series, "-o", tmp_path / "out", "--dicom-seg")
    assert done.status == 1
    assert "pip install 'lesiondecomp[dicom]'" in done.err
    assert snapshot(tmp_path) == before
