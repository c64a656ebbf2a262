"""A run can be repeated: to the byte, from its report alone; and what differs between two runs is reported."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from command_line import process_environment, run_here, small_ct, small_models, snapshot
from LesionDecompLib.cli import main
from LesionDecompLib.report.comparison import compare_reports, read_report


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    small_models(folder / ".lesiondecomp" / "models")
    return folder


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    ct, mask, _ = small_ct(folder)
    return folder, ct, mask


@pytest.fixture(scope="module")
def first(case, models_of_module):
    """A finished run with parameters of its own."""
    folder, ct, mask = case
    options = ["--threshold", "0.45", "--min-volume-ml", "0.3", "--batch-size", "3", "--device", "cpu", "--overview"]
    assert main(["segment", str(ct), "--lung-mask", str(mask), "-o", str(folder / "first"), *options]) == 0
    return folder / "first"


@pytest.mark.slow
def test_another_process_gives_the_same_bytes_and_other_threads_the_same_labels(case, home, tmp_path, capsys):
    (_, ct, mask), folder = case, tmp_path
    model = home / ".lesiondecomp" / "models" / "untrained-lesions"
    options = ["--lung-mask", mask, "--model", model, "--device", "cpu", "--overview", "--min-volume-ml", "0"]
    command = [sys.executable, "-m", "LesionDecompLib", "segment", ct, "-o", folder / "apart", *options]
    environment = {**process_environment(home), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "12345"}
    subprocess.run([*map(str, command)], env=environment, check=True, capture_output=True, timeout=300)
    threads = torch.get_num_threads()
    try:
        for name, count in (("here", 1), ("two", 2)):
            torch.set_num_threads(count)
            assert run_here(capsys, "segment", ct, "-o", folder / name, *options).status == 0
    finally:
        torch.set_num_threads(threads)
    apart, here = (snapshot(folder / name) for name in ("apart", "here"))
    tables = {"statistics.csv", "regions.csv"}
    assert set(apart) == {"heatmap.nrrd", "lungs.nrrd", "lesions.nrrd", "overview.png", "report.json"} | tables
    assert {name for name in apart if apart[name] != here[name]} <= {"report.json"}  # reports the time
    apart, here, two = (read_report(folder / name) for name in ("apart", "here", "two"))
    assert compare_reports(apart, here) == []
    # Sums in another order may change the heat's last digit; the report states why.
    assert {d.section for d in compare_reports(here, two, tolerance=1e-5)} <= {"device", "files"}
    assert [d.second for d in compare_reports(here, two) if d.section == "device"] == ["CPU, 2 threads (as asked)"]
    heat = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name / "heatmap.nrrd"))) for name in ("here", "two")]
    np.testing.assert_allclose(*heat, atol=1e-5)


class TestCompare:
    @pytest.mark.slow
    def test_a_run_is_the_same_as_its_repetition(self, first, case, tmp_path, capsys):
        (_, ct, mask), folder = case, tmp_path
        options = ("--threshold", "0.45", "--min-volume-ml", "0.3", "--batch-size", "3", "--device", "cpu")
        run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "b", *options, "--overview")
        done = run_here(capsys, "compare", first, folder / "b" / "report.json")
        assert done.status == 0 and not done.err
        lines = [line.split() for line in done.out.strip().splitlines()]
        assert all(line[-1] == "same" for line in lines) and len(lines) == 10

    @pytest.mark.slow
    def test_what_differs_is_named_with_both_values(self, first, case, tmp_path, capsys):
        (_, ct, mask), folder = case, tmp_path
        ct_too = folder / "other.nrrd"
        from LesionDecompLib.io.readers import read_volume, write_image

        volume, _ = read_volume(ct)
        write_image(ct_too, volume.array + 5, volume)
        options = ("--lung-mask", mask, "--threshold", "0.5", "--device", "cpu", "--batch-size", "3")
        assert run_here(capsys, "segment", ct_too, "-o", folder / "b", *options).status == 0
        done = run_here(capsys, "compare", first, folder / "b", "--json")
        assert done.status == 1
        reported = json.loads(done.out)
        assert reported["same"] is False
        by_name = {(d["section"], d["what"]): d for d in reported["differences"]}
        threshold = by_name["parameters", "threshold"]
        assert (threshold["first"], threshold["second"]) == (0.45, 0.5)
        assert threshold["change_percent"] == pytest.approx(100 * 0.05 / 0.45)
        assert {("input", "sha256"), ("input", "voxels_sha256"), ("parameters", "min_volume_ml")} <= set(by_name)
        lung = by_name["measurements", "both lungs.lung_hu_mean"]
        assert lung["second"] == pytest.approx(lung["first"] + 5)
        assert by_name["files", "overview.png"]["second"] is None
        assert not {section for section, _ in by_name} & {"models", "software", "device", "lung mask"}

        table = run_here(capsys, "compare", first, folder / "b").out
        assert "both lungs: Lung mean (HU)" in table and "right lung" not in table
        assert "0.45" in table and "+11.1 %" in table and "models" in table
        assert "right lung: Lung mean (HU)" in run_here(capsys, "compare", first, folder / "b", "--all").out

    def test_what_a_reader_left_is_compared_and_the_decisions_are(self, first):
        report = read_report(first)
        shown = {key: report[key] for key in ("statistics", "regions", "severity")}
        decision = {"lps_mm": [1.0, 2.0, 3.5], "decision": "reject", "threshold": 0.45, "time": "2026-01-01"}
        review = {"input_sha256": "ab", "lesions": [decision], "slices": [], **json.loads(json.dumps(shown))}
        review["statistics"][0]["lesion_volume_ml"] = 0.0
        reviewed = {**report, "review": review}
        found = compare_reports(report, reviewed)
        assert [(d.section, d.what) for d in found] == [
            ("review", "decision 1"),
            ("measurements", "both lungs.lesion_volume_ml"),
        ]
        assert found[0].second == "reject, from 0.45 at [1.0, 2.0, 3.5] mm"
        later = {**reviewed, "review": {**review, "lesions": [{**decision, "time": "2027-01-01"}]}}
        assert compare_reports(reviewed, later) == []

    def test_a_tolerance_is_for_figures_alone(self, first):
        report = read_report(first)
        other = json.loads(json.dumps(report))
        other["statistics"][0]["lung_volume_ml"] *= 1.004
        assert [d.section for d in compare_reports(report, other)] == ["measurements"]
        assert compare_reports(report, other, tolerance=0.005) == []
        other["parameters"]["threshold"] *= 1.004
        other["warnings"].append("Slices are 6.0 mm apart.")
        parameter, warning = compare_reports(report, other, tolerance=0.005)[:2]
        assert (parameter.section, warning.what) == ("parameters", "“Slices are 6.0 mm apart.”")

    @pytest.mark.parametrize("change", [lambda r: r["models"]["lesions"].update(version="9"),
                                        lambda r: r["software"].update(version="9"),
                                        lambda r: r["run"]["environment"].update(torch="9"),
                                        lambda r: r["run"].update(device="NVIDIA"),
                                        lambda r: r["run"]["precision"].update(lesions="other"),
                                        lambda r: r["run"]["engine"].update(lesions="other"),
                                        lambda r: r["lung_mask"].update(sha256="0")])  # fmt: skip
    def test_another_model_version_device_or_mask_is_a_difference(self, first, change):
        report = read_report(first)
        other = json.loads(json.dumps(report))
        change(other)
        assert len(compare_reports(report, other)) == 1
        other = json.loads(json.dumps(report))
        other["run"].update(finished_utc="later", timings_s={}, peak_memory_mib=1.0)
        assert compare_reports(report, other) == []

    @pytest.mark.parametrize(
        ("content", "reported"),
        [
            (None, "no file"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[" * 100000, "not JSON"),
            (b"[]", "not a report of LesionDecomp"),
            (b'{"report": "LesionDecomp", "report_version": 99}', "report version 99"),
            (b'{"report": "LesionDecomp", "report_version": 1, "input": 3}', "without 'input'"),
        ],
    )
    def test_what_is_no_report_ends_with_2(self, first, tmp_path, capsys, content, reported):
        if content is not None:
            (tmp_path / "x.json").write_bytes(content)
        done = run_here(capsys, "compare", first, tmp_path / "x.json")
        assert done.status == 2 and reported in done.err and not done.out


class TestRerun:
    @pytest.mark.slow
    def test_the_report_is_enough(self, first, case, tmp_path, capsys):
        (_, ct, mask), folder = case, tmp_path
        done = run_here(capsys, "rerun", first / "report.json", ct, "--lung-mask", mask, "-o", folder / "b", "--quiet")
        assert done.status == 0, done.err + done.out
        a, b = snapshot(first), snapshot(folder / "b")
        assert a.pop("report.json") and b.pop("report.json") and a == b

    def test_another_input_model_or_mask_is_refused_before_any_work(self, first, case, tmp_path, capsys):
        (_, ct, mask), folder = case, tmp_path
        before = snapshot(folder)
        done = run_here(capsys, "rerun", first, mask, "--lung-mask", mask, "-o", folder / "b")
        assert done.status == 1 and "Repeating the run" not in done.out and snapshot(folder) == before
        done = run_here(capsys, "rerun", first, ct, "-o", folder / "b")
        assert done.status == 1 and "--lung-mask" in done.err
        report = json.loads((first / "report.json").read_text("utf-8"))
        for key, reported in (("sha256", "other weights"), ("metadata_sha256", "other metadata")):
            changed = json.loads(json.dumps(report))
            changed["models"]["lesions"][key] = "0" * 64
            (folder / "changed.json").write_text(json.dumps(changed))
            done = run_here(capsys, "rerun", folder / "changed.json", ct, "--lung-mask", mask, "-o", folder / "b")
            assert done.status == 1 and reported in done.err
        changed = {**report, "input": {**report["input"], "sha256": "0" * 64}}
        (folder / "changed.json").write_text(json.dumps(changed))
        done = run_here(capsys, "rerun", folder / "changed.json", ct, "--lung-mask", mask, "-o", folder / "b")
        assert done.status == 1 and "found a CT with the hash" in done.err
        assert not (folder / "b").exists()

    @pytest.mark.slow
    def test_a_report_that_the_run_does_not_bear_out_is_reported(self, first, case, tmp_path, capsys):
        (_, ct, mask), folder = case, tmp_path
        report = json.loads((first / "report.json").read_text("utf-8"))
        report["statistics"][0]["lung_volume_ml"] += 1.0
        (folder / "claimed.json").write_text(json.dumps(report))
        done = run_here(capsys, "rerun", folder / "claimed.json", ct, "--lung-mask", mask, "-o", folder / "b")
        assert done.status == 1 and "differs from the report" in done.err and "Lung volume (mL)" in done.out


@pytest.mark.slow
def test_lung_labels_and_format_are_recorded_and_repeated(case, models_of_module, tmp_path, capsys):
    (_, ct, mask), folder = case, tmp_path
    image = sitk.ReadImage(str(mask))
    lungs = sitk.GetArrayFromImage(image)
    organs = np.where(lungs > 0, np.where(np.arange(lungs.shape[2]) < 32, 12, 10), 5).astype(np.uint8)
    labeled = sitk.GetImageFromArray(organs)
    labeled.CopyInformation(image)
    sitk.WriteImage(labeled, str(folder / "organs.nii.gz"))
    options = ["--lung-mask", folder / "organs.nii.gz", "--device", "cpu"]
    refused = run_here(capsys, "segment", ct, "-o", folder / "none", *options)
    assert refused.status == 1 and "the labels 5, 10, 12" in refused.err and "--lung-labels" in refused.err
    assert not (folder / "none").exists()
    options += ["--lung-labels", "10-14", "--format", "nii.gz"]
    assert run_here(capsys, "segment", ct, "-o", folder / "first", *options).status == 0
    report = read_report(folder / "first")
    assert report["parameters"]["lung_labels"] == "10-14" and report["parameters"]["format"] == "nii.gz"
    for name in ("heatmap", "lungs", "lesions"):
        nrrd, nifti = (sitk.ReadImage(str(folder / "first" / f"{name}.{kind}")) for kind in ("nrrd", "nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(nrrd), sitk.GetArrayFromImage(nifti))
        np.testing.assert_allclose(nrrd.GetOrigin(), nifti.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(nrrd.GetSpacing(), nifti.GetSpacing(), rtol=1e-6)
    given = ["--lung-mask", folder / "organs.nii.gz"]
    assert run_here(capsys, "rerun", folder / "first", ct, "-o", folder / "again", *given).status == 0
    assert (folder / "again" / "lungs.nii.gz").read_bytes() == (folder / "first" / "lungs.nii.gz").read_bytes()
