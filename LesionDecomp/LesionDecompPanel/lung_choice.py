"""The optional lung mask: a labelmap, or a segmentation with the segments that are lung."""

from __future__ import annotations

import json

import qt
from LesionDecompMrml.input_nodes import called_lung, segments_of
from slicer.i18n import tr as _

from .combo_box import silent
from .signals import connect


class LungChoice:
    """Which segments of the chosen segmentation are lung.

    :param ui: the panel's controls.
    :param chosen: called as ``chosen(text)`` with the value for the parameter node.
    """

    def __init__(self, ui, chosen) -> None:
        self._ui, self._chosen = ui, chosen
        self._shown: tuple | None = None
        self._mask_id = ""
        connect(ui.lungSegmentsList, "itemChanged(QListWidgetItem*)", self._on_ticked)
        self.show(None, "")

    def show(self, mask, text: str) -> None:
        """Bring the list in line with the chosen mask and the parameter node's text."""
        is_segmentation = mask is not None and mask.IsA("vtkMRMLSegmentationNode")
        self._mask_id = mask.GetID() if is_segmentation else ""
        for name in ("lungSegmentsList", "lungSegmentsLabel"):
            getattr(self._ui, name).visible = is_segmentation
        segments = segments_of(mask) if is_segmentation else []
        chosen = chosen_segments(mask, text) if is_segmentation else []
        hint = self._ui.lungSegmentsHintLabel
        hint.visible = is_segmentation and not chosen
        if not segments:
            hint.text = _("It has no segments.")
        elif called_lung(mask):
            hint.text = _("Tick the segments that are lung.")
        else:
            hint.text = _("No segment is called lung. Tick those that are lung.")
        state = (segments, chosen)
        if state == self._shown:
            return
        self._shown = state
        with silent(self._ui.lungSegmentsList) as box:
            box.clear()
            for segment_id, name in segments:
                item = qt.QListWidgetItem(name)
                item.setData(qt.Qt.UserRole, segment_id)
                item.setCheckState(qt.Qt.Checked if segment_id in chosen else qt.Qt.Unchecked)
                box.addItem(item)

    def _on_ticked(self, _item) -> None:
        box = self._ui.lungSegmentsList
        items = [box.item(row) for row in range(box.count)]
        ticked = [str(item.data(qt.Qt.UserRole)) for item in items if item.checkState() == qt.Qt.Checked]
        self._chosen(json.dumps({"of": self._mask_id, "segments": ticked}))


def chosen_segments(mask, text: str) -> list[str]:
    """IDs of the segments to take as lung: those chosen for this segmentation, else those that are called lung.

    :param text: JSON, as of :class:`LungChoice`: whose segments were chosen, and which; or, in scenes saved before this
        was kept, which alone.
    """
    try:
        choice = json.loads(text) if text else None
    except ValueError:
        choice = None
    if isinstance(choice, dict):
        choice = choice.get("segments") if choice.get("of") == mask.GetID() else None
    if not isinstance(choice, list):
        return called_lung(mask)
    chosen = [segment_id for segment_id, _name in segments_of(mask) if segment_id in choice]
    return called_lung(mask) if choice and not chosen else chosen  # what was chosen is gone
