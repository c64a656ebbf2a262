"""Average precision on ``val`` along the steps: logged, drawn, the best weights kept, an end without gain."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.evaluation import figures
from LesionDecompLib.evaluation.trainings import trainings_of
from LesionDecompLib.training import curves
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.loop import log_rows, train
from LesionDecompLib.training.run import heat_sources, train_lesions
from LesionDecompLib.training.val_precision import ValPrecision, blurred_grey
from LesionDecompLib.training.watch import Watch
from skimage.io import imread, imsave
from sklearn.metrics import average_precision_score
from tiny_training import TINY, write_training_set

PAPER = [*TINY, "batch_painted=0", "shrink=1", "val_every=2", "identity_steps=1", "rise_steps=2"]


@pytest.fixture(scope="module")
def marked_set(tmp_path_factory) -> Path:
    """A small training set whose lesion slices of val and test have masks: where they are bright."""
    folder = write_training_set(tmp_path_factory.mktemp("marked"), test=2)
    with open(folder / "index.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        for reader, level in (("ann0", 140), ("ann1", 150), ("sel", 160)):
            marked = row["label"] == "lesion" and row["split"] != "train"
            row[f"mask_{reader}"] = f"{reader}_{row['file']}" if marked else ""
            if marked:
                mask = np.where(imread(folder / row["file"]) > level, 255, 0).astype(np.uint8)
                imsave(folder / row[f"mask_{reader}"], mask, check_contrast=False)
    with open(folder / "index.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


class Counter:
    """A task whose network holds the number of its updates."""

    averaged, teacher = "network", None

    def __init__(self) -> None:
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(network.weight)
        self.modules = {"network": network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}

    def batch(self, rng: np.random.Generator) -> None:
        """Needs none."""

    def step(self, number: int, rng: np.random.Generator, batch: None = None) -> dict[str, float]:
        with torch.no_grad():
            self.modules["network"].weight.fill_(number + 1)
        return {"loss": 0.5}


def peak_at(best: int, patience: int = 0, every: int = 2) -> Watch:
    """A figure that rises by 0.1 a step to ``best`` and falls again."""
    return Watch(lambda network: {"figure": 1 - abs(network.weight.item() - best) / 10}, "figure", every, patience)


@pytest.mark.slow
def test_the_best_weights_are_kept_and_the_figure_is_logged(tmp_path):
    network = train(Counter(), tmp_path, steps=9, seed=0, ema=0, watch=peak_at(4))
    assert float(network.weight) == 4
    looks = {int(row["step"]): float(row["figure"]) for row in log_rows(tmp_path / "log.csv")}
    assert looks == pytest.approx({2: 0.8, 4: 1.0, 6: 0.8, 8: 0.6, 9: 0.5})
    again = train(Counter(), tmp_path, steps=9, seed=0, ema=0, watch=peak_at(4), resume=True)
    assert float(again.weight) == 4


@pytest.mark.slow
def test_a_training_ends_when_it_gains_no_more_and_stays_ended(tmp_path):
    network = train(Counter(), tmp_path, steps=1000, seed=0, ema=0, watch=peak_at(6, patience=8))
    assert float(network.weight) == 6
    assert log_rows(tmp_path / "log.csv")[-1]["step"] == "14"
    train(Counter(), tmp_path, steps=1000, seed=0, ema=0, watch=peak_at(6, patience=8), resume=True)
    assert log_rows(tmp_path / "log.csv")[-1]["step"] == "14"


def test_small_gains_do_not_keep_a_training_going():
    watch = Watch(lambda network: {"figure": network.weight.item()}, "figure", 1, patience=3, least_gain=0.5)
    network = torch.nn.Linear(1, 1, bias=False)
    for step, height in enumerate((1.0, 1.1, 1.2), start=1):
        torch.nn.init.constant_(network.weight, height)
        watch.look(step, network)
    assert watch.best == pytest.approx(1.2) and watch.best_step == 3
    assert not watch.is_over(3) and watch.is_over(4)


@pytest.mark.slow
def test_a_broken_run_keeps_its_best(tmp_path):
    asked = iter([False] * 7 + [True])
    with pytest.raises(Cancelled):
        train(Counter(), tmp_path, steps=30, seed=0, ema=0, watch=peak_at(4), cancelled=lambda: next(asked))
    before = log_rows(tmp_path / "log.csv")
    _last_row_took(tmp_path / "log.csv", seconds=1000)
    network = train(Counter(), tmp_path, steps=30, seed=0, ema=0, watch=peak_at(4), resume=True)
    assert float(network.weight) == 4
    seconds = [float(row["seconds"]) for row in log_rows(tmp_path / "log.csv")]
    assert seconds == sorted(seconds) and 1000 <= seconds[len(before)] < 1500, "a resumed run forgot its time"


def _last_row_took(log: Path, seconds: float) -> None:
    *rows, last = log_rows(log)
    with open(log, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(last))
        writer.writeheader()
        writer.writerows([*rows, last | {"seconds": str(seconds)}])


@pytest.mark.slow
def test_precision_on_val_is_that_of_the_pixels_in_the_lungs(marked_set):
    val = SliceSet.load(marked_set, "val")
    figures = ValPrecision(val, {"grey": lambda network, images: images / np.float32(256)})(torch.nn.Identity())
    lung = val.images[val.lesion] > 0
    for key, heat in (("val_AP", val.images / 256), ("val_AP_floor", blurred_grey(val.images))):
        expected = [
            average_precision_score(val.masks(name)[lung], heat[val.lesion][lung]) for name in ("ann0", "ann1", "sel")
        ]
        assert figures[key] == pytest.approx(np.mean(expected), abs=2e-3), key
    assert figures["val_AP"] == pytest.approx(1, abs=1e-6) and figures["val_AP_floor"] < 0.99


@pytest.mark.slow
def test_a_lesion_training_is_watched_on_val_and_its_bundle_is_the_best_of_it(marked_set, tmp_path):
    bundle = train_lesions(marked_set, tmp_path / "run", load_config(PRESETS["paper"], None, PAPER))
    rows = [row for row in log_rows(tmp_path / "run" / "log.csv") if row["val_AP"]]
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    best = max(float(row["val_AP"]) for row in rows)
    for row in rows:
        of_ways = [float(row[f"val_AP_{way}"]) for way in ("lesion", "difference", "change")]
        assert float(row["val_AP"]) == max(of_ways)
    assert bundle.metadata["metrics"]["val"]["mean_average_precision"] == pytest.approx(best, abs=0.01)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["watch"]
    saved = bundle.network().state_dict()
    assert kept["best"] == pytest.approx(best, abs=1e-5)
    reported = bundle.metadata["training"]["watched"]
    assert reported == {"chosen_by": "val_AP", "best_step": kept["best_step"], "val_AP": pytest.approx(best, abs=1e-4)}
    for key, value in kept["weights"].items():  # a bundle keeps float16
        torch.testing.assert_close(saved[key], value, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_watched_run_resumes_to_the_weights_of_an_unbroken_one(marked_set, tmp_path):
    config = load_config(PRESETS["paper"], None, PAPER)
    whole = train_lesions(marked_set, tmp_path / "whole", config)
    asked = iter([False] * 3 + [True])
    with pytest.raises(Cancelled):
        train_lesions(marked_set, tmp_path / "broken", config, cancelled=lambda: next(asked))
    again = train_lesions(marked_set, tmp_path / "broken", config, resume=True)
    assert all(
        torch.equal(a, b) for a, b in zip(whole.network().parameters(), again.network().parameters(), strict=True)
    )
    logs = [log_rows(tmp_path / name / "log.csv") for name in ("whole", "broken")]
    assert [{**row, "seconds": ""} for row in logs[0]] == [{**row, "seconds": ""} for row in logs[1]]


@pytest.mark.slow
def test_without_masks_on_val_the_last_weights_are_kept(tmp_path):
    data = write_training_set(tmp_path / "set", test=2)
    train_lesions(data, tmp_path / "run", load_config(PRESETS["paper"], None, PAPER))
    assert "val_AP" not in log_rows(tmp_path / "run" / "log.csv")[0]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "reported"), [("gone", "unreadable slice 'sel_val"), ("size", "as its slice")])
def test_a_mask_that_cannot_be_used_is_reported_before_the_training(marked_set, tmp_path, damage, reported):
    data = tmp_path / "set"
    shutil.copytree(marked_set, data)
    for file in data.glob("sel_val_lesion_*.png"):
        if damage == "size":
            imsave(file, np.kron(imread(file), np.ones((2, 2), np.uint8)), check_contrast=False)
    if damage == "gone":
        (data / "sel_val_lesion_1.png").unlink()
    with pytest.raises(LesionDecompError, match=reported):
        train_lesions(data, tmp_path / "run", load_config(PRESETS["paper"], None, PAPER))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_val_is_measured_where_test_has_no_masks_or_is_not_there(marked_set, tmp_path):
    rows = (marked_set / "index.csv").read_text("utf-8").splitlines()
    for name, kept in (("none", [row for row in rows if ",test," not in row]), ("all", rows)):
        data = tmp_path / name
        shutil.copytree(marked_set, data)
        (data / "index.csv").write_text("\n".join(kept) + "\n", "utf-8")
        bundle = train_lesions(data, tmp_path / f"run-{name}", load_config(PRESETS["paper"], None, PAPER))
        assert "val" in bundle.metadata["metrics"]
        assert ("test" in bundle.metadata["metrics"]) == (name == "all")


def test_a_floor_is_a_line_in_the_picture_of_what_it_is_the_floor_of(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("step,loss,val_AP,val_AP_floor\n1,3,,\n2,2,0.2,0.3\n4,1,0.4,0.3\n", "utf-8")
    seen = []
    monkeypatch.setattr(curves, "write_bytes", lambda path, content, stage: seen.append(bytes(content)))
    assert curves.draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    (tmp_path / "log.csv").write_text("step,loss,val_AP,val_AP_floor\n1,3,,\n2,2,0.2,0.35\n4,1,0.4,0.35\n", "utf-8")
    assert curves.draw_curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert seen[0] != seen[1], "the floor is not drawn"


def test_trainings_are_drawn_along_their_steps(tmp_path, monkeypatch):
    figures_drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, picture: figures_drawn.append(figure))
    logs = {
        "a": "step,seconds,val_AP,val_AP_floor\n5,9,,\n10,18,0.1,0.25\n20,5400,0.3,0.25\n",
        "b": "step,seconds,val_AP,val_AP_floor\n10,18,0.2,0.25\n20,36,0.4,0.25\n25,720,,\n",
        "c": "step,seconds,loss\n20,360,1\n",
        "d": None,
    }
    bundles = []
    for name, log in logs.items():
        (tmp_path / name / "bundle").mkdir(parents=True)
        if log is not None:
            (tmp_path / name / "log.csv").write_text(log, "utf-8")
        metadata = {"training": {"devices": ["CPU (float32)"]} if name == "b" else {}}
        bundles.append(SimpleNamespace(path=tmp_path / name / "bundle", name=name, metadata=metadata))
    trainings = trainings_of(bundles)
    assert trainings == {
        "a": {"steps": 20, "hours": 1.5, "curve": [[10, 0.1], [20, 0.3]], "floor": 0.25},
        "b": {"steps": 25, "hours": 0.2, "devices": ["CPU (float32)"], "curve": [[10, 0.2], [20, 0.4]], "floor": 0.25},
        "c": {"steps": 20, "hours": 0.1},
    }
    assert figures.draw_trainings(trainings, tmp_path / "picture.png")
    a, b, floor = figures_drawn[0].axes[0].lines
    np.testing.assert_array_equal(a.get_xydata(), [[10, 0.1], [20, 0.3]])
    assert b.get_label() == "b" and set(floor.get_ydata()) == {0.25} and not a.get_marker()
    alone = trainings["a"] | {"curve": [[10, 0.1]]}
    assert figures.draw_trainings({"a": alone}, tmp_path / "picture.png")
    assert figures_drawn.pop().axes[0].lines[0].get_marker() == "o"
    assert not figures.draw_trainings({"c": trainings["c"]}, tmp_path / "picture.png") and len(figures_drawn) == 1


def test_ways_to_give_heat_are_those_the_decoders_have():
    network = PRESETS["paper"].network
    assert heat_sources(network) == ("lesion", "difference", "change")
    assert heat_sources(PRESETS["default"].network) == ("gate", "both")
    for text, expected in (("lesion_decoder=false", ("difference", "change")), ("gated=true", ("gate", "both"))):
        assert heat_sources(load_config(PRESETS["paper"], None, [f"network.{text}"]).network) == expected
