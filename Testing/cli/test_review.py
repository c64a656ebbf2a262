"""``segment --review``: files follow the reader's decisions, the report keeps the model's own values beside them."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import SimpleITK
from command_line import run_here, small_ct
from LesionDecompLib.__main__ import main
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.statistics import read_statistics_csv


@pytest.fixture(scope="module")
def plain(tmp_path_factory, models_of_module):
    """A run without a review, at a threshold that leaves several lesions: (folder, options, volume)."""
    folder = tmp_path_factory.mktemp("review")
    ct, mask, _ = small_ct(folder)
    volume, _ = read_volume(ct)
    options = [ct, "--lung-mask", mask, "--min-volume-ml", "0", "--device", "cpu", "--quiet"]
    assert main([str(o) for o in ["segment", *options, "-o", folder / "probe"]]) == 0
    heat = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "probe" / "heatmap.nrrd")))
    threshold = float(np.percentile(heat[heat > 0], 90))
    options += ["--threshold", f"{threshold:.4f}"]
    assert main([str(o) for o in ["segment", *options, "-o", folder / "plain"]]) == 0
    return folder, options, volume, round(threshold, 4)


def _array(path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def _review(plain, decision: str, voxel_kji: np.ndarray, name: str):
    folder, _, volume, threshold = plain
    report = json.loads((folder / "plain" / "report.json").read_text("utf-8"))
    where = (volume.ijk_to_ras @ (*voxel_kji[::-1], 1.0))[:3] * (-1, -1, 1)
    lesion = {"lps_mm": where.tolist(), "decision": decision, "threshold": threshold, "time": "2026-01-01T00:00:00Z"}
    path = folder / name
    path.write_text(json.dumps({"input_sha256": report["input"]["sha256"], "lesions": [lesion]}), "utf-8")
    return path, report


def test_a_rejected_lesion_leaves_files_and_tables_and_the_report_keeps_both(plain, capsys):
    from scipy.ndimage import label

    folder, options, volume, _ = plain
    before = _array(folder / "plain" / "lesions.nrrd")
    lesions, count = label(before, np.ones((3, 3, 3)))
    assert count > 1
    largest = int(np.argmax(np.bincount(lesions.ravel())[1:])) + 1
    voxel = np.argwhere(lesions == largest)[0]
    path, own = _review(plain, "reject", voxel, "review.json")
    done = run_here(capsys, "segment", *options, "-o", folder / "reviewed", "--review", path, "--report", "--methods")
    assert done.status == 0, done.err
    after = _array(folder / "reviewed" / "lesions.nrrd")
    np.testing.assert_array_equal(after, before * (lesions != largest))
    report = json.loads((folder / "reviewed" / "report.json").read_text("utf-8"))
    assert report["statistics"] == own["statistics"] and report["regions"] == own["regions"]
    shown = report["review"]["statistics"][0]
    assert shown["lesion_volume_ml"] == pytest.approx(np.count_nonzero(after) * volume.voxel_volume_ml)
    assert shown["lesion_count"] == count - 1
    table = read_statistics_csv(folder / "reviewed" / "statistics.csv")[0].values
    assert table["lesion_volume_ml"] == pytest.approx(shown["lesion_volume_ml"])
    assert report["review"]["lesions"][0]["decision"] == "reject" and len(report["parameters"]["review"]) == 64
    page = (folder / "reviewed" / "report.html").read_text("utf-8")
    assert "1 decision of a reader; without" in page
    assert "A reader rejected lesions; the measurements" in (folder / "reviewed" / "methods.txt").read_text("utf-8")


def test_the_report_names_the_review_that_was_read_though_it_has_changed_since(plain, capsys, monkeypatch):
    from LesionDecompLib.cli.batch.runner import CaseRunner

    folder, options, _, _ = plain
    voxel = np.argwhere(_array(folder / "plain" / "lesions.nrrd"))[0]
    path, _ = _review(plain, "reject", voxel, "changing.json")
    read, segment = path.read_bytes(), CaseRunner._segment

    def changed(self, case):
        path.write_bytes(read + b"\n")
        return segment(self, case)

    monkeypatch.setattr(CaseRunner, "_segment", changed)
    done = run_here(capsys, "segment", *options, "-o", folder / "changing", "--review", path)
    assert done.status == 0, done.err
    report = json.loads((folder / "changing" / "report.json").read_text("utf-8"))
    assert report["parameters"]["review"] == hashlib.sha256(read).hexdigest()


@pytest.mark.slow
def test_rerun_wants_the_review_and_a_review_of_another_ct_is_refused(plain, capsys):
    folder, options, _, _ = plain
    voxel = np.argwhere(_array(folder / "plain" / "lesions.nrrd"))[0]
    path, _ = _review(plain, "reject", voxel, "again.json")
    assert run_here(capsys, "segment", *options, "-o", folder / "first", "--review", path).status == 0
    rerun = ["rerun", folder / "first", options[0], "--lung-mask", options[2], "--quiet"]
    missing = run_here(capsys, *rerun, "-o", folder / "missing")
    assert missing.status == 1 and "no file for --review" in missing.err
    same = run_here(capsys, *rerun, "-o", folder / "same", "--review", path)
    assert same.status == 0, same.err + same.out
    text = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**text, "input_sha256": "0" * 64}), "utf-8")
    other = run_here(capsys, "segment", *options, "-o", folder / "other", "--review", path)
    assert other.status == 1 and "Reading the review" in other.err and "of the CT 000000000000" in other.err
