"""The workers of a cluster: each is looked at before its first case, and gets its share of its machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from ... import __version__
from ...errors import ConfigError
from ...io.atomic import PARTIAL, own_prefix
from .task import CaseTask
from .worker import Share, WorkerFacts, admit, inspect, turn_away

if TYPE_CHECKING:
    from distributed import Client

STAGE = "Looking at the workers"


class Workforce:
    """Which workers of a cluster take part in a run; looked at in the background, as some come and go meanwhile.

    :param task: any of the run's.
    :param files: inputs that must be seen by each worker.
    :param output: folder of the run, which exists.
    :param local: how many workers this command has started itself; 0 on a cluster of others.
    :param threads: that each computes on; None for its part of its machine's cores.
    """

    def __init__(
        self, client: Client, task: CaseTask, files: Sequence[str], output: Path, local: int, threads: int | None
    ) -> None:
        self._client, self._task, self._files, self._output = client, task, tuple(files), output
        self._local, self._threads = local, threads
        self._facts: dict[str, WorkerFacts] = {}
        self._unfit: dict[str, str] = {}
        self._shares: dict[str, Share] = {}
        self._marks: set[str] = set()
        self._alive: frozenset[str] = frozenset()
        self._looker = ThreadPoolExecutor(1, "workforce")
        self._looking: Future[None] | None = None
        self._unreported: list[str] = []

    @property
    def alive(self) -> frozenset[str]:
        """Addresses of all workers, fit or not."""
        return self._alive

    @property
    def size(self) -> int:
        """How many workers take part."""
        return len(self._shares)

    @property
    def only(self) -> frozenset[str] | None:
        """The workers that may run cases, where there are others; None where all may."""
        return frozenset(self._shares) if self._unfit else None

    @property
    def may_work(self) -> bool:
        """Whether cases may be submitted: to those that are there, or to whoever comes."""
        return not self._unfit or bool(self._shares)

    def look_first(self) -> None:
        """Look at those that are there now.

        :raises LesionDecompError: none of them is fit.
        """
        self._look()
        if self._unfit and not self._shares:
            raise ConfigError(STAGE, "no worker that can run the cases", "at least one")

    def look(self) -> None:
        """Look for workers that have come or gone, unless that is under way."""
        if self._looking is None or self._looking.done():
            if self._looking is not None:
                self._looking.result()
            self._looking = self._looker.submit(self._look)

    def unreported(self) -> list[str]:
        """A sentence for each worker that was turned away since the last call."""
        sentences, self._unreported = self._unreported, []
        return sentences

    def gone(self) -> set[str]:
        """Marks of temporary files whose processes are no more."""
        return self._marks - {self._facts[address].mark for address in self._alive & self._facts.keys()}

    def close(self) -> None:
        """Look no more."""
        self._looker.shutdown(wait=False, cancel_futures=True)

    def _look(self) -> None:
        try:
            alive = frozenset(self._client.nthreads())
            new = sorted(alive - self._facts.keys() - self._unfit.keys())
            if new:
                self._inspect(new)
        except (OSError, ValueError, RuntimeError):  # the connection is gone, which the run itself reports
            return
        for address in [address for address in self._unfit if address not in alive]:
            del self._unfit[address]
        fit = {address: facts for address, facts in self._facts.items() if address in alive}
        shares = self._shared_out(fit)
        changed = {address: share for address, share in shares.items() if self._shares.get(address) != share}
        if changed:
            self._client.run(admit, self._task.run, changed, workers=sorted(changed), on_error="ignore")
        self._alive, self._shares = alive, shares

    def _inspect(self, new: list[str]) -> None:
        with NamedTemporaryFile(dir=self._output, prefix=own_prefix("probe"), suffix=PARTIAL) as probe:
            files = (*self._files, probe.name)
            found = self._client.run(inspect, self._task, files, str(self._output), workers=new, on_error="return")
        for address, facts in found.items():
            if isinstance(facts, OSError):
                continue  # it died meanwhile
            reason = unfitness(facts, self._task.models) if isinstance(facts, WorkerFacts) else _broken(facts)
            if isinstance(facts, WorkerFacts):
                self._marks.add(facts.mark)
            if not reason:
                self._facts[address] = facts
                continue
            where = f" on {facts.host}" if isinstance(facts, WorkerFacts) else ""
            self._unfit[address] = reason
            self._unreported.append(f"Worker {address}{where} is left out: {reason}.")
            with suppress(Exception):  # one without this program gives cases back by failing
                self._client.run(turn_away, self._task.run, reason, workers=[address])

    def _shared_out(self, fit: Mapping[str, WorkerFacts]) -> dict[str, Share]:
        """The share of each worker: those that may use the same cores of the same machine divide them."""
        if self._local:
            return {
                address: Share(int(facts.name), self._local, self._threads, local=True)
                for address, facts in fit.items()
            }
        groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for address, facts in sorted(fit.items()):
            groups.setdefault((facts.host, facts.cores), []).append(address)
        return {
            address: Share(index, len(group), self._threads, local=False)
            for group in groups.values()
            for index, address in enumerate(group)
        }


def unfitness(facts: WorkerFacts, models: Mapping[str, Collection[str]]) -> str:
    """Why a worker cannot take part in a run with these models, in words; empty when it can."""
    if facts.version != __version__:
        return f"it has LesionDecomp {facts.version}, this is {__version__}"
    if facts.error:
        return facts.error.rstrip(".")
    for kind, identity in models.items():
        if tuple(facts.models.get(kind, ())) != tuple(identity):
            return f"its model of {kind} is another one, by its hash"
    if facts.missing:
        return f"it does not see '{Path(facts.missing[0]).name}' in '{Path(facts.missing[0]).parent}'"
    return ""


def _broken(error: object) -> str:
    if isinstance(error, ImportError | AttributeError):
        return f"it lacks this version of LesionDecomp ({error})"
    return f"it cannot be looked at ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
