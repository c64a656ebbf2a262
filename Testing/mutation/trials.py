"""Running a module's tests against a mutant: quickly in a session that is there already, or surely in a fresh one."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

from .mutants import Mutant

TESTING = Path(__file__).resolve().parents[1]
LIBRARY = TESTING.parent / "LesionDecomp" / "LesionDecompLib"
KILLED, ENDLESS, SURVIVED = "killed", "endless", "survived"
# Of a failure nothing is asked but that it was one.
OPTIONS = ("-x", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:warnings", "--assert=plain", "--tb=no")


def quick_outcomes(module: str, tests: Sequence[str], mutants: Sequence[Mutant], results: Path) -> float:
    """Run tests against each mutant in one process that has collected them, forked for each mutant.

    The mutant's code is put into the module that is loaded already, and into the names that others took from it. What
    others computed from the module when they were imported stays as it was: a survivor may be none.

    :param results: JSON lines of name and outcome are written there.
    :return: seconds the tests take without any change.
    :raises RuntimeError: the tests fail without any change.
    """
    status, _ = _in_child(lambda: _pytest(tests, Session(module, mutants, results)), None)
    seconds = json.loads(results.read_text("utf-8").splitlines()[0])
    if status != 0 or seconds is None:
        raise RuntimeError(f"the tests of {module} fail without any change (exit status {status})")
    return seconds


def sure_outcome(module: str, tests: Sequence[str], mutant: Mutant, cpu_seconds: float) -> str:
    """Run tests against a mutant in a process that imports the library with it, up to the first test that fails."""

    def run() -> int:
        sys.meta_path.insert(0, _Finder(f"LesionDecompLib.{module}", LIBRARY / f"{module}.py", mutant))
        return _pytest(tests)

    return _outcome(_in_child(run, cpu_seconds)[0])


class Session:
    """Pytest plugin that runs the collected tests against each mutant, in forked processes."""

    def __init__(self, module: str, mutants: Sequence[Mutant], results: Path):
        self.module, self.mutants, self.results = module, mutants, results

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        file = LIBRARY / f"{self.module}.py"
        notes = self.results.with_suffix(".notes")
        unchanged = compile(file.read_text("utf-8"), file, "exec")
        status, seconds = _in_child(lambda: self._watched(session.items, unchanged, notes), 900)
        with self.results.open("w", encoding="utf-8") as results:
            print(json.dumps(seconds if status == 0 else None), file=results, flush=True)
            if status != 0:
                return True
            tests = [(item, *noted) for item, noted in zip(session.items, json.loads(notes.read_text()), strict=True)]
            tests.sort(key=lambda test: test[1])
            for mutant in self.mutants:
                # Only tests that call the changed function can tell, quick ones sooner; outside functions all can.
                function = mutant.name.partition(":")[0]
                calling = [
                    item for item, _, called in tests if any(f"{function}.".startswith(f"{name}.") for name in called)
                ]
                items = calling or [item for item, *_ in tests]
                status, _ = _in_child(lambda: self._trial(items, mutant, file), 10 * seconds + 10)  # noqa: B023
                print(json.dumps([mutant.name, _outcome(status)]), file=results, flush=True)
        return True

    def _watched(self, items: Sequence[pytest.Item], code: object, notes: Path) -> int:
        """How long each test takes and which functions of the module it calls; 1 where one fails."""
        _put_in_place(self.module, code)
        noted = []
        for item, following in _with_next(items):
            called: set[str] = set()

            def trace(frame, event, argument, called=called):
                if frame.f_code.co_filename == code.co_filename:
                    called.add(frame.f_code.co_qualname.partition(".<")[0])

            began = time.perf_counter()
            sys.settrace(trace)
            failed = any(report.failed for report in runtestprotocol(item, log=False, nextitem=following))
            sys.settrace(None)
            if failed:
                return 1
            noted.append((time.perf_counter() - began, sorted(called)))
        notes.write_text(json.dumps(noted))
        return 0

    def _trial(self, items: Sequence[pytest.Item], mutant: Mutant, file: Path) -> int:
        try:
            _put_in_place(self.module, compile(mutant.tree, file, "exec"))
        except Exception:  # it can't be imported: no test passes
            return 1
        for item, following in _with_next(items):
            if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
                return 1
        return 0


def _put_in_place(name: str, code: object) -> None:
    """Run a module's changed code in the loaded module, and give its new objects to those who hold the old ones."""
    module = sys.modules[f"LesionDecompLib.{name}"]
    old = dict(vars(module))
    exec(code, vars(module))
    new = vars(module)
    for other in list(sys.modules.values()):
        path = getattr(other, "__file__", None) or ""
        if other is module or not path.startswith((str(LIBRARY), str(TESTING))):
            continue
        for key, value in list(vars(other).items()):
            if key in old and value is old[key] and not key.startswith("__"):
                setattr(other, key, new[key])


def _with_next(items: Sequence[pytest.Item]) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
    return zip(items, [*items[1:], None], strict=True)


def _outcome(status: int | None) -> str:
    return ENDLESS if status is None else KILLED if status else SURVIVED


def _in_child(run: Callable[[], int], cpu_seconds: float | None) -> tuple[int | None, float]:
    """Run in a forked process: exit status, None where it ran into its limit; and the seconds it took."""
    began = time.monotonic()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        status = 70
        try:
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            if cpu_seconds is not None:
                # Processor time, as the machine may be busy; and for a mutant that sleeps, the clock.
                resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(cpu_seconds),) * 2)
                signal.alarm(math.ceil(10 * cpu_seconds))
            status = run()
        finally:
            os._exit(status)
    ended = os.waitpid(process, 0)[1]
    by_limit = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) in (signal.SIGXCPU, signal.SIGALRM, signal.SIGKILL)
    return (None if by_limit else os.waitstatus_to_exitcode(ended)), time.monotonic() - began


def _pytest(tests: Sequence[str], *plugins: object) -> int:
    os.chdir(TESTING.parent)
    options = (*OPTIONS, "--hypothesis-profile=mutation")
    return int(pytest.main([*options, *(str(TESTING / name) for name in tests)], list(plugins)))


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
