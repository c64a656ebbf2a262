"""``python -m faults``: kill jobs at random moments, run them again, compare with an unbroken run. POSIX only."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

KILLS = {"segment": 70, "replace": 70, "pictures": 6, "batch": 20, "train": 20, "slices": 30, "scene": 6}
EXITED = os.WEXITED | os.WNOHANG | os.WNOWAIT if hasattr(os, "WNOWAIT") else 0
LIMIT_S = 600.0  # for one run; more is a hang


def main() -> int:
    """Run; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=sum(KILLS.values()), help="of all jobs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", nargs="+", choices=list(KILLS), default=list(KILLS))
    args = parser.parse_args()
    _load_everything("scene" in args.jobs)
    from .jobs import jobs

    share = args.kills / sum(KILLS[name] for name in args.jobs)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        home = Path(scratch)
        made = jobs(home)
        print("job       kills   unbroken  before its end  while writing  nothing seen  broken")
        for name in args.jobs:
            count = max(1, round(KILLS[name] * share))
            began = time.monotonic()
            seconds, killed, writing, empty, problems = kill_job(
                made[name], home / name, count, random.Random(f"{args.seed} {name}")
            )
            broken += len(problems)
            print(
                f"{name:9s} {count:5d} {seconds:7.2f} s {killed:15d} {writing:14d} {empty:13d} {len(problems):7d}"
                f"   ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
            for problem in problems:
                print(f"    {problem}", flush=True)
    print("Every promise was kept." if not broken else f"{broken} times a promise was broken.")
    return 1 if broken else 0


def kill_job(job, folder: Path, count: int, rng: random.Random) -> tuple[float, int, int, int, list[str]]:
    """Kill a job ``count`` times: at any moment, and every other time soon after it began to write results.

    :return: how long it takes unbroken, how often the kill came before its end, how often it waited for the writing,
        after how many kills nothing was seen, and what went wrong.
    """
    from .jobs import contents, visible

    reference = folder / "reference"
    _prepared(job, reference)
    began = time.monotonic()
    status = _wait(_start(job.arguments, reference))
    seconds = time.monotonic() - began
    if status != 0:
        raise RuntimeError(
            f"the unbroken run ended with {status}:\n" + (reference / "reported.txt").read_text()[-2000:]
        )
    expected = contents(reference / "out")
    killed, writing, empty, problems = 0, 0, 0, []
    for number in range(count):
        trial = folder / f"{number}"
        _prepared(job, trial)
        process = _start(job.arguments, trial)
        after = rng.uniform(0, 1.05 * seconds)
        if number % 2:
            # Every other one while results are being written, which is a small part of the time.
            began, after = time.monotonic(), rng.uniform(0, 0.15)
            while not _is_writing(trial) and os.waitid(os.P_PID, process, EXITED) is None:
                time.sleep(0.001)
            writing += _is_writing(trial)
        time.sleep(after)
        if os.waitpid(process, os.WNOHANG)[0] == 0:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            killed += 1
        try:
            empty += not visible(trial / "out")
            job.seen(trial / "out", reference / "out")
            status = _wait(_start(job.arguments, trial))
            assert status == 0, f"the second run ended with {status}: " + (trial / "reported.txt").read_text()[-300:]
            found = contents(trial / "out")
            assert found == expected, "other outputs: " + ", ".join(
                sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
            )
            left = [str(path.relative_to(trial)) for path in trial.rglob(".*")]
            assert not left, f"left behind: {left}"
            shutil.rmtree(trial)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            problems.append(f"kill {number} after {after:.3f} s: {type(error).__name__} {error} ({where.name})")
    return seconds, killed, writing, empty, problems


def _is_writing(folder: Path) -> bool:
    """Whether a file of the results, or of a checkpoint, is there under a temporary name."""
    try:
        return any(
            path.is_file() and path.name != "probe" and any(part.endswith(".partial") for part in path.parts)
            for path in folder.rglob("*")
        )
    except OSError:  # gone while we looked
        return False


def _prepared(job, folder: Path) -> None:
    folder.mkdir(parents=True)
    job.prepare(folder)


def _start(arguments: tuple[str, ...], folder: Path) -> int:
    """Run the command line in a forked process of its own, in ``folder``; return its number."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.chdir(folder)
        reported = os.open("reported.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(reported, 1)
        os.dup2(reported, 2)
        from LesionDecompLib.__main__ import main as lesiondecomp

        status = lesiondecomp(list(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(process: int) -> int:
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise RuntimeError(f"a hang: more than {LIMIT_S:g} s")


def _load_everything(scene: bool) -> None:
    # Once, here: what is killed is the work, not two seconds of imports.
    import matplotlib.figure  # noqa: F401
    import scipy.ndimage  # noqa: F401
    import SimpleITK  # noqa: F401
    import skimage.measure  # noqa: F401
    import torch
    from LesionDecompLib import pipeline  # noqa: F401
    from LesionDecompLib.training.data import export as slice_export  # noqa: F401

    torch.set_num_threads(1)  # a forked process has no use for its parent's threads
    if scene:
        import slicer  # noqa: F401


if __name__ == "__main__":
    sys.exit(main())
