"""Scores of lung masks: sides as given, scans without lung, cases picked by what they are called."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import InputError, LesionDecompError
from LesionDecompLib.evaluation import lungs as evaluation
from LesionDecompLib.evaluation.lungs import (
    LungScore,
    cases_of_table,
    chosen_cases,
    means_by_tag,
    score_lungs,
    scores_content,
)
from LesionDecompLib.io.nrrd import write_nrrd
from LesionDecompLib.models.bundle import find_bundle

RAS = np.diag([-2.0, -2.0, 3.0, 1.0])


def _lungs(right: int = 1, left: int = 2) -> Volume:
    array = np.zeros((10, 40, 60), dtype=np.uint8)
    array[2:8, 10:30, 5:25] = right
    array[2:8, 10:30, 35:55] = left
    return Volume.from_array(array, RAS)


def test_sides_are_those_of_the_reference_where_it_reports_them():
    given = _lungs()
    same = score_lungs(given.array, given.array, given.view)
    assert same == {"dice": 1, "dice_right": 1, "dice_left": 1, "extra": 0, "missing": 0, "swapped": 0}
    swapped = score_lungs(_lungs(2, 1).array, given.array, given.view)
    assert (swapped["dice"], swapped["dice_right"], swapped["swapped"]) == (1, 0, 1)
    merged = _lungs(1, 1)
    assert score_lungs(given.array, merged.array, merged.view)["swapped"] == 0


def test_where_there_is_no_lung_anything_found_is_wrong():
    given = _lungs()
    nothing = np.zeros_like(given.array)
    assert score_lungs(nothing, nothing, given.view)["dice"] == 1
    wrong = score_lungs(given.array, nothing, given.view)
    assert wrong["dice"] == 0 and wrong["extra"] == pytest.approx(float(np.mean(given.array > 0)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = ("legs,P1,0,negative", "chest,P2,0,sides whole", "other,P2,0,sides sharp")
    (tmp_path / "cases.csv").write_text("case,patient,fold,tags\n" + "\n".join(rows) + "\n", "utf-8")
    return tmp_path / "cases.csv"


def test_cases_are_picked_by_name_patient_tag_or_fold(table):
    cases = cases_of_table(table.parent, table)

    def picked(only: str) -> list[str]:
        return [item.case.name for item in chosen_cases(cases, only)]

    assert picked("") == picked("fold:0") == ["legs", "chest", "other"]
    assert picked("P2") == ["chest", "other"] and picked("negative, sharp") == ["legs", "other"]
    with pytest.raises(LesionDecompError, match="no case 'nobody'"):
        picked("nobody")


def test_lungs_that_are_not_found_are_a_refusal_and_no_error(monkeypatch, tmp_path):
    volume = _lungs()
    for name, array in (("a_ct", volume.array.astype(np.int16)), ("a_lung", volume.array)):
        write_nrrd(tmp_path / f"{name}.nrrd", array, RAS)

    def refuses(*_):
        raise InputError("Lung segmentation", "3 mL of lung", "a chest")

    monkeypatch.setattr(evaluation, "segment_lungs", refuses)
    case = evaluation.LungCase("a", "a", tags=("whole",))
    item = evaluation.Reference(case, tmp_path / "a_ct.nrrd", tmp_path / "a_lung.nrrd")
    score, _, labels, _ = evaluation.evaluate_case(item, None, None)  # type: ignore[arg-type]
    assert not labels.any() and score.dice == 0 and "3 mL of lung" in score.refused


def test_means_are_of_each_tag_s_cases():
    def score(name: str, dice: float, *tags: str) -> LungScore:
        return LungScore(name, dice, dice, dice, 0, 0, 0.01, 1, 1, 1, (), tags=tags)

    means = means_by_tag([score("a", 0.9, "whole"), score("b", 1.0, "whole", "sharp")])
    assert means["whole"] == {"cases": 2, "mean_dice": 0.95, "least_dice": 0.9, "largest_swapped": 0.01}
    assert means["sharp"]["cases"] == 1


def test_a_lung_that_is_neither_there_nor_found_is_null_in_the_file():
    score = LungScore("a", 0.9, float("nan"), 0.9, 0, 0, 0, 0, 1, 1, ())
    content = json.loads(json.dumps(scores_content(find_bundle(None, "lungs"), [score]), allow_nan=False))
    assert content["scores"][0]["dice_right"] is None and content["scores"][0]["dice_left"] == 0.9
