"""``comparison.sh`` asks for trainings that exist, goes on where it was, and evaluates every row."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from LesionDecompLib.evaluation.baselines.config import BASELINES
from LesionDecompLib.training.config import PRESETS, load_config

SCRIPT = Path(__file__).resolve().parent / "comparison.sh"
ROWS = 4 + 4 * 2 + 5  # with two seeds
pytestmark = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="needs bash")

# Writes down what it is asked for; a training leaves a checkpoint, then, unless it is to break off, a bundle.
RECORDER = """#!/usr/bin/env bash
printf '%s\\0' "$@" | python3 -c 'import json, sys; print(json.dumps(sys.stdin.read().split(chr(0))[:-1]))' >> "$CALLS"
[[ $1 == train ]] || exit 0
while [[ $1 != -o ]]; do shift; done
mkdir -p "$2" && touch "$2/checkpoint.pt"
[[ $2 == */"$BREAKS_AT" ]] && exit 1
mkdir "$2/bundle"
"""


@pytest.fixture
def run(tmp_path):
    """Run the script with a stand-in for the command line; what it was asked for, and how the script ended."""
    program = tmp_path / "bin" / "lesiondecomp"
    program.parent.mkdir()
    program.write_text(RECORDER, "utf-8")
    program.chmod(0o755)

    def run(*more: str, breaks_at: str = "-", **environment: str) -> tuple[list[list[str]], int]:
        calls = tmp_path / "calls"
        calls.write_text("", "utf-8")
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "CALLS": str(calls), "BREAKS_AT": breaks_at, **environment}
        command = ["bash", str(SCRIPT), "data", str(tmp_path / "out"), *more]
        status = subprocess.run(command, env=environment, check=False, timeout=120).returncode
        return [json.loads(line) for line in calls.read_text("utf-8").splitlines()], status

    return run


def settings_of(call: list[str]) -> list[str]:
    return [value for key, value in itertools.pairwise(call) if key == "--set"]


def value_of(call: list[str], option: str, otherwise: str = "") -> str:
    return call[call.index(option) + 1] if option in call else otherwise


@pytest.mark.slow
def test_every_row_is_a_training_that_can_be_and_is_evaluated(run, tmp_path):
    calls, status = run("volumes", SEEDS="0 1")
    assert status == 0
    *trainings, slices, ablations, volumes = calls
    configurations = {}
    for call in trainings:
        preset = value_of(call, "--preset", "default")
        base = PRESETS[preset] if preset in PRESETS else BASELINES[preset]()
        configurations[value_of(call, "--name")] = load_config(base, None, settings_of(call))
    assert len(configurations) == len(trainings) == ROWS
    assert not configurations["paper-without-D-seed1"].critic.enabled
    assert configurations["paper-without-Ln-seed1"].weights.normal == 0
    assert not configurations["paper-without-G2-seed1"].network.lesion_decoder
    assert configurations["paper-10k-seed1"].seed == 1 and configurations["paper-10k-seed1"].steps == 10_000
    methods = ["paper", "va-gan", "classifier", "biomarker", "default"]
    others = ["default", *(name for name in configurations if name not in methods)]
    for call, data, names in ((slices, "data", methods), (ablations, "data", others), (volumes, "volumes", methods)):
        assert call[0] == "evaluate" and value_of(call, "--data") == data
        bundles = [part for part in call if part.endswith("/bundle")]
        assert bundles == [str(tmp_path / "out" / name / "bundle") for name in names]
    assert {"heat", "cam", "grad-cam", "va-gan", "biomarker", "blurred_grey"} <= set(slices) & set(volumes)
    assert value_of(slices, "--split") == value_of(ablations, "--split") == "test"


@pytest.mark.slow
def test_on_a_gpu_the_full_size_is_trained_too(run):
    on_gpu, on_cpu = run(SEEDS="0", DEVICE="cuda")[0], run(SEEDS="0")[0]
    assert {value_of(call, "--device") for call in on_gpu if call[0] == "train"} == {"cuda"}
    names = [value_of(call, "--name") for call in on_gpu]
    assert "paper-large" in names and on_cpu[0][0] != "train"  # the second run finds all rows trained
    evaluated = [[part for part in call if part.endswith("paper-large/bundle")] for call in (*on_gpu[-2:], *on_cpu)]
    assert [len(found) for found in evaluated] == [1, 0, 0, 0]


@pytest.mark.slow
def test_it_goes_on_with_the_row_that_was_interrupted(run):
    calls, status = run(breaks_at="classifier")
    assert status != 0 and [value_of(call, "--name") for call in calls] == ["paper", "va-gan", "classifier"]
    assert not any("--resume" in call for call in calls)
    calls, status = run()
    names = [value_of(call, "--name") for call in calls]
    assert status == 0 and names[0] == "classifier" and "--resume" in calls[0]
    assert "paper" not in names and "va-gan" not in names and "--resume" not in calls[1]
    again, status = run()
    assert status == 0 and [call[0] for call in again] == ["evaluate", "evaluate"]


@pytest.mark.slow
def test_a_few_steps_of_everything_are_asked_for(run):
    calls, _ = run(STEPS="7", SEEDS="0")
    for call in calls[:-2]:
        preset = value_of(call, "--preset", "default")
        config = load_config(PRESETS[preset] if preset in PRESETS else BASELINES[preset](), None, settings_of(call))
        schedule = getattr(config, "schedule", config)
        assert schedule.steps == schedule.val_every == 7
        assert getattr(schedule, "identity_steps", 0) < 7
