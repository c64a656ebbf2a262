"""A training run made from volumes: what it does between making the slices and training."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from command_line import process_environment
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.processes.training import SliceSetJob, TrainingSettings
from LesionDecompLib.processes.training_run import TrainingRun
from LesionDecompLib.training.data.labels import SliceLabel
from repository import TESTING

LABELS = {
    name: [SliceLabel(0, "normal", ""), SliceLabel(1, "lesion", "")] for name in ("first", "second", "third", "fourth")
}
VOLUMES = [Volume.from_array(np.zeros((4, 8, 8), np.int16), np.eye(4), name) for name in LABELS]


@pytest.mark.slow
def test_a_stop_as_the_slices_are_finished_starts_no_training(tmp_path):
    settings = TrainingSettings(tmp_path, tmp_path / "run", device="cpu")
    run = TrainingRun(settings, VOLUMES, LABELS, python=[sys.executable, "-c", "pass"])
    assert run.job.process.wait(60) == 0  # ended, which nobody has looked at yet
    run.stop()
    assert run.wait(60) == "stopped"
    assert run.stage == "slices" and run.error is None


@pytest.mark.slow
def test_who_waits_for_a_training_is_told_of_its_progress_and_end_without_an_event_loop(tmp_path):
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
    from LesionDecompMrml.training import watch

    settings = TrainingSettings(tmp_path, tmp_path / "run", device="cpu")
    run = TrainingRun(settings, VOLUMES, LABELS, python=[sys.executable, "-c", "import sys; sys.exit(1)"])
    progress, ended = [], []
    watch(run, lambda _callback: lambda: None, lambda run: progress.append(run.state), (ended.append, None))
    assert run.wait(60) == "failed" and ended == [run] and progress[-1] == "failed"
    run.wait(1)
    assert ended == [run]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there a process can't be asked whether it lives")
def test_images_that_a_killed_program_left_are_removed_by_the_next_one(tmp_path):
    code = (
        "import os; from test_training_run import LABELS, VOLUMES, SliceSetJob\n"
        "process = SliceSetJob(VOLUMES, LABELS, 'set', temporary_folder='.')\n"
        "os._exit(0)\n"  # at once, as a killed program: nothing is tidied up
    )
    environment = process_environment(tmp_path)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parent), str(TESTING / "support"), environment["PYTHONPATH"]]
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    left = set(tmp_path.glob("lesiondecomp-*"))
    assert any(list(folder.glob("*.npy")) for folder in left)
    process = SliceSetJob(VOLUMES, LABELS, tmp_path / "set", temporary_folder=tmp_path)
    assert not [folder for folder in left if folder.exists()]
    process.kill()
    end = time.monotonic() + 10
    while list(tmp_path.glob("lesiondecomp-*")) and time.monotonic() < end:
        time.sleep(0.02)
    assert list(tmp_path.glob("lesiondecomp-*")) == []
