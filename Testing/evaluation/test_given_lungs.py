"""Every method on whole CT inside given lungs: metrics by hand, and the same whatever way the CT is stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from LesionDecompLib.cli import main
from LesionDecompLib.evaluation.baselines.run import train_baseline
from LesionDecompLib.evaluation.given_lungs import evaluate_inside, metrics_inside
from LesionDecompLib.evaluation.localizers import localizers_of
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.training.config import change
from tiny_training import write_training_set

pytestmark = pytest.mark.slow


def write_case(folder: Path, name: str, axes: str | None = None) -> None:
    """A chest of 80×96×12 voxels, 3 × 3 × 6 mm: two lungs, a dense ball in one, its mask, and the lungs' mask."""
    rng = np.random.default_rng(3)
    z, y, x = np.mgrid[:12, :80, :96]
    lungs = np.zeros(z.shape, np.uint8)
    for label, middle in ((1, 28), (2, 68)):
        lungs[((x - middle) / 16) ** 2 + ((y - 40) / 28) ** 2 + ((z - 5.5) / 7) ** 2 < 1] = label
    lesion = ((x - 28) ** 2 + (y - 44) ** 2 + (2 * (z - 5)) ** 2 < 80).astype(np.uint8)
    hu = np.where(lungs > 0, -840 + 30 * rng.standard_normal(z.shape), 40.0)
    hu[lesion > 0] = -250
    for suffix, array in (("ct", hu.round().astype(np.int16)), ("lung", lungs), ("lesion", lesion)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((3.0, 3.0, 6.0))
        image = image if axes is None else sitk.DICOMOrient(image, axes)
        sitk.WriteImage(image, str(folder / f"{name}_{suffix}.nii.gz"))


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    write_case(folder, "one")
    write_case(folder, "turned", "SPR")
    return folder


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> list[ModelBundle]:
    """A classifier and a VA-GAN, trained for two steps."""
    folder = tmp_path_factory.mktemp("baselines")
    data = write_training_set(folder / "set", test=2)
    small = {"steps": 2, "batch_lesion": 2, "batch_normal": 2, "crop": (64, 64), "shrink": 1}
    smaller = {
        "classifier": {"width": 4},
        "va-gan": {"channels": 4, "critic_channels": 4, "often_first": 0, "critic_steps_often": 1, "critic_steps": 1},
    }
    from LesionDecompLib.evaluation.baselines.config import BASELINES

    return [
        train_baseline(method, data, folder / method, change(BASELINES[method](), small | settings))
        for method, settings in smaller.items()
    ]


def test_figures_are_those_of_the_voxels_in_the_lungs():
    heat = np.array([0.9, 0.8, 0.4, 0.3, 0.95, 0.0]).reshape(1, 2, 3)
    lungs = np.array([1, 2, 1, 1, 0, 0]).reshape(1, 2, 3)
    lesion = np.array([1, 0, 1, 0, 1, 1], bool).reshape(1, 2, 3)
    metrics = metrics_inside(heat, lungs, lesion)
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)
    assert metrics["best_dice"] == pytest.approx(0.8) and 0.3 <= metrics["best_threshold"] <= 0.4
    assert metrics["prevalence"] == 0.5
    nothing = metrics_inside(heat, lungs, np.zeros(lungs.shape, bool))
    assert nothing == {"average_precision": None, "best_dice": None, "best_threshold": None, "prevalence": 0.0}


def test_a_dense_ball_is_found_and_the_way_the_ct_is_stored_changes_nothing(cases):
    localizers = localizers_of([find_bundle(None, "lesions")], ["heat", "grey", "blurred_grey"])
    results = evaluate_inside(localizers, cases)
    assert list(results) == ["lesions-decomposition", "grey", "blurred_grey"]
    for name, of_cases in results.items():
        assert of_cases["one"]["average_precision"] > 0.7 and of_cases["one"]["best_dice"] > 0.7, name
        assert of_cases["turned"] == pytest.approx(of_cases["one"], abs=1e-3), name
        assert 0.01 < of_cases["one"]["prevalence"] < 0.1


def test_the_command_judges_all_methods_case_by_case(cases, bundles, tmp_path, capsys):
    command = ["evaluate", "--data", str(cases), "--models", *(str(bundle.path) for bundle in bundles)]
    assert main([*command, "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))
    assert set(results["volumes"]) == {"classifier/cam", "classifier/grad-cam", "va-gan", "grey", "blurred_grey"}
    for name, of_cases in results["volumes"].items():
        assert list(of_cases) == ["one", "turned"], name
        for row in of_cases.values():
            assert 0 <= row["average_precision"] <= 1 and 0 <= row["best_dice"] <= 1
    assert "blurred_grey" in capsys.readouterr().out
    assert main([*command, "--methods", "va-gan", "-o", str(tmp_path / "va"), "--device", "cpu"]) == 0
    alone = json.loads((tmp_path / "va" / "results.json").read_text("utf-8"))["volumes"]
    assert alone == {"va-gan": results["volumes"]["va-gan"]}


def test_several_methods_need_given_lungs(tmp_path, bundles, capsys):
    write_case(tmp_path, "one")
    (tmp_path / "one_lung.nii.gz").unlink()
    command = ["evaluate", "--data", str(tmp_path), "--models", str(bundles[1].path), "--device", "cpu"]
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert "no lungs beside 'one'" in capsys.readouterr().err
