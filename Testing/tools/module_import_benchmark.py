"""How long Slicer waits when it imports the module's file: ``python Testing/tools/module_import_benchmark.py [TURNS]``.

Each turn is a process of its own, in which Slicer, vtk and numpy are loaded already, as they are when Slicer discovers
its modules. Told are CPU time and time on the clock of importing the file, and what it loaded beyond these.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

TESTING = Path(__file__).resolve().parents[1]
MODULE_FILE = TESTING.parent / "LesionDecomp" / "LesionDecomp.py"
ONE_TURN = """
import sys, tempfile, time
from pathlib import Path
sys.path[:0] = {paths!r}
import numpy
from headless_slicer import boot
session = boot(Path(tempfile.mkdtemp()))
before = set(sys.modules)
wall, cpu = time.perf_counter(), time.process_time()
session.load_module(Path({file!r}))
print(1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu))
print(*sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""


def main(turns: int) -> None:
    """Measure and print."""
    code = ONE_TURN.format(paths=[str(TESTING), str(MODULE_FILE.parent)], file=str(MODULE_FILE))
    times, loaded = [], ""
    for _ in range(turns):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        first, loaded = done.stdout.strip().splitlines()[-2:]
        times.append([float(word) for word in first.split()])
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    print(f"{MODULE_FILE.name}: {wall:.1f} ms on the clock, {cpu:.1f} ms of CPU time, medians of {turns} processes")
    print(f"loaded beyond Slicer, vtk and numpy: {loaded}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
