"""DICOM SEG and RTSTRUCT as labelmaps: what was written is what is read, plane by plane and name by name."""

from __future__ import annotations

import numpy as np
import pytest
from dicom_objects import box, masks, write_rtstruct, write_seg
from dicom_phantom import COLUMNS, SLICES, drawn_series, write_slices
from LesionDecompLib.errors import InputError
from LesionDecompLib.io.dicom.labels import label_object
from LesionDecompLib.io.dicom.rtstruct import read_rtstruct
from LesionDecompLib.io.dicom.seg_labels import read_dicom_seg
from LesionDecompLib.io.masks import read_labels, read_lungs, read_mask
from LesionDecompLib.io.readers import read_volume
from pydicom import dcmread
from pydicom.uid import RLELossless

pytest.importorskip("highdicom", reason="highdicom is not installed (pip install .[dicom])")


@pytest.fixture
def ct(tmp_path):
    return read_volume(write_slices(tmp_path / "ct", drawn_series()))[0]


NAMES = ["right", "left", "spot"]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_a_segmentation_of_each_kind_reads_as_it_was(ct, tmp_path, kind):
    path = write_seg(tmp_path / "seg.dcm", masks(), NAMES, kind)
    assert label_object(path) == "SEG"
    read = read_dicom_seg(path)
    assert read.names == {1: "right (Lung)", 2: "left (Lung)", 3: "spot (Lung)"}
    assert not read.warnings and read.array.dtype == np.uint8
    expected = masks()[2:10]  # planes without a voxel at the ends are left out
    np.testing.assert_array_equal(read.array, expected)
    corner = ct.ijk_to_ras @ [0, 0, 2, 1]
    np.testing.assert_allclose(read.ijk_to_ras[:3, 3], corner[:3], atol=1e-6)
    np.testing.assert_allclose(read.ijk_to_ras[:3, :3], ct.ijk_to_ras[:3, :3], atol=1e-6)


@pytest.mark.parametrize("kind", ["FRACTIONAL", "LABELMAP"])
def test_compressed_pixels_are_unpacked(ct, tmp_path, kind):
    path = write_seg(tmp_path / "seg.dcm", masks(), NAMES, kind, transfer_syntax_uid=RLELossless)
    np.testing.assert_array_equal(read_dicom_seg(path).array, masks()[2:10])


def test_where_segments_overlap_the_first_one_stays_and_others_can_be_chosen(ct, tmp_path):
    labels = masks()
    stack = np.stack([labels == 1, labels >= 2, labels == 3], axis=-1).astype(np.uint8)
    path = write_seg(tmp_path / "seg.dcm", stack, NAMES)
    both = read_dicom_seg(path)
    np.testing.assert_array_equal(both.array == 2, (labels >= 2)[2:10])
    assert [warning.record()["code"] for warning in both.warnings] == ["structures_overlap"]
    assert both.warnings[0].value == np.count_nonzero(labels == 3)
    spot = read_dicom_seg(path, [3])
    assert set(np.unique(spot.array)) == {0, 3} and not spot.warnings
    assert np.count_nonzero(spot.array) == np.count_nonzero(labels == 3)


def test_what_is_no_segmentation_is_refused(ct, tmp_path):
    path = write_seg(tmp_path / "seg.dcm", masks(), NAMES)
    data = path.read_bytes()
    for cut in (300, len(data) // 2, len(data) - 400):
        (tmp_path / "cut.dcm").write_bytes(data[:cut])
        with pytest.raises(InputError):
            read_dicom_seg(tmp_path / "cut.dcm")
    assert label_object(next((tmp_path / "ct").iterdir())) is None
    with pytest.raises(InputError):
        read_dicom_seg(next((tmp_path / "ct").iterdir()))


def test_contours_fill_the_pixels_whose_centers_they_hold(ct, tmp_path):
    lung = [box(k, (8, 30), (4, 15)) for k in range(2, 6)] + [box(3, (12, 16), (6, 9))]  # a hole in one slice
    path = write_rtstruct(tmp_path / "rt.dcm", {"Lung_R": lung, "Heart": [box(4, (10, 20), (18, 25))], "none": []})
    assert label_object(path) == "RTSTRUCT"
    read = read_rtstruct(path, ct.shape, ct.ijk_to_ras)
    expected = np.zeros(ct.shape, np.uint8)
    expected[2:6, 8:30, 4:15] = 1
    expected[3, 12:16, 6:9] = 0
    expected[4, 10:20, 18:25] = 2
    np.testing.assert_array_equal(read.array, expected)
    assert read.names == {1: "Lung_R", 2: "Heart", 3: "none"} and not read.warnings
    np.testing.assert_array_equal(
        read_rtstruct(path, ct.shape, ct.ijk_to_ras, [2]).array, np.where(expected == 2, 2, 0)
    )


def test_contours_on_a_turned_grid_lie_where_they_belong(ct, tmp_path):
    path = write_rtstruct(tmp_path / "rt.dcm", {"a": [box(k, (8, 30), (4, 15)) for k in range(2, 6)]})
    flipped = ct.ijk_to_ras @ np.array([[-1, 0, 0, COLUMNS - 1], [0, 1, 0, 0], [0, 0, -1, SLICES - 1], [0, 0, 0, 1.0]])
    straight = read_rtstruct(path, ct.shape, ct.ijk_to_ras)
    turned = read_rtstruct(path, ct.shape, flipped)
    np.testing.assert_array_equal(turned.array[::-1, :, ::-1], straight.array)


def test_structures_named_in_chinese_are_known(ct, tmp_path):
    """GB 2312 in ISO 2022, which designates it with an escape sequence; pydicom writes none."""
    lungs = {"right": "右肺", "left": "左肺"}
    held = {side: side.ljust(4 + len(name.encode("gb2312")), "N") for side, name in lungs.items()}
    contours = {
        held[side]: [box(k, (8, 30), x) for k in (3, 4)] for side, x in (("right", (4, 12)), ("left", (15, 25)))
    }
    path = write_rtstruct(tmp_path / "rt.dcm", contours)
    data = dcmread(path, force=True)
    data.SpecificCharacterSet = ["", "ISO 2022 IR 58"]
    data.save_as(path)
    stored = path.read_bytes()
    for side, name in lungs.items():
        stored = stored.replace(held[side].encode(), b"\x1b$)A" + name.encode("gb2312"))
    path.write_bytes(stored)
    assert list(read_rtstruct(path, ct.shape, ct.ijk_to_ras).names.values()) == list(lungs.values())
    assert set(np.unique(read_mask(path, ct))) == {0, 1, 2}


def test_of_contours_on_thinner_slices_than_the_ct_s_the_nearest_plane_is_taken(ct, tmp_path):
    levels = np.arange(2, 6.01, 0.5)
    polygons = [box(float(k), (8, 30 - (k % 1 > 0)), (4, 15)) for k in levels]  # a row less between the CT's slices
    hole = box(3.001, (12, 16), (6, 9))  # in the same plane, but for a hundredth of a millimeter
    read = read_rtstruct(write_rtstruct(tmp_path / "rt.dcm", {"a": [*polygons, hole]}), ct.shape, ct.ijk_to_ras)
    expected = np.zeros(ct.shape, np.uint8)
    expected[2:7, 8:30, 4:15] = 1
    expected[3, 12:16, 6:9] = 0
    np.testing.assert_array_equal(read.array, expected)
    assert not read.warnings and read.beyond == 0


def test_contours_between_the_ct_s_slices_are_all_used_once(ct, tmp_path):
    polygons = [box(k + part, (8, 30), (4, 15)) for k in range(2, 6) for part in (-0.25, 0.25)]
    read = read_rtstruct(write_rtstruct(tmp_path / "rt.dcm", {"a": polygons}), ct.shape, ct.ijk_to_ras)
    assert np.count_nonzero(read.array) == 4 * 22 * 11


def test_contours_beyond_the_ct_are_reported_by_their_area(ct, tmp_path):
    within = [box(k, (8, 30), (4, 15)) for k in (SLICES - 2, SLICES - 1)]
    above = [box(k, (8, 30), (4, 15)) for k in (SLICES, SLICES + 1)]
    labels = read_labels(write_rtstruct(tmp_path / "rt.dcm", {"a": within + above}), ct)
    assert np.count_nonzero(labels.array) == 2 * 22 * 11
    (warning,) = labels.warnings
    assert warning.code == "mask_beyond_ct" and warning.value == pytest.approx(0.5)
    beside = box(3, (8, 30), (COLUMNS - 10, COLUMNS + 15))
    (warning,) = read_labels(write_rtstruct(tmp_path / "rt.dcm", {"a": [beside]}), ct).warnings
    assert warning.code == "mask_beyond_ct" and warning.value == pytest.approx(14.5 / 25, abs=1e-4)
    edge = box(3, (0, 30), (COLUMNS - 10, COLUMNS))  # the edges of the outermost pixels
    assert not read_labels(write_rtstruct(tmp_path / "rt.dcm", {"a": [edge]}), ct).warnings
    for polygons in (above, [box(3, (8, 30), (COLUMNS + 5, COLUMNS + 15))]):
        with pytest.raises(InputError, match="a mask that lies beside the CT") as error:
            read_labels(write_rtstruct(tmp_path / "rt.dcm", {"a": polygons}), ct)
        assert error.value.code == "mask_beside_ct"


def test_contours_missing_between_others_are_reported(ct, tmp_path):
    path = write_rtstruct(tmp_path / "rt.dcm", {"a": [box(k, (8, 30), (4, 15)) for k in (2, 4, 6)]})
    (warning,) = read_rtstruct(path, ct.shape, ct.ijk_to_ras).warnings
    assert warning.code == "contours_missing" and warning.value == 2


def test_contours_across_slices_and_structures_numbered_from_0(ct, tmp_path):
    sagittal = [(0.0, -20.0, 110.0), (0.0, 10.0, 110.0), (0.0, 10.0, 130.0), (0.0, -20.0, 130.0)]
    path = write_rtstruct(tmp_path / "rt.dcm", {"a": [sagittal]})
    with pytest.raises(InputError) as error:
        read_rtstruct(path, ct.shape, ct.ijk_to_ras)
    assert error.value.code == "contours_across_slices"
    path = write_rtstruct(tmp_path / "rt.dcm", {"a": [box(3, (8, 30), (4, 15))], "b": []}, first=0)
    assert read_rtstruct(path, ct.shape, ct.ijk_to_ras).names == {1: "a", 2: "b"}
    empty = write_rtstruct(tmp_path / "rt.dcm", {})
    with pytest.raises(InputError) as error:
        read_rtstruct(empty, ct.shape, ct.ijk_to_ras)
    assert error.value.code == "no_structures"


def test_a_segmentation_and_contours_serve_as_lung_mask(ct, tmp_path):
    """Lungs by their names, lesions in them taking nothing; a whole plane of the CT's grid is put into place."""
    labels = masks()
    stack = np.stack([labels == 3, labels == 1, labels >= 2], axis=-1).astype(np.uint8)
    kinds = (("52988006", "Lesion"), ("39607008", "Lung"), ("39607008", "Lung"))
    path = tmp_path / "seg" / "seg.dcm"
    path.parent.mkdir()
    write_seg(path, stack, ["lesion", "right lung", "left lung"], kinds=kinds)
    expected = np.where(labels == 1, 1, np.where(labels >= 2, 2, 0))
    for place in (path, path.parent):
        mask = read_lungs(place, ct)
        np.testing.assert_array_equal(mask.array, expected)
        assert mask.warnings == ()
    regions = read_labels(path, ct)
    np.testing.assert_array_equal(regions.array == 1, labels == 3)
    lung = [box(k, (8, 30), (4, 15)) for k in range(2, 6)]
    contours = write_rtstruct(tmp_path / "rt.dcm", {"Heart": [box(4, (8, 30), (4, 25))], "Lung_R": lung})
    inside = np.zeros(ct.shape, bool)
    inside[2:6, 8:30, 4:15] = True
    np.testing.assert_array_equal(read_lungs(contours, ct).array == 1, inside)
    with pytest.raises(InputError, match="called lung") as error:
        read_lungs(write_rtstruct(tmp_path / "heart.dcm", {"Heart": [box(4, (10, 20), (18, 25))]}), ct)
    assert error.value.code == "mask_without_lung"


def test_a_length_beyond_the_end_asks_for_no_memory(tmp_path):
    from LesionDecompLib.io.dicom.lengths import mapped

    (tmp_path / "short").write_bytes(b"short")
    with mapped(tmp_path / "short") as file:
        assert file.read(1 << 40) == b"short"  # a stream of the system would raise MemoryError
