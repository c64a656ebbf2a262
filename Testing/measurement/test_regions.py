"""What rows of regions promise: they are those of the voxels that their definitions name."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from LesionDecompLib.ct.lobes import KNOWN_SETS, LOBES, known_lobes, lobe_called
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.definitions import MEASUREMENTS, REGION_MEASUREMENTS
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.region_rows import CSV_HEADER, RegionRow, RegionTallies, regions_csv
from LesionDecompLib.measurement.regions import GivenRegions
from LesionDecompLib.measurement.statistics import lesion_statistics
from LesionDecompLib.segmentation.lesions import lesion_labelmap
from segmented_case import segmented_sample

SAME = {"rel": 1e-12, "abs": 1e-12, "nan_ok": True}


def _case(seed: int, shape=(6, 9, 11)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    lungs = rng.integers(0, 3, shape, dtype=np.uint8)
    lungs[:, 0] = 0  # the lungs' box is smaller than the volume
    return rng.integers(-1000, 300, shape).astype(np.int16), lungs, rng.random(shape, dtype=np.float32)


def _measured(hu, lungs, heat, threshold=0.6, labels=None, names=None, voxel_ml=0.3):
    live = LiveLesions.of(hu, lungs, heat, voxel_ml)
    regions = GivenRegions(labels, names or {}, "ab") if labels is not None else None
    tallies = RegionTallies.of(live, labels, regions)
    return tallies.at(live.at(threshold, 0.0)), tallies


def _by_name(measured, key: str) -> dict[str, dict[str, float]]:
    return {row.region: row.values for row in measured.of_set(key)}


def _of_mask(hu, lungs, heat, mask, threshold=0.6, voxel_ml=0.3) -> dict[str, float]:
    """Measured by the statistics of lungs that are nothing but the region, besides its lesions' connections."""
    inside = np.where(mask, lungs, 0).astype(np.uint8)
    lesions = lesion_labelmap(heat, lungs, threshold, 0.0, voxel_ml)
    return lesion_statistics(hu, inside, lesions, heat, voxel_ml)[0].values


CONNECTED = ("lesion_count", "largest_lesion_ml")  # these know of voxels outside the region


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_each_region_is_measured_as_its_voxels_alone_would_be(seed, fortran):
    hu, lungs, heat = _case(seed)
    labels = np.random.default_rng(seed + 1).integers(0, 4, hu.shape).astype(np.uint16)
    arrays = [np.asfortranarray(a) if fortran else a for a in (hu, lungs, heat, labels)]
    measured, _ = _measured(*arrays[:3], labels=arrays[3], names={1: "a", 2: "b", 3: "c"})
    rows = _by_name(measured, "given")
    assert list(rows) == ["a", "b", "c", "elsewhere"]
    for value, name in ((1, "a"), (2, "b"), (3, "c"), (0, "elsewhere")):
        alone = _of_mask(hu, lungs, heat, labels == value)
        for m in MEASUREMENTS:
            if m.key not in CONNECTED:
                assert rows[name][m.key] == pytest.approx(alone[m.key], **SAME), m.key
    whole = lesion_statistics(hu, lungs, lesion_labelmap(heat, lungs, 0.6, 0.0, 0.3), heat, 0.3)[0].values
    for key in ("lung_volume_ml", "lesion_volume_ml", "ground_glass_ml"):
        assert sum(row[key] for row in rows.values()) == pytest.approx(whole[key])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_halves_divide_each_lungs_own_box_and_thirds_are_those_of_the_table(seed):
    hu, lungs, heat = _case(seed)
    measured, _ = _measured(hu, lungs, heat)
    halves = _by_name(measured, "halves")
    y = np.arange(lungs.shape[1])[None, :, None]
    masks = {}
    for side, label in (("right lung", 1), ("left lung", 2)):
        rows = np.flatnonzero((lungs == label).any(axis=(0, 2)))
        middle = (rows[0] + rows[-1]) / 2
        masks[f"{side}, ventral half"] = (lungs == label) & (y < middle)
        masks[f"{side}, dorsal half"] = (lungs == label) & (y >= middle)
    for name, mask in masks.items():
        assert halves[name]["lung_volume_ml"] == pytest.approx(0.3 * np.count_nonzero(mask))
        assert halves[name]["lesion_volume_ml"] == pytest.approx(
            0.3 * np.count_nonzero(mask & (heat >= np.float32(0.6)))
        )
        assert halves[name]["lung_hu_p50"] == pytest.approx(np.median(hu[mask]))
    for half in ("ventral half", "dorsal half"):
        both = halves[f"both lungs, {half}"]
        assert both["lung_volume_ml"] == pytest.approx(
            halves[f"right lung, {half}"]["lung_volume_ml"] + halves[f"left lung, {half}"]["lung_volume_ml"]
        )
    table = lesion_statistics(hu, lungs, lesion_labelmap(heat, lungs, 0.6, 0.0, 0.3), heat, 0.3)
    for row in table:
        if "third" in row.region and not row.region.startswith("both"):
            thirds = _by_name(measured, "thirds")[row.region]
            assert {m.key: thirds[m.key] for m in MEASUREMENTS} == pytest.approx(row.values, **SAME)


def test_crossing_lesions_are_those_that_reach_beyond_the_region():
    # One row: a lesion within region 1, one from 1 to 2, one within "elsewhere"; the last voxel is no lung.
    labels = np.array([[[1, 1, 1, 2, 2, 0, 0, 0]]], np.uint8)
    lungs = np.array([[[1, 1, 1, 1, 1, 1, 1, 0]]], np.uint8)
    heat = np.array([[[1, 0, 1, 1, 0, 0, 1, 0]]], np.float32)
    rows = _by_name(_measured(np.zeros(heat.shape, np.int16), lungs, heat, labels=labels, names={1: "a"})[0], "given")
    counts = {name: (row["lesion_count"], row["crossing_count"]) for name, row in rows.items()}
    assert counts == {"a": (2, 1), "region 2": (1, 1), "elsewhere": (1, 0)}


def test_regions_that_overlap_each_keep_their_own_voxels():
    hu, lungs, heat = _case(5)
    masks = [np.random.default_rng(n).random(hu.shape) < 0.4 for n in range(3)]
    given_regions = GivenRegions.of_masks(zip("abc", masks, strict=True), hu.shape, lambda labels: str(labels.max()))
    assert given_regions.sha256 == str(given_regions.labels.max())
    live = LiveLesions.of(hu, lungs, heat, 0.3)
    rows = _by_name(RegionTallies.of(live, given_regions.labels, given_regions).at(live.at(0.6, 0.0)), "given")
    for name, mask in zip("abc", masks, strict=True):
        assert rows[name]["lung_volume_ml"] == pytest.approx(0.3 * np.count_nonzero(mask & (lungs > 0)))
        assert rows[name]["lung_hu_mean"] == pytest.approx(hu[mask & (lungs > 0)].mean())
    rest = ~(masks[0] | masks[1] | masks[2]) & (lungs > 0)
    assert rows["elsewhere"]["lung_volume_ml"] == pytest.approx(0.3 * np.count_nonzero(rest))


def test_regions_that_do_not_meet_the_lungs_are_named_in_a_warning_and_lobes_stay():
    hu, lungs, heat = _case(7)
    lungs[:, :, 0] = 0
    labels = np.zeros(hu.shape, np.uint8)
    labels[:, :, 0] = 5  # outside the lungs
    labels[:, 4:6, 3:] = 12
    names = {5: "liver", 12: "lung_upper_lobe_right", 13: "lung_middle_lobe_right"}
    measured, tallies = _measured(hu, lungs, heat, labels=labels, names=names)
    rows = _by_name(measured, "given")
    assert list(rows) == ["lung_upper_lobe_right", "lung_middle_lobe_right", "elsewhere"]
    assert rows["lung_middle_lobe_right"]["lung_volume_ml"] == 0
    assert math.isnan(rows["lung_middle_lobe_right"]["involvement_percent"])
    (warning,) = tallies.warnings
    assert "liver" in warning and warning.code == "regions_outside_lungs" and warning.value == 1


def test_labels_of_another_grid_are_refused():
    hu, lungs, heat = _case(1)
    with pytest.raises(LesionDecompError, match="regions of shape"):
        _measured(hu, lungs, heat, labels=np.zeros((2, 2, 2), np.uint8))


@pytest.mark.parametrize("program", KNOWN_SETS)
def test_lobes_without_names_are_known_by_number_only_where_the_anatomy_agrees(program):
    lungs = np.zeros((10, 4, 12), np.uint8)
    lungs[:, :, :5], lungs[:, :, 7:] = 1, 2
    place = {
        "right upper lobe": (slice(6, 10), slice(0, 5)),
        "right middle lobe": (slice(4, 6), slice(0, 5)),
        "right lower lobe": (slice(0, 4), slice(0, 5)),
        "left upper lobe": (slice(5, 10), slice(7, 12)),
        "left lower lobe": (slice(0, 5), slice(7, 12)),
    }
    labels = np.zeros(lungs.shape, np.uint8)
    for number, lobe in KNOWN_SETS[program].items():
        z, x = place[lobe]
        labels[z, :, x] = number
    found, known = known_lobes(labels, lungs)
    assert (found, known) == (program, KNOWN_SETS[program])
    assert known_lobes(labels[:, :, ::-1], lungs) == ("", {})  # sides exchanged
    assert known_lobes(labels[::-1], lungs) == ("", {})  # upside down
    hu, heat = np.zeros(lungs.shape, np.int16), np.zeros(lungs.shape, np.float32)
    measured, _ = _measured(hu, lungs, heat, labels=labels)
    assert {row.lobe for row in measured.of_set("given")} == {*LOBES, ""}
    assert measured.severity.lobes.total == 0


def test_lobes_are_known_by_the_names_that_programs_give_them():
    names = {
        "right upper lobe": ("lung_upper_lobe_right", "right upper lobe", "RUL", "Upper lobe of right lung"),
        "left lower lobe": ("lung_lower_lobe_left", "Left Lower Lobe", "lll", "linker Unterlappen"),
        "": ("right lung", "left middle lobe", "lobe", "lung_vessels", "right upper zone", "left and right upper lobe"),
    }
    for lobe, called in names.items():
        assert [lobe_called(name) for name in called] == [lobe] * len(called)


def test_table_has_a_line_for_each_region_with_its_definition_and_score(sample_folder):
    _, result = segmented_sample(sample_folder, step=4)
    lines = list(csv.reader(io.StringIO(regions_csv(result.regions.rows, result.regions.severity, ["Odd."]))))
    assert lines[0] == CSV_HEADER and len(lines) == 1 + len(result.regions.rows) == 13
    columns = {name: [line[n] for line in lines[1:]] for n, name in enumerate(CSV_HEADER)}
    assert columns["Set"] == ["thirds"] * 6 + ["halves"] * 6
    assert set(columns["Severity total"]) == {str(result.regions.severity.zones.total), ""}
    scores = [int(text) for text in columns["Severity score"] if text]
    assert len(scores) == 6 and sum(scores) == result.regions.severity.zones.total
    assert all(text.endswith(".") for text in columns["Definition"])
    assert set(columns["Warnings"]) == {"Odd."}


def test_rows_survive_the_report(sample_folder):
    _, result = segmented_sample(sample_folder, step=4)
    for row in result.regions.rows:
        again = RegionRow.of_record(row.record())
        assert (again.set_key, again.region, again.lobe) == (row.set_key, row.region, row.lobe)
        assert again.values == pytest.approx(row.values, **SAME)
        assert set(row.values) == {m.key for m in REGION_MEASUREMENTS}
