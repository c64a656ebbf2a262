"""What a comparison was made of, kept in the scene with it, and what of that has changed since."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .result_nodes import RUN, ResultNodes, complete_result
from .review import REVIEW

if TYPE_CHECKING:
    from .change_nodes import ChangeNodes

COMPARED = "LesionDecomp.change.compared"  # attribute of a comparison's record: both results as they were, as JSON
EARLIER = "LesionDecomp.change.earlier"  # role of the earlier heatmap, referred to by the later one


@dataclass(frozen=True)
class Difference:
    """Something of a comparison that no longer holds.

    :param kind: ``"other"`` (it was made with another result than the one chosen), ``"run"``, ``"threshold"``,
        ``"minimum_volume_ml"`` or ``"review"`` of a result that has changed.
    :param name: of the result that it was made with, or that has changed; may be empty.
    :param was, now: of a number.
    """

    kind: str
    name: str
    was: float = math.nan
    now: float = math.nan


def state_of(nodes: ResultNodes) -> dict[str, Any]:
    """What the lesions of a result depend on: its run, threshold, smallest volume and a hash of its review."""
    return {
        "name": nodes.heatmap.GetName() or "",
        "run": nodes.heatmap.GetAttribute(RUN) or "",
        "threshold": nodes.threshold,
        "minimum_volume_ml": nodes.minimum_volume_ml,
        "review": decisions_hash(nodes),
    }


def decisions_hash(nodes: ResultNodes) -> str:
    """Of what a reader has decided about the lesions of a result; empty without any."""
    return _hash_of_decisions(nodes.heatmap.GetAttribute(REVIEW) or "")


def compared_states(earlier: ResultNodes, later: ResultNodes) -> str:
    """JSON for :data:`COMPARED`."""
    return json.dumps({"earlier": state_of(earlier), "later": state_of(later)})


def earlier_name(change: ChangeNodes, later: ResultNodes) -> str:
    """Name of the result that was compared with; empty where nothing is known of it."""
    node = later.heatmap.GetNodeReference(EARLIER)
    return str(node.GetName() if node is not None else _states(change).get("earlier", {}).get("name", ""))


def differences(change: ChangeNodes, earlier: ResultNodes | None, later: ResultNodes) -> list[Difference]:
    """What of a comparison no longer holds; nothing where it is as if made now.

    :param earlier: result to compare with, or None where none is chosen.
    :param later: the result that the comparison belongs to.
    """
    then = _states(change)
    found = []
    compared = later.heatmap.GetNodeReference(EARLIER)
    if earlier is not None and compared != earlier.heatmap:
        found.append(Difference("other", earlier_name(change, later)))
    elif (made_with := complete_result(compared)) is not None:
        found += _changes(then.get("earlier"), state_of(made_with))
    return found + _changes(then.get("later"), state_of(later))


def _states(change: ChangeNodes) -> dict[str, Any]:
    """Of a comparison; empty where it was made before they were kept."""
    text = change.record.GetAttribute(COMPARED)
    return json.loads(text) if text else {}


def _changes(then: dict[str, Any] | None, now: dict[str, Any]) -> list[Difference]:
    if then is None:
        return []
    name = now["name"]
    if then["run"] != now["run"]:
        return [Difference("run", name)]
    found = [
        Difference(kind, name, then[kind], now[kind])
        for kind in ("threshold", "minimum_volume_ml")
        if not math.isclose(then[kind], now[kind], abs_tol=1e-6)
    ]
    return found + ([Difference("review", name)] if then["review"] != now["review"] else [])


@lru_cache(maxsize=8)
def _hash_of_decisions(review: str) -> str:
    """Of a review as JSON: of what it decides about lesions; slices that were seen change none."""
    lesions = json.loads(review).get("lesions") if review else None
    if not lesions:
        return ""
    decisions = [{key: value for key, value in one.items() if key != "time"} for one in lesions]
    return hashlib.sha256(json.dumps(decisions, sort_keys=True).encode()).hexdigest()
