"""What the figures of the lungs and their thirds promise."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.definitions import AMOUNTS, MEASUREMENTS, measurement
from LesionDecompLib.measurement.statistics import (
    RegionStatistics,
    axial_thirds,
    lesion_statistics,
    read_statistics_csv,
    statistics_csv,
    tally_lungs,
    thirds_of_slices,
    write_statistics_csv,
)
from LesionDecompLib.segmentation.lesions import lung_box
from segmented_case import segmented_covid_case, segmented_sample

REGIONS = [
    "both lungs",
    "right lung",
    "left lung",
    *(
        f"{side}, {third} third"
        for side in ("both lungs", "right lung", "left lung")
        for third in ("upper", "middle", "lower")
    ),
]
ADDITIVE = ("lung_volume_ml", "lesion_volume_ml", "ground_glass_ml", "consolidation_ml")
# Two stacks of the same figures may differ in the order in which heat is summed.
SAME = {"rel": 1e-12, "abs": 1e-12, "nan_ok": True}


@pytest.fixture(params=["sample", "COVID-19"])
def real_case(request):
    if request.param == "sample":
        return segmented_sample(request.getfixturevalue("sample_folder"))
    return segmented_covid_case(request.getfixturevalue("data_folder"))


def _by_region(rows) -> dict[str, dict[str, float]]:
    return {row.region: row.values for row in rows}


def _random_case(seed: int, shape=(6, 5, 7), fractions: bool = False) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 300, shape).astype(np.int16)
    if fractions:
        hu = hu.astype(np.float32) + rng.random(shape, dtype=np.float32)
    lungs = rng.integers(0, 3, shape, dtype=np.uint8)
    lesions = (rng.random(shape) < 0.3).astype(np.uint8) * (lungs > 0)
    return [hu, lungs, lesions, rng.random(shape, dtype=np.float32)]


def _axial(volume, result) -> list[np.ndarray]:
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    return [view.to_axial(a) for a in (volume.array, result.lungs, result.lesions, result.heat)]


def test_figures_of_a_small_case_are_those_reckoned_by_hand():
    # Three slices of one row: one slice for each third. Columns 0 to 2 are the right lung, 4 and 5 the left.
    hu = np.array(
        [
            [[-800, -700, -100, 40, -900, -850]],  # lower
            [[-810, -300, -200, 40, -900, -301]],  # middle
            [[-820, -720, -620, 40, -910, -860]],  # upper
        ],
        dtype=np.int16,
    )
    lungs = np.tile(np.array([[[1, 1, 1, 0, 2, 2]]], np.uint8), (3, 1, 1))
    lesions = np.array([[[0, 0, 1, 0, 0, 0]], [[0, 1, 1, 0, 0, 1]], [[0, 0, 0, 0, 0, 0]]], np.uint8)
    heat = np.where(lesions, 0.75, 0.25).astype(np.float32)
    rows = lesion_statistics(hu, lungs, lesions, heat, 0.5)
    assert [row.region for row in rows] == REGIONS
    figures = _by_region(rows)

    both = figures["both lungs"]
    assert both["lung_volume_ml"] == 7.5
    assert both["lesion_volume_ml"] == 2.0
    assert both["involvement_percent"] == pytest.approx(100 * 4 / 15)
    assert both["ground_glass_ml"] == 0.5  # -301; -300 is consolidation
    assert both["consolidation_ml"] == 1.5  # -100, -300, -200
    assert both["lesion_count"] == 2
    assert both["largest_lesion_ml"] == 1.5
    assert both["lesion_hu_mean"] == pytest.approx((-100 - 300 - 200 - 301) / 4)
    assert both["lesion_hu_sd"] == pytest.approx(np.std([-100, -300, -200, -301], ddof=1))
    assert both["lesion_hu_p50"] == -250.0
    assert both["lung_heat_mean"] == pytest.approx((4 * 0.75 + 11 * 0.25) / 15)
    assert both["lesion_heat_mean"] == 0.75

    right = figures["right lung"]
    assert (right["lesion_count"], right["largest_lesion_ml"], right["lesion_volume_ml"]) == (1, 1.5, 1.5)
    lower = figures["right lung, lower third"]
    assert (lower["lesion_count"], lower["largest_lesion_ml"], lower["lesion_hu_mean"]) == (1, 0.5, -100)
    assert math.isnan(lower["lesion_hu_sd"])  # of a single voxel
    assert figures["left lung, middle third"]["lesion_hu_p95"] == -301
    upper = figures["both lungs, upper third"]
    assert (upper["lesion_volume_ml"], upper["involvement_percent"], upper["lung_volume_ml"]) == (0, 0, 2.5)


def test_a_lesion_that_crosses_into_the_other_lung_counts_in_both_and_once_in_all():
    lungs = np.array([[[1, 1, 1, 2, 2]]], np.uint8)
    lesions = np.array([[[0, 1, 1, 1, 0]]], np.uint8)
    blank = np.zeros(lungs.shape, np.float32)
    figures = _by_region(lesion_statistics(blank, lungs, lesions, blank, 1.0))
    assert [figures[r]["lesion_count"] for r in REGIONS[:3]] == [1, 1, 1]
    assert [figures[r]["largest_lesion_ml"] for r in REGIONS[:3]] == [3, 2, 1]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_rows_add_up(seed, fractions):
    figures = _by_region(lesion_statistics(*_random_case(seed, fractions=fractions), 0.3))
    for key in ADDITIVE:
        for side in ("both lungs", "right lung", "left lung"):
            thirds = sum(figures[f"{side}, {third} third"][key] for third in ("upper", "middle", "lower"))
            assert thirds == pytest.approx(figures[side][key])
        assert figures["right lung"][key] + figures["left lung"][key] == pytest.approx(figures["both lungs"][key])
    for values in figures.values():
        assert values["ground_glass_ml"] + values["consolidation_ml"] == pytest.approx(values["lesion_volume_ml"])
        assert values["largest_lesion_ml"] <= values["lesion_volume_ml"] + 1e-12


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_percentiles_and_moments_are_those_of_numpy(seed, fractions):
    hu, lungs, lesions, heat = _random_case(seed, fractions=fractions)
    figures = _by_region(lesion_statistics(hu, lungs, lesions, heat, 0.3))
    for side, labels in (("both lungs", (1, 2)), ("right lung", (1,)), ("left lung", (2,))):
        lung = np.isin(lungs, labels)
        for name, mask in (("lung", lung), ("lesion", lung & (lesions > 0))):
            values, found = hu[mask].astype(np.float64), figures[side]
            if len(values) < 2:
                continue
            for q in (5, 50, 95):
                # Halves and twentieths of float32 HU are rounded at float32's own precision.
                tolerance = 1e-4 if fractions else 1e-9
                assert found[f"{name}_hu_p{q:02d}"] == pytest.approx(np.percentile(values, q), abs=tolerance)
            assert found[f"{name}_hu_mean"] == pytest.approx(values.mean(), rel=1e-9)
            assert found[f"{name}_hu_sd"] == pytest.approx(values.std(ddof=1), rel=1e-9)
            assert found[f"{name}_heat_mean"] == pytest.approx(heat[mask].mean(dtype=np.float64), rel=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, -1]), st.sampled_from([1, -1]), st.booleans())
def test_turning_the_slices_in_their_plane_changes_nothing(seed, y_step, x_step, swap):
    case = _random_case(seed)
    straight = lesion_statistics(*case, 0.3)
    turned = [a[:, ::y_step, ::x_step].transpose((0, 2, 1) if swap else (0, 1, 2)) for a in case]
    for a, b in zip(straight, lesion_statistics(*turned, 0.3), strict=True):
        assert a.values == pytest.approx(b.values, **SAME)


@pytest.mark.parametrize("stored", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_order_in_memory_does_not_matter(stored):
    case = _random_case(7)
    # The same axial stacks, seen through arrays that are stored as sagittal or coronal stacks.
    views = [np.ascontiguousarray(a.transpose(stored)).transpose(np.argsort(stored)) for a in case]
    for a, b in zip(lesion_statistics(*case, 0.3), lesion_statistics(*views, 0.3), strict=True):
        assert a.values == pytest.approx(b.values, **SAME)


def test_whole_hu_in_float32_give_what_they_give_in_int16():
    hu, *rest = _random_case(3)
    for a, b in zip(
        lesion_statistics(hu, *rest, 0.3), lesion_statistics(hu.astype(np.float32), *rest, 0.3), strict=True
    ):
        assert a.values == pytest.approx(b.values, nan_ok=True, rel=0, abs=0)


def test_counting_the_lungs_beforehand_changes_nothing():
    hu, lungs, lesions, heat = _random_case(5)
    tally = tally_lungs(hu, lungs, heat)
    for chosen in (lesions, np.zeros_like(lesions)):
        once = lesion_statistics(hu, lungs, chosen, heat, 0.3)
        for a, b in zip(once, lesion_statistics(hu, lungs, chosen, heat, 0.3, tally), strict=True):
            assert a.values == pytest.approx(b.values, nan_ok=True, rel=0, abs=0)


def test_without_lesions_volumes_are_zero_and_lesion_hu_undefined():
    hu, lungs, lesions, heat = _random_case(2)
    for row in lesion_statistics(hu, lungs, np.zeros_like(lesions), heat, 0.3):
        for key in ("lesion_volume_ml", "involvement_percent", "lesion_count", "largest_lesion_ml"):
            assert row.values[key] == 0
        for key in ("lesion_hu_mean", "lesion_hu_sd", "lesion_hu_p50", "lesion_heat_mean"):
            assert math.isnan(row.values[key])
        assert math.isfinite(row.values["lung_hu_mean"])


def test_an_empty_left_lung_has_no_volume_and_undefined_figures():
    hu, lungs, lesions, heat = _random_case(2)
    lungs = np.where(lungs == 2, 0, lungs).astype(np.uint8)
    figures = _by_region(lesion_statistics(hu, lungs, lesions, heat, 0.3))
    left = figures["left lung"]
    assert left["lung_volume_ml"] == left["lesion_volume_ml"] == left["lesion_count"] == 0
    assert math.isnan(left["involvement_percent"])
    assert math.isnan(left["lung_hu_mean"])
    assert figures["both lungs"] == pytest.approx(figures["right lung"], nan_ok=True)


def test_without_any_lung_there_are_still_twelve_rows():
    hu, lungs, lesions, heat = _random_case(2)
    rows = lesion_statistics(hu, np.zeros_like(lungs), lesions, heat, 0.3)
    assert [row.region for row in rows] == REGIONS
    assert all(row.values["lung_volume_ml"] == row.values["lesion_volume_ml"] == 0 for row in rows)


def test_lesion_voxels_outside_the_lungs_are_left_out():
    hu, lungs, lesions, heat = _random_case(4)
    spilt = np.where(lungs == 0, 1, lesions).astype(np.uint8)
    for a, b in zip(
        lesion_statistics(hu, lungs, lesions, heat, 0.3), lesion_statistics(hu, lungs, spilt, heat, 0.3), strict=True
    ):
        assert a.values == pytest.approx(b.values, nan_ok=True)


@pytest.mark.parametrize(("slices", "thirds"), [(3, [0, 1, 2]), (1, [1]), (4, [0, 1, 1, 2]), (5, [0, 0, 1, 2, 2])])
def test_thirds_are_cut_by_the_middle_of_each_slice(slices, thirds):
    assert thirds_of_slices(slices).tolist() == thirds


@pytest.mark.slow
def test_on_a_real_ct_the_figures_are_those_of_simpleitk(real_case):
    volume, result = real_case
    figures = _by_region(lesion_statistics(*_axial(volume, result), volume.voxel_volume_ml))
    ct = SimpleITK.GetImageFromArray(volume.array)
    measured = SimpleITK.LabelStatisticsImageFilter()
    for name, labels in (("lung", result.lungs), ("lesion", result.lungs * result.lesions)):
        measured.Execute(ct, SimpleITK.GetImageFromArray(labels))
        for number, side in ((1, "right lung"), (2, "left lung")):
            values = figures[side]
            voxels = measured.GetCount(number)
            assert voxels > 1000
            assert values[f"{name}_volume_ml"] == pytest.approx(voxels * volume.voxel_volume_ml, rel=1e-6)
            assert values[f"{name}_hu_mean"] == pytest.approx(measured.GetMean(number), rel=1e-6)
            assert values[f"{name}_hu_sd"] == pytest.approx(measured.GetSigma(number), rel=1e-6)
    shapes = SimpleITK.LabelShapeStatisticsImageFilter()
    shapes.Execute(SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray(result.lesions), True))
    sizes = [shapes.GetNumberOfPixels(number) for number in shapes.GetLabels()]
    assert figures["both lungs"]["lesion_count"] == len(sizes)
    assert figures["both lungs"]["largest_lesion_ml"] == pytest.approx(max(sizes) * volume.voxel_volume_ml)


def test_a_csv_file_reads_back_as_it_was_written(tmp_path):
    rows = lesion_statistics(*_random_case(2), 0.3)
    path = tmp_path / "Größe 1" / "statistics.csv"
    path.parent.mkdir()
    write_statistics_csv(path, rows)
    again = read_statistics_csv(path)
    assert [row.region for row in again] == REGIONS
    for a, b in zip(rows, again, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-8, nan_ok=True)


def test_a_csv_file_has_units_in_its_header_and_empty_cells_for_what_is_undefined(tmp_path):
    hu, lungs, lesions, heat = _random_case(2)
    path = tmp_path / "statistics.csv"
    write_statistics_csv(path, lesion_statistics(hu, lungs, np.zeros_like(lesions), heat, 0.3))
    data = path.read_bytes()
    assert b"\r" not in data
    assert data.startswith(b"\xef\xbb\xbf")  # by which a spreadsheet program knows the encoding
    rows = list(csv.DictReader(data.decode("utf-8-sig").splitlines()))
    assert len(rows) == 12
    assert list(rows[0])[:4] == ["Region", "Lung volume (mL)", "Lesion volume (mL)", "Involvement (%)"]
    assert rows[0]["Lesion mean (HU)"] == ""
    assert float(rows[0]["Lung mean (HU)"]) < 0
    assert "nan" not in data.decode()


def test_each_row_of_a_csv_file_carries_the_warnings(tmp_path):
    rows = lesion_statistics(*_random_case(2), 0.3)
    write_statistics_csv(tmp_path / "a.csv", rows, ['The lungs are "odd", cut off.', "Slices are thick."])
    with (tmp_path / "a.csv").open(encoding="utf-8-sig", newline="") as file:
        reported = {row["Warnings"] for row in csv.DictReader(file)}
    assert reported == {'The lungs are "odd", cut off. Slices are thick.'}
    assert [row.region for row in read_statistics_csv(tmp_path / "a.csv")] == REGIONS


def test_a_csv_file_from_before_there_were_warnings_is_read(tmp_path):
    rows = lesion_statistics(*_random_case(2), 0.3)
    text = statistics_csv(rows).replace(",Warnings\n", "\n").replace(",\n", "\n")
    (tmp_path / "old.csv").write_text(text)
    for a, b in zip(rows, read_statistics_csv(tmp_path / "old.csv"), strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-8, nan_ok=True)


def test_a_csv_file_that_can_not_be_written_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(LesionDecompError):
        write_statistics_csv(tmp_path / "missing" / "statistics.csv", lesion_statistics(*_random_case(2), 0.3))
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_csv_file_is_refused(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(LesionDecompError, match=r"other columns in other\.csv"):
        read_statistics_csv(path)


def test_every_figure_states_what_it_means():
    assert len({m.key for m in MEASUREMENTS}) == len({m.header for m in MEASUREMENTS}) == len(MEASUREMENTS)
    for m in MEASUREMENTS:
        assert m.definition.endswith(".")
        assert m.tooltip == f"{m.header}: {m.explanation}" and m.explanation.startswith(m.definition)
        assert m.source in m.explanation and "doi" not in m.definition
    assert "doi 10.1186" in measurement("consolidation_ml").tooltip
    assert "-300 HU" in measurement("ground_glass_ml").definition
    assert measurement("involvement_percent").text(12.3456) == "12.35"
    assert measurement("involvement_percent").text(float("nan")) == "-"
    header = statistics_csv([]).strip().split(",")
    assert header == ["Region", *(m.header for m in MEASUREMENTS), "Warnings"]


def test_columns_stay_what_scripts_of_users_know_them_by():
    columns = {
        "lung_volume_ml": ("Lung volume (mL)", 1),
        "lesion_volume_ml": ("Lesion volume (mL)", 2),
        "involvement_percent": ("Involvement (%)", 2),
        "ground_glass_ml": ("Ground-glass volume (mL)", 2),
        "consolidation_ml": ("Consolidation volume (mL)", 2),
        "lesion_count": ("Lesion count", 0),
        "largest_lesion_ml": ("Largest lesion (mL)", 2),
        "lesion_hu_mean": ("Lesion mean (HU)", 1),
        "lesion_hu_sd": ("Lesion SD (HU)", 1),
        "lesion_hu_p05": ("Lesion 5th percentile (HU)", 1),
        "lesion_hu_p50": ("Lesion median (HU)", 1),
        "lesion_hu_p95": ("Lesion 95th percentile (HU)", 1),
        "lung_hu_mean": ("Lung mean (HU)", 1),
        "lung_hu_sd": ("Lung SD (HU)", 1),
        "lung_hu_p05": ("Lung 5th percentile (HU)", 1),
        "lung_hu_p50": ("Lung median (HU)", 1),
        "lung_hu_p95": ("Lung 95th percentile (HU)", 1),
        "lung_heat_mean": ("Lung heat mean", 3),
        "lesion_heat_mean": ("Lesion heat mean", 3),
    }
    assert {m.key: (m.header, m.decimals) for m in MEASUREMENTS} == columns
    assert [m.key for m in MEASUREMENTS] == list(columns)
    assert list(AMOUNTS) == list(columns)[:7]
    for m in MEASUREMENTS:
        assert m.text(0.12345) == f"{0.12345:.{m.decimals}f}"
        assert measurement(m.key) is m
    with pytest.raises(KeyError):
        measurement("lung_volume")


def test_a_table_for_the_clipboard_is_the_csv_file_with_tabs():
    rows = lesion_statistics(*_random_case(2), 0.3)
    with_tabs = list(csv.reader(statistics_csv(rows, ["a", "b"], delimiter="\t").splitlines(), delimiter="\t"))
    assert with_tabs == list(csv.reader(statistics_csv(rows, ["a", "b"]).splitlines()))
    assert {line[-1] for line in with_tabs[1:]} == {"a b"}


def test_figures_are_written_with_nine_digits():
    row = RegionStatistics("both lungs", {m.key: 1234.56789123456 for m in MEASUREMENTS})
    assert statistics_csv([row]).splitlines()[1].split(",")[1:-1] == ["1234.56789"] * len(MEASUREMENTS)


@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (lambda text: text.encode().replace(b"both", b"\xff\xfe", 1), "cannot be read"),
        (lambda text: b"", "other columns in a.csv"),
        (lambda text: text.replace("Lesion count", "Lesions").encode(), "other columns in a.csv"),
        (lambda text: text.replace(",Warnings", "").replace("Region,", "", 1).encode(), "other columns in a.csv"),
        (lambda text: text[: text.rindex(",") - 9].encode(), "a line cut short in a.csv"),
        (lambda text: text.replace("left lung,", "left lung,x", 1).encode(), "a damaged line in a.csv"),
        (lambda text: text.replace("left lung,", '"' + "x" * 200_000, 1).encode(), "cannot be read"),
    ],
)
def test_a_damaged_csv_file_is_refused(tmp_path, spoil, reported):
    (tmp_path / "a.csv").write_bytes(spoil(statistics_csv(lesion_statistics(*_random_case(2), 0.3))))
    for file, found in (("a.csv", reported), ("missing.csv", "cannot be read")):
        with pytest.raises(LesionDecompError) as reported:
            read_statistics_csv(tmp_path / file)
        assert reported.value.stage == "Reading statistics" and found in reported.value.found


def test_undefined_figures_read_back_as_undefined(tmp_path):
    hu, lungs, lesions, heat = _random_case(2)
    rows = lesion_statistics(hu, lungs, np.zeros_like(lesions), heat, 0.3)
    write_statistics_csv(tmp_path / "a.csv", rows)
    again = read_statistics_csv(tmp_path / "a.csv")
    assert math.isnan(again[0].values["lesion_hu_mean"])
    for a, b in zip(rows, again, strict=True):
        assert a.values == pytest.approx(b.values, rel=1e-8, nan_ok=True)


def test_a_tally_of_the_lungs_taken_before_gives_the_same_figures():
    hu, lungs, lesions, heat = _random_case(5)
    tally = tally_lungs(hu, lungs, heat)
    assert tally.voxels.sum() == np.count_nonzero(lungs) and tally.components.shape == (0, 6)
    for a, b in zip(
        lesion_statistics(hu, lungs, lesions, heat, 0.3),
        lesion_statistics(hu, lungs, lesions, heat, 0.3, tally),
        strict=True,
    ):
        assert a.values == pytest.approx(b.values, **SAME)


def test_thirds_are_those_of_the_slices_that_hold_lung():
    lungs = np.zeros((9, 2, 2), np.uint8)
    lungs[2, 0, 0], lungs[7, 1, 1] = 1, 2
    thirds = axial_thirds(lungs.shape, lung_box(lungs)[0])
    assert thirds.shape == lungs.shape and thirds.dtype == np.uint8 and not thirds.flags.writeable
    assert thirds[:, 1, 0].tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 0]
    assert not axial_thirds((3, 2, 2), slice(0, 0)).any()
    assert thirds_of_slices(0).tolist() == []


def test_arrays_that_do_not_fit_are_refused():
    hu, lungs, lesions, heat = _random_case(2)
    with pytest.raises(LesionDecompError, match="same shape"):
        lesion_statistics(hu, lungs[1:], lesions, heat, 0.3)
    with pytest.raises(LesionDecompError, match="lung label 3"):
        lesion_statistics(hu, lungs + np.uint8(1), lesions, heat, 0.3)
    with pytest.raises(LesionDecompError, match=r"^Statistics: .*four 3-D arrays of the same shape"):
        lesion_statistics(hu[0], lungs[0], lesions[0], heat[0], 0.3)
    for place in range(4):
        arrays = [hu, lungs, lesions, heat]
        arrays[place] = arrays[place][:, 1:]
        name = ("CT", "lungs", "lesions", "heat")[place]
        with pytest.raises(LesionDecompError, match=rf"(found|,) {name} \(6, 4, 7\)"):
            lesion_statistics(*arrays, 0.3)
    with pytest.raises(LesionDecompError, match="same shape"):
        tally_lungs(hu, lungs, heat[1:])
