"""How much memory this process has held at most."""

from __future__ import annotations

import sys
from pathlib import Path


def high_water_mark_mib() -> float | None:
    """Linux's high-water mark of this process's own resident memory, MiB; None elsewhere."""
    try:
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10  # in KiB
    except OSError:
        pass
    return None


def peak_memory_mib() -> float | None:
    """Largest resident memory of this process so far, MiB to one decimal; None where the system does not state.

    On Linux :func:`high_water_mark_mib`: ``getrusage`` there starts from the peak of the process that started
    this one.
    """
    mark = high_water_mark_mib()
    if mark is not None:
        return round(mark, 1)
    try:
        import resource  # not on Windows
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)  # bytes on macOS, else KiB
