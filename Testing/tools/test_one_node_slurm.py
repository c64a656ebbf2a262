"""A batch through dask-jobqueue on a real SLURM of one node, where its Debian packages are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from batch_results import hidden, summary, without_reports
from command_line import process_environment, run_apart, small_ct
from LesionDecompLib.io.readers import write_image
from repository import ROOT

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
PLACES = os.environ.get("PATH", "") + ":/usr/sbin"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(shutil.which(name, path=PLACES) for name in PROGRAMS) or not hasattr(os, "getuid") or os.getuid() != 0,
        reason="needs root and: apt-get install slurmctld slurmd slurm-client munge",
    ),
]


def test_slurm_jobs_write_what_one_process_writes(tmp_path):
    *_, volume = small_ct(tmp_path)
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(3):
        write_image(studies / f"ct{number}.nrrd", volume.array + np.int16(number), volume)
    (tmp_path / "home").mkdir()
    options = ["--device", "cpu", "--quiet"]
    alone = run_apart(
        tmp_path, tmp_path / "home", "segment", studies, "-o", tmp_path / "alone", "--threads", "1", *options
    )
    assert alone.status == 0, alone.err

    slurm, script = ROOT / "Testing" / "tools" / "one_node_slurm.sh", ROOT / "Examples" / "slurm_batch.py"
    batch = ["--jobs", "2", "--cores", "1", "--memory", "2GB", "--interface", "lo", "--"]
    done = subprocess.run(
        [str(slurm), sys.executable, str(script), *batch, str(studies), "-o", str(tmp_path / "out"), *options],
        cwd=tmp_path,
        env=process_environment(tmp_path / "home"),
        capture_output=True,
        encoding="utf-8",
        timeout=500,
    )
    assert done.returncode == 0 and "3 of 3 cases done" in done.stderr, done.stdout + done.stderr
    assert list(tmp_path.glob("slurm-*.out"))  # it was SLURM that ran the workers
    assert {status for status, _ in summary(tmp_path / "out").values()} == {"done"}
    assert without_reports(tmp_path / "out") == without_reports(tmp_path / "alone")
    assert not hidden(tmp_path / "out")
