"""Several processes share the cases of one run: torch.distributed's store counts who takes which, files hold the rest.

``torchrun`` and SLURM's ``srun`` start the processes, on one machine or many; :mod:`.device_processes` does so for a
list of devices. A case is taken by one process, written by it alone, and left to the next run when it dies.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from ..errors import OutputError
from .batch.plan import Case

STAGE = "Sharing the cases"
# A process that has not taken or finished a case for so long is taken for dead.
SILENT_S = 1800.0
POLL_S = 0.2
STORE = "LESIONDECOMP_STORE"  # environment variable: address:port of a store that another process holds
PREFIX = "lesiondecomp"
FIELDS = ("status", "message", "input_sha256", "measurements")


class CaseSharing:
    """This process among those that share the cases.

    :param rank: 0 writes the summary.
    :param size: processes in all.
    :param local_rank: on this machine.
    :param local_size: processes on this machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        self.rank, self.size, self.local_rank, self.local_size = rank, size, local_rank, local_size
        self._store: Any = None
        if size > 1:
            self._store = _store(size)

    @classmethod
    def of_environment(cls) -> CaseSharing:
        """What ``torchrun``, ``srun`` or :mod:`.device_processes` say in the environment; alone where none does.

        :raises LesionDecompError: the other processes cannot be reached.
        """
        os.environ.update(slurm_in_torch_words())
        environment = os.environ
        rank, size = int(environment.get("RANK", "0")), int(environment.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        local_size = int(environment.get("LOCAL_WORLD_SIZE", "1"))
        return cls(rank, size, int(environment.get("LOCAL_RANK", "0")), local_size)

    def numbers(self, count: int) -> Iterator[int]:
        """The cases, of ``count``, that fall to this process: whoever is free takes the next one."""
        if self._store is None:
            yield from range(count)
            return
        while (number := self._store.add("next", 1) - 1) < count:
            self.tell_alive()
            yield number

    def tell_alive(self) -> None:
        """Let the first process know that this one is at work."""
        if self._store is not None:
            self._store.add(f"alive/{self.rank}", 1)

    def hand_in(self, cases: list[Case]) -> None:
        """Tell the first process how this one's cases went."""
        if self._store is not None and self.rank > 0:
            told = {n: {f: getattr(case, f) for f in FIELDS} for n, case in enumerate(cases) if case.status}
            self._store.set(f"done/{self.rank}", json.dumps(told))

    def collect(self, cases: list[Case]) -> bool:
        """In the first process: wait for the others and take over what they say.

        :return: whether all of them ended well.
        """
        others = set(range(1, self.size)) if self._store is not None else set()
        beats: dict[int, tuple[int, float]] = {}
        lost = 0
        while others:
            for rank in sorted(others):
                beat, now = self._store.add(f"alive/{rank}", 0), time.monotonic()
                if self._store.check([f"done/{rank}"]):
                    told = self._store.get(f"done/{rank}").decode()
                    for number, values in json.loads(told or "{}").items():
                        for field, value in values.items():
                            setattr(cases[int(number)], field, value)
                    others.discard(rank)
                    lost += not told
                elif beats.get(rank, (None,))[0] != beat:
                    beats[rank] = beat, now
                elif now - beats[rank][1] > SILENT_S:
                    others.discard(rank)
                    lost += 1
            if others:
                time.sleep(POLL_S)
        return lost == 0


def environment_has_ranks() -> bool:
    """Whether this process was started as one of several."""
    return any(os.environ.get(name, "1") != "1" for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))


def tells_for_all() -> bool:
    """Whether this process says what all of them would say: the first, or the one that starts them."""
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    return rank == "0" and STORE not in os.environ


def _store(size: int) -> Any:
    from torch import distributed

    try:
        address, _, port = os.environ.get(STORE, "").rpartition(":")
        if port:
            store = distributed.TCPStore(address, int(port), is_master=False, timeout=timedelta(minutes=2))
        else:
            store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(minutes=10)))
        return distributed.PrefixStore(PREFIX, store)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise OutputError(
            STAGE,
            f"{size} processes that do not find each other ({reason})",
            "MASTER_ADDR and MASTER_PORT of the first",
        ) from error


def slurm_in_torch_words() -> dict[str, str]:
    """What ``srun`` says, in torch's words; empty outside a job step of several tasks."""
    step = os.environ
    if "RANK" in step or int(step.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {}
    words = {
        "RANK": step["SLURM_PROCID"],
        "WORLD_SIZE": step["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": step.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": step.get("SLURM_STEP_TASKS_PER_NODE", "1").split("(")[0].split(",")[0],
        "MASTER_ADDR": first_host(step.get("SLURM_STEP_NODELIST", "127.0.0.1")),
        "MASTER_PORT": "29500",
    }
    with suppress(ValueError, KeyError):
        words["MASTER_PORT"] = str(20000 + int(step["SLURM_JOB_ID"]) % 20000)
    return words


def first_host(nodes: str) -> str:
    """The first host of a list as SLURM writes it, e.g. ``"gpu03"`` of ``"gpu[03-07,12],cpu1"``."""
    name, bracket, rest = nodes.partition("[")
    if not bracket or "," in name:
        return name.split(",")[0]
    tail = rest.partition("]")[2].partition(",")[0]
    return name + rest.split("]")[0].split(",")[0].split("-")[0] + tail
