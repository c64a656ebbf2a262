"""A worker process that is watched from the main thread for a result that goes into the scene."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import slicer
import vtk
from LesionDecompLib.errors import Cancelled

if TYPE_CHECKING:
    from LesionDecompLib.processes.events import Step

    from .segmentation_run import Listeners

WAIT_STEP_S = 0.02


class WatchedRun(ABC):
    """One job from its start to its end; somebody has to call :meth:`poll` now and then, or :meth:`wait`.

    It ends when the scene is closed or one of :meth:`needed` leaves it.

    :param job: started already.
    :param scene: that the result goes into.
    :param listeners: whom to notify.
    :param every: ``every(callback)`` calls back regularly and returns a function that stops it; None leaves the polling
        to the caller.
    """

    def __init__(
        self,
        job: Any,
        scene: Any,
        listeners: Listeners,
        every: Callable[[Callable[[], object]], Callable[[], object]] | None,
    ) -> None:
        self.job, self._scene, self._listeners = job, scene, listeners
        self.lost = ""  # name of the node whose removal ended the run
        self._reported: Step | None = None
        events = slicer.vtkMRMLScene
        self._observers = [
            scene.AddObserver(events.StartCloseEvent, self._on_scene_close),
            scene.AddObserver(events.NodeAboutToBeRemovedEvent, self._on_node_removed),
        ]
        self._stop_polling = every(self.poll) if every is not None else None

    @abstractmethod
    def needed(self) -> list[Any]:
        """Nodes that must still be in the scene when the result is written."""

    @abstractmethod
    def write(self, job: Any) -> Any:
        """Write the result of the ended job into the scene; returns the nodes.

        :raises Cancelled: a node has left the scene without its event.
        """

    @property
    def is_running(self) -> bool:
        """Whether the end is still to come."""
        return self.job is not None

    def poll(self) -> None:
        """Report what the worker has sent; when it has ended, write its result or report the error."""
        if self.job is None:
            return
        self.job.poll()
        if self.job.step != self._reported:
            self._reported = self.job.step
            self._notify(self._listeners.progress, self._reported)
        if self.job is None or self.job.is_running:  # a listener may have cancelled
            return
        job = self._end()
        notice: tuple[Any, ...]
        try:
            nodes = self.write(job)
        except Cancelled:  # a node left the scene without its event, or between two events
            notice = (self._listeners.cancelled,)
        except Exception as error:  # whatever MRML raises, the user must hear of it, and the panel must go on
            notice = (self._listeners.failed, error)
        else:
            notice = (self._listeners.done, nodes)
        finally:
            job.close()
        self._notify(*notice)

    def wait(self) -> None:
        """Wait for the end; for scripts without an event loop."""
        while self.is_running:
            self.poll()
            time.sleep(WAIT_STEP_S)

    def cancel(self) -> None:
        """End the worker and everything it started; the scene stays as it is."""
        if self.job is not None:
            self._end().close()
            self._notify(self._listeners.cancelled)

    def _end(self) -> Any:
        """The run's job, no longer watched; there must be one."""
        job, self.job = self.job, None
        assert job is not None
        if self._stop_polling is not None:
            self._stop_polling()
        for tag in self._observers:
            self._scene.RemoveObserver(tag)
        self._observers = []
        return job

    def _on_scene_close(self, _scene, _event) -> None:
        self.cancel()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, _scene, _event, node) -> None:
        if any(node == needed for needed in self.needed()):
            self.lost = node.GetName() or ""
            self.cancel()

    @staticmethod
    def _notify(listener, *arguments) -> None:
        if listener is not None:
            listener(*arguments)
