"""A dozen kills of the campaign that ``make faults`` runs at length, and faults around a run that are no kill."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import process_environment, run_apart, small_ct, small_models, snapshot
from faults.jobs import contents

TESTING = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and processes")


@pytest.fixture
def case(data_folder, tmp_path):
    """A user's home with small models, and a small CT with its lung mask: a command that segments it into ``out``."""
    (tmp_path / "work").mkdir()
    small_models(tmp_path / ".lesiondecomp" / "models")
    ct, mask, _ = small_ct(data_folder, tmp_path / "work")
    model = tmp_path / ".lesiondecomp" / "models" / "untrained-lesions"
    options = ("--lung-mask", mask, "--model", model, "--device", "cpu", "--quiet")
    return tmp_path / "work", tmp_path, ("segment", ct, *options, "-o", "out")


def test_a_dozen_kills_leave_nothing_half_done(data_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "faults",
        "--seed",
        "3",
        "--kills",
        "12",
        "--jobs",
        "segment",
        "replace",
        "train",
        "slices",
    ]
    environment = process_environment(tmp_path) | {"LESIONDECOMP_DATA": str(data_folder), "TMPDIR": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTING), environment["PYTHONPATH"]])
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"(?m)^(\w+) +(\d+) +[\d.]+ s", done.stdout))
    assert set(rows) == {"segment", "replace", "train", "slices"} and sum(map(int, rows.values())) >= 12


def test_a_clock_that_jumps_changes_no_result(case):
    folder, home, command = case
    assert run_apart(folder, home, *command).status == 0
    code = (
        "import random, sys, time\n"
        "dice, began = random.Random(4), time.time()\n"
        "time.time = lambda: began + dice.uniform(-1e9, 1e9)\n"
        "time.time_ns = lambda: int(time.time() * 1e9)\n"
        "from LesionDecompLib.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    arguments = [str(part) for part in command[:-1]]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "jumped"],
        cwd=folder,
        env=process_environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert contents(folder / "jumped") == contents(folder / "out")


@pytest.mark.parametrize("vanishes", ["chest.nrrd", "out"])
def test_an_input_or_output_folder_that_vanishes_half_way(case, vanishes):
    """The CT has been read by then: the run ends well. Without a folder to write into it ends in one sentence."""
    folder, home, command = case
    (folder / "out").mkdir()
    code = (
        "import shutil, sys; from pathlib import Path\n"
        "from LesionDecompLib.cli import main, progress\n"
        "def vanish(self, stage, done, total):\n"
        f"    path = Path({vanishes!r})\n"
        "    path.unlink(missing_ok=True) if path.suffix else shutil.rmtree(path, ignore_errors=True)\n"
        "progress.Progress.update = vanish\n"
        "import LesionDecompLib.case_files as files; write = files.write_image\n"
        "def written(*arguments):\n"
        "    write(*arguments); vanish(None, '', 0, 0)\n"
        "files.write_image = written\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        cwd=folder,
        env=process_environment(home),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr
    if vanishes == "out":
        assert done.returncode == 1 and "found" in done.stderr
        assert not (folder / "out").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert (folder / "out" / "report.json").exists()
    assert not list(folder.rglob(".*"))


def test_a_closed_terminal_ends_a_run_cleanly(case):
    folder, home, command = case
    before = snapshot(folder)
    code = (
        "import sys, time; from LesionDecompLib.cli import main, progress\n"
        "def wait(self, stage, done, total):\n"
        "    print(stage, flush=True); time.sleep(60)\n"
        "progress.Progress.update = wait\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command)],
        cwd=folder,
        env=process_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert snapshot(folder) == before


def test_a_training_with_closed_streams_trains_and_a_second_one_beside_it_is_refused(tmp_path, data_folder):
    from faults.jobs import training_command

    command = training_command(tmp_path)
    environment = process_environment(tmp_path)
    quoted = " ".join(f"'{part}'" for part in command)
    closed = subprocess.Popen(
        ["sh", "-c", f"exec '{sys.executable}' -m LesionDecompLib {quoted} <&- >&- 2>&-"], cwd=tmp_path, env=environment
    )
    end = time.monotonic() + 300
    while not (tmp_path / "out" / "config.json").exists() and time.monotonic() < end:
        assert closed.poll() is None
        time.sleep(0.02)
    second = subprocess.Popen(
        [sys.executable, "-c", "import sys; from LesionDecompLib.cli.train import _only_run_in; from pathlib import Path\n"
         "with _only_run_in(Path('out')): pass"],
        cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, said = second.communicate(timeout=300)
    still = closed.poll() is None
    assert closed.wait(300) == 0
    assert not still or "another run that writes into 'out'" in said
    assert (tmp_path / "out" / "bundle" / "bundle.json").exists()
