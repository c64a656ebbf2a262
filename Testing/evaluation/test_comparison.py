"""The comparison: metrics against hand-computed cases and libraries' own, localizers that keep to their interface."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from LesionDecompLib.cli import evaluate, main
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.evaluation import figures
from LesionDecompLib.evaluation.baselines.config import BASELINES
from LesionDecompLib.evaluation.baselines.run import train_baseline
from LesionDecompLib.evaluation.baselines.tasks import VaGanTask
from LesionDecompLib.evaluation.bootstrap import interval, resampled_metrics, scan_weights
from LesionDecompLib.evaluation.comparison import evaluate_localizers, single_slice_metrics, surface_distances_95
from LesionDecompLib.evaluation.figures import example_slices, write_table
from LesionDecompLib.evaluation.localizers import FLOORS, METHODS, Localizer, localizers_of
from LesionDecompLib.evaluation.seeds import over_seeds
from LesionDecompLib.evaluation.volumes import agreement, dice, evaluate_volumes, find_cases
from LesionDecompLib.metrics.pixels import HeatCounts
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.models.classifier import CAM_LAYER
from LesionDecompLib.models.networks import DecompositionNet
from LesionDecompLib.models.records import HeatDefinition
from LesionDecompLib.segmentation.heat import heat_of_slices
from LesionDecompLib.training.config import BASELINES as BASELINE_NAMES
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.heat_scale import (
    count_heat,
    fit_scale,
    slice_heat,
)
from LesionDecompLib.training.loop import log_rows
from LesionDecompLib.training.settings import change
from masked_slices import write_masked_slices
from PIL import Image
from repository import MODULE
from tiny_training import write_training_set

pytestmark = pytest.mark.slow

SMALL = {"steps": 3, "batch_lesion": 2, "batch_normal": 2, "crop": [64, 64], "shrink": 1}
SMALLER = {
    "classifier": {"width": 4},
    "va-gan": {"channels": 4, "critic_channels": 4, "often_first": 1, "critic_steps_often": 2, "critic_steps": 1},
    "biomarker": {"channels": 4, "critic_channels": 4},
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory) -> Path:
    return write_masked_slices(tmp_path_factory.mktemp("slices"))


@pytest.fixture(scope="module")
def bundles(slices, tmp_path_factory) -> dict[str, ModelBundle]:
    """Every baseline, trained for three steps."""
    folder = tmp_path_factory.mktemp("baselines")
    trained = {}
    for method, kind in BASELINES.items():
        config = change(kind(), SMALL | SMALLER[method])
        trained[method] = train_baseline(method, slices, folder / method, config)
        assert (folder / method / "curves.png").is_file()
    return trained


def test_names_of_the_command_line_are_those_of_the_library():
    assert (*METHODS, *FLOORS) == evaluate.METHODS
    assert tuple(BASELINES) == BASELINE_NAMES


def test_every_localizer_runs_is_deterministic_and_keeps_to_the_lungs(slices, bundles):
    data = SliceSet.load(slices, "test")
    rows = localizers_of([*bundles.values(), find_bundle(None, "lesions")])
    names = {"classifier/cam", "classifier/grad-cam", "va-gan", "biomarker", *FLOORS}
    ours = {f"lesions-decomposition{method}" for method in ("", "/gate", "/difference")}
    assert {row.name for row in rows} == names | ours
    images = np.zeros((3, 96, 96), dtype=np.uint8)
    images[:, 16:80, 16:80] = data.images[:3]
    for row in rows:
        heat = row.heat(images)
        assert heat.shape == images.shape and heat.dtype == np.float32, row.name
        assert np.isfinite(heat).all() and heat.min() >= 0 and heat.max() <= 1, row.name
        assert not heat[images == 0].any(), row.name
        assert heat[images > 0].std() > 0, f"{row.name} states nothing"
        np.testing.assert_array_equal(heat, row.heat(images), row.name)


def test_cam_is_the_classifiers_own_evidence(bundles):
    """The mean of the map before the sigmoid is the classifier's logit (Zhou et al., 2016, equation 2)."""
    from monai.visualize import CAM

    network = bundles["classifier"].network()
    x = torch.randn(2, 1, 64, 64)
    cam = CAM(
        network,
        target_layers=CAM_LAYER,
        fc_layers="resnet.fc",
        upsampler=lambda *_: lambda value: value,
        postprocessing=lambda value: value,
    )
    mean = cam(x, class_idx=torch.ones(2, dtype=torch.long)).mean(dim=(1, 2, 3))
    torch.testing.assert_close(mean, network(x)[:, 1], rtol=1e-4, atol=1e-4)


def test_a_baseline_resumes_to_the_same_weights(slices, tmp_path):
    config = change(BASELINES["biomarker"](), SMALL | SMALLER["biomarker"])
    whole = train_baseline("biomarker", slices, tmp_path / "whole", config)
    calls = []
    with pytest.raises(Cancelled):
        train_baseline(
            "biomarker", slices, tmp_path / "broken", config, cancelled=lambda: calls.append(1) or len(calls) > 1
        )
    again = train_baseline("biomarker", slices, tmp_path / "broken", config, resume=True)
    for a, b in zip(whole.network().parameters(), again.network().parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_baseline_is_watched_on_val_and_ends_where_it_gains_no_more(slices, tmp_path):
    """At a learning rate of 0 nothing is gained after the first look."""
    still = {"steps": 50, "val_every": 2, "patience_steps": 4, "learning_rate": 0.0, "final_learning_rate": 0.0}
    for method, ways in (("classifier", {"cam", "grad-cam"}), ("va-gan", set())):
        plain = {} if method == "classifier" else {"norm": "none"}  # batch norm goes on learning
        config = change(BASELINES[method](), SMALL | SMALLER[method] | still | plain | {"ema": 0.0})
        bundle = train_baseline(method, slices, tmp_path / method, config)
        rows = log_rows(tmp_path / method / "log.csv")
        assert [row["step"] for row in rows if row["val_AP"]] == ["2", "4", "6"], method
        assert {key.removeprefix("val_AP_") for key in rows[0] if key.startswith("val_AP_")} == ways | {"floor"}
        # What was logged is what the comparison states of the bundle.
        val = SliceSet.load(slices, "val")
        _, results = evaluate_localizers(localizers_of([bundle]), val, val, "val")
        of_ways = [entry["mean"]["average_precision"] for name, entry in results["methods"].items() if method in name]
        assert max(float(row["val_AP"]) for row in rows) == pytest.approx(max(of_ways), abs=0.01)


def test_heat_of_plain_decoders_is_the_lesion_part_or_what_the_normal_version_changes(slices):
    torch.manual_seed(1)
    network = DecompositionNet(channels=4, levels=3, norm="none").eval()
    x = torch.from_numpy(SliceSet.load(slices, "val").images[:2]).float().unsqueeze(1) / 127.5 - 1
    lung = x > -1
    with torch.inference_mode():
        out = network(x)
    expected = {
        "lesion": out.lesion.clamp(0, 1),
        "difference": (x - out.normal).clamp_min(0) / 2,
        "change": (x - out.normal).abs() / 2,
    }
    for source, heat in expected.items():
        found = heat_of_slices(HeatDefinition(source, flip=False, smoothing_px=0.0), network, x)
        torch.testing.assert_close(found[lung], heat[lung])
        assert not found[~lung].any()


def test_trainings_that_differ_in_their_seed_alone_are_put_together(slices, tmp_path):
    rows = []
    for seed in (0, 1, 2):
        for steps in (2, 3):
            config = change(BASELINES["va-gan"](), SMALL | SMALLER["va-gan"] | {"seed": seed, "steps": steps})
            name = f"va{steps}-seed{seed}"
            rows.append(train_baseline("va-gan", slices, tmp_path / name, config, name=name))
    val = SliceSet.load(slices, "val")
    again = change(BASELINES["va-gan"](), SMALL | SMALLER["va-gan"] | {"steps": 2})
    rows.append(train_baseline("va-gan", slices, tmp_path / "again", again, name="again"))  # seed 0 once more
    named_alike = [f"run{number}" for number in range(4)]  # two of either training
    own = [
        Localizer(name, row.metadata["method"], None, 0.5, row) for name, row in zip(named_alike, rows, strict=False)
    ]
    own = [own[0], own[2], own[1], own[3]]
    metrics = {"mean": {"average_precision": 0.5, "best_dice": 0.5}}
    groups = over_seeds(own, dict.fromkeys(named_alike, metrics))
    assert {name: row["rows"] for name, row in groups.items()} == {"run": ["run0", "run2"], "run1": ["run1", "run3"]}
    taught = dict(rows[2].metadata["training"], sources={"data": "1", "teachers": [{"name": "t", "sha256": "2"}]})
    pupil = SimpleNamespace(metadata={"training": taught})
    assert over_seeds([own[0], replace(own[1], bundle=pupil)], dict.fromkeys(named_alike, metrics)) == {}
    localizers = localizers_of([*rows[:5], rows[-1]])
    _, results = evaluate_localizers(localizers, val, val, "val")
    assert {name: row["rows"] for name, row in results["seeds"].items()} == {
        "va2": ["va2-seed0", "va2-seed1", "va2-seed2"],
        "va3": ["va3-seed0", "va3-seed1"],
    }
    values = [results["methods"][f"va2-seed{seed}"]["mean"]["average_precision"] for seed in (0, 1, 2)]
    spread = results["seeds"]["va2"]["average_precision"]
    assert spread["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert spread["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    write_table(results, tmp_path / "table.md")
    text = (tmp_path / "table.md").read_text("utf-8")
    assert f"| va2 | 3 | {spread['mean']:.3f} ± {spread['sd']:.3f} |" in text


def test_the_critic_of_va_gan_meets_matching_normal_slices(slices):
    data = SliceSet.load(slices, "train")
    images = data.images.copy()
    images[::2, :28] = images[::2, 36:] = 0
    config = change(BASELINES["va-gan"](), SMALL | SMALLER["va-gan"] | {"batch_lesion": 4, "matched_normals": 3})
    task = VaGanTask(config, replace(data, images=images), torch.device("cpu"))
    for seed in range(4):
        lesion, normal = ((part > -1).flatten(1).sum(dim=1) > 600 for part in task.both(np.random.default_rng(seed)))
        assert len(lesion) == 4 and torch.equal(lesion[::2], normal)


def test_the_command_writes_figures_table_and_pictures(slices, bundles, tmp_path, capsys):
    arguments = ["evaluate", "--data", str(slices), "--models", *(str(bundle.path) for bundle in bundles.values())]
    assert main([*arguments, "-o", str(tmp_path), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert results["split"] == "test" and results["lesion_slices"] == 6 and results["lesion_scans"] == 3
    assert set(results["methods"]) == {"classifier/cam", "classifier/grad-cam", "va-gan", "biomarker", *FLOORS}
    for name, entry in results["methods"].items():
        assert entry["threshold_from"] == "val"
        for mask in ("ann0", "ann1", "sel"):
            metrics = entry[mask]
            for key in ("average_precision", "auc_pr", "best_dice", "best_threshold", "dice_at_default"):
                assert 0 <= metrics[key] <= 1, (name, mask, key)
            low, high = metrics["average_precision_interval"]
            assert low <= high and metrics["dice_at_default"] <= metrics["best_dice"] + 1e-4
    assert 0 <= results["methods"]["classifier/cam"]["classifier_auc"] <= 1
    # A bright spot is found by its gray, and readers who leave out a twentieth agree to a tenth.
    assert results["methods"]["grey"]["mean"]["average_precision"] > 0.9
    assert results["human"]["mean"]["dice"] == pytest.approx(0.95, abs=0.03)
    for name in ("pr_curves.png", "dice_thresholds.png", "examples.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 400 and len(picture.convert("L").getcolors(1 << 16)) > 10
    table = (tmp_path / "table.md").read_text("utf-8")
    assert "| grey (floor) |" in table and "grey (floor)" in capsys.readouterr().out
    assert set(results["trainings"]) == {"classifier", "va-gan", "biomarker"}
    for name, row in results["trainings"].items():
        assert f"| {name} | 0 | {row['devices'][0]} | {row['steps']} | " in table
        assert row["devices"][0].startswith("CPU (")
    assert main([*arguments, "-o", str(tmp_path)]) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--methods", "cam"], "no bundle that offers 'cam'"),
        (["--models", "lesions-decomposition", "lesions-decomposition"], "two bundles named"),
        (["--models", "no-such-model"], "no bundle 'no-such-model'"),
    ],
)
def test_what_cannot_be_evaluated_is_reported(slices, tmp_path, capsys, arguments, sentence):
    assert main(["evaluate", "--data", str(slices), *arguments, "-o", str(tmp_path / "out")]) == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_folder_without_slices_or_cases_is_refused(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    assert main(["evaluate", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]) == 1
    assert "NAME_lesion.nii.gz" in capsys.readouterr().err


def test_resampling_each_scan_once_gives_the_pooled_figures():
    rng = np.random.default_rng(1)
    counts = []
    for _ in range(4):
        mask = rng.random(5000) < 0.2
        part = HeatCounts()
        part.add(np.clip(rng.normal(0.3 + 0.3 * mask, 0.15), 0, 1), mask)
        counts.append(part)
    pooled = HeatCounts.total(counts)
    metrics = resampled_metrics(counts, np.ones((1, 4)), 0.4)
    assert metrics["average_precision"][0] == pytest.approx(pooled.average_precision(), abs=1e-9)
    assert metrics["auc_pr"][0] == pytest.approx(pooled.auc_pr(), abs=1e-9)
    assert metrics["dice_at_default"][0] == pytest.approx(pooled.dice(0.4)[0], abs=1e-9)
    # A scan drawn twice is a scan that is there twice.
    twice = resampled_metrics(counts, np.array([[2.0, 0, 1, 1]]), 0.4)
    same = HeatCounts.total([counts[0], counts[0], counts[2], counts[3]])
    assert twice["average_precision"][0] == pytest.approx(same.average_precision(), abs=1e-9)


def test_weights_draw_as_many_scans_as_there_are():
    weights = scan_weights(7, resamples=50, seed=3)
    assert weights.shape == (50, 7) and (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, scan_weights(7, resamples=50, seed=3))
    assert interval(np.arange(101.0)) == [2.5, 97.5]


def test_slice_figures_by_hand():
    found, mask = np.zeros((3, 32, 32), bool), np.zeros((3, 32, 32), bool)
    mask[0, 8:16, 8:16] = found[0, 8:16, 12:20] = True  # half of each overlaps; every surface is four pixels off
    mask[1, 2:4, 2:4] = True  # missed
    metrics = single_slice_metrics(found, mask)
    assert metrics["mean_slice_dice"] == pytest.approx((0.5 + 0.0) / 2)  # the third holds no lesion at all
    assert metrics["hd95_slices"] == 1 and metrics["median_hd95_px"] == pytest.approx(4.0)


def test_surface_distance_against_simpleitk():
    """The 95th percentile of distances between two surfaces, each way, the larger one."""
    y, x = np.mgrid[:64, :64]
    one, other = (x - 30) ** 2 + (y - 30) ** 2 < 200, (x - 34) ** 2 + (y - 28) ** 2 < 150

    def directed(a, b):
        image = sitk.GetImageFromArray(b.astype(np.uint8))
        distance = sitk.Abs(sitk.SignedMaurerDistanceMap(sitk.LabelContour(image), squaredDistance=False))
        edge = sitk.GetArrayFromImage(sitk.LabelContour(sitk.GetImageFromArray(a.astype(np.uint8)))) > 0
        return np.percentile(sitk.GetArrayFromImage(distance)[edge], 95)

    expected = max(directed(one, other), directed(other, one))
    assert surface_distances_95(one[None], other[None])[0] == pytest.approx(expected, abs=0.5)


def test_knowing_nothing_is_as_precise_as_lesion_is_common(slices):
    data = SliceSet.load(slices, "val")
    _, results = evaluate_localizers(
        [Localizer("none", "grey", lambda images: 0.5 * (images > 0).astype("f4"))], data, data, "val"
    )
    inside = data.images[data.lesion] > 0
    for name in ("ann0", "ann1", "sel"):
        assert results["prevalence"][name] == pytest.approx(data.masks(name)[inside].mean(), abs=1e-4)
        assert results["methods"]["none"][name]["average_precision"] == pytest.approx(
            results["prevalence"][name], abs=1e-4
        )


def test_bland_altman_by_hand():
    metrics = agreement(np.array([10.0, 20.0, 33.0]), np.array([8.0, 21.0, 30.0]))
    sd = np.std([2, -1, 3], ddof=1)
    assert metrics["bias"] == pytest.approx(4 / 3, abs=1e-3) and metrics["sd"] == pytest.approx(sd, abs=1e-3)
    assert metrics["upper_limit"] == pytest.approx(4 / 3 + 1.96 * sd, abs=2e-3)
    assert agreement(np.zeros(0), np.zeros(0))["bias"] is None
    assert np.isnan(dice(np.zeros(3, bool), np.zeros(3, bool)))


def test_hundred_million_pixels_fit(tmp_path):
    """Counting 100 million pixels of heat stays below 2 GB, heat and mask included."""
    script = """
import resource, numpy as np
from LesionDecompLib.metrics.pixels import HeatCounts
n = 100_000_000
heat = np.linspace(0, 1, n, dtype=np.float32); mask = np.zeros(n, bool); mask[n // 2:] = True
counts = HeatCounts(); counts.add(heat, mask)
assert counts.lesion.sum() + counts.healthy.sum() == n
assert abs(counts.average_precision() - 1) < 1e-3
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PYTHONPATH": str(MODULE)},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2000


def test_example_slices_are_of_different_scans(slices):
    data = SliceSet.load(slices, "test")
    marked = np.zeros((6, 64, 64), bool)
    marked[:, 10:40, 10:40] = True
    chosen = example_slices(data, marked, 3)
    assert len(set(data.scans[data.lesion][chosen])) == 3


def test_every_method_is_among_the_examples_before_parts_of_one_are(slices, bundles, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, picture: drawn.append(figure))
    shipped = find_bundle(None, "lesions")
    localizers = localizers_of([shipped, *bundles.values()])
    val = SliceSet.load(slices, "val")
    comparison, _ = evaluate_localizers(localizers, val, val, "val")
    figures.draw_examples(comparison, localizers, tmp_path / "examples.png", count=1, most=6)
    titles = [axes.get_title() for axes in drawn[0].axes if axes.get_title()]
    assert titles[2:8] == [shipped.name, "classifier\ncam", "classifier\ngrad-cam", "va-gan", "biomarker", titles[7]]
    assert titles[7].startswith(f"{shipped.name}\n")


def test_the_shipped_model_clears_the_floors_on_val(data_folder, tmp_path):
    """As the model card reports, on a few of the real slices' figures."""
    folder = data_folder / "covid_slices"
    arguments = ["--methods", "heat", "grey", "blurred_grey", "-o", str(tmp_path)]
    assert main(["evaluate", "--data", str(folder), "--split", "val", *arguments, "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    own, floor = results["methods"]["lesions-decomposition"], results["methods"]["blurred_grey"]
    for mask in ("ann0", "ann1", "sel"):
        assert own[mask]["average_precision"] > floor[mask]["average_precision"] + 0.1
        assert own[mask]["best_dice"] > floor[mask]["best_dice"] + 0.1
    # The floors are those published with the data.
    assert floor["mean"]["average_precision"] == pytest.approx(0.337, abs=0.004)
    assert results["methods"]["grey"]["mean"]["best_dice"] == pytest.approx(0.313, abs=0.004)
    assert results["human"]["mean"]["dice"] == pytest.approx(0.625, abs=0.004)
    card = find_bundle(None, "lesions").metadata["metrics"]["val"]
    assert own["mean"]["average_precision"] == pytest.approx(card["mean_average_precision"], abs=0.002)
    assert own["mean"]["dice_at_default"] == pytest.approx(card["mean_dice_at_default"], abs=0.002)


def test_whole_ct_is_evaluated_through_the_pipeline(data_folder, tmp_path, capsys):
    case = tmp_path / "cases"
    case.mkdir()
    for suffix in ("ct", "lesion"):
        source = data_folder / "covid3d_medseg" / f"case2_{suffix}.nii.gz"
        (case / source.name).symlink_to(source)
    assert list(find_cases(case)) == ["case2"]
    assert main(["evaluate", "--data", str(case), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert results["cases"][0]["dice"] > 0.7 and results["mean_dice"] == results["cases"][0]["dice"]
    bias = results["lesion_volume_ml"]["bias"]
    assert bias == pytest.approx(results["cases"][0]["lesion_ml"] - results["cases"][0]["reference_ml"], abs=0.01)
    assert (tmp_path / "out" / "bland_altman.png").is_file() and (tmp_path / "out" / "case2.png").is_file()
    assert "Mean Dice" in capsys.readouterr().out


class Stub:
    """A pipeline whose heat is the same in all voxels of the lungs, and lesion from 0.4 on."""

    def __init__(self, heat: float) -> None:
        self.heat, self.lesion_bundle = heat, SimpleNamespace(name="stub", sha256="0")

    def run(self, volume):
        lungs = (volume.array < -500).astype(np.uint8)
        heat = np.where(lungs > 0, np.float32(self.heat), 0)
        return SimpleNamespace(lungs=lungs, heat=heat, lesions=(heat >= 0.4).astype(np.uint8), timings_s={"all": 1.0})


@pytest.mark.parametrize("heat", [0.3, 0.5, 0.99])
def test_cases_in_which_the_reader_found_nothing_count_whatever_was_found(tmp_path, monkeypatch, heat):
    monkeypatch.setattr("LesionDecompLib.evaluation.volumes.draw_overview", lambda *_: Image.new("RGB", (4, 4)))
    hu = np.full((4, 20, 20), -900, np.int16)
    for name, marked in (("empty", 0), ("some", 50), ("normal1", None)):
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / f"{name}_ct.nii.gz"))
        if marked is not None:
            mask = np.zeros(hu.shape, np.uint8)
            mask.flat[:marked] = 1
            sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / f"{name}_lesion.nii.gz"))
    results = evaluate_volumes(tmp_path, Stub(heat), tmp_path / "pictures")
    assert results["lesion_volume_ml"]["cases"] == 2
    found = 1.6 if heat >= 0.4 else 0.0
    assert results["lesion_volume_ml"]["bias"] == pytest.approx((found + found - 0.05) / 2, abs=1e-3)
    empty = next(case for case in results["cases"] if case["case"] == "empty")
    assert empty["best_dice"] is None and empty["best_threshold"] is None


def test_ct_without_masks_are_named_and_so_is_the_case_of_an_error(tmp_path, monkeypatch, capsys):
    hu = sitk.GetImageFromArray(np.full((4, 20, 20), -900, np.int16))
    for name in ("one_ct", "one_lesion", "stray_ct"):
        sitk.WriteImage(hu * 0 if "lesion" in name else hu, str(tmp_path / f"{name}.nii.gz"))
    assert main(["evaluate", "--data", str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 1
    assert "of 'one'" in capsys.readouterr().err  # too few slices for a chest
    monkeypatch.setattr("LesionDecompLib.pipeline.Segmenter", lambda *_, **__: Stub(0.5))
    monkeypatch.setattr("LesionDecompLib.evaluation.volumes.draw_overview", lambda *_: Image.new("RGB", (4, 4)))
    assert main(["evaluate", "--data", str(tmp_path), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert "Left out, without NAME_lesion.nii.gz: stray." in capsys.readouterr().out


def test_files_of_an_earlier_evaluation_go_with_its_results(slices, tmp_path):
    command = ["evaluate", "--data", str(slices), "--methods", "grey", "blurred_grey", "-o", str(tmp_path)]
    names = ["trainings.png", "bland_altman.png", "case7.png"]
    for name in names:
        (tmp_path / name).write_bytes(b"earlier")
    (tmp_path / "mine.png").write_bytes(b"mine")
    assert main(command) == 1 and not (tmp_path / "results.json").exists()
    (tmp_path / "results.json").write_text('{"cases": [{"case": "case7"}, {"case": "../mine"}]}', "utf-8")
    assert main(command) == 1
    assert main([*command, "--overwrite"]) == 0
    assert not any((tmp_path / name).exists() for name in names) and (tmp_path / "mine.png").read_bytes() == b"mine"
    assert (tmp_path / "table.md").is_file()


def test_slices_without_lesion_have_no_interval_and_no_dice(slices, tmp_path):
    data = tmp_path / "set"
    shutil.copytree(slices, data)
    for mask in data.glob("*-test-lesion-*.png"):
        if mask.name.split("-")[0] in ("ann0", "ann1", "sel"):
            Image.fromarray(np.zeros((64, 64), np.uint8)).save(mask)
    test, val = SliceSet.load(data, "test"), SliceSet.load(data, "val")
    nothing = Localizer("none", "grey", lambda images: np.zeros(images.shape, np.float32), 0.4)
    _, results = evaluate_localizers([nothing], test, val, "test")
    mean = results["methods"]["none"]["mean"]
    assert mean["mean_slice_dice"] is None and mean["average_precision_interval"] is None
    write_table(results, tmp_path / "table.md")
    assert "| none | 0.000 | " in (tmp_path / "table.md").read_text("utf-8").replace(" (floor)", "")


def test_resamples_without_lesion_do_not_count_and_one_scan_has_no_interval(slices):
    rng = np.random.default_rng(2)
    with_lesion, without = HeatCounts(), HeatCounts()
    mask = rng.random(5000) < 0.2
    with_lesion.add(np.clip(rng.normal(0.3 + 0.3 * mask, 0.05), 0, 1), mask)
    without.add(rng.random(500) * 0.3, np.zeros(500, bool))
    metrics = resampled_metrics([with_lesion, without], np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]]), 0.4)
    assert np.isnan(metrics["average_precision"]).tolist() == [False, True, False]
    low, high = interval(metrics["average_precision"])
    assert 0.9 < low <= high and interval(np.full(3, np.nan)) is None
    val = SliceSet.load(slices, "val")
    kept = val.scans == "val-lesion-0"
    one = replace(
        val,
        images=val.images[kept],
        lesion=val.lesion[kept],
        scans=val.scans[kept],
        files=tuple(file for file, keep in zip(val.files, kept, strict=True) if keep),
    )
    bright = Localizer("bright", "grey", lambda images: images.astype("f4") / 255, 0.5)
    _, results = evaluate_localizers([bright], one, val, "val")
    entry = results["methods"]["bright"]["mean"]
    assert entry["average_precision"] > 0.8 and entry["average_precision_interval"] is None


def test_without_val_a_method_without_threshold_is_refused_before_any_heat(slices):
    data = SliceSet.load(slices, "test")
    row = Localizer("row", "grey", lambda images: pytest.fail("heat was computed"))
    with pytest.raises(LesionDecompError, match="'row' without threshold"):
        evaluate_localizers([row], data, None, "test")


def test_a_lung_model_is_refused_and_an_installed_baseline_is_found_by_its_name(
    slices, bundles, tmp_path, monkeypatch, capsys
):
    command = ["evaluate", "--data", str(slices), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--models", str(find_bundle(None, "lungs").path)]) == 1
    assert "a model that finds lesions" in capsys.readouterr().err
    installed = tmp_path / "models"
    shutil.copytree(bundles["va-gan"].path, installed / "mine")
    monkeypatch.setattr("LesionDecompLib.models.bundle.model_folders", lambda: [installed])
    assert main([*command, "--models", "mine", "--methods", "va-gan"]) == 0


def test_two_cases_of_one_name_are_refused(tmp_path):
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "normal1_ct.nii.gz").touch()
    with pytest.raises(LesionDecompError, match="two cases named 'normal1'"):
        find_cases(tmp_path)


def test_the_heats_source_is_the_better_one_on_val(slices):
    torch.manual_seed(0)
    network = DecompositionNet(channels=4, levels=3, gated=True).eval()
    data = SliceSet.load(slices, "val")

    def precision(definition: HeatDefinition) -> float:
        counts, _ = count_heat(slice_heat(network, definition, data.images, torch.device("cpu")), data)
        return float(np.mean([count.average_precision() for count in counts.values()]))

    alone = {source: precision(HeatDefinition(source)) for source in ("gate", "both")}
    better = max(alone, key=alone.get)
    assert alone["gate"] != alone["both"]
    for sources in (("gate", "both"), ("both", "gate")):
        assert fit_scale(network, HeatDefinition("gate"), data, torch.device("cpu"), sources).source == better
    assert fit_scale(network, HeatDefinition("gate"), data, torch.device("cpu")).source == "gate"


def test_normal_slices_of_other_scanners_raise_the_threshold(slices, tmp_path):
    torch.manual_seed(0)
    network = DecompositionNet(channels=4, levels=3, gated=True).eval()
    val, other = SliceSet.load(slices, "val"), SliceSet.load(write_training_set(tmp_path / "other"), "train")
    device = torch.device("cpu")
    images = np.where(other.images > 0, 255, 0).astype(np.uint8)  # as hot as this network gets
    hot, cold = (replace(other, images=part) for part in (images, np.zeros_like(images)))
    raised, kept, alone = (
        fit_scale(network, HeatDefinition("gate"), val, device, more=more).raw for more in ([hot], [cold], [])
    )
    assert kept == alone
    assert raised[2] >= kept[2]
