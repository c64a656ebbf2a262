"""A segmentation of a scene's CT in a worker process: watched from the main thread, and safe against what users do.

Nodes are read before the worker starts and written after it has ended, both on the main thread; in between the scene
is only observed. If the scene is closed, or a node that the run needs is removed, the run ends and writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import Cancelled, LesionDecompError

from .input_nodes import lung_mask_from_node, volume_from_node
from .result_nodes import ResultNodes, check_outputs, write_result

if TYPE_CHECKING:
    import numpy as np
    from LesionDecompLib.pipeline import SegmentResult
    from LesionDecompLib.processes.events import Step
    from LesionDecompLib.processes.job_files import JobParameters
    from LesionDecompLib.processes.segmentation import WorkerJob

WAIT_STEP_S = 0.02


@dataclass(frozen=True, eq=False)
class Request:
    """What is to be done, read from the scene: nothing that happens in the scene afterwards reaches it.

    :param ct: the CT's node.
    :param outputs: keyword of :func:`~.result_nodes.write_result` -> node or None.
    :param with_segmentation: make a segmentation where none is given.
    """

    ct: Any
    volume: Volume
    mask: np.ndarray | None
    outputs: Mapping[str, Any]
    with_segmentation: bool

    @classmethod
    def read(
        cls,
        ct,
        lung_mask=None,
        lung_segments: Sequence[str] | None = None,
        outputs: Mapping[str, Any] | None = None,
        with_segmentation: bool = False,
        *,
        mask_is_output: bool = False,
    ) -> Request:
        """Copy the CT and its lung mask out of the scene.

        :param lung_mask: labelmap or segmentation node, or None.
        :param lung_segments: IDs; None for all that fit.
        :param mask_is_output: the mask may be written again, as when a result's own lungs were edited.
        :raises LesionDecompError: input that will not do, or output nodes that cannot take the result.
        """
        volume = volume_from_node(ct)
        mask = lung_mask_from_node(lung_mask, ct, lung_segments) if lung_mask is not None else None
        outputs = {name: node or None for name, node in (outputs or {}).items()}
        check_outputs(outputs, inputs=(ct,) if mask_is_output else (ct, lung_mask))
        return cls(ct, volume, mask, outputs, with_segmentation)

    @property
    def nodes(self) -> list[Any]:
        """Nodes that must still be in the scene when the result is written."""
        return [node for node in (self.ct, *self.outputs.values()) if node is not None]

    def write(self, result: SegmentResult, report: str) -> ResultNodes:
        """Write the result into the scene.

        :raises Cancelled: the scene was closed or a node removed meanwhile; nothing is written.
        """
        scene = self.ct.GetScene()
        if scene is None or not all(scene.IsNodePresent(node) for node in self.nodes):
            raise Cancelled
        return write_result(self.ct, result, with_segmentation=self.with_segmentation, report=report, **self.outputs)


@dataclass(frozen=True)
class Listeners:
    """Whom to tell; each is called on the main thread, and exactly one of the last three, at the end."""

    progress: Callable[[Step], object] | None = None
    done: Callable[[ResultNodes], object] | None = None
    failed: Callable[[Exception], object] | None = None
    cancelled: Callable[[], object] | None = None


class SegmentationRun:
    """One run from its start to its end; somebody has to call :meth:`poll` now and then, or :meth:`wait`.

    :param request: what to do.
    :param parameters: of the run.
    :param listeners: whom to tell.
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
        from LesionDecompLib.processes.segmentation import WorkerJob

        self.request, self._listeners = request, listeners or Listeners()
        self._told: Step | None = None
        self._job: WorkerJob | None = WorkerJob(
            request.volume, request.mask, parameters, python=python, temporary_folder=temporary_folder
        )
        self._scene = request.ct.GetScene()
        events = slicer.vtkMRMLScene
        self._observers = [
            self._scene.AddObserver(events.StartCloseEvent, self._on_scene_close),
            self._scene.AddObserver(events.NodeAboutToBeRemovedEvent, self._on_node_removed),
        ]
        self._stop_polling = every(self.poll) if every is not None else None

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come."""
        return self._job is not None

    def poll(self) -> None:
        """Tell what the worker has told; when it has ended, write its result or tell the error."""
        if self._job is None:
            return
        ended = self._job.poll()
        if self._job.step != self._told:
            self._told = self._job.step
            self._tell(self._listeners.progress, self._told)
        if not ended or self._job is None:  # a listener may have cancelled
            return
        try:
            result, report = self._job.result()
        except (LesionDecompError, MemoryError) as error:
            self._end()
            self._tell(self._listeners.failed, error)
            return
        self._end()
        try:
            nodes = self.request.write(result, report)
        except Cancelled:
            self._tell(self._listeners.cancelled)
        except Exception as error:  # whatever MRML raises, the user must hear of it, and the panel must go on
            self._tell(self._listeners.failed, error)
        else:
            self._tell(self._listeners.done, nodes)

    def wait(self) -> None:
        """Wait for the end; for scripts without an event loop."""
        while self.is_running:
            self.poll()
            time.sleep(WAIT_STEP_S)

    def cancel(self) -> None:
        """End the worker and everything it started; the scene stays as it is."""
        if self._job is not None:
            self._end()
            self._tell(self._listeners.cancelled)

    def _end(self) -> None:
        job, self._job = self._job, None
        if self._stop_polling is not None:
            self._stop_polling()
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._observers = []
        job.close()

    def _on_scene_close(self, _scene, _event) -> None:
        self.cancel()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, _scene, _event, node) -> None:
        if any(node is needed or node == needed for needed in self.request.nodes):
            self.cancel()

    @staticmethod
    def _tell(listener, *arguments) -> None:
        if listener is not None:
            listener(*arguments)
