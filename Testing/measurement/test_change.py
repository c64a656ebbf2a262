"""Change between two scans: what was painted in or out is found, by volume and by label, in whatever order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from changing_scans import ChangingScans, chest_scan, moved_pair, small_chest
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, InputError
from LesionDecompLib.measurement.change.coarse import CoarseGrid
from LesionDecompLib.measurement.change.comparison import compare_scans
from LesionDecompLib.measurement.change.definitions import CHANGES
from LesionDecompLib.measurement.change.labels import Change, keep_volumes, label_change
from LesionDecompLib.measurement.change.motion import Motion
from LesionDecompLib.measurement.change.quality import Quality
from LesionDecompLib.measurement.change.registration import SPACING_MM, register_lungs
from LesionDecompLib.measurement.change.scan import Scan
from LesionDecompLib.measurement.change.table import change_csv, change_rows
from LesionDecompLib.measurement.regions import GivenRegions

SWAPPED = {"new": "resolved", "resolved": "new", "grown": "shrunk", "shrunk": "grown"}


@pytest.fixture(scope="module")
def pair() -> ChangingScans:
    """The small chest and what has become of it."""
    return moved_pair()


@pytest.fixture(scope="module")
def still() -> tuple[Volume, np.ndarray]:
    """The small chest."""
    return small_chest()


def no_motion(later: Scan) -> Motion:
    grid = CoarseGrid.around(later, SPACING_MM)
    return Motion(grid, np.zeros((3, *grid.shape), np.float32))


def boxes(shape: tuple[int, ...], *parts: tuple[slice, slice, slice]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for part in parts:
        mask[part] = True
    return mask


@pytest.mark.slow
def test_painted_changes_are_found_through_a_known_motion_in_both_orders(pair):
    """What was painted in or out within 5 %; reversed, 1 and 4 as well as 2 and 5 change places, and 3 stays."""
    forward = compare_scans(pair.earlier, pair.later)
    there = forward.rows[0].values
    ml = pair.later.voxel_ml
    for name in ("new", "grown", "persistent", "resolved", "shrunk"):
        assert there[f"{name}_ml"] == pytest.approx(pair.voxels(name) * ml, rel=0.05), name
    assert forward.quality.lung_dice > 0.95
    assert forward.quality.vessel_mm < 2.0
    assert forward.warnings == []
    assert forward.counts == {"new": 1, "resolved": 1, "later_kept": 3, "earlier_kept": 3, "earlier_not_seen": 0}

    back = compare_scans(pair.later, pair.earlier).rows[0].values
    for name, other in SWAPPED.items():
        assert back[f"{other}_ml"] == pytest.approx(there[f"{name}_ml"], rel=0.05), name
    assert back["persistent_ml"] == pytest.approx(there["persistent_ml"], rel=0.05)
    # The same tissue of the same scan, whichever of them is the grid.
    assert back["resolved_earlier_ml"] == pytest.approx(there["new_ml"], rel=0.01)
    assert back["shrunk_earlier_ml"] == pytest.approx(there["grown_ml"], rel=0.05)


def test_a_ct_against_itself_is_persistent_alone(pair):
    """Also where its axes are stored in another order."""
    scan = pair.later
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, scan.lungs.shape[2] - 1
    turned = Scan(
        *(np.ascontiguousarray(a[:, :, ::-1]) for a in (scan.lungs, scan.lesions)),
        scan.ijk_to_ras @ flip,
        scan.statistics,
        np.ascontiguousarray(scan.hu[:, :, ::-1]),
    )
    for earlier in (scan, turned):
        found = compare_scans(earlier, scan)
        assert found.motion.is_none
        assert np.array_equal(found.labels, Change.PERSISTENT * (scan.lesions != 0))
        assert found.warnings == []
        assert found.quality.lung_dice == 1
        assert found.quality.vessel_mm == 0
        assert found.rows[0].values["persistent_ml"] == pytest.approx(scan.values("both lungs")["lesion_volume_ml"])


def test_lesions_are_labeled_by_whether_they_meet(still):
    volume, lungs = still
    shape = volume.shape
    lung = np.argwhere(lungs)
    k, j, _ = (int(n) for n in np.median(lung, axis=0))
    left = boxes(shape, np.s_[k : k + 4, j : j + 4, 8:12])
    before = left | boxes(shape, np.s_[k : k + 4, j : j + 4, 14:18], np.s_[k + 12 : k + 14, j : j + 4, 8:12])
    now = boxes(shape, np.s_[k : k + 4, j : j + 6, 8:12], np.s_[k : k + 4, j : j + 4, 44:48]) | boxes(
        shape, np.s_[k : k + 4, j : j + 2, 14:18]
    )
    whole = np.ones(shape, np.uint8)
    earlier, later = (chest_scan(volume, whole, mask) for mask in (before, now))
    found = label_change(earlier, later, no_motion(later))
    wanted = np.zeros(shape, np.uint8)
    wanted[k : k + 4, j : j + 4, 8:12] = Change.PERSISTENT
    wanted[k : k + 4, j + 4 : j + 6, 8:12] = Change.GROWN
    wanted[k : k + 4, j : j + 4, 44:48] = Change.NEW
    wanted[k + 12 : k + 14, j : j + 4, 8:12] = Change.RESOLVED
    wanted[k : k + 4, j : j + 2, 14:18] = Change.PERSISTENT
    wanted[k : k + 4, j + 2 : j + 4, 14:18] = Change.SHRUNK
    assert np.array_equal(found.labels, wanted)
    assert (found.new, found.resolved, found.later_kept, found.earlier_kept) == (1, 1, 2, 2)


def test_lesions_that_nearly_touch_meet(still):
    """One that registration may have shifted is the same lesion: neither new nor resolved."""
    volume, _ = still
    fine = Volume.from_array(volume.array, volume.ijk_to_ras @ np.diag([0.25, 0.25, 0.25, 1]))  # 1 mm voxels
    whole = np.ones(fine.shape, np.uint8)
    before = boxes(fine.shape, np.s_[30:36, 30:36, 20:26])
    near, far = (boxes(fine.shape, np.s_[30:36, 30:36, 25 + gap : 31 + gap]) for gap in (2, 5))
    for now, labels in ((near, {Change.GROWN, Change.PERSISTENT, Change.SHRUNK}), (far, {Change.NEW, Change.RESOLVED})):
        earlier, later = (chest_scan(fine, whole, mask) for mask in (before, now))
        found = label_change(earlier, later, no_motion(later)).labels
        assert set(np.unique(found)) == {0, *labels}


def test_a_lesion_that_registration_left_beside_itself_is_not_called_grown_and_shrunk(still):
    """Off by 2 mm it is the same lesion; what has grown beyond that has grown; one that is 5 mm away is another."""
    volume, _ = still
    fine = Volume.from_array(volume.array, volume.ijk_to_ras @ np.diag([0.25, 0.25, 0.25, 1]))  # 1 mm voxels
    whole = np.ones(fine.shape, np.uint8)
    before = boxes(fine.shape, np.s_[20:32, 20:32, 20:32])
    for now, counts in (
        (boxes(fine.shape, np.s_[20:32, 20:32, 22:34]), {Change.PERSISTENT: 12**3}),
        (boxes(fine.shape, np.s_[22:34, 20:32, 20:38]), {Change.PERSISTENT: 12**3, Change.GROWN: 12 * 12 * 6}),
        (boxes(fine.shape, np.s_[20:32, 20:32, 22:28]), {Change.PERSISTENT: 12 * 12 * 6, Change.SHRUNK: 12 * 12 * 6}),
        (boxes(fine.shape, np.s_[20:32, 20:32, 37:49]), {Change.NEW: 12**3, Change.RESOLVED: 12**3}),
    ):
        earlier, later = (chest_scan(fine, whole, mask) for mask in (before, now))
        found = label_change(earlier, later, no_motion(later)).labels
        assert {Change(n): int((found == n).sum()) for n in np.unique(found) if n} == counts


def test_registration_gives_the_same_motion_each_time_and_labels_do_not_depend_on_threads(pair, monkeypatch):
    import LesionDecompLib.measurement.change.registration as registration
    import SimpleITK

    monkeypatch.setattr(registration, "AFFINE_STEPS", 6)
    monkeypatch.setattr(registration, "SPLINE_STEPS", 2)
    motions, labels = [], []
    for threads in (1, 3):
        monkeypatch.setattr("LesionDecompLib.threads.usable_threads", lambda n=threads: n)
        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
        motions.append(register_lungs(pair.earlier, pair.later).motion)
        labels.append(label_change(pair.earlier, pair.later, motions[-1]).labels)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    assert motions[0].displacement.any()
    np.testing.assert_array_equal(motions[0].displacement, motions[1].displacement)
    np.testing.assert_array_equal(*labels)


def test_lesions_keep_the_volume_they_had():
    """Evenly grown or shrunk, not into each other; one that was cut stays as it is."""
    numbers = np.zeros((20, 20, 20), np.int32)
    numbers[5:10, 5:10, 5:10], numbers[5:10, 11:16, 5:10], numbers[15:17, 2:4, 2:4] = 1, 2, 3
    before = numbers.copy()
    keep_volumes(numbers, np.array([150, 98, 80]), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert np.bincount(numbers.ravel())[1:].tolist() == [150, 98, 8]
    assert (numbers[before == 1] == 1).all()
    assert ((numbers == 2) <= (before == 2)).all()
    grown = np.argwhere((numbers == 1) & (before != 1))
    assert np.abs(grown - 7).max() == 3  # one voxel deep, in the middle of the faces


def test_rows_add_up_and_agree_with_both_scans(pair):
    """Later labels make up the later lesions, earlier ones the earlier lesions, to the last voxel; lungs add up."""
    change = label_change(pair.earlier, pair.later, no_motion(pair.later))
    labels = (np.arange(pair.later.lungs.shape[0])[:, None, None] // 40 + 1) * np.ones(pair.later.lungs.shape, int)
    given = GivenRegions(labels.astype(np.uint8), {1: "below", 2: "above"}, "")
    rows = {row.region: row.values for row in change_rows(pair.earlier, pair.later, change, given)[0]}
    both = rows["both lungs"]
    assert both["new_ml"] + both["grown_ml"] + both["persistent_ml"] == pytest.approx(both["later_lesion_volume_ml"])
    earlier_ml = both["resolved_earlier_ml"] + both["shrunk_earlier_ml"] + both["persistent_earlier_ml"]
    assert earlier_ml == pytest.approx(both["earlier_lesion_volume_ml"], rel=1e-5)
    for names in (
        ("right lung", "left lung"),
        ("both lungs, upper third", "both lungs, middle third", "both lungs, lower third"),
        ("both lungs, ventral half", "both lungs, dorsal half"),
        ("below", "above", "elsewhere"),
    ):
        for key in ("new_ml", "resolved_ml", "grown_ml", "shrunk_earlier_ml", "later_lung_volume_ml"):
            assert sum(rows[name][key] for name in names) == pytest.approx(both[key], rel=1e-6), (names, key)
    # What Slicer's Segment Statistics would count in the labelmap.
    count = np.count_nonzero(change.labels == Change.RESOLVED)
    assert both["resolved_ml"] == pytest.approx(count * pair.later.voxel_ml)


def test_table_has_units_definitions_and_warnings(pair):
    change = label_change(pair.earlier, pair.later, no_motion(pair.later))
    rows, _ = change_rows(pair.earlier, pair.later, change)
    text = change_csv([("scan 1", "scan 2", rows, ["Odd."])])
    header, first, *_ = text.splitlines()
    assert all(m.header.split(",")[0] in header and m.definition for m in CHANGES)
    assert first.startswith("scan 1,scan 2,lungs,both lungs,")
    assert first.endswith(",Odd.")
    assert len(text.splitlines()) == 1 + 12 + 6


def test_lungs_alone_are_registered_without_ct_with_a_warning(pair):
    bare = replace(pair.later, hu=None)
    found = compare_scans(bare, bare)
    assert [text.code for text in found.warnings] == ["follow_without_ct"]
    assert found.quality.by == "lung masks"
    assert np.isnan(found.quality.vessel_mm)
    assert found.record()["registration"]["vessel_distance_mm"] is None


def test_poor_comparisons_are_warned_of():
    """Each limit on its own."""
    good = Quality(0.97, 1.0, 10.0, (5.0, 9.0), "CT")
    assert good.warnings == []
    for change, code, value in (
        ({"lung_volume_percent": 31.0}, "follow_lung_volumes", 31.0),
        ({"lung_dice": 0.85}, "follow_lung_overlap", 0.85),
        ({"vessel_mm": 4.5}, "follow_vessels_apart", 4.5),
    ):
        (warning,) = replace(good, **change).warnings
        assert (warning.code, warning.value) == (code, value)


def test_lesions_beyond_the_other_ct_are_warned_of(pair):
    """A later CT that reaches farther than the earlier one."""
    cut = pair.later.lesions.nonzero()[0].min() + 3
    matrix = pair.later.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * cut
    short = Scan(*(a[cut:] for a in (pair.later.lungs, pair.later.lesions)), matrix, pair.later.statistics)
    change = label_change(short, pair.later, no_motion(pair.later))
    assert change.unseen_ml == pytest.approx(np.count_nonzero(pair.later.lesions[:cut]) * pair.later.voxel_ml)


def test_lesions_beyond_the_later_ct_are_not_resolved(still):
    """One that the later CT shows free of lesion is; one below its last slice is not."""
    volume, _ = still
    whole = np.ones(volume.shape, np.uint8)
    before = boxes(volume.shape, np.s_[2:5, 20:24, 8:12], np.s_[20:23, 20:24, 8:12])
    earlier = chest_scan(volume, whole, before)
    matrix = volume.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * 10
    later = Scan(whole[10:], np.zeros_like(whole[10:]), matrix, earlier.statistics)
    change = label_change(earlier, later, no_motion(later))
    nothing = dict.fromkeys(("new", "later_kept", "earlier_kept"), 0)
    assert change.counts == {**nothing, "resolved": 1, "earlier_not_seen": 1}
    assert change.lost_ml == pytest.approx(3 * 4 * 4 * earlier.voxel_ml)
    assert np.count_nonzero(change.labels == Change.RESOLVED) == 3 * 4 * 4


def test_registration_can_be_canceled_at_any_step_and_reports_each(pair):
    steps = []
    with pytest.raises(Cancelled):
        register_lungs(
            pair.earlier, pair.later, lambda stage, done, total: steps.append((done, total)), lambda: len(steps) >= 3
        )
    assert [done for done, _ in steps] == [1, 2, 3]
    assert len({total for _, total in steps}) == 1


def test_scans_that_cannot_be_compared_are_refused(pair):
    with pytest.raises(InputError, match="without lungs"):
        replace(pair.later, lungs=np.zeros_like(pair.later.lungs))
    with pytest.raises(InputError, match="one grid"):
        replace(pair.later, lesions=pair.later.lesions[1:])
