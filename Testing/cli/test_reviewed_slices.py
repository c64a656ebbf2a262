"""``slices --reviewed``: the seen slices of reviewed results join a training set, one CT after the other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import run_here, small_ct
from LesionDecompLib.__main__ import main
from LesionDecompLib.io.masks import read_lungs
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.report.finished_scan import read_finished
from LesionDecompLib.training.data.slices import read_index


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory, models_of_module):
    """A CT and its result, whose review marks slices as seen and paints one voxel: (CT, result, the voxel's slice)."""
    folder = tmp_path_factory.mktemp("reviewed")
    ct, mask, _ = small_ct(folder)
    options = [ct, "--lung-mask", mask, "--threshold", "1.0", "--device", "cpu", "--quiet"]
    assert main([str(o) for o in ["segment", *options, "-o", folder / "plain"]]) == 0
    report = json.loads((folder / "plain" / "report.json").read_text("utf-8"))
    volume, _ = read_volume(ct)
    inside = np.flatnonzero(read_lungs(mask, volume).array)
    flat = int(inside[len(inside) // 2])
    index = np.zeros(volume.shape, bool)
    index.flat[flat] = True
    painted = int(np.flatnonzero(volume.view.to_axial(index).any(axis=(1, 2)))[0])
    review = {
        "input_sha256": report["input"]["sha256"],
        "lesions": [{"lps_mm": [0, 0, 0], "decision": "paint", "threshold": 1.0, "time": "", "painted": [[flat, 1]]}],
        "slices": [
            *({"index": painted + n, "seen": True} for n in range(3)),
            {"index": painted + 2, "seen": False},
        ],
    }
    (folder / "review.json").write_text(json.dumps(review), "utf-8")
    done = ["segment", *options, "-o", folder / "case", "--review", folder / "review.json"]
    assert main([str(o) for o in done]) == 0
    return ct, folder / "case", painted


def test_slices_of_a_review_join_the_set_with_one_label_each(reviewed, tmp_path, capsys):
    ct, result, painted = reviewed
    report = json.loads((result / "report.json").read_text("utf-8"))
    assert [one["index"] for one in report["review"]["slices"] if one["seen"]] == [painted, painted + 1, painted + 2]
    assert report["statistics"][0]["lesion_count"] == 0  # the model's own
    assert report["review"]["statistics"][0]["lesion_count"] == 1
    # A follow-up measures what the reader has left.
    assert read_finished(result)[0].values("both lungs")["lesion_count"] == 1
    for _ in range(2):  # the same case again takes its own place
        done = run_here(capsys, "slices", ct, "--reviewed", result, "-o", tmp_path / "set", "--patient", "p7")
        assert done.status == 0, done.err
        assert "1 lesion and 1 normal slices joined 'train' (1 cases). Still needed" in done.out
    rows = read_index(tmp_path / "set")
    assert [(row["slice"], row["label"], row["patient"]) for row in rows] == [
        (str(painted), "lesion", "p7"),
        (str(painted + 1), "normal", "p7"),
    ]
    assert sorted(path.suffix for path in (tmp_path / "set").rglob("*.*") if path.is_file()) == [".csv", ".png", ".png"]


def test_a_result_without_a_review_or_of_another_ct_teaches_nothing(reviewed, tmp_path, capsys):
    ct, result, _ = reviewed
    plain = run_here(capsys, "slices", ct, "--reviewed", result.parent / "plain", "-o", tmp_path / "set")
    assert plain.status == 1 and "no slice that was marked as seen" in plain.err
    both = run_here(capsys, "slices", ct, ct, "--reviewed", result, "-o", tmp_path / "set")
    assert both.status == 1 and "2 CTs and 1 result folders" in both.err
    neither = run_here(capsys, "slices", ct, "-o", tmp_path / "set")
    assert neither.status == 2 and "--labels --reviewed" in neither.err
    assert not (tmp_path / "set").exists()
