"""``python -m mutation``: run each mutant of a module against the module's quick tests. POSIX only."""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

from .mutants import Mutant, mutants_of
from .trials import LIBRARY, SURVIVED, quick_outcomes, sure_outcome

TESTS = {
    "geometry": ("test_geometry.py",),
    "statistics": ("test_statistics.py",),
    "bundles": ("test_bundles.py", "test_bundle_metadata.py"),
}
EXPLAINED_FILE = Path(__file__).with_name("explained.toml")
EXPLAINED, STALE = "explained", "explained but killed"


def main() -> int:
    """Run; 1 where a mutant survived that nothing explains."""
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(TESTS)} (default: all)")
    parser.add_argument("--match", default="", metavar="TEXT", help="only mutants with this in their name")
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="only those a run before wrote there with -o")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write what survived there")
    args = parser.parse_args()
    modules = args.modules or list(TESTS)
    if unknown := set(modules) - set(TESTS):
        parser.error(f"no such module: {', '.join(sorted(unknown))}")
    chosen = set(args.survivors.read_text("utf-8").splitlines()) if args.survivors else None
    explained = tomllib.loads(EXPLAINED_FILE.read_text("utf-8"))
    os.environ["OMP_NUM_THREADS"] = "1"
    _load_what_tests_load()
    survivors: list[str] = []
    for module in modules:
        began = time.monotonic()
        reasons = {entry["mutant"] for entry in explained.get(module, [])}
        mutants = {
            mutant.name: mutant
            for mutant in mutants_of((LIBRARY / f"{module}.py").read_text("utf-8"))
            if args.match in mutant.name and (chosen is None or f"{module}: {mutant.name}" in chosen)
        }
        counts: Counter[str] = Counter()
        for name, outcome in _outcomes(module, mutants).items():
            if name in reasons:
                outcome = EXPLAINED if outcome == SURVIVED else STALE
            counts[outcome] += 1
            if outcome in (SURVIVED, STALE):
                print(f"{module}.py:{mutants[name].line}: {outcome}: {name}", flush=True)
            if outcome == SURVIVED:
                survivors.append(f"{module}: {name}")
        told = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"{module}: {len(mutants)} mutants, {told} ({time.monotonic() - began:.0f} s)", flush=True)
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("".join(f"{line}\n" for line in survivors), "utf-8")
    return 1 if survivors else 0


def _outcomes(module: str, mutants: dict[str, Mutant]) -> dict[str, str]:
    """Outcome of each mutant; what runs at import, and survives the quick way, is tried the sure way."""
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.jsonl"
        seconds = quick_outcomes(module, TESTS[module], list(mutants.values()), results)
        outcomes = dict(json.loads(line) for line in results.read_text("utf-8").splitlines()[1:])
    for name, outcome in outcomes.items():
        if outcome == SURVIVED and not mutants[name].in_function:
            outcomes[name] = sure_outcome(module, TESTS[module], mutants[name], 10 * seconds + 20)
    return outcomes


def _load_what_tests_load() -> None:
    # Once, here: a mutant then takes the time of its tests, not that of imports. Nothing of the library is loaded, so
    # that the whole of it meets the mutant.
    import io

    import hypothesis.extra.numpy  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import SimpleITK  # noqa: F401
    import skimage.measure
    import skimage.morphology  # noqa: F401
    import torch

    with contextlib.suppress(ImportError):  # the tests' fixtures want it where it is installed
        import slicer  # noqa: F401
        import vtk  # noqa: F401
    torch.set_num_threads(1)  # a forked process has no use for its parent's threads
    with torch.device("meta"):  # what torch itself loads at its first use
        layer = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4), torch.nn.BatchNorm2d(4))
    layer.eval()(torch.empty(1, 1, 8, 8, device="meta"))
    torch.save({"a": torch.zeros(1)}, io.BytesIO())
    assert not any(name.startswith("LesionDecompLib") for name in sys.modules)
    gc.freeze()  # no forked process looks through all that again


if __name__ == "__main__":
    sys.exit(main())
