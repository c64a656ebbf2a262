"""A segmentation of a scene's CT in a worker process: watched from the main thread, and safe against what users do.

Nodes are read before the worker starts and written after it has ended, both on the main thread; in between the scene
is only observed. If the scene is closed, or a node that the run needs is removed, the run ends and writes nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from LesionDecompLib.ct.checks import check_chest_ct
from LesionDecompLib.ct.oddity import Oddity
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.report.manifest import build_manifest, manifest_text, with_warnings

from .comparison_state import decisions_hash
from .ct_change import image_state, remember
from .input_nodes import lung_mask_from_node, volume_from_node, world_matrix
from .lesion_edits import edited_lung_voxels, is_edited
from .live_result import hand_over, with_painted_lesions
from .result_nodes import ResultNodes, check_outputs, complete_result, follow_ct, results_of_ct, write_result
from .run_options import RunOptions, without_nodes_of
from .slicer_python import slicer_python
from .watched_run import WatchedRun

if TYPE_CHECKING:
    from LesionDecompLib.pipeline import SegmentResult
    from LesionDecompLib.processes.events import Step
    from LesionDecompLib.processes.segmentation import JobParameters, SegmentationJob, WorkerResult


WRITING = "Writing the result"
ROUNDING = 1e-6  # of a matrix, mm


@dataclass(frozen=True, eq=False)
class ReadersPart:
    """What a reader has done to a result by a certain time.

    :param decisions: a hash of those about lesions.
    :param is_edited: whether lesions were edited by hand, which is not counted yet.
    :param lung_voxels: that were edited by hand.
    """

    nodes: ResultNodes
    decisions: str
    is_edited: bool
    lung_voxels: int

    @classmethod
    def of(cls, heatmap) -> ReadersPart | None:
        """As it is now; None where the node is of no result."""
        nodes = complete_result(heatmap)
        return None if nodes is None else cls(nodes, decisions_hash(nodes), is_edited(nodes), edited_lung_voxels(nodes))

    def has_grown(self) -> bool:
        """Whether there is more by now, which nobody was asked about."""
        now = ReadersPart.of(self.nodes.heatmap)
        if now is None:
            return False
        edited = now.is_edited and not self.is_edited
        return edited or (now.decisions, now.lung_voxels) != (self.decisions, self.lung_voxels)


@dataclass(eq=False)
class Request:
    """What is to be done, read from the scene.

    :param ct: the CT's node.
    :param mask: of its lungs, or None.
    :param outputs: keyword of :func:`~.result_nodes.write_result` -> node or None.
    :param with_segmentation: make a segmentation where none is given.
    """

    ct: Any
    mask: np.ndarray | None
    outputs: Mapping[str, Any]
    with_segmentation: bool
    _seen: Volume | None
    _shape: tuple[int, ...]  # of the CT, and its place in the world, when it was read
    _world: np.ndarray
    _state: tuple[Any, ...] = ()  # of the CT's image
    warnings: tuple[Oddity, ...] = ()  # about the lung mask
    _readers: ReadersPart | None = None  # of the earlier result that is to be replaced

    @classmethod
    def read(cls, ct, options: RunOptions | None = None) -> Request:
        """Look at the CT and its lung mask in the scene.

        :raises LesionDecompError: input that will not do (a CT that is none is refused here, before any model is
            loaded), or output nodes that cannot take the result.
        """
        options = options or RunOptions()
        volume = volume_from_node(ct, copy=False)
        check_chest_ct(volume)
        mask: np.ndarray | None = None
        warnings: tuple[Oddity, ...] = ()
        edited = [
            earlier
            for earlier in (results_of_ct(ct) if options.lungs_are_edited else ())
            if options.lung_mask in (earlier.lungs, earlier.segmentation)
        ]
        for earlier in edited:
            follow_ct(earlier)  # before its lungs are read
        if options.lung_mask is not None:
            given = lung_mask_from_node(options.lung_mask, ct, options.lung_segments)
            mask, warnings = given.array, given.warnings
            for earlier in edited:
                if earlier.segmentation == options.lung_mask:
                    mask = with_painted_lesions(mask, earlier)
        outputs = options.outputs.nodes()
        check_outputs(outputs, inputs=(ct,) if options.lungs_are_edited else (ct, options.lung_mask))
        place = volume.shape, volume.ijk_to_ras
        readers = ReadersPart.of(outputs["heatmap"])
        made = options.outputs.with_segmentation
        return cls(ct, mask, outputs, made, volume, *place, image_state(ct), warnings, readers)

    @cached_property
    def volume(self) -> Volume:
        """A copy of the CT, as it is when first asked for: nothing that happens in the scene afterwards reaches it."""
        seen, self.mask = self.hand_over()
        return replace(seen, array=seen.array.copy())

    def hand_over(self) -> tuple[Volume, np.ndarray | None]:
        """CT and mask as the scene holds them now, for use at once: the request lets go of both."""
        seen, mask, self._seen, self.mask = self._seen, self.mask, None, None
        if seen is None:
            raise RuntimeError("the CT was handed over before")
        return seen, mask

    @property
    def nodes(self) -> list[Any]:
        """Nodes that must still be in the scene when the result is written."""
        return [node for node in (self.ct, *self.outputs.values()) if node is not None]

    def write(self, result: SegmentResult | WorkerResult, report: str) -> ResultNodes:
        """Write the result into the scene, into new nodes where a reader has worked on the earlier result meanwhile.

        :raises Cancelled: the scene was closed or a node removed meanwhile; nothing is written.
        :raises LesionDecompError: the CT was cropped or moved meanwhile; nothing is written.
        """
        scene = self.ct.GetScene()
        if scene is None or not all(scene.IsNodePresent(node) for node in self.nodes):
            raise Cancelled
        self._check_place()
        if self.warnings:
            report = manifest_text(with_warnings(json.loads(report), self.warnings))
        unchanged = image_state(self.ct) == self._state
        if unchanged:
            remember(self.ct, self._state, report)
        outputs, with_segmentation = self.outputs, self.with_segmentation
        if self._readers is not None and self._readers.has_grown():
            outputs = without_nodes_of(outputs, self._readers.nodes)
            with_segmentation = with_segmentation or self.outputs["segmentation"] is not None
        nodes = write_result(self.ct, result, with_segmentation=with_segmentation, report=report, **outputs)
        try:
            hand_over(nodes, result.lung_tally if unchanged else None)
        except Exception:  # the result is written, and the slider can count by itself
            logging.exception("LesionDecomp: the slider starts without what the run has counted")
        return nodes

    def _check_place(self) -> None:
        """Refuse a CT that is no longer where and as large as it was when the run began."""
        name, image = self.ct.GetName(), self.ct.GetImageData()
        shape = image.GetDimensions()[::-1] if image is not None else ()
        if shape != tuple(self._shape):
            found, expected = ("×".join(map(str, reversed(one))) for one in (shape, self._shape))
            found = f"'{name}' with {found} voxels" if shape else f"'{name}' without voxels"
            expected = f"the {expected} that it had when the run began"
        elif not np.allclose(world_matrix(self.ct, WRITING), self._world, rtol=0.0, atol=ROUNDING):
            found, expected = f"'{name}' in another place or of another voxel size", "it to lie as when the run began"
        else:
            return
        raise LesionDecompError(WRITING, found, expected, "Leave the CT as it is during a run, and run again.")


@dataclass(frozen=True)
class Listeners:
    """Whom to call; each is called on the main thread, and exactly one of the last three, at the end."""

    progress: Callable[[Step], object] | None = None
    done: Callable[[ResultNodes], object] | tuple[Callable[[ResultNodes], object] | None, ...] | None = None
    failed: Callable[[Exception], object] | None = None
    cancelled: Callable[[], object] | None = None


def process_here(ct, options: RunOptions, segment: Callable[..., SegmentResult], **callbacks: Any) -> ResultNodes:
    """Segment a CT of the scene in this process, and write the result; returns when all is done.

    :param segment: ``segment(volume, mask, model=, device=, batchSize=, engine=, threshold=, min_volume_ml=, healthy=,
        **callbacks)``.
    :param callbacks: ``progress(stage, done, total)`` and ``cancelled()``.
    :raises LesionDecompError: unsuitable input.
    :raises Cancelled: by ``cancelled``, or because a node that the run needs left the scene meanwhile.
    """
    started = time.monotonic()
    request = Request.read(ct, options)
    result = segment(
        request.volume,
        request.mask,
        model=options.model,
        device=options.device,
        batchSize=options.batch_size,
        engine=options.engine,
        threshold=options.threshold,
        min_volume_ml=options.minimum_volume_ml,
        healthy=options.with_healthy,
        **callbacks,
    )
    asked = {"device": options.device, "engine": options.engine, "batch_size": options.batch_size}
    nodes = request.write(result, manifest_text(build_manifest(request.volume, result, parameters=asked)))
    log_run(nodes, time.monotonic() - started, result.device)
    return nodes


def start_run(ct, options: RunOptions, listeners: Listeners, every: Callable | None) -> SegmentationRun:
    """Start the same in a worker process, and return at once.

    :param every: as of :class:`SegmentationRun`.
    :raises LesionDecompError: unsuitable input; nothing has been started then.
    """
    from LesionDecompLib.processes.segmentation import JobParameters  # not before: Slicer starts without it

    started = time.monotonic()
    parameters = JobParameters(
        lesion_model=str(options.model) if options.model else None,
        device=options.device,
        batch_size=int(options.batch_size),
        engine=options.engine,
        threshold=None if options.threshold is None else float(options.threshold),
        min_volume_ml=float(options.minimum_volume_ml),
        healthy=options.with_healthy,
    )

    def done(nodes: ResultNodes) -> None:
        log_run(nodes, time.monotonic() - started)
        for listener in listeners.done if isinstance(listeners.done, tuple) else (listeners.done,):
            if listener is not None:
                listener(nodes)

    return SegmentationRun(
        Request.read(ct, options),
        parameters,
        replace(listeners, done=done),
        python=slicer_python(),
        temporary_folder=slicer.app.temporaryPath or None,
        every=every,
    )


def log_run(nodes: ResultNodes, seconds: float, device: str = "") -> None:
    """Log how long a run took, and what looked wrong."""
    where = f" on {device}" if device else ""
    logging.info(f"LesionDecomp: segmented in {seconds:.1f} s{where}, threshold {nodes.threshold:g}")
    for warning in nodes.warnings:
        logging.warning(f"LesionDecomp: {warning}")


class SegmentationRun(WatchedRun):
    """One run from its start to its end.

    :param request: what to do.
    :param parameters: of the run.
    :param listeners: whom to notify.
    :param python: interpreter for the worker, as a command.
    :param temporary_folder: for the worker's files.
    :param every: ``every(callback)`` calls back regularly and returns a function that stops it; None leaves the polling
        to the caller.
    :raises LesionDecompError: the worker cannot be started.
    """

    def __init__(
        self,
        request: Request,
        parameters: JobParameters,
        listeners: Listeners | None = None,
        *,
        python: Sequence[str] | None = None,
        temporary_folder: str | None = None,
        every: Callable[[Callable[[], object]], Callable[[], object]] | None = None,
    ) -> None:
        from LesionDecompLib.processes.segmentation import SegmentationJob  # not before: Slicer starts without it

        self.request = request
        job = SegmentationJob(*request.hand_over(), parameters, python=python, temporary_folder=temporary_folder)
        super().__init__(job, request.ct.GetScene(), listeners or Listeners(), every)

    def needed(self) -> list[Any]:
        """The CT and the nodes to write into."""
        return self.request.nodes

    def write(self, job: SegmentationJob) -> ResultNodes:
        """See :class:`.watched_run.WatchedRun`."""
        result = job.result()
        return self.request.write(result, result.report)
