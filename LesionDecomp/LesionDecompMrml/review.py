"""A reader's review of a result, kept with the result in the scene: which lesions are in, by place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from LesionDecompLib.ct.grid import AxialView
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import Lesions, LiveLesions
from LesionDecompLib.measurement.places import DescribedLesion, describe_lesions
from LesionDecompLib.measurement.review import Decision, Review
from LesionDecompLib.measurement.reviewed import PlacedReview, stored_place

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
    """The review of a result; without decisions where there is none."""
    text = nodes.heatmap.GetAttribute(REVIEW)
    if text:
        return Review.of_record(json.loads(text))
    return Review(_input_sha256(nodes))


def keep_review(nodes, review: Review) -> None:
    """Keep a review with its result; none where it has no decision and no slice."""
    heatmap = nodes.heatmap
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


def _input_sha256(nodes) -> str:
    """Identity of the CT, as the run's report has it."""
    try:
        return str(json.loads(nodes.report.GetText())["input"]["sha256"])
    except (AttributeError, ValueError, KeyError, TypeError) as error:
        found, expected = "a result without its report", "the report of a run, which names the CT"
        raise LesionDecompError("Review", found, expected, "Run LesionDecomp again.") from error
