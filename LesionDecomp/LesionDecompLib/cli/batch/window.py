"""A window of tasks on a Dask cluster: a few for each worker at a time, however many there are in all.

Dask places the tasks and gives those of a worker that died to another. A million of them at once would fill the
scheduler's memory and the client's.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
AHEAD = 4  # tasks for each worker: one written, one in the networks, one read, one waiting
FEWEST = 4  # while there is no worker yet: an adaptive cluster starts workers for what waits
POLL_S = (0.002, 0.05)  # between two looks at what has ended: twice as long each time
KEYS = 64  # of a slot, used in turn: Dask remembers the last 100,000 keys that it saw, everywhere


@dataclass(frozen=True, eq=False)
class Ended(Generic[T]):
    """A task that has ended.

    :param slot: its place in the window.
    :param result: what the work returned.
    :param error: what it raised, or why the cluster gave it up; None where there is a result.
    :param cancelled: it was, by somebody else or with the connection.
    """

    item: T
    slot: int
    result: Any = None
    error: BaseException | None = None
    cancelled: bool = False


@dataclass(eq=False)
class _Pending(Generic[T]):
    item: T
    slot: int
    attempt: int
    future: Future
    only: frozenset[str] | None


class TaskWindow(Generic[T]):
    """The tasks that are under way.

    :param client: of the cluster.
    :param name: of the run, under which the tasks stand on the dashboard.
    :param task: makes what ``work`` is called with, from an item and its slot.
    :param work: runs on a worker.
    """

    def __init__(self, client: Client, name: str, task: Callable[[T, int], Any], work: Callable[[Any], Any]) -> None:
        from distributed import as_completed  # not before: --help answers at once

        self._client, self._name, self._task, self._work = client, name, task, work
        self._pending: dict[int, _Pending[T]] = {}
        self._under_way: dict[tuple[str, int, int], tuple[int, int]] = {}  # slot and attempt, by key
        self._free: list[int] = []
        self._attempts: Counter[int] = Counter()  # by slot
        self._slots = 0
        # It fetches results while others are waited for, anew where the worker that had one has died since.
        self._ended = as_completed(loop=client.loop, with_results=True, raise_errors=False)

    def __len__(self) -> int:
        return len(self._pending)

    def fill(self, items: Iterator[T], workers: int, only: frozenset[str] | None = None) -> None:
        """Submit tasks until there are enough for so many workers.

        :param only: addresses of the workers that may run them; None for all.
        """
        while len(self._pending) < max(FEWEST, AHEAD * workers):
            item = next(items, None)
            if item is None:
                return
            if not self._free:
                self._free.append(self._slots)
                self._slots += 1
            self._submit(item, self._free.pop(), only)

    def ended(self, timeout_s: float) -> Iterator[Ended[T]]:
        """Tasks that have ended since the last call; waited for a moment if there are none.

        A task whose slot the caller does not :meth:`resubmit` before it asks for the next is over.
        """
        end, pause = time.monotonic() + timeout_s, POLL_S[0]
        while not self._ended.has_ready() and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, POLL_S[1])
        for future, result in self._ended.next_batch(block=False):
            slot, attempt = self._under_way.pop(future.key)
            pending = self._pending.get(slot)
            if pending is None or pending.attempt != attempt:
                continue  # it was given up
            yield _ended(pending, future.status, result)
            if self._pending.get(pending.slot) is pending:
                del self._pending[pending.slot]
                self._free.append(pending.slot)

    def resubmit(self, slot: int, only: frozenset[str] | None = None) -> None:
        """Submit a task anew, in its slot."""
        self._submit(self._pending[slot].item, slot, only)

    def resubmit_stranded(self, alive: frozenset[str], only: frozenset[str] | None) -> None:
        """Submit anew what may run on no worker that is alive."""
        for slot, pending in list(self._pending.items()):
            if pending.only is not None and not pending.only & alive:
                self._client.cancel([pending.future], force=True)
                self._submit(pending.item, slot, only)

    def cancel(self) -> None:
        """Have the cluster forget what is still under way."""
        futures = [pending.future for pending in self._pending.values()]
        self._pending.clear()
        with suppress(Exception):  # a cluster that is gone has forgotten
            self._client.cancel(futures, force=True)

    def _submit(self, item: T, slot: int, only: frozenset[str] | None) -> None:
        attempt = self._attempts[slot] = self._attempts[slot] + 1
        key = (self._name, slot, attempt % KEYS)
        workers = sorted(only) if only is not None else None
        future = self._client.submit(self._work, self._task(item, slot), key=key, pure=False, workers=workers)
        self._pending[slot] = _Pending(item, slot, attempt, future, only)
        self._under_way[key] = slot, attempt
        self._ended.add(future)


def _ended(pending: _Pending[T], status: str, result: Any) -> Ended[T]:
    if status == "finished":
        return Ended(pending.item, pending.slot, result)
    error = result[1] if isinstance(result, tuple) else result
    return Ended(pending.item, pending.slot, error=error, cancelled=status != "error")
