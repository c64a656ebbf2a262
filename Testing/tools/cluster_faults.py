"""Kills workers of a Dask cluster at random moments of a batch, adds one, and checks that no case is lost or doubled.

    PYTHONPATH=LesionDecomp:Testing/support:Testing/tools python -m cluster_faults --cases 24 --kills 20

A worker is killed with SIGKILL, as the system's out-of-memory killer does and, in the end, a preempting scheduler. Its
nanny starts another one. The same command then runs again, and what is there is compared with an unbroken run's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from batch_results import hidden, summary, without_reports
from command_line import process_environment, small_ct
from dask_cluster import HandmadeCluster, handmade_cluster
from LesionDecompLib.cli.batch.worker import THREE_TIMES
from LesionDecompLib.io.readers import write_image

MOST_FAILED = 3


@dataclass
class Outcome:
    """What came of it.

    :param kills: workers that were killed while cases were under way.
    :param first, again: how many cases the two runs left in each state.
    :param hidden: temporary names that are left.
    :param different: files that differ from the unbroken run's.
    """

    kills: int
    seconds: float
    first: dict[str, int]
    again: dict[str, int]
    hidden: list[str]
    different: list[str]

    @property
    def is_right(self) -> bool:
        """Whether all that is promised was kept."""
        failed = sum(number for state, number in self.first.items() if state != "done")
        cases = sum(self.again.values())
        return (
            set(self.first) <= {"done", THREE_TIMES}
            and failed <= MOST_FAILED
            and self.again == {"done": cases}
            and not self.hidden
            and not self.different
        )


def provoke(folder: Path, cases: int, kills: int, seed: int, gap_s: float) -> Outcome:
    """Run it all in an empty folder.

    :param gap_s: longest time between two kills.
    """
    chance = random.Random(seed)
    *_, volume = small_ct(folder)
    studies = folder / "studies"
    studies.mkdir()
    for number in range(cases):
        write_image(studies / f"ct{number:02d}.nrrd", volume.array + np.int16(number), volume)
    (folder / "home").mkdir()
    environment = process_environment(folder / "home")
    command = [sys.executable, "-m", "LesionDecompLib", "segment", str(studies), "--device", "cpu", "--threads", "1"]
    whole = [*command, "-o", str(folder / "whole"), "--quiet"]
    subprocess.run(whole, env=environment, check=True, timeout=3000, capture_output=True)
    with handmade_cluster(folder / "cluster", environment, workers=2) as cluster:
        _wait_for_workers(cluster, 2)
        began = time.monotonic()
        command += ["-o", str(folder / "out"), "--scheduler", str(cluster.file)]
        with open(folder / "first.log", "wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            killed = _kill_workers(cluster, process, chance, kills, gap_s)
            process.wait(3000)
        seconds = time.monotonic() - began
        first = _states(folder / "out")
        subprocess.run([*command, "--quiet"], env=environment, check=False, timeout=3000, capture_output=True)
    again = _states(folder / "out")
    wanted, found = (without_reports(folder / name) for name in ("whole", "out"))
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    return Outcome(killed, round(seconds, 1), first, again, hidden(folder / "out"), different)


def _wait_for_workers(cluster: HandmadeCluster, number: int) -> None:
    """Wait until so many are there: Dask's nanny gives up where its worker dies before it has ever been there."""
    from distributed import Client

    with Client(scheduler_file=str(cluster.file), set_as_default=False) as client:
        client.wait_for_workers(number, timeout=600)


def _kill_workers(
    cluster: HandmadeCluster, process: subprocess.Popen, chance: random.Random, kills: int, gap_s: float
) -> int:
    """Kill workers while the command runs; half-way a worker joins. Return how many were killed."""
    killed = 0
    while killed < kills and process.poll() is None:
        end = time.monotonic() + chance.uniform(0.2, gap_s)
        while time.monotonic() < end and process.poll() is None:
            time.sleep(0.02)
        workers = [pid for nanny in cluster.processes[1:] for pid in _workers_of(nanny.pid)]
        if not workers or process.poll() is not None:
            continue
        try:
            os.kill(chance.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            continue
        killed += 1
        if killed == kills // 2:
            cluster.start_worker()
    return killed


def _workers_of(nanny: int) -> list[int]:
    """Process numbers of the workers that a nanny has started."""
    try:
        tasks = [path.name for path in Path(f"/proc/{nanny}/task").iterdir()]
        children = [
            child for task in tasks for child in Path(f"/proc/{nanny}/task/{task}/children").read_text("ascii").split()
        ]
        return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:
        return []


def _states(out: Path) -> dict[str, int]:
    """How many cases are in each state."""
    return dict(Counter("done" if status == "done" else message or status for status, message in summary(out).values()))


def main(argv: list[str] | None = None) -> int:
    """Run it and print the outcome; 0 when everything is as promised."""
    parser = argparse.ArgumentParser(prog="cluster_faults", description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--gap", type=float, default=12.0, metavar="S", help="longest time between two kills")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        outcome = provoke(Path(folder), args.cases, args.kills, args.seed, args.gap)
    print(json.dumps(asdict(outcome), indent=1, ensure_ascii=False))
    return 0 if outcome.is_right else 1


if __name__ == "__main__":
    sys.exit(main())
