"""What a death costs on a cluster: a worker's, the command's own by Ctrl-C, the scheduler's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from batch_results import hidden, summary, without_reports
from cluster_faults import provoke
from command_line import process_environment, run_apart, small_ct
from dask_cluster import handmade_cluster
from LesionDecompLib.cli.batch.worker import THREE_TIMES
from LesionDecompLib.io.readers import write_image

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")]
# A worker that imports this dies of a CT whose name says so, as of one that is too large for its memory.
DEADLY = """
import os, signal
from LesionDecompLib.io import readers
read = getattr(readers.read_volume, "plain", readers.read_volume)  # Dask may import this more than once

def read_or_die(path, *arguments, **options):
    if path.name.startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, *arguments, **options)

read_or_die.plain = read
readers.read_volume = read_or_die
"""


@pytest.fixture
def studies(tmp_path) -> Path:
    """Four small CTs."""
    ct, mask, volume = small_ct(tmp_path)
    folder = tmp_path / "studies"
    folder.mkdir()
    for number in range(4):
        write_image(folder / f"ct{number}.nrrd", volume.array + np.int16(number), volume)
    ct.unlink()
    mask.unlink()
    (tmp_path / "home").mkdir()
    return folder


def arguments(studies: Path, *more: object) -> list[str]:
    fixed = ["segment", studies, "-o", studies.parent / "out", "--device", "cpu", "--threads", "1", "--quiet"]
    return [str(part) for part in (*fixed, *more)]


def start(studies: Path, *more: object) -> subprocess.Popen:
    """Start the command, and wait until its first case is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "LesionDecompLib", *arguments(studies, *more)],
        env=process_environment(studies.parent / "home"),
        start_new_session=True,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    end = time.monotonic() + 200
    while not list((studies.parent / "out").glob("*/report.json")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return process


def test_a_case_that_ends_its_worker_is_given_up_after_three_and_costs_no_other(studies, tmp_path, monkeypatch):
    (studies / "ct2.nrrd").rename(studies / "deadly.nrrd")
    (tmp_path / "deadly.py").write_text(DEADLY, "utf-8")
    monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", repr([str(tmp_path / "deadly.py")]))
    done = run_apart(tmp_path, tmp_path / "home", *arguments(studies, "--processes", "2"))
    assert done.status == 1 and "3 of 4 cases done" in done.err, done.err
    states = summary(tmp_path / "out")
    assert states["deadly"] == ("failed", THREE_TIMES)
    assert {states[name][0] for name in ("ct0", "ct1", "ct3")} == {"done"}
    assert not hidden(tmp_path / "out")

    monkeypatch.delenv("DASK_DISTRIBUTED__WORKER__PRELOAD")  # as on a machine with more memory
    again = run_apart(tmp_path, tmp_path / "home", *arguments(studies, "--processes", "2"))
    assert again.status == 0 and "3 of 4 cases are done already" in again.err, again.err


def test_control_c_ends_within_seconds_and_leaves_nothing_half_written(studies, tmp_path):
    process = start(studies, "--processes", "2")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it, too
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Interrupted" in errors, errors
    assert time.monotonic() - began < 40  # seconds on a machine of its own
    states = summary(tmp_path / "out")
    assert len(states) == 4 and {status for status, _ in states.values()} == {"done", "not run"}
    for name, (status, _) in states.items():
        assert (tmp_path / "out" / name / "report.json").is_file() == (status == "done")
    assert not hidden(tmp_path / "out")


def test_a_lost_scheduler_ends_the_command_with_a_sentence_and_the_same_command_resumes(studies, tmp_path):
    environment = process_environment(tmp_path / "home")
    with handmade_cluster(tmp_path / "cluster", environment, workers=1) as cluster:
        process = start(studies, "--scheduler", cluster.file)
        cluster.processes[0].kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "found a scheduler that is gone" in errors, errors
    assert "Run the same command again" in errors
    finished = len(list((tmp_path / "out").glob("*/report.json")))
    assert 0 < finished < 4
    with handmade_cluster(tmp_path / "another", environment, workers=1) as cluster:
        again = run_apart(tmp_path, tmp_path / "home", *arguments(studies, "--scheduler", cluster.file))
    assert again.status == 0 and "cases are done already" in again.err, again.err
    alone = run_apart(tmp_path, tmp_path / "home", *arguments(studies, "-o", tmp_path / "alone"))
    assert alone.status == 0, alone.err
    assert without_reports(tmp_path / "out") == without_reports(tmp_path / "alone")
    assert not hidden(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers by Linux's /proc")
def test_workers_killed_at_random_moments_lose_no_case(tmp_path):
    outcome = provoke(tmp_path, cases=5, kills=3, seed=1, gap_s=10.0)
    assert outcome.is_right and outcome.kills > 0, outcome
