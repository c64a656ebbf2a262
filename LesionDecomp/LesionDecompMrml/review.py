"""A reader's review of a result, kept with the result in the scene: which lesions are in, by place.

It is kept as the report has it, in the places that the CT's voxels had in the run. Decisions are about the image: where
the CT is moved, by a transform or by hardening one, they move with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import slicer
from LesionDecompLib.ct.grid import FINEST_MM, AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import Lesions, LiveLesions
from LesionDecompLib.measurement.places import DescribedLesion, describe_lesions
from LesionDecompLib.measurement.review import Decision, Review, SeenSlice
from LesionDecompLib.measurement.reviewed import LPS, PlacedReview, stored_place

from .input_nodes import world_matrix

STAGE = "Review"
REVIEW = "LesionDecomp.review"  # attribute of a heatmap: the review as JSON


@dataclass(frozen=True)
class ReviewedLesion:
    """A lesion of the list.

    :param lesion: as the heat has it.
    :param kept: whether it is among the lesions shown.
    :param added: by the reader.
    :param threshold: that a decision about it refers to.
    :param painted: by hand.
    """

    lesion: DescribedLesion
    kept: bool
    added: bool
    threshold: float
    painted: bool = False


def review_of(nodes) -> Review:
    """The review of a result, in the places that its CT has now; without decisions where there is none.

    Slices are left out where the CT was turned so far that the slices of the run are no axial ones any more.
    """
    review = recorded_review(nodes)
    shape, (run, now) = _shape(nodes), _places(nodes)
    return _moved(review, shape, run, now)


def recorded_review(nodes) -> Review:
    """The same in the places of the run, as the report of the run holds it."""
    text = nodes.heatmap.GetAttribute(REVIEW)
    if text:
        return Review.of_record(json.loads(text))
    return Review(_input_sha256(nodes))


def keep_review(nodes, review: Review) -> None:
    """Keep a review with its result; none where it has no decision and no slice.

    :param review: in the places that the CT has now.
    :raises LesionDecompError: slices of a CT that was turned so far since its run that they were others there.
    """
    heatmap, shape, (run, now) = nodes.heatmap, _shape(nodes), _places(nodes)
    if _are_other_slices(shape, run, now):
        if review.slices:
            found, expected = "a CT that was turned since its run", "the axial slices of the run"
            raise LesionDecompError(STAGE, found, expected, "Undo the transform, or run LesionDecomp again.")
        review = replace(_moved(review, shape, now, run), slices=recorded_review(nodes).slices)
    else:
        review = _moved(review, shape, now, run)
    # Silently: the heat itself is as it was, and no view has to draw it anew.
    silent = heatmap.GetDisableModifiedEvent()
    heatmap.SetDisableModifiedEvent(True)
    if review.lesions or review.slices:
        heatmap.SetAttribute(REVIEW, json.dumps(review.record()))
    else:
        heatmap.RemoveAttribute(REVIEW)
    heatmap.SetDisableModifiedEvent(silent)
    heatmap.StorableModified()


def decision_at(lps_mm: tuple[float, float, float], decision: str, threshold: float) -> Decision:
    """A decision made now."""
    return Decision(lps_mm, decision, float(threshold), now())


def now() -> str:
    """The time, for a decision."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class LiveReview:
    """The review of a result on its heat; placed anew only when a decision comes or goes.

    :param live: of the result.
    :param view: of its arrays.
    """

    def __init__(self, live: LiveLesions, view: AxialView) -> None:
        self._live, self._view = live, view
        self._placed: tuple[Review, PlacedReview] | None = None

    def placed(self, review: Review) -> PlacedReview | None:
        """The review on this heat; None where there is nothing to apply."""
        if not review.lesions:
            return None
        if self._placed is None or self._placed[0].lesions != review.lesions:
            self._placed = review, PlacedReview.of(self._live, self._view, review)
        return self._placed[1]

    def at(self, review: Review, threshold: float, min_volume_ml: float) -> Lesions:
        """The lesions at a threshold, after the decisions."""
        placed = self.placed(review)
        live = self._live
        return live.at(threshold, min_volume_ml) if placed is None else placed.at(live, threshold, min_volume_ml)

    def lesions(self, review: Review, threshold: float, min_volume_ml: float) -> list[ReviewedLesion]:
        """The model's lesions at a threshold, the largest first, then those that were added, then what was painted."""
        live, placed = self._live, self.placed(review)
        own = describe_lesions(live.at(threshold, min_volume_ml), live)
        if placed is None:
            return [ReviewedLesion(lesion, True, False, threshold) for lesion in own]
        shown = placed.at(live, threshold, min_volume_ml).voxels.places
        listed = [ReviewedLesion(lesion, _holds(shown, live, lesion.voxel), False, threshold) for lesion in own]
        for one in placed.added:
            for lesion in describe_lesions(placed.added_lesion(live, one), live):
                kept = _holds(shown, live, lesion.voxel)
                listed.append(ReviewedLesion(lesion, kept, True, one.decision.threshold))
        for lesion in describe_lesions(placed.painted_lesions(live), live):
            kept = _holds(shown, live, lesion.voxel)
            listed.append(ReviewedLesion(lesion, kept, False, threshold, painted=True))
        return listed


def _holds(places: np.ndarray, live: LiveLesions, voxel: tuple[int, int, int]) -> bool:
    place = stored_place(live, voxel)
    return place is not None and bool(np.isin(place, places))


def seen_before(earlier, report: str) -> tuple[SeenSlice, ...]:
    """Slices that a reader of an earlier result has seen, for a new one of the same voxels: they are about the CT.

    :param earlier: nodes of the earlier result, or None.
    :param report: of the new run.
    """
    if earlier is None or earlier.report is None or earlier.heatmap.GetAttribute(REVIEW) is None:
        return ()
    try:
        same = json.loads(report)["input"]["voxels_sha256"] == _input(earlier)["voxels_sha256"]
        return review_of(earlier).slices if same else ()
    except (LesionDecompError, AttributeError, ValueError, KeyError, TypeError):
        return ()  # without a report of either, or slices that no longer fit


def _moved(review: Review, shape: tuple[int, int, int], before: np.ndarray, after: np.ndarray) -> Review:
    """A review of a CT whose matrix from index to RAS was another before."""
    if np.allclose(before, after, rtol=0, atol=FINEST_MM):
        return review
    step = after @ np.linalg.inv(before)

    def place(lps_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        left, posterior, superior = (step @ (*(lps_mm * LPS), 1.0))[:3] * LPS
        return float(left), float(posterior), float(superior)

    lesions = tuple(replace(one, lps_mm=place(one.lps_mm)) for one in review.lesions)
    slices = review.slices
    if _are_other_slices(shape, before, after):
        slices = ()
    elif AxialView.of(shape, before).flips[0] != (view := AxialView.of(shape, after)).flips[0]:
        slices = tuple(replace(one, index=view.shape[0] - 1 - one.index) for one in slices)
    return replace(review, lesions=lesions, slices=slices)


def _are_other_slices(shape: tuple[int, int, int], before: np.ndarray, after: np.ndarray) -> bool:
    return AxialView.of(shape, before).axes[0] != AxialView.of(shape, after).axes[0]


def _places(nodes) -> tuple[np.ndarray, np.ndarray]:
    """The CT's matrix from index to RAS in the run, and now; the same where no report states it."""
    now = world_matrix(nodes.ct, STAGE)
    try:
        run = np.array(_input(nodes)["ijk_to_ras"], float)
    except (AttributeError, ValueError, KeyError, TypeError):
        return now, now
    return (run if run.shape == (4, 4) and abs(np.linalg.det(run)) > 0 else now), now


def _shape(nodes) -> tuple[int, int, int]:
    k, j, i = slicer.util.arrayFromVolume(nodes.ct).shape
    return k, j, i


def _input(nodes) -> dict:
    """The CT, as the run's report has it."""
    return json.loads(nodes.report.GetText())["input"]


def _input_sha256(nodes) -> str:
    """Its identity."""
    try:
        return str(_input(nodes)["sha256"])
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        found, expected = "a result without its report", "the report of a run, which names the CT"
        raise LesionDecompError(STAGE, found, expected, "Run LesionDecomp again.") from error
