"""Many tasks that do nothing, through the window that cases go through: how many a second, in how much memory.

    PYTHONPATH=LesionDecomp:Testing/support python Testing/tools/cluster_benchmark.py --tasks 100000

Prints one JSON object: tasks a second, processor time of client and scheduler for a task (which tells what a scheduler
can do where the machine is busy with something else, too), and their memory (resident, MiB) every few seconds, which
is also shown on stderr as it comes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from dask_cluster import handmade_cluster
from LesionDecompLib.cli.batch.cluster import cluster_client
from LesionDecompLib.cli.batch.task import CaseRow, CaseTask
from LesionDecompLib.cli.batch.window import TaskWindow

MODELS = {"lungs": ("0" * 64, "1" * 64), "lesions": ("2" * 64, "3" * 64)}


def nothing(task: CaseTask) -> CaseRow:
    """What a worker returns for a case, without computing it."""
    return CaseRow("done", "", task.models["lungs"][0], {"lesion_volume_ml": float(task.number)})


def resident_mib(process: int) -> float:
    """Memory of a process that is in use, MiB."""
    for line in Path(f"/proc/{process}/status").read_text("ascii").splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"no memory of process {process}")


def processor_s(process: int) -> float:
    """Processor time that a process has used, seconds."""
    fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(tasks: int, workers: int, every_s: float) -> dict[str, object]:
    """Run so many tasks on so many workers.

    :param every_s: time between two measurements of memory.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        handmade_cluster(Path(folder, "cluster"), os.environ, workers) as cluster,
        cluster_client(str(cluster.file), workers) as client,
    ):
        client.wait_for_workers(workers, timeout=60)
        return _run(client, cluster.processes[0].pid, tasks, workers, every_s)


def _run(client: object, scheduler: int, tasks: int, workers: int, every_s: float) -> dict[str, object]:
    def task(number: int, slot: int) -> CaseTask:
        place = f"/data/cohort/subject{number:07d}"
        return CaseTask("run", number, slot, f"subject{number:07d}", place + ".nii.gz", place, {"threads": 1}, MODELS)

    window = TaskWindow[int](client, "nothing", task, nothing)
    numbers, done, most = iter(range(tasks)), 0, 0
    both = os.getpid(), scheduler
    used, began = [processor_s(process) for process in both], time.monotonic()
    shown = began
    memory: list[dict[str, float]] = []

    def look() -> None:
        row = (done, round(time.monotonic() - began, 1), *map(resident_mib, both))
        memory.append(dict(zip(("tasks", "seconds", "client_mib", "scheduler_mib"), row, strict=True)))
        print(memory[-1], file=sys.stderr, flush=True)

    look()
    while True:
        window.fill(numbers, workers)
        if not len(window):
            break
        most = max(most, len(window))
        for ended in window.ended(5.0):
            if ended.error is not None or ended.result.measurements["lesion_volume_ml"] != ended.item:
                raise ValueError(f"task {ended.item} came back as {ended}")
            done += 1
        if time.monotonic() - shown > every_s:
            shown = time.monotonic()
            look()
    seconds = time.monotonic() - began
    look()
    client_ms, scheduler_ms = (1000 * (processor_s(p) - before) / done for p, before in zip(both, used, strict=True))
    return {
        "tasks": done,
        "workers": workers,
        "tasks_a_second": round(done / seconds, 1),
        "client_ms_a_task": round(client_ms, 2),
        "scheduler_ms_a_task": round(scheduler_ms, 2),
        "most_at_a_time": most,
        "memory": memory,
    }


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="cluster_benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--every", type=float, default=15.0, metavar="S", help="time between two measurements of memory"
    )
    args = parser.parse_args(argv)
    print(json.dumps(measure(args.tasks, args.workers, args.every), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
