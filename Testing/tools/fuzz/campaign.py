"""Watches over workers: a worker that dies or hangs on an input is a finding, and the next input gets a new one."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from repository import MODULE, TESTING

GOOD = ("loaded", "refused")


@dataclass
class Tally:
    """How the inputs of one target went.

    :param outcomes: how many were loaded, refused, or ended otherwise.
    :param findings: a line for each of those.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    first_mib: int = 0
    peak_mib: int = 0


def run_inputs(
    name: str, seed: int, count: int, keep: Path, seeds: Path | None = None, limit_s: float = 60.0, first: int = 0
) -> Tally:
    """Run ``count`` inputs of a target, each within ``limit_s`` seconds; inputs that fail are kept in ``keep``.

    :param name: of a target, or several, separated by commas, that take turns.
    """
    tally = Tally()
    number, end = first, first + count
    while number < end:
        done, problem = _run_worker(name, seed, number, end - number, keep, seeds, limit_s, tally)
        number = done
        if problem:
            tally.outcomes[problem.split(":")[0]] += 1
            tally.findings.append(f"{name}-{seed}-{number}: {problem}")
            number += 1
            if len(tally.findings) > 50:
                break
    return tally


def _run_worker(
    name: str, seed: int, first: int, count: int, keep: Path, seeds: Path | None, limit_s: float, tally: Tally
) -> tuple[int, str]:
    """Run one worker; return the next input's number, and what was wrong with that one (empty: all are done)."""
    command = [
        sys.executable,
        "-m",
        "fuzz.worker",
        name,
        str(seed),
        str(first),
        str(count),
        str(seeds or ""),
        str(keep),
    ]
    paths = [str(TESTING / "tools"), str(TESTING / "support"), str(MODULE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
    )
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = [
        threading.Thread(target=lambda: ([lines.put(line) for line in process.stdout], lines.put(None)), daemon=True),
        threading.Thread(target=lambda: errors.extend(process.stderr), daemon=True),
    ]
    for thread in threads:
        thread.start()
    number, started = first, False
    try:
        while True:
            try:
                line = lines.get(timeout=limit_s if started else 300.0)
            except queue.Empty:
                return number, f"a hang: more than {limit_s:g} s"
            if line is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)  # its exit status reports how it ended
                break
            reported = json.loads(line)
            started = True
            if "outcome" in reported:
                _count(reported, name, seed, tally)
                number = reported["number"] + 1
    finally:
        process.kill()
        process.wait()
        for thread in threads:
            thread.join(10)
    if number >= first + count:
        return number, ""
    if not started:
        raise RuntimeError("the worker did not begin:\n" + "".join(errors)[-2000:])
    return number, f"a crash: exit status {process.returncode}; " + "".join(errors)[-300:].replace("\n", " | ")


def _count(reported: dict, name: str, seed: int, tally: Tally) -> None:
    tally.outcomes[reported["outcome"]] += 1
    tally.slowest_s = max(tally.slowest_s, reported["seconds"])
    tally.first_mib = tally.first_mib or reported["mib"]
    tally.peak_mib = max(tally.peak_mib, reported["mib"])
    if reported["outcome"] not in GOOD:
        tally.findings.append(f"{name}-{seed}-{reported['number']}: {reported['outcome']}: {reported['detail']}")
