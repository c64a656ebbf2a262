"""The shipped model's card reports the bundle's own figures, and the command draws it anew."""

from __future__ import annotations

import numpy as np
from command_line import run_here
from LesionDecompLib.evaluation.model_card import BAD_NAME, CARD_NAME, GOOD_NAME, card_text
from LesionDecompLib.models.bundle import find_bundle
from PIL import Image


def test_the_shipped_card_reports_the_shipped_figures():
    bundle = find_bundle(None, "lesions")
    assert (bundle.path / CARD_NAME).read_text("utf-8") == card_text(bundle.metadata)
    for name in (GOOD_NAME, BAD_NAME):
        assert (bundle.path / name).stat().st_size < 300_000


def test_the_command_draws_the_card(capsys, data_folder, tmp_path):
    finished = run_here(capsys, "models", "--card", tmp_path, "--data", data_folder / "covid_slices")
    assert finished.status == 0, finished.err
    assert (tmp_path / CARD_NAME).read_text("utf-8").startswith("# lesions-decomposition")
    good, bad = (np.asarray(Image.open(tmp_path / name).convert("RGB"), dtype=int) for name in (GOOD_NAME, BAD_NAME))
    assert good.shape == bad.shape and (good != bad).any()


def test_a_card_without_slices_is_refused(capsys, tmp_path):
    finished = run_here(capsys, "models", "--card", tmp_path)
    assert finished.status == 1 and "Model card" in finished.err
