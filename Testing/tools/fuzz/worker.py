"""Runs one input after another in a process of its own, and reports of each how it went, a line of JSON."""

from __future__ import annotations

import faulthandler
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

MEMORY_BYTES = 2**30  # more than the process has before the first input


def main(names: str, seed: int, first: int, count: int, seeds: str, keep: str) -> None:
    """Run inputs ``first`` to ``first + count - 1``; those that fail are copied into the folder ``keep``.

    :param names: of targets, separated by commas, that take turns: input ``n`` is the ``n // len(names)``-th of one.
    """
    faulthandler.enable()
    from LesionDecompLib.errors import LesionDecompError

    from .targets import targets

    # What libraries print is none of ours; the lines for the parent go to what was stdout.
    report = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        base = Path(scratch)
        if seeds:
            shutil.copytree(seeds, base / "seeds")
        made = targets(base / "seeds")
        limit_memory()
        for number in range(first, first + count):
            turn, place = divmod(number, names.count(",") + 1)
            name = names.split(",")[place]
            target = made[name]
            folder = base / "input"
            folder.mkdir()
            target.spoil(folder, np.random.default_rng([seed, sorted(made).index(name), turn]))
            print(json.dumps({"number": number, "begun": True}), file=report, flush=True)
            began, outcome, detail = time.monotonic(), "loaded", ""
            original = base / "original"
            shutil.copytree(folder, original)
            try:
                target.load(folder)
            except LesionDecompError as error:
                outcome = "refused" if "\n" not in str(error) and len(str(error)) < 2000 else "a long sentence"
                detail = str(error)[:300]
            except BaseException as error:
                outcome, detail = type(error).__name__, str(error)[:300]
            if outcome not in ("loaded", "refused"):
                shutil.copytree(original, Path(keep) / f"{name}-{seed}-{turn}", dirs_exist_ok=True)
            seconds = round(time.monotonic() - began, 3)
            line = {"number": number, "outcome": outcome, "detail": detail, "seconds": seconds, "mib": peak_mib()}
            print(json.dumps(line), file=report, flush=True)
            shutil.rmtree(folder)
            shutil.rmtree(original)


def limit_memory() -> None:
    """Let this process ask for no more than ``MEMORY_BYTES`` beyond what it has; nothing on Windows and macOS."""
    status = Path("/proc/self/status")
    if status.exists():
        import resource

        size = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + MEMORY_BYTES,) * 2)


def peak_mib() -> int:
    """Peak resident memory of this process, MiB; 0 where it can't be reported."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


if __name__ == "__main__":
    names, seed, first, count, seeds, keep = sys.argv[1:]
    main(names, int(seed), int(first), int(count), seeds, keep)
