"""``--device cuda:0,cuda:1``: one process for each device, sharing the cases."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

from ..processes.tree import LIFELINE, exit_in_words, library_environment
from .case_sharing import PREFIX, STORE

PATIENCE_S = 10.0
POLL_S = 0.2


def run_on_devices(command_line: list[str], count: int) -> int:
    """Run the command once for each of ``count`` devices, together; see :mod:`.case_sharing`.

    A process that dies costs its own case, which the next run picks up; the others go on.

    :param command_line: arguments of ``lesiondecomp``.
    :return: exit status, 0 only when all ended well.
    """
    from torch import distributed

    from . import notify

    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {
        **library_environment(),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        STORE: f"127.0.0.1:{store.port}",
        LIFELINE: "1",
    }
    told = distributed.PrefixStore(PREFIX, store)
    command = [sys.executable, "-m", "LesionDecompLib", *command_line]
    processes = [
        subprocess.Popen(command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdin=subprocess.PIPE)
        for rank in range(count)
    ]
    statuses: dict[int, int] = {}
    try:
        while len(statuses) < count:
            for rank, process in enumerate(processes):
                if rank in statuses:
                    continue
                with suppress(subprocess.TimeoutExpired):
                    statuses[rank] = process.wait(POLL_S)
                if statuses.get(rank, 0) not in (0, 1):
                    notify(f"Process {rank + 1} of {count} ended early: {exit_in_words(statuses[rank])}.")
                if rank in statuses and rank > 0 and not told.check([f"done/{rank}"]):
                    told.set(f"done/{rank}", "")  # the first one need not wait for it
    finally:
        _end(processes)
    return 0 if set(statuses.values()) == {0} else 1


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End what still runs: each after it had time to end by itself, as Ctrl-C has reached it too."""
    for process in processes:
        for ask in (process.terminate, process.kill):
            try:
                process.wait(PATIENCE_S)
                break
            except subprocess.TimeoutExpired:
                with suppress(OSError):
                    ask()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
