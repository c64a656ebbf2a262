"""What a report states of memory is the memory of its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from repository import MODULE

START = f"import sys; sys.path.insert(0, {str(MODULE)!r})\nfrom LesionDecompLib.report.memory import peak_memory_mib\n"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows reports no peak through Python")


def _printed(code: str) -> list[float]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return [float(word) for word in done.stdout.split()]


def test_memory_that_was_given_back_counts():
    before, after = _printed(
        START + "print(peak_memory_mib())\nblock = b'1' * 2**28\ndel block\nprint(peak_memory_mib())\n"
    )
    assert before < 150
    assert 250 < after - before < 300


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs Linux's /proc")
def test_the_peak_of_the_process_that_started_this_one_does_not_count():
    child = START + "print(peak_memory_mib())"
    parent = (
        START
        + "import subprocess\nblock = b'1' * 2**29\n"
        + f"subprocess.run([sys.executable, '-c', {child!r}], check=True)\nprint(peak_memory_mib())\n"
    )
    of_child, of_parent = _printed(parent)
    assert of_child < 150
    assert of_parent > 512
