"""A training as a process of its own: watched, stopped with a checkpoint, resumed, and never left half-made."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from LesionDecompLib.__main__ import main
from LesionDecompLib.cli.progress import Progress
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.processes.training import TrainingJob, TrainingSettings, recorded_configuration
from LesionDecompLib.training.log import curve_names, read_log
from tiny_training import SETTINGS, write_training_set

pytestmark = pytest.mark.slow

PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_training_set(tmp_path_factory.mktemp("Müller set") / "slices")


@pytest.fixture
def settings(data, tmp_path):
    return TrainingSettings(data, tmp_path / "my run", steps=30, device="cpu", settings=SETTINGS, threads=1)


def wait_for_step(training: TrainingJob, number: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while training.poll() in ("starting", "running"):
        if training.step is not None and training.step.stage == "training" and training.step.done >= number:
            return
        assert time.monotonic() < end
        time.sleep(0.01)
    pytest.fail(f"the training ended early: {training.state}, {training.error}")


def test_stopped_training_keeps_its_checkpoint_and_resumes_to_a_bundle(settings):
    training = TrainingJob(settings)
    wait_for_step(training, 2)
    training.stop()
    assert training.state == "stopping"
    assert training.wait(PATIENCE_S) == "stopped"
    assert training.error is None and training.bundle is None
    assert (settings.output / "checkpoint.pt").is_file()
    assert not (settings.output / "bundle").exists()
    at = training.step.done
    assert 2 <= at < 30

    # Preset and settings come from the run itself: none need be known to go on.
    resumed = TrainingJob(TrainingSettings(settings.data, settings.output, device="cpu", resume=True, threads=1))
    wait_for_step(resumed, at + 1)
    assert resumed.wait(PATIENCE_S) == "finished"
    assert resumed.step.done == resumed.step.total == 30
    bundle = ModelBundle.load(resumed.bundle, "lesions")
    assert bundle.name == "my run"
    assert resumed.log["step"][-1] == 30
    assert {"L_g", "L_r", "L_n", "L_c", "L_a"} <= set(curve_names(resumed.log))
    assert all(np.isfinite(resumed.log[name]).any() for name in curve_names(resumed.log))
    assert resumed.examples is not None
    config = json.loads((settings.output / "config.json").read_text("utf-8"))
    assert config["schedule"]["steps"] == 30 and config["network"]["channels"] == 4


def test_a_training_that_fails_states_stage_finding_and_advice(settings, data, tmp_path):
    broken = write_training_set(tmp_path / "broken")
    (broken / "train_lesion_3.png").write_bytes(b"not a picture")
    training = TrainingJob(replace(settings, data=broken))
    assert training.wait(PATIENCE_S) == "failed"
    assert training.error.stage == "Training set"
    assert "train_lesion_3.png" in training.error.found
    assert training.bundle is None and not (settings.output / "bundle").exists()


def test_a_killed_process_is_reported_with_how_it_died(settings):
    training = TrainingJob(settings)
    training.process.kill()  # as the system does when memory runs out
    assert training.wait(PATIENCE_S) == "failed"
    assert "SIGKILL" in str(training.error) or "exit status" in str(training.error)


def test_what_cannot_work_is_refused_before_anything_starts(settings, data, tmp_path):
    one_sided = write_training_set(tmp_path / "one-sided", val=1)
    index = one_sided / "index.csv"
    index.write_text(index.read_text().replace("val_lesion_0.png,lesion", "val_lesion_0.png,normal"))
    run = tmp_path / "old"
    run.mkdir()
    (run / "checkpoint.pt").write_bytes(b"")
    for changes, message in (
        ({"data": tmp_path}, "no readable index.csv"),
        ({"data": one_sided}, "without lesion slices in 'val'"),
        ({"preset": "best"}, "the preset 'best'"),
        ({"steps": 0}, "0 steps"),
        ({"steps": None, "hours": 0.0}, "0 hours"),
        ({"hours": 1.0}, "hours together with steps"),
        ({"steps": None, "hours": 1.0, "preset": "classifier"}, "hours together with the preset 'classifier'"),
        ({"output": run}, "started before in 'old'"),
        ({"resume": True}, "no checkpoint in 'my run'"),
        ({"output": run, "resume": True}, "no readable config.json"),
        ({"preset": "lungs"}, "no NAME_ct.nii.gz"),
    ):
        with pytest.raises(LesionDecompError, match=message):
            TrainingJob(replace(settings, **changes))
    assert not settings.output.exists()


@pytest.mark.parametrize("preset", ["default", "paper"])
def test_recorded_configuration_is_the_one_the_run_was_started_with(preset, tmp_path):
    from LesionDecompLib.training.config import PRESETS, load_config
    from LesionDecompLib.training.record import record_run

    config = load_config(PRESETS[preset], None, ["steps=7", "network.norm=group", "crop=[]"])
    record_run(tmp_path, "lesions", config, False, None, lambda _: config, torch.device("cpu"), {"data": "1"})
    name, settings = recorded_configuration(tmp_path)
    assert load_config(PRESETS[name], None, settings) == config


def test_log_of_a_run_that_is_being_written(tmp_path):
    assert read_log(tmp_path) == {}
    (tmp_path / "log.csv").write_text("step,seconds,loss,late\n20,1.5,0.25,\n40,3.0,0.125,2\nbroken\n")
    log = read_log(tmp_path)
    np.testing.assert_array_equal(log["step"], [20, 40])
    np.testing.assert_array_equal(log["late"], [np.nan, 2.0])
    assert curve_names(log) == ["loss", "late"]


def test_training_needs_nothing_of_the_evaluation_which_slicer_lacks(tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("LesionDecompLib.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "LesionDecompLib.evaluation", None)
    assert main(["train", "--data", str(tmp_path / "nothing"), "-o", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "nothing" in capsys.readouterr().err.partition("expected")[0]


def test_commands_report_their_steps_only_to_a_program_that_asks(monkeypatch, capsys):
    Progress(quiet=True).update("training", 1, 2)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("LESIONDECOMP_EVENTS", "1")
    progress = Progress(quiet=True)
    progress.update("training", 1, 2)
    progress.update("training", 2, 2)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert [(json.loads(line)["stage"], json.loads(line)["done"]) for line in lines] == [
        ("training", 1),
        ("training", 2),
    ]
