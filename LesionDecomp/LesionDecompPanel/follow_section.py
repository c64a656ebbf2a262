"""The panel's part for follow-up: the result shown compared with an earlier one of the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import slicer
from LesionDecompMrml.result_nodes import complete_result
from LesionDecompMrml.views import LESION_OPACITY
from slicer.i18n import tr as _

from .errors import errors_shown
from .job_section import JobSection
from .signals import connect

VIEWS = ("changeShowButton", "changeTableButton", "changeTrendButton")


class FollowSection(JobSection):
    """ "Compare with…": an earlier result, Compare that becomes Cancel, and what was found.

    :param ui: the panel's controls.
    :param logic: of the module.
    :param nodes: called for the result shown, or None: the later one.
    """

    def __init__(self, ui, logic, nodes) -> None:
        super().__init__(ui, logic, ui.compareButton, ui.compareProgressBar)
        self._nodes = nodes
        self._text = ""  # how the latest comparison ended
        self._about: tuple[str, ...] = ()  # IDs of the heatmaps that it was of
        connect(ui.changeShowButton, "clicked(bool)", self._on_show)
        connect(ui.changeTableButton, "clicked(bool)", self._on_table)
        connect(ui.changeTrendButton, "clicked(bool)", self._on_trend)

    def scene_closed(self) -> None:
        """Nothing of the old scene is reported any more."""
        self._text = ""

    def refresh(self) -> None:
        """Bring the controls in line with the scene and the run."""
        running = self.is_running
        ui = self._ui
        ui.compareProgressBar.visible = running
        ui.earlierSelector.enabled = not running
        ready, words = self._readiness()
        ui.compareButton.text = _("Cancel") if running else _("Compare")
        ui.compareButton.enabled, ui.compareButton.toolTip = ready, words
        change = self._change()
        outdated = self._differences(change)
        for name in VIEWS:
            getattr(ui, name).enabled = change is not None and not outdated
        if not running:
            if self._about != self._pair():
                self._text = ""
            ui.compareLabel.text = _joined([self._text, self._summary(change, outdated)])

    def _readiness(self) -> tuple[bool, str]:
        if self.is_running:
            return True, _("Stop the comparison; nothing in the scene is changed.")
        later, earlier = self._nodes(), self._earlier()
        if later is None:
            return False, _("Choose a result first: the later scan's.")
        if earlier is None or earlier.heatmap == later.heatmap:
            return False, _("Choose the result of an earlier scan of the same patient.")
        return True, _("Register '{earlier}' to '{later}', and label what changed.").format(
            earlier=earlier.ct.GetName(), later=later.ct.GetName()
        )

    def _earlier(self):
        heatmap = self._parameters.earlierHeatmap if self._parameters is not None else None
        return complete_result(heatmap) if heatmap is not None else None

    def _pair(self) -> tuple[str, ...]:
        return tuple(nodes.heatmap.GetID() for nodes in (self._nodes(), self._earlier()) if nodes is not None)

    def _change(self):
        from LesionDecompMrml.change_nodes import change_of  # not before: Slicer starts without it

        nodes = self._nodes()
        return change_of(nodes.heatmap) if nodes is not None else None

    def _differences(self, change) -> list[Any]:
        """Why a comparison is outdated: another earlier result is chosen, or one of the two has changed since."""
        if change is None:
            return []
        from LesionDecompMrml.comparison_state import differences  # not before: Slicer starts without it

        return differences(change, self._earlier(), self._nodes())

    def _summary(self, change, outdated) -> str:
        if change is None:
            return ""
        if outdated:
            return _joined([_("Outdated: compare again."), *map(difference_in_words, outdated)])
        from LesionDecompMrml.change_nodes import change_in_words  # not before: Slicer starts without it
        from LesionDecompMrml.comparison_state import earlier_name

        name, words = earlier_name(change, self._nodes()), change_in_words(change)
        return _("Against '{earlier}': {words}").format(earlier=name, words=words) if name and words else words

    def start(self) -> None:
        """Compare the result shown with the chosen earlier one."""
        if self.is_running or not self._readiness()[0]:
            return
        from LesionDecompLib.errors import LesionDecompError  # not before: Slicer starts without it

        self._text, self._about = "", self._pair()
        try:
            self.current = self._logic.compareResults(
                self._earlier().heatmap,
                self._nodes().heatmap,
                onProgress=self._on_progress,
                onDone=self._on_done,
                onFailed=self._on_failed,
                onCancelled=self._on_cancelled,
            )
        except (LesionDecompError, MemoryError) as error:
            self._on_failed(error)
            return
        self._begin()
        self._ui.compareLabel.text = _("Starting...")
        self.refresh()

    def _on_progress(self, step) -> None:
        self._advance(step)
        if step.stage == "registration":
            text = _("Registering the lungs, step {done} of {total}").format(done=step.done, total=step.total)
            left = self._progress.seconds_left
            if left is not None:
                text = _("{step}, about {seconds:.0f} s left").format(step=text, seconds=left)
        elif step.stage == "change":
            text = _("Labeling the change...")
        else:
            text = _("Starting...") if step.stage == "start" else _("Writing...")
        self._ui.compareLabel.text = text

    def _on_done(self, change) -> None:
        self._text = ""
        self.refresh()
        if change == self._change() and not self._differences(change):
            self._show(change)

    def _on_failed(self, error) -> None:
        self._text = _("Not compared.")
        self.refresh()
        slicer.util.errorDisplay(str(error))

    def _on_cancelled(self) -> None:
        lost = self.current.lost if self.current is not None else ""
        if lost:
            self._text = _("'{name}' was removed from the scene: the comparison was ended.").format(name=lost)
            self._about = self._pair()
        else:
            self._text = _("Canceled; nothing was changed.")
        self.refresh()

    def _on_show(self, _checked: bool = False) -> None:
        change = self._change()
        if change is not None:
            self._show(change)

    def _show(self, change) -> None:
        """The change in color over the later CT, in place of heat and outline."""
        nodes = self._nodes()
        if nodes is None:
            return
        with errors_shown(_("The change could not be shown.")):
            from LesionDecompMrml.change_nodes import show_change  # not before: Slicer starts without it

            show_change(change, nodes, LESION_OPACITY)

    def _on_table(self, _checked: bool = False) -> None:
        from LesionDecompMrml.result import show_table  # not before: Slicer starts without it

        change = self._change()
        if change is not None:
            with errors_shown(_("The table could not be shown.")):
                show_table(change.table)

    def _on_trend(self, _checked: bool = False) -> None:
        from LesionDecompMrml.result import show_chart  # not before: Slicer starts without it

        change = self._change()
        if change is not None:
            with errors_shown(_("The plot could not be shown.")):
                show_chart(change.chart)


def difference_in_words(difference) -> str:
    """Why a comparison is outdated, a sentence."""
    words = {
        "other": _("It was made with '{name}'.") if difference.name else _("It was made with another result."),
        "run": _("'{name}' was run again."),
        "threshold": _("The threshold of '{name}' was {was:g}, and is {now:g}."),
        "minimum_volume_ml": _("The smallest lesion of '{name}' was {was:g} mL, and is {now:g} mL."),
        "review": _("The review of '{name}' has changed."),
    }
    return words[difference.kind].format(name=difference.name, was=difference.was, now=difference.now)


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(filter(None, sentences))
