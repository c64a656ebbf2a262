"""Which nodes the panel's selectors offer: no output as chest CT, no CT as output, no result without its CT."""

from __future__ import annotations

import slicer
from LesionDecompMrml.result_nodes import complete_result
from LesionDecompMrml.scene_nodes import OUTPUT, is_output, scalar_volumes

from .combo_box import keep_narrow

SELECTORS = (
    "inputSelector",
    "lungMaskSelector",
    "heatmapSelector",
    "lungsSelector",
    "lesionsSelector",
    "tableSelector",
    "segmentationSelector",
    "resultSelector",
    "earlierSelector",
)


class NodeFilters:
    """Keeps the selectors in line with the scene.

    :param ui: the panel's controls.
    """

    def __init__(self, ui) -> None:
        self._ui, self._shown = ui, ""
        for name in SELECTORS:
            keep_narrow(getattr(ui, name))

    def refresh(self, parameters) -> None:
        """Hide what a selector must not offer; a volume that was made for the heatmap is an output from then on."""
        made = parameters.heatmapOutput if parameters is not None else None
        if made is not None and made.GetImageData() is None:
            made.SetAttribute(OUTPUT, "heatmap")
        volumes = scalar_volumes(slicer.mrmlScene)
        _hide(self._ui.inputSelector, [node for node in volumes if is_output(node)])
        incomplete = [node for node in volumes if complete_result(node) is None]
        _hide(self._ui.resultSelector, incomplete)
        shown = parameters.heatmap if parameters is not None else None
        self._shown = _identity(shown)
        _hide(self._ui.earlierSelector, [*incomplete, *([shown] if shown is not None else [])])
        _hide(self._ui.heatmapSelector, [n for n in volumes if not is_output(n) and n.GetImageData() is not None])

    def is_outdated(self, parameters) -> bool:
        """Whether another result is shown than at the last refresh; one is not compared with itself."""
        return _identity(parameters.heatmap) != self._shown


def _identity(node) -> str:
    return node.GetID() or "" if node is not None else ""


def _hide(selector, nodes: list) -> None:
    model = selector.sortFilterProxyModel()
    identities = [node.GetID() for node in nodes]
    if list(model.hiddenNodeIDs or ()) != identities:
        model.hiddenNodeIDs = identities
