"""Training the decomposition: the paper's losses, labels only, and runs that survive being killed."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from LesionDecompLib.cli import main
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.io.folder_lock import sole_writer
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.networks import Critic, DecompositionNet
from LesionDecompLib.models.weights import WEIGHTS_NAME
from LesionDecompLib.training import losses, record
from LesionDecompLib.training.augmentation import augment
from LesionDecompLib.training.config import PRESETS, Augmentation, LesionConfig, Schedule, load_config
from LesionDecompLib.training.data.labeled import LabeledSlices
from LesionDecompLib.training.data.slices import SliceSet, lung_crops
from LesionDecompLib.training.draws import SliceDraws
from LesionDecompLib.training.lesion_task import LesionTask, learning_rate
from LesionDecompLib.training.loop import log_rows
from LesionDecompLib.training.painted_lesions import paint_lesions
from LesionDecompLib.training.run import train_lesions
from LesionDecompLib.training.taught_heat import taught_heat
from LesionDecompLib.training.warm_start import spread_over_stem, start_from
from PIL import Image
from repository import MODULE
from safetensors.torch import load_file
from skimage.io import imread, imsave
from tiny_training import TINY, slice_image, write_training_set


@pytest.fixture(scope="module")
def training_set(tmp_path_factory) -> Path:
    """A small training set in the product's own format, without any pixel mask."""
    return write_training_set(tmp_path_factory.mktemp("set"), test=3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "bundle" / WEIGHTS_NAME)


@pytest.mark.slow
def test_image_labels_alone_make_a_bundle(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    bundle = train_lesions(training_set, tmp_path / "run", config, name="tiny")
    assert bundle.task == "lesions" and bundle.metadata["training"]["labels"] == "image-level labels only"
    assert bundle.network().gate(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
    with open(tmp_path / "run" / "log.csv", encoding="utf-8") as stream:
        last = list(csv.DictReader(stream))[-1]
    for column in (
        "L_r",
        "L_n",
        "L_c",
        "L_a",
        "L_g",
        "L_m",
        "wasserstein",
        "gradient_norm",
        "change_G1",
        "heat_normal",
    ):
        assert np.isfinite(float(last[column])), column
    assert (tmp_path / "run" / "curves.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_further_sets_are_learned_from_and_only_they_may_lack_a_label(training_set, tmp_path):
    more = tmp_path / "own scans"
    shutil.copytree(training_set, more)
    rows = list(csv.DictReader((more / "index.csv").read_text("utf-8").splitlines()))
    kept = [row for row in rows if row["label"] == "normal"]
    with open(more / "index.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(kept[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
    alone = SliceSet.load(training_set, "train")
    joined = alone.joined([more], "train")
    added = sum(row["split"] == "train" for row in kept)
    assert added and len(joined.images) == len(joined.files) == len(joined.scans) == len(alone.images) + added
    assert joined.lesion.sum() == alone.lesion.sum() and len(set(joined.files)) == len(joined.files)
    with pytest.raises(LesionDecompError, match="no lesion slice in split 'train'"):
        SliceSet.load(more, "train")
    config = load_config(PRESETS["default"], None, [*TINY, f"batch.more={more}"])
    bundle = train_lesions(training_set, tmp_path / "run", config, name="tiny")
    assert bundle.metadata["training"]["configuration"]["batch"]["more"] == "own scans"
    assert str(tmp_path) not in json.dumps(bundle.metadata)


@pytest.mark.slow
def test_a_cancelled_run_resumes_to_the_weights_of_an_unbroken_one(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    train_lesions(training_set, tmp_path / "unbroken", config)
    asked = iter([False, False, False, True])
    with pytest.raises(Cancelled):
        train_lesions(training_set, tmp_path / "broken", config, cancelled=lambda: next(asked))
    train_lesions(training_set, tmp_path / "broken", config, resume=True)
    expected, found = weights(tmp_path / "unbroken"), weights(tmp_path / "broken")
    for key in expected:
        assert torch.equal(expected[key], found[key]), key
    # The log's means too are those of all steps, also of the ones before the checkpoint.
    logs = [log_rows(tmp_path / name / "log.csv") for name in ("unbroken", "broken")]
    assert logs[0] and [{**row, "seconds": ""} for row in logs[0]] == [{**row, "seconds": ""} for row in logs[1]]


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 4])
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(training_set, tmp_path, lines):
    """SIGKILL in the middle: whatever is on the disk is whole, and the run goes on from it to the same weights."""
    settings = [*TINY, "steps=150"]
    command = [sys.executable, "-m", "LesionDecompLib", "train", "--data", str(training_set), "-o"]
    command += [str(tmp_path / "run"), "--device", "cpu", "--threads", "1", "--resume", "--checkpoint-seconds", "0"]
    command += [part for text in settings for part in ("--set", text)]
    environment = {**os.environ, "PYTHONPATH": str(MODULE)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, end = tmp_path / "run" / "log.csv", time.monotonic() + 120
    while (not log.exists() or log.read_bytes().count(b"\n") <= lines) and time.monotonic() < end:
        assert process.poll() is None, "it was to be killed before its end"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "bundle").exists()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert finished.returncode == 0, finished.stderr
    torch.set_num_threads(1)
    train_lesions(training_set, tmp_path / "unbroken", load_config(PRESETS["default"], None, settings))
    expected, found = weights(tmp_path / "unbroken"), weights(tmp_path / "run")
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert log.read_bytes().count(b"\n") == (tmp_path / "unbroken" / "log.csv").read_bytes().count(b"\n")


def test_a_run_may_begin_with_the_weights_of_one_at_half_resolution():
    torch.manual_seed(1)
    coarse, fine = (DecompositionNet(channels=4, levels=2, gated=True, stem=stem).eval() for stem in (1, 2))
    fine.load_state_dict(spread_over_stem(coarse.state_dict(), fine.state_dict()))
    x = torch.rand(1, 1, 16, 24) * 2 - 1
    for small, large in zip(coarse(torch.nn.functional.avg_pool2d(x, 2)), fine(x), strict=True):
        torch.testing.assert_close(torch.nn.functional.interpolate(small, scale_factor=2), large, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_warm_start_takes_the_other_run_s_weights(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, [*TINY, "learning_rate=0", "final_learning_rate=0", "ema=0"])
    train_lesions(training_set, tmp_path / "first", load_config(PRESETS["default"], None, TINY))
    task = LesionTask(config, SliceSet.load(training_set, "train"), torch.device("cpu"))
    start_from(task.network, tmp_path / "first")
    checkpoint = torch.load(tmp_path / "first" / "checkpoint.pt", weights_only=True)
    assert all(torch.equal(value, checkpoint["average"][key]) for key, value in task.network.state_dict().items())
    other = LesionTask(config, SliceSet.load(training_set, "train"), torch.device("cpu"))
    start_from(other.network, tmp_path / "first" / "bundle")
    weights = ModelBundle.load(tmp_path / "first" / "bundle", "lesions").network().state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in other.network.state_dict().items())
    weights["lesion_head.bias"] = torch.full_like(weights["lesion_head.bias"], 0.25)
    held = {key: value for key, value in weights.items() if not key.startswith("normal_")}
    (tmp_path / "localizer").mkdir()
    torch.save({"average": held}, tmp_path / "localizer" / "checkpoint.pt")
    before = {key: value.clone() for key, value in other.network.state_dict().items()}
    start_from(other.network, tmp_path / "localizer")
    after = other.network.state_dict()
    assert all(torch.equal(after[key], before[key] if key.startswith("normal_") else held[key]) for key in after)
    for folder in ("first", "first/bundle"):
        with pytest.raises(LesionDecompError, match="do not fit"):
            start_from(DecompositionNet(channels=8, levels=3, gated=True, stem=2), tmp_path / folder)
    with pytest.raises(LesionDecompError, match=r"no checkpoint\.pt and no bundle\.json"):
        start_from(task.network, tmp_path)


@pytest.mark.slow
def test_a_resumed_run_must_keep_its_configuration(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    train_lesions(training_set, tmp_path / "run", config)
    with pytest.raises(LesionDecompError, match=r"another 'optimizer\.learning_rate'"):
        other = load_config(config, None, ["learning_rate=0.5"])
        train_lesions(training_set, tmp_path / "run", other, resume=True)


@pytest.mark.slow
def test_without_resume_a_finished_run_is_not_overwritten(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    train_lesions(training_set, tmp_path / "run", config)
    record = (tmp_path / "run" / "config.json").read_bytes()
    for other in (config, load_config(config, None, ["seed=3", "learning_rate=0.5"])):
        with pytest.raises(LesionDecompError, match="a checkpoint"):
            train_lesions(training_set, tmp_path / "run", other)
    assert (tmp_path / "run" / "config.json").read_bytes() == record
    train_lesions(training_set, tmp_path / "run", config, resume=True)


@pytest.mark.slow
def test_a_resumed_run_learns_from_what_it_was_started_with(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    teacher = train_lesions(training_set, tmp_path / "teacher", config, name="teacher")
    pupil = train_lesions(training_set, tmp_path / "pupil", config, teachers=[teacher.path])
    taught = pupil.metadata["training"]
    assert taught["sources"]["teachers"] == [{"name": "teacher", "sha256": teacher.sha256}]
    assert "teachers" not in teacher.metadata["training"]["sources"] and taught["devices"][0].startswith("CPU (")
    with pytest.raises(LesionDecompError, match="teachers left out that this run was started with"):
        train_lesions(training_set, tmp_path / "pupil", config, resume=True)
    grown = tmp_path / "grown"
    shutil.copytree(training_set, grown)
    train_lesions(grown, tmp_path / "pupil", config, teachers=[teacher.path], resume=True)  # a copy is the same
    rows = (grown / "index.csv").read_text("utf-8").splitlines()
    (grown / "index.csv").write_text("\n".join(rows[:-1]) + "\n", "utf-8")
    with pytest.raises(LesionDecompError, match="a training set other than at this run"):
        train_lesions(grown, tmp_path / "pupil", config, teachers=[teacher.path], resume=True)


@pytest.mark.slow
def test_a_run_names_every_device_it_was_trained_on(training_set, tmp_path, monkeypatch):
    config = load_config(PRESETS["default"], None, TINY)
    asked = iter([False, False, True])
    monkeypatch.setattr("LesionDecompLib.training.record.device_name", lambda device: "Some GPU")
    with pytest.raises(Cancelled):
        train_lesions(training_set, tmp_path / "run", config, cancelled=lambda: next(asked))
    monkeypatch.undo()
    bundle = train_lesions(training_set, tmp_path / "run", config, resume=True)
    first, second = bundle.metadata["training"]["devices"]
    assert first.startswith("Some GPU (") and second.startswith("CPU (")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "x" * 101, "a\tb"])
def test_a_name_that_no_bundle_can_have_is_refused_before_the_training(training_set, tmp_path, name):
    with pytest.raises(LesionDecompError, match="printable characters"):
        train_lesions(training_set, tmp_path / "run", load_config(PRESETS["default"], None, TINY), name=name)
    assert not (tmp_path / "run").exists()


def test_the_revision_is_that_of_our_sources_not_of_what_they_are_installed_below(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "__file__", str(tmp_path / "site-packages" / "record.py"))
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "record.py").write_text("", "utf-8")
    (tmp_path / "own.py").write_text("", "utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=n@example.org"]
    for command in (["init", "-q"], ["add", "own.py"], ["commit", "-qm", "own"]):
        subprocess.run([*git, *command], check=True)
    assert record.git_revision() == "unknown"
    for command in (["add", "-f", "site-packages"], ["commit", "-qm", "sources"]):
        subprocess.run([*git, *command], check=True)
    assert len(record.git_revision()) == 12


@pytest.mark.slow
def test_teachers_that_nothing_would_be_learned_from_are_refused(training_set, tmp_path):
    config = load_config(PRESETS["paper"], None, [*TINY, "batch_painted=0"])
    with pytest.raises(LesionDecompError, match=r"self_training\.weight = 0"):
        train_lesions(training_set, tmp_path / "run", config, teachers=[tmp_path])


@pytest.mark.slow
def test_slices_that_no_heat_could_be_made_for_are_refused_before_the_training(training_set, tmp_path):
    for side in (80, 512):
        other = tmp_path / str(side)
        shutil.copytree(training_set, other)
        for file in other.glob("*.png"):
            imsave(file, np.resize(imread(file), (side, side)), check_contrast=False)
        with pytest.raises(LesionDecompError, match=f"slices of {side}×{side} pixels"):
            train_lesions(other, tmp_path / "run", load_config(PRESETS["default"], None, TINY))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_without_a_test_split_there_is_a_bundle_all_the_same(training_set, tmp_path):
    data = write_training_set(tmp_path / "set", test=0)
    bundle = train_lesions(data, tmp_path / "run", load_config(PRESETS["default"], None, TINY))
    assert "test" not in bundle.metadata["metrics"]


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["critic=false", "alpha_normal=0", "network.lesion_decoder=false", "norm_p=2"])
def test_the_paper_s_ablations_train(training_set, tmp_path, ablation):
    small = [*TINY, "batch_painted=0", "network.gated=false", "steps=2", ablation]
    bundle = train_lesions(training_set, tmp_path / "run", load_config(PRESETS["paper"], None, small))
    assert all(value.isfinite().all() for value in bundle.network().state_dict().values())


@pytest.mark.parametrize(
    "text",
    [
        "nonsense=1",
        "steps=0",
        "steps='many'",
        "network.depth=3",
        "norm_p=3",
        "steps",
        "network.lesion_decoder=false",  # and gated, as it is by default
        "shrink=2",  # with the stem's 2: slices that are multiples of 64
        "network.levels=7",
    ],
)
def test_a_wrong_setting_is_refused(text):
    with pytest.raises(LesionDecompError, match="Training configuration: found"):
        load_config(PRESETS["default"], None, [text])


def test_the_full_paper_preset_has_the_paper_s_constants():
    paper = PRESETS["paper-full"]
    assert (paper.critic.penalty, paper.weights.adversarial, paper.weights.reconstruction, paper.weights.normal) == (
        10,
        0.01,
        100,
        100,
    )
    assert paper.optimizer.learning_rate == paper.optimizer.final_learning_rate == 2e-4
    assert paper.batch.lesion + paper.batch.normal == 8
    assert paper.weights.image == paper.weights.painted == paper.weights.sparse == 0
    assert (paper.network.channels, paper.network.gated, paper.network.shared) == (64, False, False)


def test_the_reduced_paper_preset_keeps_its_equations_and_decoders():
    paper, full = PRESETS["paper"], PRESETS["paper-full"]
    for group, key in (("weights", "reconstruction"), ("weights", "normal"), ("weights", "norm_p")):
        assert getattr(getattr(paper, group), key) == getattr(getattr(full, group), key), key
    assert replace(paper.critic, channels=full.critic.channels) == full.critic
    assert paper.weights.image == paper.weights.painted == paper.weights.sparse == paper.self_training.weight == 0
    assert paper.batch.painted == 0 and not paper.weights.edge_weighting
    assert (paper.network.gated, paper.network.shared, paper.network.norm) == (False, False, "none")
    assert paper.network.normal_decoder and paper.network.lesion_decoder and paper.critic.enabled


def test_the_large_paper_preset_is_the_reduced_one_in_the_paper_s_size():
    paper, large, full = PRESETS["paper"], PRESETS["paper-large"], PRESETS["paper-full"]
    as_paper = {
        "batch": replace(large.batch, shrink=paper.batch.shrink),
        "critic": replace(large.critic, channels=paper.critic.channels),
        "network": replace(large.network, channels=paper.network.channels, widest=paper.network.widest),
    }
    steps = [f"schedule.steps={large.steps}"]
    assert replace(large, **as_paper) == load_config(paper, None, steps)
    assert large.batch.shrink == full.batch.shrink == 1 and large.critic.channels == full.critic.channels
    assert replace(large.network, norm=full.network.norm) == full.network


def test_other_steps_keep_the_share_of_copying_steps():
    short = load_config(PRESETS["paper"], None, ["steps=1400"])
    assert [getattr(short.schedule, stage) for stage in Schedule.STAGES] == [600, 100, 325]
    assert load_config(PRESETS["paper"], None, ["steps=1400", "identity_steps=5"]).schedule.identity_steps == 5
    default = PRESETS["default"]
    assert load_config(default, None, ["steps=10"]).self_training == default.self_training
    assert replace(PRESETS["paper"].lasting(1400), self_training=short.self_training) == short


@pytest.mark.slow
def test_a_staged_training_copies_then_raises_the_adversarial_term_then_ends_quietly(training_set):
    settings = [*TINY, "steps=400", "batch_painted=0", "identity_steps=150", "rise_steps=10", "val_every=0"]
    config = load_config(PRESETS["paper"], None, [*settings, "schedule.late_steps=60", "weights.late_adversarial=2"])
    rates = [learning_rate(number, config) for number in range(400)]
    assert rates[120:150] == [config.optimizer.learning_rate] * 30 and rates[150] < rates[149]
    assert rates[399] == pytest.approx(config.optimizer.final_learning_rate, rel=0.02)
    assert all(late <= early for early, late in itertools.pairwise(rates[251:]))
    task = LesionTask(config, SliceSet.load(training_set, "train"), torch.device("cpu"))
    logged = [task.step(number, np.random.default_rng(number)) for number in (0, 149)]
    assert all("L_a" not in terms and "wasserstein" not in terms for terms in logged)
    batch = task.batch(np.random.default_rng(0))
    g1 = task.split(batch).g1.detach()
    shares = []
    for number in (150, 154, 159, 300, 339, 340, 399):
        terms: dict[str, torch.Tensor] = {}
        shares.append(float(task.adversarial(number, batch, g1, terms) / (config.weights.adversarial * terms["L_a"])))
    assert shares == pytest.approx([0.1, 0.5, 1.0, 1.0, 1.0, 4.0, 4.0])
    assert {"L_a", "L_c", "wasserstein"} <= task.step(150, np.random.default_rng(1)).keys()


@pytest.mark.slow
def test_without_normalization_the_generator_learns_to_copy(training_set):
    """Nine tenths of a slice are outside the lungs: with losses there tanh would saturate at -1 and stay."""
    settings = [*TINY, "steps=200", "shrink=1", "batch_painted=0", "critic=false", "learning_rate=2e-3"]
    config = load_config(PRESETS["paper"], None, [*settings, "network.channels=8"])
    task = LesionTask(config, SliceSet.load(training_set, "train"), torch.device("cpu"))
    changes = [task.step(number, np.random.default_rng(number))["change_G1"] for number in range(200)]
    batch = task.batch(np.random.default_rng(0))
    copied, slices = (part[batch.lung].detach().numpy() for part in (task.split(batch).g1, batch.x))
    assert np.mean(changes[-10:]) < 0.06 and np.corrcoef(copied, slices)[0, 1] > 0.9


def test_normal_slices_are_drawn_to_match_the_lesion_slices(tmp_path):
    """Small and large lungs of both labels: of the nearest by shape, all are of the lesion slice's size."""
    rng = np.random.default_rng(0)
    small = np.arange(40) % 2 == 0
    images = np.stack([slice_image(rng, False) for _ in small])
    images[small, :24] = images[small, 40:] = 0
    data = SliceSet(tmp_path, images, np.arange(40) < 20, np.arange(40).astype(str), ())
    none = Augmentation(*[0.0] * len(fields(Augmentation)))
    slices = LabeledSlices(data, (64, 64), none, torch.device("cpu"))
    nearest = slices.nearest(8)
    assert nearest.shape == (20, 8)
    assert (nearest % 2 == np.arange(20)[:, None] % 2).all()
    for seed in range(5):
        x, _, _ = slices.draw(np.random.default_rng(seed), 6, 3, nearest=8)
        sizes = (x > -1).sum(dim=(1, 2, 3)) > 1000
        assert torch.equal(sizes[6:], sizes[:6:2])  # the second of three goes with the third of six
    x, _, _ = slices.draw(np.random.default_rng(0), 8, 64)
    assert 10 < int(((x > -1).sum(dim=(1, 2, 3)) > 1000)[8:].sum()) < 54
    assert slices.nearest(100).shape == (20, 20)


def test_losses_by_hand():
    x = torch.tensor([0.5, -0.5]).view(1, 1, 1, 2)
    normal, lesion = torch.tensor([0.25, -0.5]).view(1, 1, 1, 2), torch.tensor([0.125, 0.5]).view(1, 1, 1, 2)
    everywhere, first = torch.ones(1, 1, 1, 2), torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert losses.reconstruction_loss(x, normal, lesion, everywhere, 1) == pytest.approx((0.125 + 0.5) / 2)
    assert losses.reconstruction_loss(x, normal, lesion, first, 2) == pytest.approx(0.125**2)
    logits = torch.tensor([4.0, 2.0, 0.0, 9.0]).view(1, 1, 2, 2)
    lung = torch.tensor([True, True, True, False]).view(1, 1, 2, 2)
    assert losses.slice_logits(logits, lung, 0.67) == pytest.approx(3.0)


def test_the_gradient_penalty_is_that_of_a_known_critic():
    class Slope(torch.nn.Module):
        def forward(self, x):
            return 3.0 * x.flatten(1).sum(1)

        def gradient(self, x):
            return torch.full_like(x, 3.0), []

        def rise(self, direction, slopes):
            return self(direction)

    slices = torch.rand(4, 1, 2, 2)  # |gradient| = 3 * sqrt(4) = 6
    mix = torch.rand(4, 1, 1, 1)
    assert float(losses.gradient_penalty(Slope(), slices, slices, mix).detach()) == pytest.approx(25.0)
    loss, distance = losses.critic_loss(Slope(), slices + 1, slices, slices, mix, 10.0)
    assert float(distance) == pytest.approx(12.0, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(250.0 - 12.0, rel=1e-5)
    critic = Critic(2)
    with torch.no_grad():
        assert float(losses.adversarial_loss(critic, slices)) == pytest.approx(-float(critic(slices).mean()))


def test_augmentation_and_paint_keep_the_outside_outside():
    rng = np.random.default_rng(5)
    x = torch.from_numpy(np.stack([slice_image(rng, False) for _ in range(4)])).float().unsqueeze(1) / 127.5 - 1
    still, _ = augment(x, Augmentation(*[0.0] * len(fields(Augmentation))), SliceDraws(range(4)))
    torch.testing.assert_close(still, x, atol=1e-5, rtol=0)
    moved, _ = augment(x, Augmentation(), SliceDraws(range(4)))
    again, _ = augment(x, Augmentation(), SliceDraws(range(4)))
    assert torch.equal(moved, again) and not torch.equal(moved, x)
    painted, extent = paint_lesions(x, SliceDraws(range(4, 8)))
    assert torch.equal(painted > -1, x > -1) and not extent[x == -1].any()
    assert (painted >= x - 1e-6).all()  # lesions only add tissue
    assert (painted - x)[extent > 0.9].mean() > 5 * (painted - x)[(extent < 0.01) & (x > -1)].mean()


def test_crops_hold_the_lungs():
    image = np.zeros((2, 100, 120), dtype=np.uint8)
    image[0, 5:30, 90:118] = 7
    image[1, 40:60, 10:30] = 9
    crops = lung_crops(image, (40, 48))
    assert crops.shape == (2, 40, 48)
    assert (crops[0] == 7).sum() == 25 * 28 and (crops[1] == 9).sum() == 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "reported"),
    [
        ("file,label,split\na.png,lesion,train\n", "without scan"),
        ("file,label,split,scan\na.png,sick,train,s\n", "label 'sick'"),
        ("file,label,split,scan\n../a.png,lesion,train,s\nb.png,normal,train,t\n", "leaves the folder"),
        ("file,label,split,scan\nnone.png,lesion,train,s\nb.png,normal,train,t\n", "unreadable slice 'none.png'"),
        ("file,label,split,scan\na.png,lesion,train,s\n", "no normal slice"),
        ("file,label,split,scan\na.png,lesion,train,s\nb.png,normal,val,s\n", "the scan 's' in another split"),
        ("file,label,split,scan,patient\na.png,lesion,train,s,p\nb.png,lesion,val,t,p\n", "the patient 'p' in another"),
        ("\ufefffile,label,split,scan\na.png,lesion,train,s\n", "no normal slice"),  # as spreadsheets save it
    ],
)
def test_a_broken_training_set_is_refused(tmp_path, broken, reported):
    (tmp_path / "index.csv").write_text(broken, "utf-8")
    with pytest.raises(LesionDecompError, match=reported):
        SliceSet.load(tmp_path, "train")


@pytest.mark.slow
def test_a_time_budget_sets_the_steps_and_resuming_keeps_them(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    train_lesions(training_set, tmp_path / "run", config, hours=1e-4)
    record = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert record["hours"] == 1e-4 and record["schedule"]["steps"] >= 1
    with open(tmp_path / "run" / "log.csv", encoding="utf-8") as stream:
        assert int(list(csv.DictReader(stream))[-1]["step"]) == record["schedule"]["steps"]
    train_lesions(training_set, tmp_path / "run", config, hours=1e-4, resume=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))["schedule"] == record["schedule"]
    with pytest.raises(LesionDecompError, match="hours"):
        train_lesions(training_set, tmp_path / "other", config, hours=-1.0)


@pytest.mark.slow
def test_example_decompositions_are_drawn(training_set, tmp_path):
    train_lesions(training_set, tmp_path / "run", load_config(PRESETS["default"], None, TINY))
    image = np.asarray(Image.open(tmp_path / "run" / "examples.png"))
    rows, columns = 5, 5  # three lesion slices, two normal ones; see examples.COLUMNS
    assert image.shape == (18 + rows * 160, columns * 192, 3)
    slices = image[18:, :192].astype(int)
    val = SliceSet.load(training_set, "val").images
    assert (slices.max(axis=2) > 60).sum() == pytest.approx(rows * (val > 60).sum() / len(val), rel=0.1)


@pytest.mark.slow
def test_a_pupil_learns_from_the_heat_of_others(training_set, tmp_path):
    """A teacher at half resolution without normal decoder."""
    alone = [*TINY, "network.normal_decoder=false", "critic=false", "shrink=2", "network.stem=1", "crop=[64, 64]"]
    teacher = train_lesions(training_set, tmp_path / "teacher", load_config(PRESETS["default"], None, alone))
    assert "healthy_version_val" not in teacher.metadata["metrics"]
    with pytest.raises(LesionDecompError, match="without normal decoder"):
        teacher.network().normal(torch.zeros(1, 1, 64, 64))
    data = SliceSet.load(training_set, "train")
    heat = taught_heat([teacher.path], data, torch.device("cpu"))
    assert heat.shape == data.images[data.lesion].shape and not heat[data.images[data.lesion] == 0].any()
    both = taught_heat([teacher.path, teacher.path], data, torch.device("cpu"))
    assert np.array_equal(heat, both)
    config = load_config(PRESETS["default"], None, TINY)
    pupil = train_lesions(training_set, tmp_path / "pupil", config, teachers=[teacher.path])
    assert pupil.task == "lesions"


@pytest.mark.slow
def test_taught_heat_is_moved_with_its_slice_and_learnt(training_set, tmp_path):
    data = SliceSet.load(training_set, "train")
    bright = np.where(data.images[data.lesion] > 150, 255, 0).astype(np.uint8)
    settings = [*TINY, "alpha_self=1", "alpha_image=0", "alpha_painted=0", "critic=false", "learning_rate=0.01"]
    task = LesionTask(load_config(PRESETS["default"], None, settings), data, torch.device("cpu"), bright)
    batch = task.batch(np.random.default_rng(0))
    spot, rest = batch.taught > 0.9, (batch.taught < 0.1) & batch.lung[batch.lesion]
    assert spot.any() and batch.x[batch.lesion][spot].mean() > batch.x[batch.lesion][rest].mean() + 0.4
    losses_of = [task.step(number, np.random.default_rng(number))["L_t"] for number in range(120)]
    assert np.mean(losses_of[-10:]) < 0.7 * np.mean(losses_of[:10])


@pytest.mark.slow
def test_healthy_versions_are_judged(training_set, tmp_path):
    bundle = train_lesions(
        training_set, tmp_path / "run", load_config(PRESETS["default"], None, [*TINY, "judge_steps=60"])
    )
    figures = bundle.metadata["metrics"]["healthy_version_val"]
    assert figures["judge_auc"] > 0.9  # the spots are easily seen
    assert 0 <= figures["lesion_slices_called_normal_after_G1"] <= 1
    assert figures["change_in_normal_slices_grey"] > 0


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX only")
def test_a_second_run_into_a_folder_is_refused_while_one_is_under_way(training_set, tmp_path, capsys):
    with sole_writer(tmp_path, wait=False):
        assert main(["train", "--data", str(training_set), "-o", str(tmp_path), "--device", "cpu"]) == 1
    assert "another run that writes into" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_settings_of_earlier_versions_are_understood():
    """Every former key, in a file and on the command line, means what it meant."""
    base = load_config(PRESETS["default"], None, ["crop=[]", "network.stem=1"])
    for key, (group, name) in LesionConfig.FORMER.items():
        old = getattr(getattr(base, group), name)
        special = {"shrink": 2, "crop": [128, 160], "betas": [0.5, 0.9], "norm_p": 2}
        value = special.get(key, not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else 0.123)
        text = json.dumps(value)
        changed = load_config(base, None, [f"{key}={text}"])
        assert changed == load_config(base, None, [f"{group}.{name}={text}"]) != base, key


@pytest.mark.slow
def test_a_run_of_an_earlier_version_is_resumed(training_set, tmp_path):
    config = load_config(PRESETS["default"], None, TINY)
    train_lesions(training_set, tmp_path / "run", config)
    file = tmp_path / "run" / "config.json"
    record = json.loads(file.read_text("utf-8"))
    flat = {key: record[group][name] for key, (group, name) in LesionConfig.FORMER.items()}
    groups = {group for group, _ in LesionConfig.FORMER.values()}
    file.write_text(json.dumps({key: value for key, value in record.items() if key not in groups} | flat), "utf-8")
    assert train_lesions(training_set, tmp_path / "run", config, resume=True) is not None
    with pytest.raises(LesionDecompError, match="same configuration"):
        train_lesions(training_set, tmp_path / "run", load_config(config, None, ["seed=9"]), resume=True)
