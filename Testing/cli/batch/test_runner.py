"""What a run with many inputs promises: it goes on where it was ended, and several processes do what one does."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_line import lungs_in_boxes, run_here, small_ct, snapshot
from LesionDecompLib.cli.batch.finished import source_state
from LesionDecompLib.io.readers import read_volume, write_image


@pytest.fixture
def models(models, monkeypatch):
    """Small untrained models; the air in two boxes stands in for what a trained lung network finds."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)


@pytest.fixture
def inputs(tmp_path):
    """Three CTs and a broken file, named in a list."""
    ct, _, volume = small_ct(tmp_path)
    folder = tmp_path / "Ein Satz"
    folder.mkdir()
    for name, step in (("c", 0), ("a", 3), ("b", 7)):
        write_image(folder / f"{name}.nrrd", volume.array + np.int16(step), volume)
    (folder / "kaputt.nii.gz").write_bytes(b"\x1f\x8b damaged")
    ct.unlink()
    listed = tmp_path / "inputs.txt"
    listed.write_text("\n".join(str(path) for path in sorted(folder.iterdir(), reverse=True)) + "\n\n", "utf-8")
    return folder, listed, tmp_path / "out"


def _results(out) -> dict[str, str]:
    """Everything that was written less the reports, which report times."""
    return {name: value for name, value in snapshot(out).items() if not name.endswith("report.json")}


@pytest.mark.slow
def test_a_second_run_skips_what_is_done_and_reports_the_same(inputs, models, capsys):
    _, listed, out = inputs
    first = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert first.status == 1 and "3 of 4 cases done" in first.err
    before, times = snapshot(out), {path: path.stat().st_mtime_ns for path in out.rglob("*.nrrd")}
    again = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert again.status == 1 and "3 of 4 cases are done already" in again.err
    assert snapshot(out) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.nrrd")} == times


@pytest.mark.slow
def test_an_ended_run_goes_on_and_its_summary_is_that_of_a_run_that_was_not(inputs, models, capsys):
    _, listed, out = inputs
    run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    whole = _results(out)
    # As a run leaves it that was killed in the middle of its second case.
    shutil.rmtree(out / "a")
    shutil.rmtree(out / "b")
    (out / "summary.csv").unlink()
    assert run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet").status == 1
    assert _results(out) == whole


@pytest.mark.slow
def test_an_input_that_was_only_copied_anew_costs_no_computation_and_a_changed_one_is_not_passed_over(
    inputs, models, capsys, monkeypatch
):
    folder, listed, out = inputs
    run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    before = _results(out)
    os.utime(folder / "a.nrrd", (1, 1))
    volume, _ = read_volume(folder / "b.nrrd")
    write_image(folder / "b.nrrd", volume.array + np.int16(1), volume)
    done = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet")
    assert done.status == 1 and "1 of 4 cases are done already" in done.err
    assert "/4 b] Opening the output folder: found an earlier report.json" in done.err
    after = _results(out)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"regions.csv", "summary.csv"}  # of which one reports that b failed, the other leaves it out
    replaced = run_here(capsys, "segment", "--list", listed, "-o", out, "--quiet", "--overwrite")
    assert "3 of 4 cases done" in replaced.err


@pytest.mark.parametrize(
    "other", [("--threshold", "0.7"), ("--min-volume-ml", "2"), ("--precision", "float32"), ("--engine", "torch")]
)
def test_results_of_other_parameters_are_neither_taken_for_done_nor_replaced(inputs, models, capsys, other):
    folder, _, out = inputs
    arguments = ["segment", folder / "a.nrrd", folder / "b.nrrd", "-o", out, "--quiet"]
    done = run_here(capsys, *arguments)
    assert done.status == 0, done.err
    before = snapshot(out)
    refused = run_here(capsys, *arguments, *other)
    assert refused.status == 1 and "an earlier heatmap.nrrd" in refused.err
    assert snapshot(out) == before


@pytest.mark.slow
def test_a_result_that_lacks_a_file_asked_for_is_not_done(inputs, models, capsys):
    folder, _, out = inputs
    arguments = ["segment", folder / "a.nrrd", folder / "b.nrrd", "-o", out, "--quiet"]
    run_here(capsys, *arguments)
    assert run_here(capsys, *arguments, "--overview").status == 1
    (out / "a" / "lungs.nrrd").unlink()
    assert run_here(capsys, *arguments).status == 1


def test_a_list_that_cannot_be_read_and_no_input_at_all_are_reported(tmp_path, capsys):
    done = run_here(capsys, "segment", "--list", tmp_path / "none.txt", "-o", tmp_path / "out")
    assert done.status == 1 and "found 'none.txt', which cannot be read" in done.err
    assert run_here(capsys, "segment", "-o", tmp_path / "out").status == 2
    assert not (tmp_path / "out").exists()


def test_the_state_of_an_input_reports_a_change_without_reading_it(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.dcm").write_bytes(b"x" * n)
    state = source_state(folder)
    assert (state["files"], state["bytes"]) == (3, 3)
    (folder / "2.dcm").write_bytes(b"abc")
    assert source_state(folder) != state


@pytest.mark.parametrize("ending", ["mhd", "nhdr"])
def test_the_state_of_an_image_is_that_of_the_files_with_its_voxels_too(tmp_path, ending):
    path = tmp_path / f"ct.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 8, 8), np.int16)), str(path))
    state, voxels = source_state(path), tmp_path / "ct.raw"
    assert state["files"] == 2 and state["bytes"] == path.stat().st_size + voxels.stat().st_size
    voxels.write_bytes(b"\1\0" * 256)
    os.utime(voxels, ns=(state["newest_change_ns"] + 10**9,) * 2)
    assert source_state(path) != state
    voxels.unlink()
    assert source_state(path)["files"] == 1
    path.write_bytes(b"no header")
    assert source_state(path)["files"] == 1


@pytest.mark.slow
def test_voxels_that_changed_beside_their_header_are_not_passed_over(tmp_path, models, capsys):
    _, _, volume = small_ct(tmp_path)
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing([4.0, 4.0, 4.0])
    for name in "ab":
        sitk.WriteImage(image + ord(name), str(tmp_path / f"{name}.mhd"))
    command = ["segment", tmp_path / "a.mhd", tmp_path / "b.mhd", "-o", tmp_path / "out", "--quiet"]
    assert run_here(capsys, *command).status == 0
    assert "2 of 2 cases are done already" in run_here(capsys, *command).err
    voxels, state = tmp_path / "b.raw", source_state(tmp_path / "b.mhd")
    voxels.write_bytes((np.frombuffer(voxels.read_bytes(), np.int16) + np.int16(5)).tobytes())
    os.utime(voxels, ns=(state["newest_change_ns"] + 10**9,) * 2)
    done = run_here(capsys, *command)
    assert done.status == 1 and "1 of 2 cases are done already" in done.err
    assert "/2 b] Opening the output folder: found an earlier" in done.err


@pytest.mark.slow
def test_the_benchmark_reports_the_case_its_networks_and_why_something_is_left_out(inputs, models, tmp_path, capsys):
    figures = tmp_path / "figures.json"
    done = run_here(capsys, "bench", inputs[0] / "a.nrrd", "--device", "cpu", "--repeats", "1", "-o", figures)
    assert done.status == 0, done.err
    reported = json.loads(figures.read_text("utf-8"))
    assert reported["case"] == {"size_ijk": [64, 64, 12], "axial_slices": 12}
    assert 0 < reported["networks_alone"]["wall_s"] < reported["end_to_end"]["wall_s"]
    # Stages are reported to the millisecond.
    assert sum(reported["stages_s"].values()) == pytest.approx(reported["end_to_end"]["wall_s"], rel=0.3, abs=0.1)
    assert set(reported["threshold_update"]) == {"64×64×12", "64×64×48"}
    assert "End to end over the networks alone" in done.out
    assert ("left_out" in reported["r231"]) == ("R231 left out" in done.out)
