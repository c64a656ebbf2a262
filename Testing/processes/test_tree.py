"""A child process is watched and ended together with everything it started; real processes throughout."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.processes.tree import ProcessTree, exit_in_words, library_environment

posix = pytest.mark.skipif(os.name == "nt", reason="process groups and signals of POSIX")
# Starts a grandchild, reports its id, and waits.
FAMILY = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    "print(child.pid, flush=True)\n"
)


def tree(folder: Path, program: str, **options) -> ProcessTree:
    return ProcessTree([sys.executable, "-c", program], folder, **options)


def lines_of(process: ProcessTree, count: int = 1) -> list[str]:
    """Wait for lines."""
    lines: list[str] = []
    end = time.monotonic() + 20
    while len(lines) < count and time.monotonic() < end:
        lines += process.new_lines()
        time.sleep(0.01)
    return lines


def is_running(pid: int) -> bool:
    """Whether a process lives; one that only waits to be reaped does not."""
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False
    state = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()
    return bool(state) and not state.startswith("Z")


def gone(pid: int) -> bool:
    end = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not is_running(pid)


def test_lines_arrive_whole_while_it_runs_and_the_rest_at_its_end(tmp_path):
    program = (
        "import sys, time\n"
        "print('first'); sys.stdout.flush()\n"
        "sys.stdout.write('sec'); sys.stdout.flush(); time.sleep(0.2); print('ond ü')\n"
        "sys.stdout.buffer.write(b'\\xff\\xfe no text'); sys.stdout.flush(); sys.exit(3)\n"
    )
    process = tree(tmp_path, program)
    assert lines_of(process, 3) == ["first", "second ü", "\ufffd\ufffd no text"]
    assert process.wait(20) == 3
    assert process.new_lines() == []
    process.kill()


def test_a_child_that_talks_more_than_a_pipe_holds_is_not_held_up(tmp_path):
    process = tree(tmp_path, "print(('x' * 999 + '\\n') * 5000, end='')")
    assert process.wait(20) == 0
    read = process.new_lines() + process.new_lines()
    assert read == ["x" * 999] * 5000
    process.kill()


@posix
def test_killing_ends_grandchildren_and_leaves_no_zombie(tmp_path):
    process = tree(tmp_path, FAMILY + "time.sleep(60)")
    grandchild = int(lines_of(process)[0])
    process.kill()
    assert process.poll() == -signal.SIGKILL
    assert gone(grandchild)
    with pytest.raises(ChildProcessError):  # nothing is left to wait for
        os.waitpid(process.pid, os.WNOHANG)


@posix
def test_what_a_dead_command_left_running_is_ended_too(tmp_path):
    process = tree(tmp_path, FAMILY)
    grandchild = int(lines_of(process)[0])
    assert process.wait(20) == 0
    assert is_running(grandchild)
    process.kill()
    assert gone(grandchild)


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_with_a_lifeline_ends_when_its_parent_is_killed(tmp_path, how):
    child = (
        "from LesionDecompLib.processes.tree import end_with_parent\nend_with_parent()\n" + FAMILY + "time.sleep(60)"
    )
    parent = (
        "import sys, time\n"
        "from LesionDecompLib.processes.tree import ProcessTree\n"
        f"process = ProcessTree([sys.executable, '-c', {child!r}], {str(tmp_path)!r})\n"
        "while not (lines := process.new_lines()): time.sleep(0.01)\n"
        "print(process.pid, lines[0], flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = library_environment()
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as started:
        pids = [int(word) for word in started.stdout.readline().split()]
        started.send_signal(how)
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


@posix
def test_interrupting_lets_the_command_finish_its_own_way(tmp_path):
    program = (
        "import time\n"
        "try:\n    print('ready', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('checkpoint written')\n"
    )
    process = tree(tmp_path, program)
    assert lines_of(process) == ["ready"]
    process.interrupt()
    assert process.wait(20) == 0
    assert process.new_lines() == ["checkpoint written"]
    process.kill()


def test_last_errors_are_the_end_of_standard_error(tmp_path):
    process = tree(
        tmp_path, "import sys\nfor n in range(5000): print('line', n, file=sys.stderr)\nraise ValueError('w')"
    )
    process.wait(20)
    assert process.last_errors(3)[-1] == "ValueError: w"
    assert len(process.last_errors(3)) == 3
    process.kill()


def test_a_program_that_does_not_exist_is_reported_so(tmp_path):
    with pytest.raises(LesionDecompError, match=r"Starting a process: found 'no-such-python'"):
        ProcessTree([tmp_path / "no-such-python"], tmp_path)


@posix
def test_exit_statuses_read_like_a_sentence():
    assert exit_in_words(-9) == "killed by signal 9 (SIGKILL, possibly out of memory)"
    assert exit_in_words(3) == "exit status 3"


@posix
def test_a_folder_that_is_removed_meanwhile_silences_the_child_and_ends_nothing(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    process = tree(folder, "import time\nprint('here', flush=True)\ntime.sleep(0.3)\nprint('gone')")
    assert lines_of(process) == ["here"]
    shutil.rmtree(folder)
    assert process.new_lines() == []
    assert process.wait(20) == 0 and process.new_lines() == []
    process.kill()
