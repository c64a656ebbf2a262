"""The benchmark of the threshold slider runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("shown", [[], ["--segmentation"]])
def test_each_step_is_timed(tmp_path: Path, shown):
    heat = np.zeros((8, 16, 16), np.float32)
    heat[2:6, 4:12, 4:12] = np.linspace(0.1, 1.0, 4)[:, None, None]
    hu, lungs = np.full(heat.shape, -800, np.int16), np.ones(heat.shape, np.uint8)
    np.savez(tmp_path / "case.npz", hu=hu, heat=heat, lungs=lungs)
    program = Path(__file__).with_name("slider_benchmark.py")
    arguments = ["--case", str(tmp_path / "case.npz"), "--slices", "8", *shown]
    run = subprocess.run([sys.executable, str(program), *arguments], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    timings = json.loads(run.stdout.splitlines()[-1])
    assert 0 < timings["drag"] <= timings["drag_worst"] and 0 < timings["lesion_share"] < 0.5
