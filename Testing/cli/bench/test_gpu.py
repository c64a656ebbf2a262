"""What ``bench --device cuda`` reports: expectations from shapes, measurements where there is a GPU, a file to send."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import run_here
from LesionDecompLib.cli.bench import gpu
from LesionDecompLib.cli.bench.job import Chosen
from LesionDecompLib.cli.bench.roofline import float32_flops, forward_flops, roofline
from LesionDecompLib.errors import ConfigError
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.networks import UNet
from LesionDecompLib.models.precision import InFloat32


@pytest.fixture
def without_gpu(monkeypatch):
    def none(name: str = "auto"):
        raise ConfigError("Choosing the device", f"the device '{name}'", "auto or one of cpu", code="no_such_device")

    monkeypatch.setattr(gpu, "choose_device", none)


def test_without_a_gpu_it_reports_what_to_expect_and_writes_the_file(models, without_gpu, tmp_path, capsys):
    file = tmp_path / "bench.json"
    done = run_here(capsys, "bench", "--device", "cuda", "-o", file)
    assert done.status == 1 and "Not measured here" in done.out and "bench.json" in done.out
    report = json.loads(file.read_text("utf-8"))
    assert report["measured"] is None and "the device 'cuda'" in report["not_measured"]
    turing, ampere, older = report["expected"].values()
    assert [row["lungs"]["precision"] for row in (turing, ampere, older)] == ["float16", "bfloat16", "float32"]
    assert {row["lesions"]["precision"] for row in (turing, ampere, older)} == {"float32"}  # its heat was not measured
    assert older["lungs"]["batch_mib"] > 1.5 * ampere["lungs"]["batch_mib"] > 0
    assert str(tmp_path) not in file.read_text("utf-8")


def test_a_lesion_network_that_bears_it_is_expected_in_sixteen_bits(models, monkeypatch):
    found = gpu.find_bundle

    def bearing(name, task):
        bundle = found(name, task)
        return ModelBundle(bundle.path, {**bundle.metadata, gpu.BF16_HEAT_ERROR: 0.004})

    monkeypatch.setattr(gpu, "find_bundle", bearing)
    rows = gpu.expectation(4)
    assert [row["lesions"]["precision"] for row in rows.values()] == ["float16", "bfloat16", "float32"]
    assert {row["lesions"]["slices"] for row in rows.values()} == {4}


def test_with_a_gpu_time_memory_and_the_difference_from_the_processor_are_measured(models, monkeypatch, tmp_path):
    device = torch.device("cuda:0")
    card = SimpleNamespace(name="Some card", major=7, minor=5, total_memory=16 << 30)
    monkeypatch.setattr(gpu, "choose_device", lambda name: (device, "Some card"))
    monkeypatch.setattr(gpu, "heat_difference", lambda path, chosen: 0.003)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda where: card)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda where: (7, 5))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda where: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda where: 300 << 20)
    times = {"end_to_end": {"wall_s": 2.0}, "networks_alone": {"wall_s": 0.5}}
    monkeypatch.setattr(gpu, "run_benchmark", lambda path, chosen, repeats, progress: dict(times))
    report = gpu.run_gpu_benchmark(tmp_path / "ct.nrrd", Chosen("cuda:0"))
    assert report["gpu"] == {"name": "Some card", "capability": [7, 5], "memory_mib": 16384, "precision": "float16"}
    assert report["measured"]["peak_gpu_memory_mib"] == 300
    text = gpu.as_table(report)
    assert "Some card, capability 7.5, 16384 MiB: end to end 2.00 s" in text and "by 0.003 at most" in text


def test_operations_are_those_of_the_convolutions():
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert forward_flops(layer, "", (2, 3, 8, 16)) == 2 * 2 * 8 * 16 * 3 * 5 * 9
    network = UNet(1, 3, 4, 2)
    assert forward_flops(network, "", (4, 1, 32, 32)) == 2 * forward_flops(network, "", (2, 1, 32, 32))
    calls = {("", (2, 3, 8, 16)): 10}
    flop = 10 * forward_flops(layer, "", (2, 3, 8, 16)) / 1e9
    found = roofline({"lungs": (layer, calls, "bfloat16")}, {"bfloat16": 2 * flop, "float32": flop}, 2.0)
    assert found["seconds_at_matrix_product"] == 0.5 and found["of_roofline"] == 0.25
    assert found["gflop"]["lungs"] == pytest.approx(flop, abs=0.05)
    assert np.isfinite(found["gflops"])
    # What stays in float32 is counted at its rate.
    parts = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1), InFloat32(layer, rounded=False))
    share = forward_flops(layer, "", (2, 3, 8, 16)) / forward_flops(parts, "", (2, 3, 8, 16))
    assert share == pytest.approx(5 / 8) and float32_flops(layer, "", (2, 3, 8, 16)) == 0
    rates = {"bfloat16": 2.0, "float32": 1.0}
    found = roofline({"lesions": (parts, {("", (2, 3, 800, 1600)): 1}, "bfloat16")}, rates, 1.0)
    assert found["seconds_at_matrix_product"] == pytest.approx(found["gflop"]["lesions"] * (3 / 16 + 5 / 8), rel=0.01)
