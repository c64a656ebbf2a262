"""The command line on real CT: what it writes, what it states, how it ends."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from command_line import lungs_in_boxes, names, process_environment, run_apart, run_here, small_ct, snapshot
from dicom_files import SECRET_ID, SECRET_NAME, copy_slice, series_files
from LesionDecompLib.cli import main
from LesionDecompLib.cli.batch.plan import plan_cases
from LesionDecompLib.cli.progress import Progress
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.definitions import MEASUREMENTS
from LesionDecompLib.measurement.statistics import read_statistics_csv
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.models.weights import WEIGHTS_NAME
from LesionDecompLib.pipeline import Segmenter
from PIL import Image
from safetensors.torch import load_file

FILES = ["heatmap.nrrd", "lesions.nrrd", "lungs.nrrd", "regions.csv", "report.json", "statistics.csv"]


@pytest.fixture
def case(tmp_path):
    """A folder whose path has a space and an umlaut, with a CT and its lung mask in it."""
    folder = tmp_path / "Müller CT"
    folder.mkdir()
    ct, mask, volume = small_ct(folder)
    return folder, ct, mask, volume


@pytest.fixture
def boxes_of_air(monkeypatch):
    """Stands in for the lung network, which is untrained here: the air in two boxes is lung."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)


class TestOneCase:
    @pytest.mark.slow
    def test_process_in_another_folder_writes_everything_on_the_inputs_grid(self, case, home):
        folder, ct, mask, _ = case
        work = folder / "elsewhere"
        work.mkdir()
        done = run_apart(work, home, "segment", ct, "--lung-mask", "../lungs.nrrd", "-o", "out ü", "--overview")
        assert done.status == 0, done.err
        assert "Traceback" not in done.err and done.out.startswith("Lung volume ")
        out = work / "out ü"
        assert names(out) == sorted([*FILES, "overview.png"])
        assert names(work) == ["out ü"]
        source = sitk.ReadImage(str(ct))
        for name, kind in (("heatmap", np.float32), ("lungs", np.uint8), ("lesions", np.uint8)):
            image = sitk.ReadImage(str(out / f"{name}.nrrd"))
            assert (image.GetSize(), image.GetSpacing()) == (source.GetSize(), source.GetSpacing())
            assert (image.GetOrigin(), image.GetDirection()) == (source.GetOrigin(), source.GetDirection())
            assert sitk.GetArrayViewFromImage(image).dtype == kind
        heat, lungs, lesions = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(out / f"{name}.nrrd")))
            for name in ("heatmap", "lungs", "lesions")
        )
        given = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
        np.testing.assert_array_equal(lungs > 0, given > 0)
        assert heat.min() >= 0 and heat.max() <= 1 and not heat[given == 0].any()
        assert set(np.unique(lesions)) <= {0, 1} and not lesions[given == 0].any()
        with Image.open(out / "overview.png") as picture:
            assert min(picture.size) > 500

    @pytest.mark.slow
    def test_results_are_those_of_the_library(self, case, models, capsys):
        folder, ct, mask, volume = case
        run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", "--threshold", "0.5")
        lungs = sitk.GetArrayFromImage(sitk.ReadImage(str(mask)))
        result = Segmenter(device="cpu").run(volume, lung_mask=lungs, threshold=0.5)
        for name, array in (("heatmap", result.heat), ("lungs", result.lungs), ("lesions", result.lesions)):
            written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "out" / f"{name}.nrrd")))
            np.testing.assert_array_equal(written, array)
        rows = read_statistics_csv(folder / "out" / "statistics.csv")
        assert [row.region for row in rows] == [row.region for row in result.statistics]
        for row, expected in zip(rows, result.statistics, strict=True):
            for key, value in expected.values.items():
                np.testing.assert_allclose(row.values[key], value, rtol=1e-8)

    @pytest.mark.slow
    def test_report_is_enough_to_repeat_the_run(self, case, models, capsys):
        folder, ct, mask, volume = case
        options = ("--threshold", "0.45", "--min-volume-ml", "0.3", "--device", "cpu", "--batch-size", "3")
        run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", *options)
        report = json.loads((folder / "out" / "report.json").read_text("utf-8"))
        assert report["input"]["sha256"] == read_volume(ct)[1].sha256
        assert report["input"]["ijk_to_ras"] == volume.ijk_to_ras.tolist()
        assert report["input"]["size_ijk"] == [64, 64, 12]
        asked = {"device": "cpu", "batch_size": 3, "precision": "auto", "engine": "auto", "lung_labels": None}
        asked |= {"series": None, "regions": None, "methods": False, "healthy": False, "review": None, "format": "nrrd"}
        assert report["parameters"] == {"threshold": 0.45, "min_volume_ml": 0.3, **asked}
        model = bundles.find_bundle(None, "lesions")
        assert report["models"] == {
            "lungs": None,
            "lesions": {
                "name": model.name,
                "version": model.version,
                "task": "lesions",
                "sha256": model.sha256,
                "metadata_sha256": model.metadata_sha256,
            },
        }
        assert report["lung_mask"]["source"] == "supplied"
        assert {"python", "torch", "numpy", "SimpleITK"} <= set(report["run"]["environment"])
        assert {"reading", "lungs", "heat", "lesions", "statistics"} <= set(report["run"]["timings_s"])
        assert "esearch use only" in report["notice"]
        for name, digest in report["outputs"].items():
            assert hashlib.sha256((folder / "out" / name).read_bytes()).hexdigest() == digest
        assert set(report["outputs"]) == set(FILES) - {"report.json"}
        assert len(report["statistics"]) == 12
        assert set(report["statistics"][0]) == {"region", *(m.key for m in MEASUREMENTS)}

    @pytest.mark.slow
    def test_a_second_run_gives_the_same_bytes(self, case, models, capsys):
        folder, ct, mask, _ = case
        for name in ("a", "b"):
            run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / name, "--overview")
        a, b = snapshot(folder / "a"), snapshot(folder / "b")
        reports = [json.loads((folder / name / "report.json").read_text("utf-8")) for name in ("a", "b")]
        # Only what happened to the run may differ, and what shows it: the picture reports its times.
        for report in reports:
            report.pop("run")
            report["outputs"].pop("overview.png")
        assert reports[0] == reports[1]
        assert {name for name in a if a[name] != b[name]} <= {"report.json", "overview.png"}

    @pytest.mark.slow
    def test_overwrite_replaces_the_set_and_nothing_else(self, case, models, capsys):
        folder, ct, mask, _ = case
        out = folder / "out"
        run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", out, "--overview")
        (out / "my notes.txt").write_text("keep me")
        done = run_here(
            capsys, "segment", ct, "--lung-mask", mask, "-o", out, "--overwrite", "--threshold", "0.9", "--quiet"
        )
        assert done.status == 0
        assert names(out) == sorted([*FILES, "my notes.txt"])
        assert json.loads((out / "report.json").read_text("utf-8"))["parameters"]["threshold"] == 0.9

    @pytest.mark.slow
    def test_no_path_and_nothing_about_the_patient_leaves_a_dicom_folder(self, tmp_path, models, capsys):
        folder = tmp_path / "Zyzzogeton"
        folder.mkdir()
        for path in series_files()[30:42]:
            copy_slice(path, folder / path.name)
        _, mask, _ = small_ct(tmp_path)
        done = run_here(capsys, "segment", folder, "--lung-mask", mask, "-o", tmp_path / "out", "--overview")
        assert done.status == 0, done.err
        secrets = [*SECRET_NAME.split("^"), SECRET_ID, str(tmp_path), "20060101"]
        written = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".png")
        assert not [secret for secret in secrets if secret.encode() in written or secret in done.out + done.err]
        report = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
        assert report["input"]["format"] == "DICOM" and report["input"]["dicom"]["slice_thickness_mm"] == 3.98734

    def test_scene_holds_ct_heat_and_labels(self, case, models, capsys):
        pytest.importorskip("slicer", reason="needs slicer-core")
        folder, ct, mask, _ = case
        done = run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", "--scene")
        assert done.status == 0, done.err
        assert names(folder / "out") == sorted([*FILES, "scene.mrb"])
        assert (folder / "out" / "scene.mrb").read_bytes()[:2] == b"PK"

    def test_a_scene_that_cannot_be_made_is_reported_before_any_work(self, case, models, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "slicer", None)
        folder, ct, mask, _ = case
        before = snapshot(folder)
        done = run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", "--scene")
        assert done.status == 1 and "lesiondecomp[headless]" in done.err and snapshot(folder) == before


class TestSeveralCases:
    @pytest.mark.slow
    def test_each_gets_a_folder_and_a_row_and_a_failure_stops_nobody(self, case, models, boxes_of_air, capsys):
        folder, ct, _, _ = case
        broken, other = folder / "a broken one.nii.gz", folder / "zweite.nrrd"
        broken.write_bytes(b"\x1f\x8b damaged")
        shutil.copyfile(ct, other)
        done = run_here(capsys, "segment", other, broken, ct, "-o", folder / "out")
        assert done.status == 1
        assert names(folder / "out") == ["chest", "regions.csv", "summary.csv", "zweite"]
        assert names(folder / "out" / "chest") == names(folder / "out" / "zweite") == FILES
        with open(folder / "out" / "summary.csv", encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert [row["Case"] for row in rows] == ["a broken one", "chest", "zweite"]
        assert [row["Status"] for row in rows] == ["failed", "done", "done"]
        assert rows[0]["Message"].startswith("Reading the CT: found ")
        statistics = read_statistics_csv(folder / "out" / "chest" / "statistics.csv")[0]
        assert float(rows[1]["Lung volume (mL)"]) == statistics.values["lung_volume_ml"]
        assert rows[1]["Input SHA-256"] == rows[2]["Input SHA-256"] == read_volume(ct)[1].sha256
        assert "2 of 3 cases done" in done.err

    def test_earlier_results_of_one_case_refuse_all_before_any_work(self, case, models, capsys):
        folder, ct, _, _ = case
        (folder / "out" / "chest").mkdir(parents=True)
        (folder / "out" / "chest" / "report.json").write_text("{}")
        shutil.copyfile(ct, folder / "b.nrrd")
        before = snapshot(folder)
        done = run_here(capsys, "segment", folder / "b.nrrd", ct, "-o", folder / "out")
        assert done.status == 1 and "an earlier report.json in 'chest'" in done.err
        assert snapshot(folder) == before

    def test_an_earlier_summary_is_not_replaced_without_leave(self, case, models, capsys):
        folder, ct, _, _ = case
        (folder / "out").mkdir()
        (folder / "out" / "summary.csv").write_text("precious")
        shutil.copyfile(ct, folder / "b.nrrd")
        done = run_here(capsys, "segment", folder / "b.nrrd", ct, "-o", folder / "out")
        assert done.status == 1 and "summary.csv" in done.err
        assert (folder / "out" / "summary.csv").read_text() == "precious"

    def test_equal_names_get_folders_of_their_own(self, tmp_path):
        inputs = [tmp_path / part for part in ("p1/ct.nrrd", "p2/ct.nii.gz", "p2/CT.mha", "other.nrrd", "summary.csv")]
        cases = plan_cases(inputs, tmp_path / "out")
        assert [case.name for case in cases] == ["p1_ct", "p2_ct", "p2_CT-2", "other", "summary.csv-2"]
        assert [case.folder.parent for case in cases] == [tmp_path / "out"] * 5


class TestTheCommand:
    @pytest.mark.slow
    def test_help_answers_without_loading_torch_or_readers(self, home, tmp_path):
        code = (
            "import sys; from LesionDecompLib.cli import main\n"
            "for argv in ([], ['--help'], ['segment', '--help'], ['--version']):\n"
            "    main(argv)\n"
            "assert not {'torch', 'SimpleITK', 'skimage', 'scipy'} & set(sys.modules), sorted(sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=process_environment(home), capture_output=True, encoding="utf-8"
        )
        assert done.returncode == 0, done.stderr
        assert "--lung-mask" in done.stdout

    @pytest.mark.parametrize(
        "arguments",
        [
            ["segment"],
            ["segment", "a.nrrd"],
            ["segment", "a.nrrd", "-o", "out", "--threshold", "1.5"],
            ["segment", "a.nrrd", "-o", "out", "--threshold", "nan"],
            ["segment", "a.nrrd", "-o", "out", "--min-volume-ml", "-1"],
            ["segment", "a.nrrd", "-o", "out", "--batch-size", "0"],
            ["segment", "a.nrrd", "-o", "out", "--device", "gpu"],
            ["segment", "a.nrrd", "b.nrrd", "-o", "out", "--lung-mask", "m.nrrd"],
            ["segment", "a.nrrd", "-o", "out", "--unknown"],
            ["unknown"],
            [],
        ],
    )
    def test_wrong_usage_ends_with_2(self, capsys, tmp_path, monkeypatch, arguments):
        monkeypatch.chdir(tmp_path)
        done = run_here(capsys, *arguments)
        assert done.status == 2 and "usage: lesiondecomp" in done.err and "Traceback" not in done.err
        assert snapshot(tmp_path) == {}

    def test_models_lists_what_is_installed_and_what_does_not_verify(self, home, models, capsys, tmp_path, monkeypatch):
        done = run_here(capsys, "models")
        assert done.status == 0
        for text in ("untrained-lesions 0.0.1 (lesions, default)", "untrained-lungs", "for tests of lungs", "verified"):
            assert text in done.out
        shutil.copytree(home / ".lesiondecomp" / "models", tmp_path / "models")
        weights = tmp_path / "models" / "untrained-lungs" / WEIGHTS_NAME
        data = bytearray(weights.read_bytes())
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
        monkeypatch.setattr(bundles, "model_folders", lambda: [tmp_path / "models"])
        done = run_here(capsys, "models")
        assert done.status == 1 and "NOT USABLE" in done.out and "untrained-lesions 0.0.1" in done.out

    def test_models_converts_bundles_in_their_place(self, home, models, capsys, tmp_path):
        folder = tmp_path / "old"
        shutil.copytree(home / ".lesiondecomp" / "models" / "untrained-lungs", folder)
        state = load_file(folder / WEIGHTS_NAME)
        (folder / WEIGHTS_NAME).unlink()
        torch.save(state, folder / "weights.pt")
        metadata = json.loads((folder / "bundle.json").read_text("utf-8"))
        digest = hashlib.sha256((folder / "weights.pt").read_bytes()).hexdigest()
        old = {**metadata, "format_version": 1, "weights_sha256": digest}
        (folder / "bundle.json").write_text(json.dumps(old), "utf-8")
        for reported in ("old: converted to format 2", "old: is of format 2 already"):
            done = run_here(capsys, "models", "--convert", folder)
            assert (done.status, done.out.strip()) == (0, reported)
        assert names(folder) == ["bundle.json", WEIGHTS_NAME]
        assert json.loads((folder / "bundle.json").read_text("utf-8")) == metadata
        assert run_here(capsys, "models", "--convert", tmp_path).status == 1

    @pytest.mark.slow
    def test_demo_segments_the_sample_and_states_where_the_picture_is(
        self, models, boxes_of_air, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        done = run_here(capsys, "demo", "-o", "demo", "--device", "cpu")
        assert done.status == 0, done.err
        picture = done.out.strip().splitlines()[-1].removeprefix("Picture: ")
        assert picture == str(tmp_path / "demo" / "overview.png") and os.path.getsize(picture) > 50_000
        assert names(tmp_path / "demo") == sorted([*FILES, "overview.png"])

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)])
    def test_an_interrupt_half_way_leaves_nothing(self, case, home, number):
        folder, ct, mask, _ = case
        before = snapshot(folder)
        code = (
            "import sys, time; from LesionDecompLib.cli import main, progress\n"
            "def wait(self, stage, done, total):\n"
            "    print(stage, flush=True); time.sleep(60)\n"
            "progress.Progress.update = wait\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        options = ["segment", str(ct), "--lung-mask", str(mask), "-o", str(folder / "out")]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *options],
            env=process_environment(home),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert process.stdout.readline().strip() == "heat"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Interrupted" in err and "Traceback" not in err
        assert snapshot(folder) == before

    @pytest.mark.slow
    def test_a_reader_that_goes_away_causes_no_traceback(self, home):
        command = f'"{sys.executable}" -m LesionDecompLib models | true'
        done = subprocess.run(
            command, shell=True, env=process_environment(home), capture_output=True, encoding="utf-8", check=False
        )
        assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr

    @pytest.mark.slow
    @pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
    @pytest.mark.parametrize("ending", ["| true", ">&-", "2>&- >&-"])
    def test_work_goes_on_when_nobody_listens(self, case, home, ending):
        folder, ct, mask, _ = case
        command = (
            f'"{sys.executable}" -m LesionDecompLib segment "{ct}" --lung-mask "{mask}" -o "{folder}/out" {ending}'
        )
        subprocess.run(command, shell=True, env=process_environment(home), capture_output=True, check=False)
        assert names(folder / "out") == FILES

    @pytest.mark.parametrize("name", ["heatmap.nrrd", "lungs.nrrd"])
    def test_results_never_take_the_place_of_an_input(self, case, models, capsys, name):
        folder, ct, mask, _ = case
        (folder / "out").mkdir()
        ct, mask = ((ct.rename(folder / "out" / name)), mask) if name == "heatmap.nrrd" else (ct, folder / "out" / name)
        if name == "lungs.nrrd":
            (folder / "lungs.nrrd").rename(mask)
        before = snapshot(folder)
        done = run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", "--overwrite")
        assert done.status == 1 and f"the input '{name}'" in done.err and snapshot(folder) == before

    @pytest.mark.slow
    def test_quiet_states_nothing_but_warnings_and_figures(self, case, models, capsys):
        folder, ct, mask, _ = case
        done = run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out", "--quiet")
        assert all(line.startswith("lesiondecomp: Warning: ") for line in done.err.splitlines())
        assert len(done.out.splitlines()) == 1

    def test_the_shipped_models_verify(self, capsys):
        done = run_here(capsys, "models")
        assert done.status == 0 and done.out.count("verified") >= 2


class Screen:
    """A terminal that remembers what was printed."""

    def __init__(self, live: bool) -> None:
        self.text, self._live = "", live

    def isatty(self) -> bool:
        return self._live

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


class TestProgress:
    def test_a_terminal_sees_stage_slice_and_time_left_on_one_line(self, monkeypatch):
        clock = iter(np.arange(0, 100, 5.0))
        monkeypatch.setattr(time, "monotonic", lambda: next(clock))
        screen = Screen(live=True)
        progress = Progress(stream=screen)
        progress.begin_case("[1/2 case]")
        for done in range(3):
            progress.update("heat", done * 8, 40)
        progress.clear()
        lines = screen.text.split("\r")
        assert "\n" not in screen.text and "\x1b" not in screen.text
        assert lines[2] == "[1/2 case] Decomposing the slices, slice 8 of 40, 20 s left"
        assert lines[-1] == ""

    def test_a_log_gets_a_few_plain_lines(self):
        screen = Screen(live=False)
        progress = Progress(stream=screen)
        for stage, total in (("lungs", 500), ("heat", 500), ("lesions", 1)):
            for done in range(total + 1):
                progress.update(stage, done, total)
        assert screen.text.splitlines() == [
            "Finding the lungs, slice 0 of 500",
            "Decomposing the slices, slice 0 of 500",
            "Outlining the lesions",
        ]


def test_an_unforeseen_error_is_one_sentence_too(case, models, capsys, monkeypatch):
    folder, ct, mask, _ = case
    before = snapshot(folder)
    monkeypatch.setattr(Segmenter, "run", lambda *args, **kwargs: 1 / 0)
    done = run_here(capsys, "segment", ct, "--lung-mask", mask, "-o", folder / "out")
    assert done.status == 1 and "Internal error (ZeroDivisionError" in done.err and snapshot(folder) == before
    monkeypatch.setenv("LESIONDECOMP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["segment", str(ct), "--lung-mask", str(mask), "-o", str(folder / "out")])
