"""The warnings of a result as it is now: what of the scene has changed since its run, what of its review and its
regions could not be applied, and those of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from LesionDecompLib.ct.oddity import Oddity
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.report.manifest import with_warnings

from .ct_change import change_warning
from .input_nodes import world_matrix
from .lesion_edits import edited_lung_voxels
from .result_nodes import UPDATING, ResultNodes

LUNGS_EDITED = "lungs_edited_after_run"


def warnings_now(nodes: ResultNodes, measured: Sequence[str] = ()) -> list[str]:
    """What has changed since the run, what was odd when its nodes were measured now, and the run's own warnings.

    :param measured: warnings of review and regions.
    """
    return [*_since_run(nodes, measured), *nodes.warnings]


def with_present_warnings(manifest: dict[str, Any], nodes: ResultNodes, measured: Sequence[str]) -> dict[str, Any]:
    """A run's manifest, and before its warnings the others of :func:`warnings_now`."""
    return with_warnings(manifest, [text for text in _since_run(nodes, measured) if isinstance(text, Oddity)])


def edited_lungs_warning(nodes: ResultNodes, *, named: bool = False) -> Oddity | None:
    """The warning that the lung segments are no longer the lungs that was measured in; None where they are.

    :param named: whether to name the result.
    """
    voxels = edited_lung_voxels(nodes)
    if not voxels:
        return None
    try:
        edited_ml = voxels * float(abs(np.linalg.det(world_matrix(nodes.ct, UPDATING)[:3, :3]))) / 1000.0
    except LesionDecompError:  # a CT that has been moved so that nothing can be measured: whoever measures reports it
        return None
    whose = f"The lung segments of '{nodes.heatmap.GetName()}'" if named else "The lung segments"
    text = (
        f"{whose} were edited by hand since the run ({edited_ml:.2f} mL); heat and measurements are those of the lungs "
        "before. Recompute from the edited lungs."
    )
    return Oddity(text, LUNGS_EDITED, edited_ml, 0.0)


def _since_run(nodes: ResultNodes, measured: Sequence[str]) -> list[str]:
    changed = [warning for warning in (change_warning(nodes), edited_lungs_warning(nodes)) if warning is not None]
    known = nodes.warnings  # the run may have known of the same
    return [*changed, *(text for text in measured if text not in known)]
