"""What ``lesiondecomp bench --train`` reports is measured in steps of the training itself, and adds up."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from LesionDecompLib.cli import main
from LesionDecompLib.cli.bench import training as benchmark
from LesionDecompLib.cli.bench.training import DATA, OperationCount, measure
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.slices import SliceSet
from tiny_training import TINY, write_training_set

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _small_products(monkeypatch):
    monkeypatch.setattr(benchmark, "MATMUL", 256)


def test_the_parts_of_a_step_add_up(tmp_path):
    config = load_config(PRESETS["default"], None, [*TINY, "self_steps=3"])
    figures = measure(config, SliceSet.load(write_training_set(tmp_path / "set"), "train"), torch.device("cpu"))
    assert figures["steps"] == 6 and figures["slices_a_step"] == 6
    assert {DATA, "backward", "critic: losses, penalty, update", "forward of the averaged network"} <= set(
        figures["parts"]
    )
    for clock in ("wall", "cpu"):
        assert sum(part["s"][clock] for part in figures["parts"].values()) == pytest.approx(
            figures["step_s"][clock], abs=1e-3
        )
        assert sum(part["share"][clock] for part in figures["parts"].values()) == pytest.approx(1, abs=0.01)
        assert all(rate[clock] > 0 for rate in figures["matrix_product_gflops"].values())
    assert figures["steps_per_s"] > 0
    assert (figures["peak_memory_mib"] is not None) == (sys.platform == "linux")


def test_operations_are_those_of_a_convolution_forward_and_backward():
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1, bias=False)
    x = torch.rand(2, 3, 16, 8, requires_grad=True)
    with OperationCount() as count:
        convolution(x).sum().backward()
    once = 2 * (2 * 5 * 16 * 8) * (3 * 3 * 3)
    assert dict(count.flops) == {"float32": 3 * once}  # the output, and the gradients of input and weight


def test_a_shortened_run_keeps_its_schedule():
    short = PRESETS["default"].lasting(40)
    assert short.steps == 40
    assert short.self_training.start / short.steps == PRESETS["default"].self_training.start / PRESETS["default"].steps


def test_the_command_measures_the_presets_that_were_asked_for(tmp_path, capsys, monkeypatch):
    tiny = {name: load_config(preset, None, [*TINY, "steps=4"]) for name, preset in PRESETS.items()}
    monkeypatch.setattr(benchmark, "PRESETS", tiny)  # the real ones take minutes
    data, figures = write_training_set(tmp_path / "set"), tmp_path / "figures.json"
    assert main(["bench", "--train", str(data), "--steps", "4", "--device", "cpu", "-o", str(figures)]) == 0
    reported = capsys.readouterr().out
    written = json.loads(figures.read_text("utf-8"))
    assert list(written["presets"]) == ["default", "paper"] and written["slices"] == 16
    for preset, run in written["presets"].items():
        assert f"| {preset}: mean of 4 steps |" in reported and f"{run['steps_per_s']:g} steps a second" in reported
    assert main(["bench", "--train", str(tmp_path / "none"), "--device", "cpu"]) == 1
    assert main(["bench", "--train", str(data), "--steps", "0"]) == 2
