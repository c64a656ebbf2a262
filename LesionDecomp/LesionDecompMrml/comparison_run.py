"""The comparison of two results of a scene in a worker process, watched from the main thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.measurement.change.scan import STAGE, Scan
from LesionDecompLib.measurement.statistics import lesion_statistics
from LesionDecompLib.report.manifest import with_warnings

from .change_nodes import ChangeNodes, write_change_nodes
from .comparison_state import compared_states
from .input_nodes import volume_from_node
from .present_warnings import edited_lungs_warning
from .result import Result
from .result_nodes import ResultNodes
from .segmentation_run import Listeners
from .slicer_python import slicer_python
from .watched_run import WatchedRun

if TYPE_CHECKING:
    from LesionDecompLib.processes.change import ChangeJob


def scan_of(nodes: ResultNodes) -> Scan:
    """A result as it is in the scene now, lesions and lungs as they may have been edited.

    :raises LesionDecompError: nodes that no longer fit the CT.
    """
    volume = volume_from_node(nodes.ct, copy=False)
    heat, lungs, lesions = (slicer.util.arrayFromVolume(node) for node in (nodes.heatmap, nodes.lungs, nodes.lesions))
    if any(array.shape != volume.shape for array in (heat, lungs, lesions)):
        raise LesionDecompError(STAGE, "result nodes that no longer fit the CT", "the CT's grid", "Run again.")
    view = volume.view
    axial = [view.to_axial(array) for array in (volume.array, lungs, lesions, heat)]
    rows = lesion_statistics(axial[0], axial[1], axial[2], axial[3], volume.voxel_volume_ml)
    return Scan(lungs, (lesions != 0).astype(np.uint8), volume.ijk_to_ras, rows, volume.array)


class ComparisonRun(WatchedRun):
    """One comparison from its start to its end.

    :param earlier, later: complete results of the scene.
    :param listeners: whom to notify; ``done`` is called with the :class:`~.change_nodes.ChangeNodes`.
    :param every: ``every(callback)`` calls back regularly and returns a function that stops it; None leaves the polling
        to the caller.
    :raises LesionDecompError: results that do not fit, or a worker that cannot be started.
    """

    def __init__(
        self,
        earlier: ResultNodes,
        later: ResultNodes,
        listeners: Listeners | None = None,
        every: Callable[[Callable[[], object]], Callable[[], object]] | None = None,
    ) -> None:
        from LesionDecompLib.processes.change import ChangeJob  # not before: Slicer starts without it

        if earlier.heatmap == later.heatmap:
            raise LesionDecompError(STAGE, "one result", "two results", "Choose another one to compare with.")
        self.earlier, self.later = earlier, later
        self._compared = compared_states(earlier, later)
        edited = (edited_lungs_warning(nodes, named=True) for nodes in (earlier, later))
        self._warnings = [warning for warning in edited if warning is not None]
        self._started = time.monotonic()
        job = ChangeJob(
            scan_of(earlier), scan_of(later), python=slicer_python(), temporary_folder=slicer.app.temporaryPath or None
        )
        super().__init__(job, later.heatmap.GetScene(), listeners or Listeners(), every)

    def needed(self) -> list[Any]:
        """The nodes of both results."""
        return [node for one in (self.earlier, self.later) for node in (one.ct, one.heatmap, one.lungs, one.lesions)]

    def write(self, job: ChangeJob) -> ChangeNodes:
        """See :class:`.watched_run.WatchedRun`."""
        found = job.result()
        if not all(self._scene.IsNodePresent(node) for node in self.needed()):
            raise Cancelled(STAGE)
        found = replace(found, record=with_warnings(found.record, self._warnings))
        nodes = write_change_nodes(self.earlier, self.later, found, self._compared)
        logging.info(f"LesionDecomp: compared in {time.monotonic() - self._started:.1f} s")
        for warning in found.warnings:
            logging.warning(f"LesionDecomp: {warning}")
        return nodes


def compare_results(earlier, later, every=None, onProgress=None, onDone=None, onFailed=None, onCancelled=None):
    """Start comparing two results in a worker process, and return at once.

    :param earlier, later: their heatmap nodes.
    :param every: see :class:`ComparisonRun`.
    :param onProgress: called as onProgress(step), with stage, done, total and seconds_left.
    :param onDone: called as onDone(nodes) at the end, with a :class:`~.change_nodes.ChangeNodes`; onFailed(error) and
        onCancelled() are called instead if it fails or is cancelled.
    :return: a :class:`ComparisonRun`: cancel(), is_running and, for scripts without an event loop, wait().
    :raises LesionDecompError: results that do not fit; nothing has been started then.
    """
    listeners = Listeners(onProgress, onDone, onFailed, onCancelled)
    results = [Result.of(heatmap) for heatmap in (earlier, later)]
    for result in results:
        result.take_edits()
    return ComparisonRun(results[0].nodes, results[1].nodes, listeners, every)
