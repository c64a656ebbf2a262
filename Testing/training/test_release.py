"""What a bundle takes along when it is released: provenance, scores, and how far bfloat16 changes its heat."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from LesionDecompLib.errors import InputError
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.models.runtime import BF16_HEAT_ERROR
from LesionDecompLib.training.release import main, release, score_summary
from repository import CHEST, TESTING

SHIPPED = find_bundle(None, "lungs")
CASES = TESTING / "tools" / "lung_training" / "cases.csv"


@pytest.mark.slow
def test_a_lesion_bundle_is_released_with_its_error_in_bfloat16(tmp_path: Path, capsys):
    shipped = find_bundle(None, "lesions")
    arguments = ["--run", str(shipped.path), "-o", str(tmp_path / "bundle"), "--name", "mine", "--bfloat16"]
    assert main([*arguments, str(CHEST / "ct.nrrd")]) == 0
    bundle = ModelBundle.load(tmp_path / "bundle", "lesions")
    assert bundle.name == "mine" and bundle.sha256 in capsys.readouterr().out
    assert 0 < bundle.metadata[BF16_HEAT_ERROR] < 0.5
    assert bundle.metadata["metrics"] == shipped.metadata["metrics"]


def test_a_lung_bundle_names_the_collections_of_the_scans_that_it_learned_from(tmp_path: Path):
    shipped = find_bundle(None, "lungs")
    bundle = release(shipped.path, tmp_path / "bundle", cases=[CASES])
    rows = bundle.metadata["training"]["collections"]
    assert sum(row["scans"] for row in rows) == 38  # of 47: the others are of patients that it is judged by
    assert not any("landmarks" in json.dumps(row) for row in rows)
    with pytest.raises(InputError, match="without its table"):
        release(shipped.path, tmp_path / "other")


def test_a_bundle_may_be_the_mean_of_two_runs(tmp_path: Path):
    shipped = find_bundle(None, "lungs")
    network, held = shipped.network(), shipped.network().state_dict()
    network.load_state_dict({key: value + 1.0 for key, value in held.items()})
    other = ModelBundle.save(tmp_path / "other", network, dict(shipped.metadata))
    bundle = release(shipped.path, tmp_path / "mean", cases=[CASES], blend=(other.path, 0.25))
    for key, value in bundle.network().state_dict().items():
        if value.is_floating_point():  # stored in 16 bits
            torch.testing.assert_close(value, held[key] + 0.25, rtol=1e-3, atol=2e-3)
    assert bundle.metadata["training"]["blend"]["share"] == 0.25
    for blend in ((find_bundle(None, "lesions").path, 0.5), (other.path, 1.5)):
        with pytest.raises(InputError, match="a network like"):
            release(shipped.path, tmp_path / "none", cases=[CASES], blend=blend)
    assert not (tmp_path / "none").exists()


def test_the_error_in_bfloat16_is_that_of_the_mean_of_two_runs(tmp_path: Path, monkeypatch):
    shipped = find_bundle(None, "lesions")
    network, held = shipped.network(), shipped.network().state_dict()
    network.load_state_dict({key: value + 1.0 for key, value in held.items()})
    other = ModelBundle.save(tmp_path / "other", network, dict(shipped.metadata))
    measured = []

    def error(bundle: ModelBundle, files) -> float:
        measured.append((bundle.network().state_dict(), files))
        return 0.00512

    monkeypatch.setattr("LesionDecompLib.training.release.bfloat16_heat_error", error)
    bundle = release(shipped.path, tmp_path / "mean", bfloat16=[Path("ct")], blend=(other.path, 0.25))
    assert bundle.metadata[BF16_HEAT_ERROR] == 0.0051
    ((weights, files),) = measured
    assert files == [Path("ct")] and weights.keys() == held.keys()
    assert all(torch.equal(value, weights[key]) for key, value in bundle.network().state_dict().items())


@pytest.mark.parametrize("share", ["0.3", "0"])
def test_a_share_of_no_bundle_is_refused(tmp_path: Path, capsys, share):
    with pytest.raises(SystemExit) as caught:
        main(["--run", "run", "-o", str(tmp_path / "none"), "--share", share])
    assert caught.value.code == 2 and "--share is the share of the bundle that --blend names" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_half_of_the_other_bundle_without_a_share(tmp_path: Path, monkeypatch):
    asked = []
    monkeypatch.setattr("LesionDecompLib.training.release.release", lambda *given: asked.append(given[-2]) or SHIPPED)
    arguments = ["--run", "run", "-o", str(tmp_path), "--blend", "other"]
    assert main(arguments) == main([*arguments, "--share", "0"]) == 0
    assert asked == [(Path("other"), 0.5), (Path("other"), 0.0)]


def test_a_lesion_bundle_names_the_collections_of_its_further_sets(tmp_path: Path):
    rows = [("train", "lesion", "nlst_1"), ("train", "normal", "nlst_1"), ("train", "normal", "sts_2")]
    text = "".join(f"{n}.png,{label},{split},{scan}\n" for n, (split, label, scan) in enumerate(rows))
    (tmp_path / "index.csv").write_text("file,label,split,scan\n" + text)
    shipped, cases = find_bundle(None, "lesions").path, [tmp_path / "index.csv"]
    bundle = release(shipped, tmp_path / "bundle", cases=cases, history="by hand")
    training = bundle.metadata["training"]
    assert training["history"] == "by hand"
    assert "1 lesion and 2 normal slices of 2 CT of 2 open collections" in training["data"]
    assert [row["name"] for row in training["collections"]] == ["NLST", "Soft-tissue-Sarcoma, cropped for IBSI"]
    assert "Yang Y" in training["attribution"] and "NLST" in training["license"]


def test_scores_of_volumes_lungs_and_points_are_summed_up(tmp_path: Path):
    file = tmp_path / "scores.json"
    file.write_text(json.dumps({"points": {"in_lung": [3, 4]}}))
    assert score_summary(file) == {"in_lung": {"right": 3, "of": 4}}
    rows = [{"case": name, "dice": dice, "swapped": 0.001} for name, dice in (("a", 0.9), ("b", 0.8))]
    file.write_text(json.dumps({"scores": rows}))
    assert np.isclose(score_summary(file)["mean_dice"], 0.85) and score_summary(file)["least_dice"] == 0.8
    file.write_text("{}")
    with pytest.raises(InputError, match="no scores"):
        score_summary(file)
