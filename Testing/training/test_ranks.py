"""Training on two ranks under torchrun is the training of one: same losses, one writer, failures that end the run."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from LesionDecompLib.training.lungs.caselist import cases_in
from repository import MODULE
from tiny_training import TINY, write_training_set

pytestmark = pytest.mark.slow

COLUMNS = ("L_r", "L_n", "L_m", "L_p_heat", "L_c", "L_a", "L_g", "wasserstein", "change_G1", "heat_normal")


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("set"), test=3)


def train(
    ranks: int, data: Path, folder: Path, *more: str, settings: Sequence[str] = (*TINY, "critic_every=1")
) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--master-port=0", "--standalone"]
    command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "LesionDecompLib", "train"]
    command += ["--data", str(data), "-o", str(folder), "--device", "cpu", "--threads", "1"]
    command += [part for text in settings for part in ("--set", text)] + list(more)
    environment = {**os.environ, "PYTHONPATH": str(MODULE), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)


def logged(folder: Path, columns: Sequence[str] = COLUMNS) -> dict[str, float]:
    with open(folder / "log.csv", encoding="utf-8") as stream:
        last = list(csv.DictReader(stream))[-1]
    return {column: float(last[column]) for column in columns}


def test_two_ranks_train_as_one(training_set, tmp_path):
    """Every loss term, mean over the run, critic and batch norm included; float rounding is what is left."""
    for ranks in (1, 2):
        finished = train(ranks, training_set, tmp_path / f"{ranks}")
        assert finished.returncode == 0, finished.stderr[-3000:]
    one, two = logged(tmp_path / "1"), logged(tmp_path / "2")
    assert two == pytest.approx(one, rel=0.02, abs=2e-3)
    assert sorted(path.name for path in (tmp_path / "2").iterdir()) == sorted(
        path.name for path in (tmp_path / "1").iterdir()
    )


def test_a_rank_s_failure_ends_the_run_with_its_reason(training_set, tmp_path):
    finished = train(2, training_set, tmp_path / "run", "--set", "batch_lesion=3")
    assert finished.returncode != 0
    assert "3 slices of one kind for 2 ranks" in finished.stderr
    assert not (tmp_path / "run" / "bundle").exists()


def test_the_lung_network_trains_on_two_ranks_as_on_one(data_folder, tmp_path):
    left_out = "leave_out=" + ",".join(case.name for case in cases_in(data_folder / "lung_ct")[1:])
    settings = ("steps=2", "batch=4", "channels=4", left_out)
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        finished = train(ranks, data_folder / "lung_ct", folder, "--preset", "lungs", settings=settings)
        assert finished.returncode == 0, finished.stderr[-3000:]
    columns = ("loss", "entropy", "soft_dice")
    assert logged(tmp_path / "2", columns) == pytest.approx(logged(tmp_path / "1", columns), rel=0.02)
