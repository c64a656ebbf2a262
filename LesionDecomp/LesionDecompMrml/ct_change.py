"""Whether a CT's voxels are still those that a result was made of: another frame may have come, or a filter gone over.

The run's report records a hash of the voxels. Theirs is taken again only when the image was modified since, and never
while a slider is dragged: whoever drags asks when it rests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from LesionDecompLib.ct.oddity import Oddity
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.readers import volume_identity

from .input_nodes import volume_from_node
from .scene_nodes import keep_latest

if TYPE_CHECKING:
    from .result_nodes import ResultNodes

CODE = "ct_changed_after_run"
TEXT = (
    "The CT's voxels have changed since the run (another frame, or a filter in place): lesions and HU are not of one "
    "image. Run LesionDecomp again."
)

_known: dict[str, tuple[tuple[Any, ...], str]] = {}  # of CT nodes by ID: their image's state, the hash of its voxels


def image_state(node) -> tuple[Any, ...]:
    """What changes whenever a volume node's voxels do, its dimensions last; empty without voxels; quick."""
    image = node.GetImageData()
    scalars = image.GetPointData().GetScalars() if image is not None else None
    if scalars is None:
        return ()
    return image.GetMTime(), scalars.GetMTime(), scalars.GetDataType(), image.GetDimensions()


def remember(node, state: tuple[Any, ...], report: str) -> None:
    """Take a run's report for the hash of the voxels that the node had in that state."""
    if state and (recorded := _recorded(report)):
        _keep(node, state, recorded)


def change_warning(nodes: ResultNodes) -> Oddity | None:
    """The warning about a CT that changed after the run; None where it did not, or where no run was recorded."""
    recorded = _recorded(nodes.report.GetText() if nodes.report is not None else "")
    if not recorded or not image_state(nodes.ct):
        return None
    try:
        if _hash_of(nodes.ct) == recorded:
            return None
    except LesionDecompError:  # a CT that has been moved so that nothing can be measured: whoever measures reports it
        return None
    return Oddity(TEXT, CODE, 1.0, 0.0)


def _hash_of(ct) -> str:
    state = image_state(ct)
    known = _known.get(ct.GetID())
    if known is None or known[0] != state:
        known = _keep(ct, state, volume_identity(volume_from_node(ct, copy=False))[0])
    return known[1]


def _keep(node, state: tuple[Any, ...], voxels: str) -> tuple[tuple[Any, ...], str]:
    keep_latest(_known, node, (state, voxels))
    return state, voxels


def _recorded(report: str) -> str:
    try:
        return str(json.loads(report)["input"]["voxels_sha256"])
    except (ValueError, KeyError, TypeError):
        return ""
