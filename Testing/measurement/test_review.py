"""What a review promises: decisions hold by place at any threshold, take no neighbor with them, and can be undone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.review import Decision, Review, SeenSlice, read_review
from LesionDecompLib.measurement.reviewed import PlacedReview, lps_of_voxel, voxel_at
from scipy.ndimage import gaussian_filter

SHAPE = (8, 16, 40)
LEFT, RIGHT, FAINT = (4, 8, 8), (4, 8, 20), (4, 8, 34)
MATRICES = {
    "axial": np.array([[-2.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 3.0, -50], [0, 0, 0, 1]]),
    "flipped": np.array([[2.0, 0, 0, -48], [0, -2.0, 0, 40], [0, 0, -3.0, -29], [0, 0, 0, 1]]),
}


_PAINT = (
    '{"input_sha256": "a", "lesions": [{"lps_mm": [1, 2, 3], "decision": "paint", "threshold": 0.5, "painted": %s}]}'
)


@pytest.fixture(params=MATRICES)
def case(request):
    """Two warm blobs that grow together below 0.13, and one that is never above 0.3; any orientation in memory."""
    heat = np.zeros(SHAPE, np.float32)
    for voxel, height in ((LEFT, 1.0), (RIGHT, 0.95), (FAINT, 0.3)):
        one = np.zeros(SHAPE)
        one[voxel] = 1
        blob = gaussian_filter(one, (1.5, 2.5, 3.0))
        heat = np.maximum(heat, (height * blob / blob.max()).astype(np.float32))
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[1:-1, 1:-1, 1:-1] = 1
    hu = np.full(SHAPE, -700, np.int16)
    view = AxialView.of(SHAPE, MATRICES[request.param])
    arrays = [np.ascontiguousarray(view.from_axial(array)) for array in (hu, lungs, heat)]
    live = LiveLesions.of(*(view.to_axial(array) for array in arrays), 0.012)
    return live, view, heat


def _decision(view, voxel, decision: str, threshold: float) -> Decision:
    return Decision(lps_of_voxel(view, voxel), decision, threshold, "2026-01-01T00:00:00Z")


def _mask(live, lesions) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    lesions.paint(mask)
    return mask > 0


def _left(case, threshold: float, *decisions, min_volume_ml: float = 0.0) -> np.ndarray:
    live, view, _ = case
    review = Review("ab", tuple(_decision(view, *one) for one in decisions))
    return _mask(live, PlacedReview.of(live, view, review).at(live, threshold, min_volume_ml))


def test_places_survive_the_way_to_millimeters_and_back(case):
    _, view, _ = case
    for voxel in (LEFT, RIGHT, (0, 0, 0)):
        assert voxel_at(view, lps_of_voxel(view, voxel)) == voxel
    assert voxel_at(view, (9999.0, 0.0, 0.0)) is None


def test_a_rejected_lesion_stays_out_when_the_threshold_rises(case):
    _, _, heat = case
    for threshold in (0.5, 0.6, 0.9):
        left = _left(case, threshold, (LEFT, "reject", 0.5))
        assert not left[LEFT] and (not left[:, :, :14].any())
        np.testing.assert_array_equal(left[:, :, 14:], (heat >= np.float32(threshold))[:, :, 14:])


def test_a_rejected_lesion_that_grows_together_with_another_takes_no_part_of_that(case):
    live, _, _ = case
    plain = live.at(0.12, 0.0)
    assert plain.components.count == 2  # the two blobs are one, the faint one beside it
    left = _left(case, 0.12, (LEFT, "reject", 0.5))
    assert left[RIGHT] and left[FAINT] and not left[LEFT]
    at_decision = _mask(live, live.at(0.5, 0.0))
    assert left[:, :, 14:][at_decision[:, :, 14:]].all()  # the other is whole
    assert not left[:, :, :14][at_decision[:, :, :14]].any()
    gone = _mask(live, plain) & ~left
    assert gone.any() and np.flatnonzero(gone.any(axis=(0, 1))).max() < 15  # the valley between the two is at 14


def test_a_rejected_lesion_alone_goes_wholly_however_far_it_grows(case):
    _, _, heat = case
    left = _left(case, 0.05, (LEFT, "reject", 0.5), (RIGHT, "reject", 0.5))
    assert not left[LEFT] and not left[RIGHT]
    assert not left[:, :, :25][heat[:, :, :25] >= 0.4].any()


def test_an_added_lesion_is_the_connected_heat_down_to_its_threshold_at_any_threshold(case):
    live, view, heat = case
    for threshold in (0.5, 0.9):
        with_added = _left(case, threshold, (FAINT, "add", 0.2))
        plain = _mask(live, live.at(threshold, 0.0))
        added = with_added & ~plain
        expected = (heat >= np.float32(0.2)) & (np.arange(SHAPE[2]) > 27) & (view is not None)
        inside = np.zeros(SHAPE, bool)
        inside[1:-1, 1:-1, 1:-1] = True
        np.testing.assert_array_equal(added, expected & inside)
    # Its size has been judged by the reader: the smallest volume does not take it out.
    assert _left(case, 0.5, (FAINT, "add", 0.2), min_volume_ml=50.0)[FAINT]


def test_statistics_follow_the_decisions(case):
    live, view, _ = case
    review = Review("ab", (_decision(view, LEFT, "reject", 0.5), _decision(view, FAINT, "add", 0.2)))
    lesions = PlacedReview.of(live, view, review).at(live, 0.5, 0.0)
    both = lesions.statistics()[0].values
    assert both["lesion_volume_ml"] == pytest.approx(np.count_nonzero(_mask(live, lesions)) * 0.012)
    assert both["lesion_count"] == 2


def test_a_later_decision_about_the_same_lesion_takes_the_place_of_an_earlier_one(case):
    live, _, _ = case
    plain = _mask(live, live.at(0.5, 0.0))
    near = (4, 8, 9)
    np.testing.assert_array_equal(_left(case, 0.5, (LEFT, "reject", 0.5), (near, "accept", 0.5)), plain)
    added = _left(case, 0.5, (FAINT, "add", 0.2), (FAINT, "reject", 0.2))
    np.testing.assert_array_equal(added, plain)
    taken_back = _left(case, 0.5, (FAINT, "add", 0.2), (FAINT, "accept", 0.2))
    np.testing.assert_array_equal(taken_back, plain)
    rejected = _left(case, 0.5, (near, "accept", 0.5), (LEFT, "reject", 0.5))
    assert not rejected[LEFT] and rejected[RIGHT]


def _runs(view, mask: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Of an axial mask, in the array that the view is of; one voxel each."""
    return tuple((int(n), 1) for n in np.flatnonzero(np.ascontiguousarray(view.from_axial(mask))))


def _painting(view, painted: np.ndarray, erased: np.ndarray) -> Decision:
    return Decision(lps_of_voxel(view, LEFT), "paint", 0.5, "2026-01-01", _runs(view, painted), _runs(view, erased))


def _boxed(part) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[part] = True
    return mask


def test_what_was_painted_is_lesion_and_what_was_erased_is_none_at_any_threshold(case):
    live, view, _ = case
    painted, erased = _boxed(np.s_[2:4, 3:6, 26:31]), _boxed(np.s_[4:6, 8:10, 18:22])
    placed = PlacedReview.of(live, view, Review("ab", (_painting(view, painted, erased),)))
    for threshold in (0.05, 0.5, 0.99):
        expected = _mask(live, live.at(threshold, 0.2)) & ~erased | painted
        found = placed.at(live, threshold, 0.2)
        np.testing.assert_array_equal(_mask(live, found), expected)
        assert found.statistics()[0].values["lesion_volume_ml"] == pytest.approx(np.count_nonzero(expected) * 0.012)
    np.testing.assert_array_equal(_mask(live, placed.painted_lesions(live)), painted)


def test_what_was_painted_beside_the_lungs_does_not_count(case):
    live, view, _ = case
    beside = _boxed(np.s_[0, 3:6, 26:31])
    placed = PlacedReview.of(live, view, Review("ab", (_painting(view, beside, beside & False),)))
    np.testing.assert_array_equal(_mask(live, placed.at(live, 0.5, 0.0)), _mask(live, live.at(0.5, 0.0)))


def test_of_two_edits_of_a_voxel_the_later_holds(case):
    live, view, _ = case
    here = _boxed(np.s_[2:4, 3:6, 26:31])
    first, second = _painting(view, here, here & False), _painting(view, here & False, here)
    for decisions, lesion in (((first, second), False), ((second, first), True)):
        found = _mask(live, PlacedReview.of(live, view, Review("ab", decisions)).at(live, 0.5, 0.0))
        assert (found[here] == lesion).all()


def test_what_was_erased_and_painted_back_is_as_it_was_and_the_other_way_round(case):
    """As Segment Editor's own undo does."""
    live, view, _ = case
    lesion, beside = _mask(live, live.at(0.5, 0.0)), _boxed(np.s_[2:4, 3:6, 26:31])
    there = _painting(view, beside, lesion)
    back = _painting(view, lesion, beside)
    placed = PlacedReview.of(live, view, Review("ab", (there, back)))
    assert not len(placed.painted) and not len(placed.erased)
    for threshold in (0.05, 0.5, 0.9):
        np.testing.assert_array_equal(
            _mask(live, placed.at(live, threshold, 0.0)), _mask(live, live.at(threshold, 0.0))
        )


def test_a_rejected_lesion_takes_along_what_was_painted_onto_it_and_nothing_else(case):
    live, view, _ = case
    lesion = _mask(live, live.at(0.5, 0.0))
    onto = _boxed(np.s_[3:5, 2:9, 8]) & ~lesion
    apart = _boxed(np.s_[2:4, 3:6, 30:33])
    paint = _painting(view, onto | apart, onto & False)
    plain = _left(case, 0.5, (LEFT, "reject", 0.5))
    for where in (LEFT, tuple(np.argwhere(onto)[0])):
        review = Review("ab", (paint, _decision(view, where, "reject", 0.5)))
        found = _mask(live, PlacedReview.of(live, view, review).at(live, 0.5, 0.0))
        assert not found[onto].any() and found[apart].all()
    np.testing.assert_array_equal(
        _mask(
            live,
            PlacedReview.of(live, view, Review("ab", (paint, _decision(view, LEFT, "reject", 0.5)))).at(live, 0.5, 0.0),
        ),
        plain | apart,
    )


def test_a_lesion_put_back_comes_whole_though_it_was_erased(case):
    live, view, _ = case
    lesion = _mask(live, live.at(0.5, 0.0))
    erase = _painting(view, lesion & False, lesion)
    review = Review("ab", (erase, _decision(view, LEFT, "accept", 0.5)))
    found = _mask(live, PlacedReview.of(live, view, review).at(live, 0.5, 0.0))
    assert found[LEFT] and not found[RIGHT]
    np.testing.assert_array_equal(found[:, :, :14], lesion[:, :, :14])


def test_painting_of_another_grid_is_counted_as_not_applied(case):
    live, view, _ = case
    beyond = Decision((0.0, 0.0, 0.0), "paint", 0.5, "", ((live.lungs.size - 1, 2),))
    assert [one.code for one in PlacedReview.of(live, view, Review("ab", (beyond,))).warnings] == ["review_not_applied"]


def test_undo_takes_back_the_latest_decision(case):
    _, view, _ = case
    first, second = _decision(view, LEFT, "reject", 0.5), _decision(view, FAINT, "add", 0.2)
    review = Review("ab").with_decision(first).with_decision(second)
    assert review.undone().lesions == (first,) and review.undone().undone().undone().lesions == ()


def test_undo_takes_back_slices_that_were_marked_together_and_decisions_in_the_order_they_came():
    review = Review("ab").with_slices(range(3, 6), True, "2026-01-01T10:00:00.000+00:00")
    review = review.with_decision(Decision((0.0, 0.0, 0.0), "reject", 0.5, "2026-01-01T10:00:01.000+00:00"))
    review = review.with_slices((4, 5, 9), False, "2026-01-01T10:00:02.000+00:00")
    assert review.seen == (3,)
    assert [one.index for one in review.slices] == [3, 4, 5, 4, 5]  # slice 9 had not been seen before
    review = review.undone()
    assert review.seen == (3, 4, 5) and len(review.lesions) == 1
    review = review.undone()
    assert review.seen == (3, 4, 5) and not review.lesions
    review = review.undone()
    assert review.seen == () and review == Review("ab") == review.undone()


def test_decisions_without_heat_at_their_place_are_counted_in_a_warning(case):
    live, view, _ = case
    review = Review("ab", (_decision(view, (4, 8, 26), "reject", 0.5), Decision((9e3, 0, 0), "add", 0.5)))
    placed = PlacedReview.of(live, view, review)
    (warning,) = placed.warnings
    assert (warning.code, warning.value) == ("review_not_applied", 2)
    np.testing.assert_array_equal(_mask(live, placed.at(live, 0.5, 0.0)), _mask(live, live.at(0.5, 0.0)))


def test_painting_outside_these_lungs_is_counted_in_a_warning(case):
    live, view, _ = case
    everywhere = np.ones(live.lungs.shape, bool)
    review = Review("ab", (_painting(view, everywhere, everywhere & False),))
    placed = PlacedReview.of(live, view, review)
    (warning,) = placed.warnings
    assert (warning.code, warning.value) == ("review_outside_lungs", np.count_nonzero(live.lungs == 0))
    np.testing.assert_array_equal(_mask(live, placed.at(live, 0.5, 0.0)) != 0, live.lungs != 0)


def test_a_review_survives_its_file(tmp_path):
    review = Review(
        "ab" * 32,
        (Decision((1.5, -2.25, 3.0), "reject", 0.4, "2026-01-01T00:00:00Z"), Decision((0.0, 0.0, 0.0), "add", 0.2)),
        (SeenSlice(3, True), SeenSlice(4, False, "2026-01-01T00:00:00Z")),
    ).with_decision(Decision((0.0, 1.0, 2.0), "paint", 0.5, "", ((3, 2), (7, 1)), ((5, 2),)))
    (tmp_path / "review.json").write_text(json.dumps(review.record()), "utf-8")
    assert read_review(tmp_path / "review.json") == review
    report = {"report": "LesionDecomp", "review": {**review.record(), "statistics": []}}
    (tmp_path / "report.json").write_text(json.dumps(report), "utf-8")
    assert read_review(tmp_path / "report.json") == review
    review.check_input("ab" * 32)
    with pytest.raises(LesionDecompError, match="a review of the CT abababababab"):
        review.check_input("cd" * 32)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no json", "not JSON"),
        ("[]", "no review"),
        ('{"lesions": []}', "no review"),
        ('{"input_sha256": "a", "lesions": {}}', "'lesions' that is no list"),
        ('{"input_sha256": "a", "lesions": [{"lps_mm": [1, 2], "decision": "add", "threshold": 0.5}]}', "lesion 1"),
        ('{"input_sha256": "a", "lesions": [{"lps_mm": [1, 2, 3], "decision": "no", "threshold": 0.5}]}', "'no'"),
        (
            '{"input_sha256": "a", "lesions": [{"lps_mm": [1, 2, 3], "decision": "add", "threshold": 7}]}',
            "out of range",
        ),
        (
            '{"input_sha256": "a", "lesions": [{"lps_mm": [1, 2, NaN], "decision": "add", "threshold": 1}]}',
            "out of range",
        ),
        ('{"input_sha256": "a", "slices": [{"index": "1", "seen": true}]}', "slice entry 1"),
        ('{"input_sha256": "a", "slices": [{"index": -1, "seen": true}]}', "slice entry 1 out of range"),
        (_PAINT % "[[5, 2], [6, 1]]", "painted voxels of lesion 1"),
        (_PAINT % "[[5, 0]]", "painted voxels of lesion 1"),
        (_PAINT % "[[-1, 2]]", "painted voxels of lesion 1"),
        (_PAINT % "[[1.5, 2]]", "painted voxels of lesion 1"),
        (_PAINT % "7", "painted voxels of lesion 1"),
    ],
)
def test_what_is_no_review_is_refused_with_the_entry(tmp_path, text, found):
    (tmp_path / "review.json").write_text(text, "utf-8")
    with pytest.raises(LesionDecompError, match="Reading the review") as error:
        read_review(tmp_path / "review.json")
    assert found in str(error.value)
