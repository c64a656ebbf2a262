"""A dozen kills of the campaign that ``make faults`` runs at length, and faults around a run that are no kill."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from command_line import process_environment, run_here, small_ct, small_models
from faults.jobs import contents, training_command
from LesionDecompLib.cli.progress import Progress
from LesionDecompLib.cli.train import only_run_in
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.readers import write_image
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.report import case as case_files
from repository import TESTING

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="POSIX signals and processes")]


@pytest.fixture
def case(tmp_path):
    """A folder with a small CT, and the command that segments it, less the output folder."""
    (tmp_path / "work").mkdir()
    model = small_models(tmp_path / "models") / "untrained-lesions"
    ct, mask, _ = small_ct(tmp_path / "work")
    return tmp_path / "work", ("segment", ct, "--lung-mask", mask, "--model", model, "--device", "cpu", "-o")


def test_a_dozen_kills_leave_nothing_half_done(tmp_path):
    """Of segmenting and of making a training set; those of trainings are in ``training/test_lesion_task.py``."""
    jobs = ("segment", "replace", "slices")
    command = [sys.executable, "-m", "faults", "--seed", "3", "--kills", "12", "--jobs", *jobs]
    environment = process_environment(tmp_path) | {"TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(TESTING / "tools"), str(TESTING / "support"), environment["PYTHONPATH"]]
    )
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"(?m)^(\w+) +(\d+) +[\d.]+ s", done.stdout))
    assert set(rows) == set(jobs) and sum(map(int, rows.values())) >= 12


def test_a_clock_that_jumps_changes_no_result(case, capsys, monkeypatch):
    folder, command = case
    assert run_here(capsys, *command, folder / "out").status == 0
    dice, began = random.Random(4), time.time()
    monkeypatch.setattr(time, "time", lambda: began + dice.uniform(-1e9, 1e9))
    assert run_here(capsys, *command, folder / "jumped").status == 0
    assert contents(folder / "jumped") == contents(folder / "out")
    timings = json.loads((folder / "jumped" / "report.json").read_text("utf-8"))["run"]["timings_s"]
    assert all(0 <= seconds < 600 for seconds in timings.values())


def test_a_ct_that_is_removed_once_it_was_read_is_segmented_all_the_same(case, capsys, monkeypatch):
    folder, command = case
    monkeypatch.setattr(Progress, "update", lambda *_: (folder / "chest.nrrd").unlink(missing_ok=True))
    assert run_here(capsys, *command, folder / "out").status == 0
    assert (folder / "out" / "report.json").exists() and not (folder / "chest.nrrd").exists()


def test_an_output_folder_that_is_removed_while_it_is_written_to_is_one_sentence(case, capsys, monkeypatch):
    folder, command = case
    (folder / "out").mkdir()

    def write_and_remove(path, *arguments):
        write_image(path, *arguments)
        shutil.rmtree(folder / "out", ignore_errors=True)

    monkeypatch.setattr(case_files, "write_image", write_and_remove)
    done = run_here(capsys, *command, folder / "out")
    assert done.status == 1 and "Writing the results: found " in done.err and "Internal" not in done.err
    assert not list(folder.rglob(".*")) and not (folder / "out").exists()


def test_a_training_trains_without_any_stream_and_refuses_a_second_one_beside_it(tmp_path):
    command = training_command(tmp_path)
    quoted = " ".join(f"'{part}'" for part in (sys.executable, "-m", "LesionDecompLib", *command))
    process = subprocess.Popen(
        ["sh", "-c", f"exec {quoted} <&- >&- 2>&-"], cwd=tmp_path, env=process_environment(tmp_path)
    )
    end = time.monotonic() + 300
    while not (tmp_path / "out" / "config.json").exists() and time.monotonic() < end:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(LesionDecompError, match="another run that writes into 'out'"), only_run_in(tmp_path / "out"):
        pytest.fail("two trainings in one folder")
    process.send_signal(signal.SIGCONT)
    assert process.wait(300) == 0
    assert ModelBundle.load(tmp_path / "out" / "bundle").name == "lesions"
