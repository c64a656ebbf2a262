"""Which result the panel shows: in its parameter node, whether the panel is open or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Result


def select_result(parameters: Any, result: Result) -> None:
    """Have the panel select a result, and show it where it stands: its threshold, smallest lesion and regions.

    :param parameters: the panel's parameter node.
    """
    nodes = result.nodes
    modified = parameters.StartModify()
    try:
        parameters.inputVolume, parameters.heatmap = nodes.ct, nodes.heatmap
        parameters.threshold, parameters.minimumVolumeMl = nodes.on_sliders
        parameters.regions = result.regions_node
        parameters.overlayVisible = parameters.outlineVisible = True
        parameters.Modified()  # the same nodes may hold another run's result
    finally:
        parameters.EndModify(modified)
