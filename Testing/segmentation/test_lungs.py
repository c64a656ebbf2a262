"""Lungs: found with the disease in them, distinguished by the patient's side, on the scan's own grid."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from LesionDecompLib.ct.plausibility import lung_warnings
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, InputError
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.segmentation.body_field import FieldOfView, body_center, body_extent, scale_window
from LesionDecompLib.segmentation.lungs.air import airway_in_lungs, dark_lung
from LesionDecompLib.segmentation.lungs.cleanup import clean_lungs, fill_holes
from LesionDecompLib.segmentation.lungs.edges import MirroredEdges, cuts_lung
from LesionDecompLib.segmentation.lungs.segment import LEFT, RIGHT, segment_lungs, split_right_left
from repository import CHEST

RAS = np.diag([-2.0, -2.0, 3.0, 1.0])  # columns go to the left, rows to the back, slices up


@pytest.fixture(scope="module")
def lung_bundle():
    return find_bundle(None, "lungs")


@pytest.fixture(scope="module")
def segment(lung_bundle):
    """Segment the lungs of a volume with the shipped network; returns labels and warnings."""
    network = lung_bundle.network("cpu")

    def run(volume: Volume, **options):
        return segment_lungs(volume, network, lung_bundle, **options)

    return run


@pytest.fixture(scope="module")
def sick_chest(data_folder) -> tuple[Volume, np.ndarray]:
    """Every third slice of a chest with consolidation at the back of the right lung, and its lungs."""
    folder = data_folder / "covid3d_medseg"
    volume, mask = _read(folder / "case2_ct.nii.gz", folder / "case2_lung.nii.gz")
    matrix = volume.ijk_to_ras @ np.diag([1.0, 1.0, 3.0, 1.0])
    return Volume.from_array(np.ascontiguousarray(volume.array[2::3]), matrix), mask[2::3]


def _read(ct: Path, mask: Path) -> tuple[Volume, np.ndarray]:
    volume, _ = read_volume(ct)
    return volume, read_mask(mask, volume) > 0


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def _ellipsoid(shape, center, radii) -> np.ndarray:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, center, radii, strict=True)) <= 1


def _two_lungs() -> tuple[np.ndarray, np.ndarray]:
    shape = (60, 110, 150)
    return _ellipsoid(shape, (30, 55, 42), (26, 40, 30)), _ellipsoid(shape, (30, 55, 108), (26, 40, 27))


def _phantom(kind: str) -> Volume:
    array = np.full((20, 100, 120), -1000, dtype=np.int16)
    if kind != "air":
        array[_ellipsoid(array.shape, (10, 50, 60), (99, 40, 50))] = 30
    if kind == "head":  # a skull with sinuses
        shell = _ellipsoid(array.shape, (10, 50, 60), (99, 38, 48)) & ~_ellipsoid(
            array.shape, (10, 50, 60), (99, 33, 43)
        )
        array[shell] = 900
        array[_ellipsoid(array.shape, (10, 25, 60), (8, 6, 12))] = -1000
    return Volume.from_array(array, RAS)


# --- right and left -------------------------------------------------------------------------------------------------


def test_the_right_lung_is_the_one_at_the_patients_right():
    right, left = _two_lungs()
    labels = split_right_left(right | left, (3.0, 2.0, 2.0))
    assert labels.dtype == np.uint8
    assert (labels[right] == RIGHT).all()
    assert (labels[left] == LEFT).all()
    assert not labels[~(right | left)].any()


@pytest.mark.slow
def test_lungs_that_touch_are_separated():
    right, left = _two_lungs()
    bridge = np.zeros_like(right)
    bridge[28:36, 40:52, 60:95] = True
    labels = split_right_left(right | left | bridge, (3.0, 2.0, 2.0))
    assert np.mean(labels[right] == RIGHT) > 0.995
    assert np.mean(labels[left] == LEFT) > 0.995
    assert labels[bridge].all()


def test_air_beside_the_patient_does_not_make_both_lungs_left():
    """A wide gap parts what was taken for lung beside the patient from the right lung; the network knows its side."""
    mask, truth = np.zeros((3, 60, 150), dtype=bool), np.zeros((3, 60, 150), dtype=np.uint8)
    mask[:, 20:40, 0:8] = True
    truth[:, 10:50, 60:80], truth[:, 10:50, 100:125] = RIGHT, LEFT
    mask |= truth > 0
    evidence = np.where(truth == LEFT, 0.6, np.where(truth == RIGHT, -0.6, 0.1)).astype(np.float32)
    lungs = clean_lungs(mask.astype(np.float32), evidence, (3.0, 2.0, 2.0))
    labels = np.where(mask, np.where(lungs.side > 0, LEFT, RIGHT), 0)
    np.testing.assert_array_equal(labels[truth > 0], truth[truth > 0])
    assert (split_right_left(mask, (3.0, 2.0, 2.0))[truth == RIGHT] == LEFT).all()  # by the shape alone


@pytest.mark.slow
def test_a_lung_cut_in_two_by_disease_stays_one_lung():
    right, left = _two_lungs()
    right[26:34] = False
    labels = split_right_left(right | left, (3.0, 2.0, 2.0))
    assert (labels[right] == RIGHT).all()
    assert (labels[left] == LEFT).all()


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_single_lung_is_named_by_its_side_of_the_body(side):
    lung = _two_lungs()[side - 1]
    labels = split_right_left(lung, (3.0, 2.0, 2.0))
    assert (labels[lung] == side).all()


def test_an_empty_mask_has_no_lungs():
    assert not split_right_left(np.zeros((4, 5, 6), dtype=bool), (1.0, 1.0, 1.0)).any()


def test_a_fine_mask_is_split_like_a_coarse_one():
    right, left = (lung[20:40].repeat(3, axis=0).repeat(2, axis=1).repeat(2, axis=2) for lung in _two_lungs())
    labels = split_right_left(right | left, (1.0, 1.0, 1.0))
    assert (labels[right] == RIGHT).all()
    assert (labels[left] == LEFT).all()


# --- clean-up -------------------------------------------------------------------------------------------------------


def test_vessels_are_filled_and_the_diaphragm_is_not():
    lung = _two_lungs()[0]
    vessel = np.zeros_like(lung)
    vessel[30:33, 50:56, 40:46] = True
    dome = _ellipsoid(lung.shape, (0, 55, 42), (24, 20, 16))
    filled = fill_holes(lung & ~vessel & ~dome, (3.0, 2.0, 2.0))
    assert filled[vessel].all()
    wide = dome & lung
    wide[:4] = False  # the lung's own tip below is thinner than the dome
    assert np.mean(filled[wide]) < 0.1


def test_crumbs_are_dropped_and_both_lungs_kept():
    right, left = _two_lungs()
    crumb = np.zeros_like(right)
    crumb[2:5, 4:9, 70:75] = True
    probability = (right | left | crumb).astype(np.float32) * 0.9
    lungs = clean_lungs(probability, np.zeros_like(probability), (3.0, 2.0, 2.0))
    found = lungs.probability >= 0.5
    assert not found[crumb].any()
    assert found[right | left].all()
    assert (lungs.side[right] < 0).all()
    assert (lungs.side[left] > 0).all()
    assert lungs.volume_ml == pytest.approx(np.count_nonzero(right | left) * 0.012)


@pytest.mark.parametrize(("slices_between", "kept"), [(8, True), (16, False)])
def test_large_pieces_far_below_the_lungs_are_bowel(slices_between, kept):
    """Two loops of bowel, each a sixth of the lungs, 24 or 48 mm below them; a crumb on the way is no bridge."""
    right, left = _two_lungs()
    lungs = (right | left)[np.flatnonzero((right | left).any(axis=(1, 2)))[0] :]
    probability = np.concatenate([np.zeros((40, *lungs.shape[1:]), bool), lungs]).astype(np.float32)
    bowel = np.zeros(probability.shape, dtype=bool)
    end = 40 - slices_between
    bowel[end - 20 : end, 30:80, 30:70] = bowel[end - 20 : end, 30:80, 80:120] = True
    assert 0.5 * bowel.sum() > 0.12 * (lungs.sum() + bowel.sum())
    probability[bowel] = 1.0
    probability[end + slices_between // 2, 60:62, 60:62] = 1.0
    cleaned = clean_lungs(probability, np.zeros_like(probability), (3.0, 2.0, 2.0)).probability >= 0.5
    assert cleaned[40:][lungs].all()
    assert cleaned[bowel].all() if kept else not cleaned[:40].any()


def _aerated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two lungs of -820 HU with a trachea that reaches into the right one; HU, lungs, trachea."""
    right, left = _two_lungs()
    hu = np.full(right.shape, 40, dtype=np.int16)
    hu[right | left] = -820
    trachea = np.zeros_like(right)
    trachea[25:60, 51:58, 72:79] = True
    trachea[25:30, 51:58, 66:79] = True
    hu[trachea] = -1000
    return hu, right | left, trachea


def test_the_airway_is_not_lung():
    hu, lungs, trachea = _aerated()
    columns = np.arange(trachea.shape[2])
    found = (lungs & ~trachea) | (trachea & (columns >= 70) & (columns < 74))  # the network took a part of it
    taken = airway_in_lungs(found, hu, (3.0, 2.0, 2.0))
    np.testing.assert_array_equal(taken, found & trachea)


def test_lungs_as_dark_as_air_keep_what_the_network_found():
    hu, lungs, trachea = _aerated()
    hu[lungs] = -960
    assert not airway_in_lungs(lungs | trachea, hu, (3.0, 2.0, 2.0)).any()


def test_dark_lung_is_lung_and_bowel_gas_is_not():
    hu, lungs, _ = _aerated()
    hu[lungs] = -940
    gas = _ellipsoid(hu.shape, (30, 98, 75), (10, 9, 9)) & ~lungs
    hu[gas] = -1000
    hole = lungs & _ellipsoid(hu.shape, (30, 55, 42), (12, 16, 14))
    added = dark_lung(lungs & ~hole, hu, (3.0, 2.0, 2.0))
    assert np.mean(added[hole]) > 0.9
    assert not added[~lungs].any()


def test_a_bulla_between_lung_and_chest_wall_is_lung():
    hu, lungs, trachea = _aerated()
    bulla = lungs & _ellipsoid(hu.shape, (30, 30, 42), (10, 22, 14))
    hu[bulla] = -980
    added = dark_lung(lungs & ~bulla, hu, (3.0, 2.0, 2.0))
    assert np.mean(added[bulla]) > 0.8
    assert not added[trachea].any()


def test_warnings_name_what_is_implausible():
    sections = np.full((100, 2), 130.0)
    sections[[0, -1]] = 0
    assert lung_warnings(sections, 2.0) == []
    assert "900 mL" not in " ".join(lung_warnings(sections, 2.0))
    assert any("mL is usual" in text for text in lung_warnings(sections / 10, 2.0))
    assert any("% of both" in text for text in lung_warnings(sections * (1.0, 0.2), 2.0))
    assert lung_warnings(sections * (1.0, 0.0), 2.0)[-1] == "No left lung was found."
    cut = " ".join(lung_warnings(sections[1:], 2.0))
    assert "lowest slice" in cut
    assert "highest slice" not in cut


# --- the field of view ----------------------------------------------------------------------------------------------


def test_pixels_go_back_where_they_came_from():
    rows, columns = np.mgrid[0:180, 0:210]
    smooth = torch.from_numpy((np.sin(rows / 15) + np.cos(columns / 20)).astype(np.float32))[None]
    field = FieldOfView.around((180, 210), (1.5, 1.7), (80.0, 120.0))
    back = field.to_slices(field.to_pixels(smooth))
    assert field.to_pixels(smooth).shape == (1, 256, 256)
    assert torch.allclose(back[:, 4:-4, 4:-4], smooth[:, 4:-4, 4:-4], atol=0.03)


def test_beyond_the_scan_there_is_air():
    field = FieldOfView.around((20, 20), (2.0, 2.0), (9.5, 9.5))
    pixels = field.to_pixels(torch.full((1, 20, 20), 40.0), -1000.0)
    assert pixels[0, 0, 0] == -1000
    assert pixels[0, 128, 128] == pytest.approx(40.0)
    assert scale_window(torch.tensor([-3024.0, -1000.0, 200.0, 3000.0]), (-1000.0, 200.0)).tolist() == [-1, -1, 1, 1]


def test_a_scan_goes_on_beyond_its_edges_as_its_mirror_image():
    scan = np.random.default_rng(3).uniform(-900, 100, (1, 30, 44)).astype(np.float32)
    field = FieldOfView.around((30, 44), (2.0, 2.0), (14.5, 21.5), size=96, pixel_mm=2.0)
    edges = MirroredEdges.of(field, reach=14)
    shown = edges.applied(field.to_pixels(torch.from_numpy(scan), -1000.0), -1000.0)[0].numpy()
    mirrored = np.pad(scan[0], 14, mode="symmetric")
    np.testing.assert_allclose(shown[33 - 14 : 63 + 14, 26 - 14 : 70 + 14], mirrored, atol=1e-3)
    assert np.count_nonzero(shown != -1000) == mirrored.size
    assert edges.near == (slice(32, 64), slice(25, 71))


@pytest.mark.parametrize(("n", "near"), [(5, slice(44, 52)), (200, slice(0, 97))])
def test_a_scan_smaller_than_its_mirror_image_and_one_larger_than_the_field(n, near):
    field = FieldOfView.around((n, n), (2.0, 2.0), ((n - 1) / 2, (n - 1) / 2), size=96, pixel_mm=2.0)
    edges = MirroredEdges.of(field, reach=14)
    shown = edges.applied(field.to_pixels(torch.full((2, n, n), 40.0), -1000.0), -1000.0)
    assert edges.near == (near, near)
    assert shown[:, 48 - 14 : 48 + 14, 48 - 14 : 48 + 14].min() == pytest.approx(40.0, abs=1e-3)


@pytest.mark.parametrize("side", [None, "front", "back", "right", "left"])
def test_a_lung_is_cut_off_where_it_goes_on_to_an_edge_without_chest_wall(side):
    """A lung in a body, in a scan whose edge lies within the lung, within the chest wall, or in the air beside."""
    z, y, x = np.ogrid[0:30, 0:90, 0:110]
    body, lung = ((((y - 45) / a) ** 2 + ((x - 55) / b) ** 2 + 0 * z) < 1 for a, b in ((40, 50), (30, 38)))
    hu = np.where(lung, -850, np.where(body, 40, -1000)).astype(np.int16)
    parts = {
        None: np.s_[:, 8:83, 8:103],
        "front": np.s_[:, 20:, :],
        "back": np.s_[:, :60, :],
        "right": np.s_[:, :, 25:],
        "left": np.s_[:, :, :80],
    }
    hu, lung = hu[parts[side]], lung[parts[side]]
    shape = hu.shape[1:]
    field = FieldOfView.around(shape, (3.0, 3.0), tuple((n - 1) / 2 for n in shape), size=160)
    pixels = field.to_pixels(torch.from_numpy(hu.astype(np.float32)), -1000.0).round().numpy().astype(np.int16)
    found = field.to_pixels(torch.from_numpy(lung.astype(np.float32))).numpy() > 0.5
    assert cuts_lung(found, pixels, field, (3.0, 2.0, 2.0)) == (side is not None)
    outline = found & np.roll(found, 6, 1) & np.roll(found, -6, 1) & np.roll(found, 6, 2) & np.roll(found, -6, 2)
    # Found short of the edge, it is cut off there all the same.
    assert cuts_lung(outline, pixels, field, (3.0, 2.0, 2.0)) == (side is not None)


def test_the_field_follows_the_body():
    stack = np.full((6, 200, 300), -1000, dtype=np.int16)
    stack[:, 20:80, 150:250] = 40
    center = body_center(stack)
    assert center == pytest.approx((50, 200), abs=2)
    field = FieldOfView.around(stack.shape[1:], (1.0, 1.0), center)
    rows, columns = body_extent(stack, field)
    assert rows.start <= 112 - 10 and rows.stop >= 143 + 10
    assert (rows.stop - rows.start) % 32 == 0 and (columns.stop - columns.start) % 32 == 0
    assert body_center(np.full((3, 10, 20), -1000, dtype=np.int16)) == (4.5, 9.5)


# --- real chests ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_diseased_lung_is_lung(segment, sick_chest):
    volume, truth = sick_chest
    before = volume.array.copy()
    labels, _ = segment(volume)
    assert labels.shape == volume.shape and labels.dtype == np.uint8
    assert _dice(labels > 0, truth) >= 0.93
    solid = truth & (volume.array > -150)  # consolidation, with the vessels
    assert np.mean(labels[solid] > 0) > 0.6
    np.testing.assert_array_equal(volume.array, before)
    columns = np.arange(volume.shape[2])
    right, left = ((labels == side).sum(axis=(0, 1)) for side in (RIGHT, LEFT))
    assert columns @ right / right.sum() < columns @ left / left.sum()


@pytest.mark.slow
@pytest.mark.parametrize(("axes", "flips"), [((0, 1, 2), (2,)), ((2, 1, 0), (0, 1, 2)), ((1, 2, 0), ())])
def test_another_order_of_the_axes_gives_the_same_lungs(segment, sick_chest, axes, flips):
    volume, _ = sick_chest
    small = volume.array[4:10]
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * 4
    expected, _ = segment(Volume.from_array(small, matrix))
    array, columns, origin = small, matrix[:3, [2, 1, 0]].copy(), matrix[:3, 3].copy()  # columns along k, j, i
    for axis in flips:
        array = np.flip(array, axis)
        origin = origin + columns[:, axis] * (small.shape[axis] - 1)
        columns[:, axis] *= -1
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = columns[:, list(axes)][:, [2, 1, 0]], origin
    labels, _ = segment(Volume.from_array(np.ascontiguousarray(array.transpose(axes)), turned))
    back = np.flip(labels.transpose(np.argsort(axes)), flips) if flips else labels.transpose(np.argsort(axes))
    assert {RIGHT, LEFT} <= set(np.unique(expected))
    np.testing.assert_array_equal(back, expected)


@pytest.mark.slow
def test_the_body_may_be_cut_off_by_the_field_of_view(segment, sick_chest):
    volume, truth = sick_chest
    rows, columns = (np.flatnonzero(truth.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    crop = np.s_[3:11, rows[0] - 6 : rows[-1] + 7, columns[0] - 6 : columns[-1] + 7]
    labels, _ = segment(Volume.from_array(np.ascontiguousarray(volume.array[crop]), volume.ijk_to_ras))
    assert _dice(labels > 0, truth[crop]) >= 0.93


@pytest.mark.slow
def test_lungs_reach_the_edge_that_cuts_them_off(segment, data_folder):
    """Of a scan whose field of view lies within the chest as much is found as in the whole one."""
    volume, _ = read_volume(data_folder / "lung_ct_more" / "rider_pilot_0117_ct.nii.gz")
    whole, _ = segment(volume)
    cut = tuple(
        slice(int(held[0]) + share * len(held) // 100, int(held[-1]) + 1 - share * len(held) // 100)
        for held, share in (
            (np.flatnonzero(whole.any(axis=axes)), share) for axes, share in (((0, 2), 15), ((0, 1), 10))
        )
    )
    labels, _ = segment(Volume.from_array(np.ascontiguousarray(volume.array[:, *cut]), volume.ijk_to_ras))
    expected = whole[:, *cut]
    assert _dice(labels > 0, expected > 0) >= 0.985  # 0.974 where the network sees air beyond the edge
    assert np.count_nonzero((labels != expected) & (labels > 0) & (expected > 0)) == 0


@pytest.mark.slow
def test_large_voxels_will_do(segment):
    folder = CHEST
    volume, truth = _read(folder / "ct.nrrd", folder / "lungs.nrrd")
    labels, _ = segment(volume)
    assert _dice(labels > 0, truth) >= 0.90


@pytest.mark.slow
def test_a_scan_of_one_lung_has_one_lung(segment, data_folder):
    folder = data_folder / "misc_ct"
    volume, truth = _read(folder / "elastix_rightlung_ct.nii.gz", folder / "elastix_rightlung_lungmask.nii.gz")
    part = Volume.from_array(np.ascontiguousarray(volume.array[50:110:4]), volume.ijk_to_ras @ np.diag([1, 1, 4, 1.0]))
    labels, warnings = segment(part)
    assert _dice(labels > 0, truth[50:110:4]) >= 0.9
    assert not (labels == LEFT).any()
    assert "No left lung was found." in warnings


@pytest.mark.slow
def test_the_batch_size_changes_nothing(segment, sick_chest):
    volume, _ = sick_chest
    part = Volume.from_array(volume.array[4:8], volume.ijk_to_ras)
    one, _ = segment(part, batch_size=1)
    many, _ = segment(part, batch_size=3)
    assert np.mean(one != many) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["air", "water", "head"])
def test_no_lungs_is_reported_in_one_sentence(segment, kind):
    with pytest.raises(InputError) as reported:
        segment(_phantom(kind))
    assert reported.value.stage == "Lung segmentation"
    found, least = (
        float(re.search(r"([\d.]+) mL", text).group(1)) for text in (reported.value.found, reported.value.expected)
    )
    assert found < least


def test_cancel_is_heard_at_every_batch(segment, sick_chest):
    volume, _ = sick_chest
    seen: list[int] = []

    def progress(stage: str, done: int, total: int) -> None:
        assert stage == "lungs" and total == volume.shape[0]
        seen.append(done)

    with pytest.raises(Cancelled):
        segment(volume, batch_size=4, progress=progress, cancelled=lambda: len(seen) >= 1)
    assert seen == [4]


@pytest.mark.slow
def test_progress_goes_up_to_the_last_slice(segment, sick_chest):
    volume, _ = sick_chest
    seen: list[tuple[int, int]] = []
    segment(volume, batch_size=6, progress=lambda stage, done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (volume.shape[0], volume.shape[0])
