"""What lies outside a scanner's field of view, or of a volume that was turned: any constant stands there, or no number.

Networks and measurements take air for it: a round of water or metal around the patient looks like a body.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .edges import OUTSIDE_HU, at_the_edge
from .oddity import Oddity
from .volume import Volume

DENSER_THAN_AIR_HU = -850.0  # what is less dense is air, or darker than air, as most scanners write
LEAST_SHARE_OF_EDGE = 0.15  # of the pixels on the slices' edges, that have the very same value
SATURATED_HU = 1000.0  # the highest value of a CT saved in a window: bone on the edge, not a filling
LOOKED_AT = 64  # slices


def with_air_outside(volume: Volume) -> tuple[Volume, list[str]]:
    """The volume with air where a constant denser than air fills the outside; and the warning about it.

    What touches the edge of an axial slice counts as outside. The volume itself is not changed; where nothing is
    filled it is returned as it is.
    """
    view = volume.view
    stack = view.to_axial(volume.array)
    filler = _filler(stack)
    if filler is None:
        return volume, []
    array = volume.array.copy()
    filled = view.to_axial(array)
    count = 0
    for plane in filled:
        outside = at_the_edge(plane == filler)
        count += int(np.count_nonzero(outside))
        plane[outside] = OUTSIDE_HU
    if not count:
        return volume, []
    text = (
        f"{100 * count / array.size:.0f} % of the voxels lie outside the field of view and hold {filler:g} HU; air was "
        "taken for them."
    )
    return replace(volume, array=array), [Oddity(text, "filled_outside", filler, DENSER_THAN_AIR_HU)]


def _filler(stack: np.ndarray) -> float | None:
    """The value that fills the outside, where it is denser than air; None where there is none."""
    some = stack[:: max(1, len(stack) // LOOKED_AT)]
    edges = np.concatenate([some[:, [0, -1]].ravel(), some[:, :, [0, -1]].ravel()])
    values, counts = np.unique(edges, return_counts=True)
    commonest = int(np.argmax(counts))
    value = float(values[commonest])
    if value <= DENSER_THAN_AIR_HU or counts[commonest] < LEAST_SHARE_OF_EDGE * edges.size:
        return None
    if value < SATURATED_HU and value == float(some.max()):
        return None
    return value
