"""In a worker of a Dask cluster: it is looked at, admitted, and computes cases; see :mod:`.distribution`.

Everything here runs in the worker's process. Networks stay loaded from case to case of a run. How often a case has
begun is kept by the scheduler, which outlives a worker: Dask itself counts a task that merely waited in a worker that
died as one that may have killed it.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import LesionDecompError
from ...threads import reuse_freed_memory
from .task import CaseRow, CaseTask
from .turns import Turns

if TYPE_CHECKING:
    from distributed import Worker

    from .runner import CaseRunner

METADATA = "lesiondecomp"
MOST_BEGINNINGS = 3
ADMITTED_WITHIN_S = 120.0
SEEN_WITHIN_S = 6.0  # a file that another machine has just made, on a network disk
SEEN_STEP_S = 0.5
THREE_TIMES = "failed: its worker ended three times"


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker reports of itself before its first case.

    :param name: of the worker; a number where this command has started it.
    :param models: SHA-256 of weights and of metadata, by task; empty where they cannot be had.
    :param missing: paths that were to be there, and are not.
    :param error: why it cannot run the cases, in a sentence; may be empty.
    :param mark: stands in names of temporary files that this process makes.
    :param cores: numbers of the processor cores that it may use.
    """

    name: str
    version: str
    models: Mapping[str, tuple[str, str]]
    missing: tuple[str, ...]
    error: str
    device: str
    host: str
    mark: str
    cores: tuple[int, ...]


@dataclass(frozen=True)
class Share:
    """This worker's part of its machine.

    :param index, count: which of the workers on these cores it is, of how many.
    :param threads: to compute on; None for the cores divided by the workers.
    :param local: it was started by this very command, on its machine.
    """

    index: int
    count: int
    threads: int | None
    local: bool


@dataclass(eq=False)
class _Workplace:
    """What this worker keeps of one run."""

    share: Share | None = None
    unfit: str = ""
    admitted: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _runner: CaseRunner | None = None

    def runner_for(self, task: CaseTask) -> CaseRunner:
        """What runs the cases here, with networks that stay loaded."""
        with self._loading:
            if self._runner is None:
                self._runner = _new_runner(task, self)
            return self._runner


class UnfitWorkerError(Exception):
    """A worker that was not admitted has been given a case, which is left to others."""


_TURNS = Turns()  # of all runs: one case at a time is in the networks
_WORKPLACES: dict[str, _Workplace] = {}
_LOCK = threading.Lock()


def _workplace(run: str) -> _Workplace:
    with _LOCK:
        return _WORKPLACES.setdefault(run, _Workplace())


async def inspect(task: CaseTask, files: tuple[str, ...], output: str, dask_worker: Worker) -> WorkerFacts:
    """Look at this worker, without holding it up.

    :param task: any of the run.
    :param files: that must be seen here.
    :param output: folder that must be there and be writable.
    :param dask_worker: given by Dask.
    """
    return await asyncio.get_running_loop().run_in_executor(None, _facts, str(dask_worker.name), task, files, output)


async def admit(run: str, shares: Mapping[str, Share], dask_worker: Worker) -> None:
    """Let this worker begin with the cases of a run, on its part of the machine.

    :param shares: by address.
    :param dask_worker: given by Dask.
    """
    place, share = _workplace(run), shares[dask_worker.address]
    if share.local:
        # Ctrl-C reaches all processes of a terminal; the command, which started this one, ends it in good order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    reuse_freed_memory()
    place.share = share
    place.admitted.set()


async def turn_away(run: str, reason: str) -> None:
    """Give back whatever case of a run comes to this worker."""
    place = _workplace(run)
    place.unfit = reason
    place.admitted.set()


async def stop(run: str) -> None:
    """End the cases of a run that are under way, at the next batch of slices, and begin no other."""
    place = _workplace(run)
    place.stopped.set()
    place.admitted.set()


async def forget(run: str) -> None:
    """Let go of what is kept of a run that is over, networks included."""
    with _LOCK:
        _WORKPLACES.pop(run, None)


def run_case(task: CaseTask) -> CaseRow:
    """Run a case as a task of the cluster.

    A case that was begun three times in workers that ended is not begun again.

    :return: a row of the summary; its status is empty when the run was stopped.
    :raises UnfitWorkerError: this worker was not admitted.
    """
    place = _workplace(task.run)
    if not place.admitted.wait(ADMITTED_WITHIN_S):
        raise UnfitWorkerError("not admitted in time")
    if place.unfit:
        raise UnfitWorkerError(place.unfit)
    before = _beginnings(task)
    # A case that has begun before may be what ended its worker: it endangers no other.
    with _TURNS.taken(alone=before > 0):
        if place.stopped.is_set() or place.share is None:
            return CaseRow("")
        case, runner = task.case(), place.runner_for(task)
        if before and runner.is_done(case):
            return CaseRow.of(case)
        if before >= MOST_BEGINNINGS:
            return CaseRow("failed", THREE_TIMES)
        _begin(task, before)
        return runner.run_in_turn(case, _SecedingTurns(_TURNS, place.share))


class _SecedingTurns(Turns):
    """Turns in which a task leaves the worker's threads when it reaches the networks, so that another is read."""

    def __init__(self, turns: Turns, share: Share) -> None:
        self._turns, self._share = turns, share

    def to_networks(self) -> None:
        from distributed import secede  # not before: --help answers at once

        self._turns.to_networks()
        compute_on(self._share)  # here: torch keeps the number by thread
        secede()

    def to_writing(self) -> None:
        self._turns.to_writing()


def compute_on(share: Share) -> None:
    """Compute on this worker's share of the cores, whatever OMP_NUM_THREADS (which Dask's nanny sets to 1) holds."""
    import torch
    from dask.system import CPU_COUNT  # knows limits of containers, too

    threads = share.threads if share.threads is not None else max(1, CPU_COUNT // share.count)
    torch.set_num_threads(threads)


def device_of(names: list[str], share: Share) -> str:
    """The device of this worker: its own of several, or a GPU for each worker of a machine."""
    if len(names) > 1:
        return names[share.index % len(names)]
    if share.count > 1 and names[0] in ("auto", "cuda") and "CUDA_VISIBLE_DEVICES" not in os.environ:
        import torch  # not before: --help answers at once

        if torch.cuda.is_available():
            return f"cuda:{share.index % torch.cuda.device_count()}"
    return names[0]


def _new_runner(task: CaseTask, place: _Workplace) -> CaseRunner:
    from .finished import report_finder, used_bundles  # not before: --help answers at once
    from .runner import CaseRunner

    args = task.arguments()
    bundles = used_bundles(args)
    find = None if args.overwrite else report_finder(args, bundles)
    device = args.device[0] if place.share is None else device_of(args.device, place.share)
    return CaseRunner(args, *bundles, device, find, True, place.stopped.is_set)


def _facts(name: str, task: CaseTask, files: tuple[str, ...], output: str) -> WorkerFacts:
    from ...io.atomic import check_writable, process_mark  # not before: --help answers at once
    from ...models.device import choose_device
    from ...report.case import check_support
    from .finished import asked_files, identities, used_bundles
    from .runner import scene_writer

    args, device, error = task.arguments(), "", ""
    models: dict[str, tuple[str, str]] = {}
    missing: tuple[str, ...] = ()
    try:
        check_support(asked_files(args), scene_writer(args))
        models = identities(used_bundles(args))
        device = choose_device(args.device[int(name) % len(args.device) if len(args.device) > 1 else 0])[1]
        missing = tuple(path for path in files if not _is_seen(Path(path)))
        if not missing:
            check_writable(output)
    except LesionDecompError as refusal:
        error = str(refusal)
    cores = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    host, mark = platform.node(), process_mark()
    return WorkerFacts(name, __version__, models, missing, error, device, host, mark, tuple(sorted(cores)))


def _is_seen(path: Path) -> bool:
    end = time.monotonic() + SEEN_WITHIN_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(SEEN_STEP_S)
    return True


def _beginnings(task: CaseTask) -> int:
    """How often a case has begun before, in workers that have ended since."""
    number, count = _at_scheduler("get_metadata", keys=_place_of(task), default=None) or (None, 0)
    return count if number == task.number else 0


def _begin(task: CaseTask, before: int) -> None:
    """Have the scheduler count that a case begins, before anything of it is touched."""
    _at_scheduler("set_metadata", keys=_place_of(task), value=(task.number, before + 1))


def _place_of(task: CaseTask) -> list[str]:
    return [METADATA, task.run, str(task.slot)]


def _at_scheduler(method: str, **arguments: Any) -> Any:
    from distributed import get_worker  # not before: --help answers at once
    from distributed.utils import sync

    worker = get_worker()
    return sync(worker.loop, getattr(worker.scheduler, method), **arguments)
