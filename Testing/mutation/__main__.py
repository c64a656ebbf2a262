"""``python -m mutation``: run each mutant of a module against the module's quick tests. POSIX only."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from .mutants import Mutant, mutants_of

TESTING = Path(__file__).resolve().parents[1]
LIBRARY = TESTING.parent / "LesionDecomp" / "LesionDecompLib"
TESTS = {
    "geometry": ("test_geometry.py",),
    "statistics": ("test_statistics.py",),
    "bundles": ("test_bundles.py", "test_bundle_metadata.py"),
}
EXPLAINED = Path(__file__).with_name("explained.toml")
KILLED, TIMEOUT, SURVIVED, EXPLAINED_AWAY, STALE = "killed", "endless", "survived", "explained", "explained but killed"


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
    explained = tomllib.loads(EXPLAINED.read_text("utf-8"))
    os.environ["OMP_NUM_THREADS"] = "1"
    _load_what_tests_load()
    survivors: list[str] = []
    for module in modules:
        began = time.monotonic()
        reasons = {entry["mutant"]: entry["why"] for entry in explained.get(module, [])}
        source = (LIBRARY / f"{module}.py").read_text("utf-8")
        mutants = [
            mutant
            for mutant in mutants_of(source)
            if args.match in mutant.name and (chosen is None or f"{module}: {mutant.name}" in chosen)
        ]
        status, seconds, tests = run_unchanged(module)
        if status != 0:
            print(f"{module}: its tests fail without any change (exit status {status})")
            return 2
        counts: Counter[str] = Counter()
        for mutant in mutants:
            outcome = _outcome(module, mutant, 10 * seconds + 10, tests, mutant.name in reasons)
            counts[outcome] += 1
            if outcome in (SURVIVED, STALE):
                print(f"{module}.py:{mutant.line}: {outcome}: {mutant.name}", flush=True)
            if outcome == SURVIVED:
                survivors.append(f"{module}: {mutant.name}")
        if not args.match and chosen is None:
            for name in sorted(reasons.keys() - {mutant.name for mutant in mutants}):
                print(f"{module}: explained, but no mutant: {name}")
        print(
            f"{module}: {len(mutants)} mutants, {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))} "
            f"({time.monotonic() - began:.0f} s; its tests take {seconds:.1f} s)",
            flush=True,
        )
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text("".join(f"{line}\n" for line in survivors), "utf-8")
    return 1 if survivors else 0


def run_unchanged(module: str) -> tuple[int | None, float, dict[str, Test]]:
    """Run a module's tests on the module as it is: exit status, seconds, and what each test does with the module."""
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "tests.json"
        status, seconds = _in_child(lambda: _pytest(module, Watch(module, notes)), 600)
        tests = (
            {name: Test(*values) for name, values in json.loads(notes.read_text("utf-8")).items()} if not status else {}
        )
    return status, seconds, tests


def run_tests(module: str, mutant: Mutant, cpu_seconds: float, order: Sequence[str]) -> int | None:
    """Run tests of a module, in this order and up to the first that fails, with the mutant in the module's place.

    :return: pytest's exit status, or None where the process ran into its limit.
    """

    def tests() -> int:
        sys.meta_path.insert(0, _Finder(f"LesionDecompLib.{module}", LIBRARY / f"{module}.py", mutant))
        return _pytest(module, Order(order))

    return _in_child(tests, cpu_seconds)[0]


@dataclass(frozen=True)
class Test:
    """How long a test takes, s, and which functions of the module it calls."""

    seconds: float
    functions: list[str]


class Watch:
    """Pytest plugin that notes for each test how long it takes and which of the module's functions it calls."""

    def __init__(self, module: str, notes: Path):
        self.file, self.notes = str(LIBRARY / f"{module}.py"), notes
        self.tests: dict[str, tuple[float, list[str]]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        called: set[str] = set()

        def trace(frame, event, argument):
            if frame.f_code.co_filename == self.file:
                called.add(frame.f_code.co_qualname.partition(".<")[0])

        began = time.perf_counter()
        sys.settrace(trace)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.tests[item.nodeid] = (time.perf_counter() - began, sorted(called))

    def pytest_sessionfinish(self):
        self.notes.write_text(json.dumps(self.tests), "utf-8")


class Order:
    """Pytest plugin that runs these tests, in this order."""

    def __init__(self, order: Sequence[str]):
        self.places = {name: place for place, name in enumerate(order)}

    def pytest_collection_modifyitems(self, items):
        items[:] = sorted(
            (item for item in items if item.nodeid in self.places), key=lambda item: self.places[item.nodeid]
        )


def _outcome(module: str, mutant: Mutant, limit: float, tests: dict[str, Test], is_explained: bool) -> str:
    # Only tests that call the changed function can tell, quick ones sooner; of what lies outside functions all can.
    function = mutant.name.partition(":")[0]
    calling = [name for name, test in tests.items() if any(f"{function}.".startswith(f"{f}.") for f in test.functions)]
    status = run_tests(module, mutant, limit, sorted(calling or tests, key=lambda name: tests[name].seconds))
    if status == 0:
        return EXPLAINED_AWAY if is_explained else SURVIVED
    if is_explained:
        return STALE
    return TIMEOUT if status is None else KILLED


def _in_child(run: Callable[[], int], cpu_seconds: float) -> tuple[int | None, float]:
    """Run in a forked process: exit status, None where it ran into its limit; and the seconds it took."""
    began = time.monotonic()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        status = 70
        try:
            # Processor time, as the machine may be busy; and for a mutant that sleeps, the clock.
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_seconds),) * 2)
            signal.alarm(math.ceil(10 * cpu_seconds))
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            status = run()
        finally:
            os._exit(status)
    ended = os.waitpid(process, 0)[1]
    by_limit = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)
    return (None if by_limit else os.waitstatus_to_exitcode(ended)), time.monotonic() - began


def _pytest(module: str, plugin: object) -> int:
    os.chdir(TESTING.parent)
    # What is said about a failure is not asked for.
    options = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", "--assert=plain", "--tb=no")
    options = (*options, "--hypothesis-profile=mutation")
    return int(pytest.main([*options, *(str(TESTING / name) for name in TESTS[module])], [plugin]))


class _Finder:
    """Finds one module, and has it made from the mutant's tree."""

    def __init__(self, name: str, path: Path, mutant: Mutant):
        self.name, self.path, self.mutant = name, path, mutant

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=_Loader(name, self.path, self.mutant))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: Path, mutant: Mutant):
        super().__init__(name, str(path))
        self.mutant = mutant

    def get_code(self, fullname: str):
        return compile(self.mutant.tree, self.path, "exec")


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
