"""The shipped model's card reports the bundle's own figures, and the command draws it anew."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run_here
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.evaluation.lung_card import lung_card_text, write_lung_card
from LesionDecompLib.evaluation.model_card import BAD_NAME, CARD_NAME, GOOD_NAME, card_text
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.training.lungs.collections import COLLECTIONS, scans_by_collection
from PIL import Image

# Their patients are those of the scans that the network is judged by.
LEFT_OUT = {"Lung-PET-CT-Dx", "RIDER Pilot", "CMB-CRC", "CPTAC-PDA", "ACRIN-FLT-Breast"}


def test_the_shipped_card_reports_the_shipped_figures():
    bundle = find_bundle(None, "lesions")
    assert (bundle.path / CARD_NAME).read_text("utf-8") == card_text(bundle.metadata)
    for name in (GOOD_NAME, BAD_NAME):
        assert (bundle.path / name).stat().st_size < 300_000


def test_the_command_draws_the_card(capsys, data_folder, tmp_path):
    finished = run_here(capsys, "models", "--card", tmp_path / "new", "--data", data_folder / "covid_slices")
    assert finished.status == 0, finished.err
    tmp_path = tmp_path / "new"
    assert (tmp_path / CARD_NAME).read_text("utf-8").startswith("# lesions-decomposition")
    good, bad = (np.asarray(Image.open(tmp_path / name).convert("RGB"), dtype=int) for name in (GOOD_NAME, BAD_NAME))
    assert good.shape == bad.shape and (good != bad).any()


def test_the_card_of_another_training_says_nothing_of_covid_and_no_file_is_replaced_unasked(
    capsys, data_folder, tmp_path
):
    metadata = find_bundle(None, "lesions").metadata
    own = {key: value for key, value in metadata["training"].items() if key not in ("attribution", "collections")}
    text = card_text(metadata | {"training": own})
    assert "trained on the lesions of its training data" in text and "trained on COVID-19" not in text
    (tmp_path / GOOD_NAME).write_bytes(b"mine")
    finished = run_here(capsys, "models", "--card", tmp_path, "--data", data_folder / "covid_slices")
    assert finished.status == 1 and "--overwrite" in finished.err
    assert (tmp_path / GOOD_NAME).read_bytes() == b"mine" and not (tmp_path / CARD_NAME).exists()


def test_a_card_without_slices_is_refused(capsys, tmp_path):
    finished = run_here(capsys, "models", "--card", tmp_path)
    assert finished.status == 1 and "Model card" in finished.err


def test_the_shipped_lung_card_reports_the_shipped_metrics_and_every_license():
    bundle = find_bundle(None, "lungs")
    card = (bundle.path / CARD_NAME).read_text("utf-8")
    assert card == lung_card_text(bundle.metadata)
    training = bundle.metadata["training"]
    names = {row["name"] for row in training["collections"]}
    assert names == {collection.name for collection in COLLECTIONS} - LEFT_OUT
    assert all(row["attribution"] in card and row["license"] in card for row in training["collections"])
    for name in (GOOD_NAME, BAD_NAME):
        assert (bundle.path / name).stat().st_size < 700_000


def test_a_lung_card_shows_the_best_and_the_worst_scans(tmp_path):
    shipped = find_bundle(None, "lungs")
    bundle = ModelBundle.save(tmp_path / "lungs", shipped.network(), dict(shipped.metadata))
    dice = {"a": 0.9, "b": 0.99, "c": 0.95, "d": 0.97, "nothing": 1.0}
    (tmp_path / "scores.json").write_text(json.dumps({"scores": [{"case": k, "dice": v} for k, v in dice.items()]}))
    for number, name in enumerate(dice):
        Image.new("RGB", (40, 30), (40 * number, 0, 0)).save(tmp_path / f"{name}.png")
    write_lung_card(bundle, tmp_path / "scores.json", tmp_path)
    for picture, shown in ((GOOD_NAME, (1, 3)), (BAD_NAME, (2, 0))):
        pixels = np.asarray(Image.open(bundle.path / picture).convert("RGB"))
        height = len(pixels)
        assert [round(int(pixels[height * part // 4, 0, 0]) / 40) for part in (1, 3)] == list(shown)
    with pytest.raises(LesionDecompError, match="no scores"):
        write_lung_card(bundle, tmp_path / "none.json", tmp_path)


def test_a_scan_of_unknown_origin_is_not_released():
    assert {c.name: n for c, n in scans_by_collection(["x/nlst_1", "x/sts_2", "sts_3"]).items()} == {
        "NLST": 1,
        "Soft-tissue-Sarcoma, cropped for IBSI": 2,
    }
    with pytest.raises(LesionDecompError, match="Provenance"):
        scans_by_collection(["x/somebody"])
