"""A Dask cluster as people start one by hand, for tests: a scheduler and workers, each a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class HandmadeCluster:
    """``dask scheduler`` and ``dask worker`` on loopback.

    :param folder: for the scheduler's file and the workers' own files.
    """

    folder: Path
    environment: Mapping[str, str]
    processes: list[subprocess.Popen] = field(default_factory=list)

    @property
    def file(self) -> Path:
        """What ``--scheduler`` takes."""
        return self.folder / "scheduler.json"

    def start_scheduler(self) -> subprocess.Popen:
        """Start it, and wait until it can be reached."""
        self.file.unlink(missing_ok=True)
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(self.file)]
        process = self._start("scheduler", *options)
        end = time.monotonic() + 60
        while not self.file.is_file() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        assert self.file.is_file(), "the scheduler does not start"
        return process

    def start_worker(self, *more: str) -> subprocess.Popen:
        """Start a worker with one thread."""
        options = ["--scheduler-file", str(self.file), "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard"]
        return self._start("worker", *options, "--local-directory", str(self.folder), *more)

    def _start(self, *command: str) -> subprocess.Popen:
        with open(self.folder / f"{command[0]}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + command[0], *command[1:]],
                env={**self.environment},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def end(self) -> None:
        """End all of it."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def handmade_cluster(folder: Path, environment: Mapping[str, str], workers: int) -> Iterator[HandmadeCluster]:
    """A scheduler and so many workers."""
    folder.mkdir()
    cluster = HandmadeCluster(folder, environment)
    try:
        cluster.start_scheduler()
        for _ in range(workers):
            cluster.start_worker()
        yield cluster
    finally:
        cluster.end()
