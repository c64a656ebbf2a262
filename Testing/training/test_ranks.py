"""Training on two ranks under torchrun is the training of one: same losses, one writer, failures that end the run."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from LesionDecompLib.training.lungs.caselist import cases_in
from LesionDecompLib.training.ranks import joined
from repository import MODULE
from tiny_training import SETTINGS, TINY, write_training_set

pytestmark = pytest.mark.slow

COLUMNS = ("L_r", "L_n", "L_m", "L_p_heat", "L_c", "L_a", "L_g", "wasserstein", "change_G1", "heat_normal")


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("set"), test=3)


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(MODULE), "OMP_NUM_THREADS": "1"}


def command(
    ranks: int,
    data: Path,
    folder: Path,
    *more: str,
    settings: Sequence[str] = (*TINY, "critic_every=1"),
    launcher: Sequence[str] = (),
) -> list[str]:
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone", *launcher]
    words = [sys.executable, *(launcher if ranks > 1 else []), "-m", "LesionDecompLib", "train"]
    words += ["--data", str(data), "-o", str(folder), "--device", "cpu", "--threads", "1"]
    return words + [part for text in settings for part in ("--set", text)] + list(more)


def train(
    ranks: int, data: Path, folder: Path, *more: str, settings: Sequence[str] = (*TINY, "critic_every=1")
) -> subprocess.CompletedProcess[str]:
    words = command(ranks, data, folder, *more, settings=settings)
    return subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, encoding="utf-8", timeout=900)


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


@pytest.mark.parametrize("number", [0, 3])
def test_each_rank_computes_on_the_gpu_of_its_number_on_its_machine(monkeypatch, number):
    joins, current = [], []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr(torch.distributed, "init_process_group", joins.append)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: joins.append("left"))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    for name, value in {"WORLD_SIZE": 8, "RANK": 4 + number, "LOCAL_RANK": number}.items():
        monkeypatch.setenv(name, str(value))
    with joined(torch.device("cuda")) as device:
        assert device == torch.device("cuda", number) and current == [device] and joins == ["nccl"]
    assert joins == ["nccl", "left"]


def test_a_rank_s_failure_ends_the_run_with_its_reason(training_set, tmp_path):
    finished = train(2, training_set, tmp_path / "run", "--set", "batch_lesion=3")
    assert finished.returncode != 0
    assert "3 slices of one kind for 2 ranks" in finished.stderr
    assert not (tmp_path / "run" / "bundle").exists()


@pytest.mark.skipif(not Path("/proc/self/environ").is_file(), reason="distinguishes ranks by Linux's /proc")
def test_a_rank_that_is_killed_costs_no_more_than_the_steps_since_the_last_checkpoint(training_set, tmp_path):
    settings = (*SETTINGS, "critic_every=1", "steps=100")
    run = tmp_path / "killed"
    status, errors, kept = with_a_killed_rank(training_set, run, settings)
    assert status == 0, errors[-3000:]
    assert (run / "bundle").is_dir()
    rows = (run / "log.csv").read_text("utf-8").splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", *map(str, range(20, 101, 20))]
    assert len(kept) >= 2 and rows[: len(kept)] == kept  # seconds included: the second start computed none of them anew

    whole = train(2, training_set, tmp_path / "whole", settings=settings)
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert logged(run) == pytest.approx(logged(tmp_path / "whole"), rel=1e-5, abs=1e-6)


def with_a_killed_rank(data: Path, run: Path, settings: tuple[str, ...]) -> tuple[int, str, list[str]]:
    """Train on two ranks, the second of which is killed behind a checkpoint: exit status, messages, the log's lines up
    to that checkpoint."""
    launcher = ["--max-restarts=2", "--monitor-interval=0.2"]
    options = ("--resume", "--checkpoint-seconds", "0.1")
    words = command(2, data, run, *options, settings=settings, launcher=launcher)
    process = subprocess.Popen(words, env=ENVIRONMENT, stderr=subprocess.PIPE, encoding="utf-8")
    saved, end = 0, time.monotonic() + 900
    while saved < 20 and process.poll() is None and time.monotonic() < end:  # a row of the log is written by then
        time.sleep(0.02)
        with suppress(OSError):
            saved = torch.load(run / "checkpoint.pt", weights_only=True)["step"]
    lines = (run / "log.csv").read_text("utf-8").splitlines()
    os.kill(rank_of(process.pid, 1), signal.SIGKILL)
    _, errors = process.communicate(timeout=900)
    return (
        process.returncode,
        errors,
        [line for line in lines if not line[0].isdigit() or int(line.split(",")[0]) <= saved],
    )


def rank_of(launcher: int, rank: int) -> int:
    """Process number of a rank that torchrun has started."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text("ascii").split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {rank}")


def test_the_lung_network_trains_on_two_ranks_as_on_one(data_folder, tmp_path):
    left_out = "leave_out=" + ",".join(case.name for case in cases_in(data_folder / "lung_ct")[1:])
    settings = ("steps=2", "batch=4", "channels=4", left_out)
    for ranks in (1, 2):
        folder = tmp_path / f"{ranks}"
        finished = train(ranks, data_folder / "lung_ct", folder, "--preset", "lungs", settings=settings)
        assert finished.returncode == 0, finished.stderr[-3000:]
    columns = ("loss", "entropy", "soft_dice")
    assert logged(tmp_path / "2", columns) == pytest.approx(logged(tmp_path / "1", columns), rel=0.02)
