"""What the overview picture promises to the reader of a case."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.report.colors import heat_color_table
from LesionDecompLib.report.overview import (
    AXIAL_CELL,
    BAR_TOP,
    CORONAL_CELL,
    CURVE_TOP,
    GAP,
    MARGIN,
    MEASUREMENTS_TOP,
    PANELS_TOP,
    SIZE,
    draw_overview,
)
from LesionDecompLib.report.panels import representative_slices
from LesionDecompLib.report.picture import LESION_COLOR, Frame, Plane, draw_panel
from repository import CHEST
from segmented_case import segmented, segmented_sample
from skimage.color import rgb2lab

HEADING = np.s_[:PANELS_TOP]
PANELS = np.s_[PANELS_TOP : MEASUREMENTS_TOP - 30]
AXIAL_PANELS = [
    np.s_[
        PANELS_TOP + row * (AXIAL_CELL[1] + GAP) : PANELS_TOP + row * (AXIAL_CELL[1] + GAP) + AXIAL_CELL[1],
        MARGIN + column * (AXIAL_CELL[0] + GAP) : MARGIN + column * (AXIAL_CELL[0] + GAP) + AXIAL_CELL[0],
    ]
    for row in range(2)
    for column in range(3)
]
CORONAL_LEFT = MARGIN + 3 * (AXIAL_CELL[0] + GAP) + GAP
CORONAL_PANELS = [
    np.s_[top : top + CORONAL_CELL[1], CORONAL_LEFT : CORONAL_LEFT + CORONAL_CELL[0]]
    for top in (PANELS_TOP, PANELS_TOP + CORONAL_CELL[1] + GAP)
]


@pytest.fixture(scope="module")
def case(sample_folder) -> tuple[Volume, SimpleNamespace]:
    return segmented_sample(sample_folder, step=2)


def _pixels(volume: Volume, result: SimpleNamespace, title: str = "") -> np.ndarray:
    picture = draw_overview(volume, result, title)
    assert picture.mode == "RGB"
    assert picture.size == SIZE
    return np.asarray(picture).astype(int)


def _changed(case: SimpleNamespace, **changes) -> SimpleNamespace:
    return SimpleNamespace(**(vars(case) | changes))


def _different(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a != b).any(axis=-1)


def _count_of(color: tuple[int, int, int], pixels: np.ndarray) -> int:
    return int((np.abs(pixels - color).max(axis=-1) < 12).sum())


@pytest.mark.slow
def test_heat_in_the_right_lung_is_colored_on_the_left_of_the_picture(case):
    volume, result = case
    cold = _pixels(volume, _changed(result, heat=np.zeros_like(result.heat)))
    right = np.where(result.lungs == 1, result.heat, 0)
    for heat, bright_half in ((right, 0), (result.heat - right, 1)):
        warm = _pixels(volume, _changed(result, heat=heat))
        halves = np.zeros(2, dtype=int)
        for panel in AXIAL_PANELS:
            changed = _different(warm[panel], cold[panel])
            halves += [changed[:, : AXIAL_CELL[0] // 2].sum(), changed[:, AXIAL_CELL[0] // 2 :].sum()]
        assert halves[bright_half] > 2000
        assert halves[1 - bright_half] < 0.1 * halves[bright_half]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axis", "panels"), [(0, CORONAL_PANELS), (1, AXIAL_PANELS)], ids=["superior in coronal", "anterior in axial"]
)
def test_what_is_superior_or_anterior_is_on_top(case, axis, panels):
    volume, result = case
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    cold = _pixels(volume, _changed(result, heat=np.zeros_like(result.heat)))
    stack = view.to_axial(np.where(result.lungs > 0, np.float32(1), np.float32(0)))
    held = np.flatnonzero(stack.any(axis=tuple({0, 1, 2} - {axis})))
    middle = (held[0] + held[-1]) // 2
    # Along the axial stack, z rises to the top of the patient and y to the back.
    beyond = np.arange(stack.shape[axis]) > middle
    top_half = beyond if axis == 0 else ~beyond
    heat = stack * np.expand_dims(top_half, tuple({0, 1, 2} - {axis}))
    warm = _pixels(volume, _changed(result, heat=np.ascontiguousarray(view.from_axial(heat))))
    rows = np.concatenate([np.nonzero(_different(warm[panel], cold[panel]))[0] for panel in panels])
    assert len(rows) > 2000
    # The frame is set on the lungs, so their middle is the panel's.
    assert (rows <= AXIAL_CELL[1] // 2 + 8).mean() > 0.98


def test_the_lung_window_is_1500_wide_about_minus_600():
    ct = np.repeat([[-2000.0, -1350.0, -600.0, 150.0, 900.0]], 3, axis=0)
    blank = np.zeros(ct.shape)
    picture = draw_panel(Plane(ct, blank, blank, blank, 1.0, 1.0), Frame(1, 2, 0.05, 100, 60), 0.4)
    levels = np.asarray(picture)[30, 10::20, 0].astype(int)
    assert levels == pytest.approx([0, 0, 128, 255, 255], abs=6)


def test_strong_heat_is_shown_in_its_color_and_the_rest_of_the_ct_in_gray(case):
    volume, result = case
    panels = _pixels(volume, _changed(result, lesions=np.zeros_like(result.lesions), lungs=0 * result.lungs))[PANELS]
    saturation = panels.max(axis=-1) - panels.min(axis=-1)
    assert (saturation > 60).sum() > 1500
    cold = _pixels(volume, _changed(result, heat=0 * result.heat, lesions=0 * result.lesions, lungs=0 * result.lungs))
    inner = cold[AXIAL_PANELS[3]]
    assert (inner.max(axis=-1) - inner.min(axis=-1)).max() <= 25  # the letters are not quite white


@pytest.mark.slow
def test_lesions_are_outlined_and_only_they(case):
    volume, result = case
    with_lesions = _pixels(volume, result)[PANELS]
    without = _pixels(volume, _changed(result, lesions=np.zeros_like(result.lesions)))[PANELS]
    assert _count_of(LESION_COLOR, with_lesions) > 500
    assert _count_of(LESION_COLOR, without) == 0


def test_the_outline_follows_the_mask_and_not_its_inside():
    mask = np.zeros((60, 60), np.uint8)
    mask[20:40, 10:30] = 1
    blank = np.zeros(mask.shape, np.float32)
    frame = Frame(29.5, 29.5, 0.5, 120, 120)  # two pixels for each voxel
    picture = np.asarray(draw_panel(Plane(blank - 600, blank, blank, mask, 1.0, 1.0), frame, 0.4)).astype(int)
    rows, columns = np.nonzero(picture[..., 1] - picture[..., 0] > 60)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == pytest.approx((40, 79, 20, 59), abs=1)
    assert _count_of(LESION_COLOR, picture[44:76, 24:56]) == 0


def test_pixels_are_square_whatever_the_voxels_are():
    z, x = np.mgrid[:20, :100]
    ball = ((z - 9.5) * 6.0) ** 2 + ((x - 49.5) * 1.5) ** 2 < 50**2  # 6 mm slices, 1.5 mm columns
    blank = np.zeros(ball.shape, np.float32)
    ct = np.where(ball, 150.0, -1350.0)
    picture = np.asarray(draw_panel(Plane(ct, blank, blank, blank, 6.0, 1.5), Frame(9.5, 49.5, 0.5, 300, 300), 0.4))
    bright = picture[..., 0] > 128
    height, width = np.ptp(np.flatnonzero(bright.any(axis=1))), np.ptp(np.flatnonzero(bright.any(axis=0)))
    assert width == pytest.approx(200, abs=5)
    assert height == pytest.approx(200, abs=14)  # a slice is 12 pixels thick


@pytest.mark.slow
def test_a_ct_stored_in_another_orientation_gives_the_same_slices(case):
    volume, result = case
    axes = (2, 0, 1)  # stored as a sagittal stack, left to right

    def stored(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose(axes)[::-1])

    i, j, k, origin = volume.ijk_to_ras[:3].T
    matrix = np.eye(4)
    matrix[:3] = np.stack([j, k, -i, origin + i * (volume.shape[2] - 1)], axis=-1)
    turned = Volume.from_array(stored(volume.array), matrix)
    arrays = {name: stored(getattr(result, name)) for name in ("heat", "lungs", "lesions")}
    # Directions reckoned by another path may differ in their last bit, and a pixel by one level.
    difference = np.abs(_pixels(volume, result) - _pixels(turned, _changed(result, **arrays)))[PANELS]
    assert difference.max() <= 2


def test_the_color_bar_has_every_color_of_heat_and_marks_the_threshold(case):
    volume, result = case
    for threshold in (0.25, 0.8):
        bar = _pixels(volume, _changed(result, threshold=threshold))[BAR_TOP + 11]
        table = heat_color_table(64)
        where = [int(np.argmin(np.abs(bar - color).sum(axis=-1))) for color in table]
        assert max(np.abs(bar[x] - color).max() for x, color in zip(where, table, strict=True)) <= 12
        marks = np.flatnonzero(np.abs(bar - LESION_COLOR).max(axis=-1) == 0)
        left, right = where[0], where[-1]
        assert marks.mean() == pytest.approx(left + threshold * (right - left), abs=4)


def test_the_curve_stands_over_the_color_bar(case):
    volume, result = case
    plot = np.s_[CURVE_TOP : BAR_TOP - 1]
    assert _different(
        _pixels(volume, result)[plot], _pixels(volume, _changed(result, heat=result.heat / 2))[plot]
    ).any()


@pytest.mark.slow
def test_nothing_but_the_title_reports_whose_ct_it_is(case):
    volume, result = case
    anonymous = _pixels(volume, result)
    assert np.array_equal(anonymous, _pixels(replace(volume, name="Another^Name"), result))
    titled = _pixels(volume, result, "Case 7, Größe")
    assert _different(anonymous, titled)[HEADING].any()
    assert not _different(anonymous, titled)[PANELS_TOP:].any()


@pytest.mark.slow
def test_figures_models_and_warnings_are_on_the_page(case):
    volume, result = case
    plain = _pixels(volume, result)
    below = np.s_[MEASUREMENTS_TOP:]
    assert _different(plain, _pixels(volume, _changed(result, warnings=["Slices are 6 mm apart."])))[below].any()
    model = SimpleNamespace(name="other", version="2")
    assert _different(plain, _pixels(volume, _changed(result, lesion_bundle=model)))[below].any()
    halved = [replace(row, values={key: value / 2 for key, value in row.values.items()}) for row in result.statistics]
    assert _different(plain, _pixels(volume, _changed(result, statistics=halved)))[below].sum() > 500


def test_many_warnings_stay_on_the_page(case):
    volume, result = case
    many = [f"Warning number {n} about this very CT, which is as long as a warning may well be." for n in range(40)]
    page = _pixels(volume, _changed(result, warnings=many))
    assert not _different(page[-8:], _pixels(volume, result)[-8:]).any()


@pytest.mark.parametrize("which", ["no lesion", "no lung", "one lung", "two slices"])
def test_unusual_cases_are_drawn_too(case, which):
    volume, result = case
    lungs, heat = (result.lungs > 0).astype(np.uint8), result.heat
    if which == "no lesion":
        heat = np.zeros_like(heat)
    elif which == "no lung":
        lungs = np.zeros_like(lungs)
    elif which == "one lung":
        lungs = (result.lungs == 1).astype(np.uint8)
    else:
        volume = Volume.from_array(volume.array[20:22], volume.ijk_to_ras)
        lungs, heat = lungs[20:22], heat[20:22]
    page = _pixels(volume, segmented(volume, lungs, heat, 0.4))
    assert page[PANELS].std() > 30


def test_large_voxels_are_shown_smoothly():
    volume = read_volume(CHEST / "ct.nrrd")[0]
    lungs = read_mask(CHEST / "lungs.nrrd", volume)
    page = _pixels(volume, segmented(volume, lungs, (volume.array > -700).astype(np.float32), 0.5))
    # Voxels of 4 mm are ten pixels wide; shown as blocks, nine in ten neighbors would be alike.
    gray = page[AXIAL_PANELS[2]][100:250, 100:350, 0]
    assert (np.diff(gray, axis=1) == 0).mean() < 0.6


def test_equal_steps_of_heat_look_equally_large():
    lab = rgb2lab(heat_color_table(17)[None])[0]
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.max() < 1.25 * steps.min()
    assert (np.diff(lab[:, 0]) > 0).all()
    assert heat_color_table(256).shape == (256, 3)
    assert heat_color_table(256).dtype == np.uint8


def test_slices_are_spread_over_the_lungs_and_taken_where_lesion_is():
    lung = np.array([0] * 5 + [100] * 60 + [0] * 5)
    lesion = np.zeros(70)
    lesion[[8, 33, 34]] = [4, 5, 9]
    chosen = representative_slices(lesion, lung, 6)
    assert len(chosen) == 6
    assert {8, 34} <= set(chosen)
    assert all(b - a >= 3 for a, b in pairwise(chosen))
    assert representative_slices(np.zeros(70), lung, 6) == [9, 19, 29, 39, 49, 59]


def test_without_lungs_slices_are_spread_over_the_whole_ct():
    assert representative_slices(np.zeros(12), np.zeros(12), 6) == [0, 2, 4, 6, 8, 10]
    assert representative_slices(np.zeros(2), np.zeros(2), 6) == [0, 1]
