"""The Dask cluster that computes a run: one that others have started, or one started here, on loopback."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError

if TYPE_CHECKING:
    from distributed import Client

STAGE = "Connecting to the cluster"
LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8787
CONNECT_S = 60.0
INSTALL = "pip install '.[cluster]'"
CALM = {
    # Threads of a worker that look at what the others do, fifty and a hundred times a second, hold these up.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.low-level-log-length": 100,  # of messages, which are kept whole
}


def has_dask() -> bool:
    """Whether the packages of the extra ``cluster`` are installed; nothing is imported."""
    return importlib.util.find_spec("distributed") is not None


@contextmanager
def cluster_client(scheduler: str | None, processes: int) -> Iterator[Client]:
    """A client of the cluster at ``scheduler``, or of one of ``processes`` workers that ends with it.

    Dask's own settings count (files, ``DASK_…`` in the environment), those of TLS above all.

    :param scheduler: an address such as ``tcp://node1:8786`` or ``tls://…``, or a scheduler's file; None for one here.
    :raises LesionDecompError: it cannot be reached.
    """
    import dask  # not before: --help answers at once
    import distributed  # noqa: F401  its own settings must be there before others are put above them

    if not os.environ.get("LESIONDECOMP_DEBUG"):
        for name in ("distributed", "bokeh", "tornado"):  # theirs to administrators; the command has its own sentences
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with warnings.catch_warnings(), dask.config.set(CALM):
        warnings.simplefilter("ignore")
        if scheduler is None:
            with _local_cluster(processes) as cluster, _connected(cluster.scheduler_address, cluster) as client:
                yield client
        else:
            with _connected(scheduler) as client:
                yield client


@contextmanager
def _connected(scheduler: str, cluster: Any = None) -> Iterator[Client]:
    from distributed import Client  # not before: --help answers at once

    where: dict[str, Any] = {"address": cluster if cluster is not None else scheduler}
    if scheduler.lower().endswith(".json"):
        if not Path(scheduler).is_file():
            expected = "what 'dask scheduler --scheduler-file' wrote"
            raise ConfigError(STAGE, f"no file '{Path(scheduler).name}'", expected)
        where = {"scheduler_file": scheduler}
    try:
        client = Client(**where, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(
            STAGE, f"no scheduler at '{scheduler}' ({reason})", "the address or file of a running 'dask scheduler'"
        ) from error
    try:
        # A scheduler without this program, or a Dask that does it another way: its memory then grows with the cases.
        with suppress(Exception):
            from .spans import note_no_submissions

            client.run_on_scheduler(note_no_submissions)
        yield client
    finally:
        client.close(timeout=CONNECT_S)


@contextmanager
def _local_cluster(processes: int) -> Iterator[Any]:
    from distributed import LocalCluster  # not before: --help answers at once

    cluster = LocalCluster(
        n_workers=processes,
        threads_per_worker=1,  # a case leaves it when it reaches the networks
        host=LOOPBACK,
        dashboard_address=f"{LOOPBACK}:{_free_port(DASHBOARD_PORT)}",
        memory_limit=None,  # cases differ in size: what one worker lacks, another has
        silence_logs=logging.CRITICAL,
    )
    try:
        yield cluster
    finally:
        cluster.close(timeout=CONNECT_S)


def _free_port(wanted: int) -> int:
    """``wanted``, or 0 (any) where another program has it."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            return 0
    return wanted
