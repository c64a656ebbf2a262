"""``segment --regions`` and ``--methods``: what they write, what they record, and that a rerun asks for them."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest
import SimpleITK
from command_line import run_here, small_ct
from dicom_objects import square, write_rtstruct
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.masks import read_lungs
from LesionDecompLib.io.readers import read_volume, write_image
from LesionDecompLib.measurement.region_rows import CSV_HEADER


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A small CT, its lung mask, and its lobes as TotalSegmentator numbers them, cut by height and by depth."""
    folder = tmp_path_factory.mktemp("case")
    ct, mask, _ = small_ct(folder)
    volume, _ = read_volume(ct)
    lungs = read_lungs(mask, volume).array
    if lungs.max() == 1:
        lungs[:, :, lungs.shape[2] // 2 :] *= 2
    stack = volume.view.to_axial(lungs)
    z, y, _ = np.indices(stack.shape)
    top, front = stack.shape[0] // 2, stack.shape[1] // 2
    labels = np.zeros(stack.shape, np.uint8)
    labels[(stack == 1) & (z >= top)] = 12
    labels[(stack == 1) & (z < top) & (y < front)] = 13
    labels[(stack == 1) & (z < top) & (y >= front)] = 14
    labels[(stack == 2) & (z >= top)] = 10
    labels[(stack == 2) & (z < top)] = 11
    labels[~stack.astype(bool) & (y < 3)] = 5
    lobes = folder / "lobes.nrrd"
    write_image(lobes, np.ascontiguousarray(volume.view.from_axial(labels)), volume)
    return folder, ct, mask, lobes, volume


@pytest.fixture(scope="module")
def first(case, models_of_module):
    from LesionDecompLib.__main__ import main

    folder, ct, mask, lobes, _ = case
    options = [
        "--lung-mask",
        mask,
        "--regions",
        lobes,
        "--methods",
        "--healthy",
        "--min-volume-ml",
        "0",
        "--device",
        "cpu",
        "--quiet",
    ]
    assert main([str(o) for o in ["segment", ct, "-o", folder / "first", *options]]) == 0
    return folder / "first"


def test_regions_are_those_of_the_files_voxels(case, first):
    _, _, _, lobes, volume = case
    report = json.loads((first / "report.json").read_text("utf-8"))
    assert report["parameters"]["regions"] == hashlib.sha256(lobes.read_bytes()).hexdigest()
    labels, lungs, lesions = (
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
        for path in (lobes, first / "lungs.nrrd", first / "lesions.nrrd")
    )
    rows = {row["region"]: row for row in report["regions"] if row["set"] == "given"}
    names = {12: "right upper lobe", 13: "right middle lobe", 14: "right lower lobe"}
    names |= {10: "left upper lobe", 11: "left lower lobe"}
    assert set(rows) == {*names.values(), "elsewhere"}
    for label, name in names.items():
        inside = (labels == label) & (lungs > 0)
        assert rows[name]["lung_volume_ml"] == pytest.approx(np.count_nonzero(inside) * volume.voxel_volume_ml)
        assert rows[name]["lesion_volume_ml"] == pytest.approx(
            np.count_nonzero(inside & (lesions > 0)) * volume.voxel_volume_ml
        )
        assert rows[name]["lung_hu_mean"] == pytest.approx(volume.array[inside].mean())
        assert f"number {label} " in rows[name]["definition"] and "TotalSegmentator v2" in rows[name]["definition"]
    scores = report["severity"]["lobes"]
    assert scores["total"] == sum(part["score"] for part in scores["parts"]) and len(scores["parts"]) == 5
    (warning,) = [record for record in report["warning_codes"] if record["code"] == "regions_outside_lungs"]
    assert warning["value"] == 1 and "region 5" in warning["text"]


def test_the_table_says_what_the_report_says(first):
    report = json.loads((first / "report.json").read_text("utf-8"))
    header, *lines = list(csv.reader((first / "regions.csv").open(encoding="utf-8-sig", newline="")))
    assert header == CSV_HEADER and len(lines) == len(report["regions"])
    for line, row in zip(lines, report["regions"], strict=True):
        cells = dict(zip(header, line, strict=True))
        assert (cells["Set"], cells["Region"], cells["Definition"]) == (row["set"], row["region"], row["definition"])
        for key, measured in report["measurements"].items():
            if key in row and row[key] is not None:
                unit = f" ({measured['unit']})" if measured["unit"] else ""
                assert float(cells[measured["title"] + unit]) == pytest.approx(row[key], rel=1e-8)


def test_methods_text_is_written_and_part_of_the_set(first):
    report = json.loads((first / "report.json").read_text("utf-8"))
    text = (first / "methods.txt").read_text("utf-8")
    assert report["outputs"]["methods.txt"] == hashlib.sha256(text.encode()).hexdigest()
    assert "Regions supplied by the user (5 lobes)" in text and report["parameters"]["methods"] is True


def test_the_healthy_version_is_written_and_part_of_the_set(case, first):
    report = json.loads((first / "report.json").read_text("utf-8"))
    assert report["parameters"]["healthy"] is True and "healthy.nrrd" in report["outputs"]
    healthy, heat = (SimpleITK.ReadImage(str(first / f"{name}.nrrd")) for name in ("healthy", "heatmap"))
    assert healthy.GetPixelID() == SimpleITK.sitkInt16 and healthy.GetSize() == heat.GetSize()
    assert healthy.GetOrigin() == heat.GetOrigin() and healthy.GetDirection() == heat.GetDirection()
    cold = SimpleITK.GetArrayFromImage(heat) == 0
    ct = case[-1].array
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(healthy)[cold], ct[cold])


@pytest.mark.slow
def test_rerun_wants_the_same_regions_and_repeats_the_methods_text(case, first, models_of_module, capsys):
    folder, ct, mask, lobes, volume = case
    again = ["rerun", first, ct, "--lung-mask", mask, "-o", folder / "again", "--quiet"]
    missing = run_here(capsys, *again)
    assert missing.status == 1 and "no file for --regions" in missing.err
    other = folder / "other.nrrd"
    write_image(other, np.ones(volume.shape, np.uint8), volume)
    wrong = run_here(capsys, *again, "--regions", other)
    assert wrong.status == 1 and "another file for --regions" in wrong.err
    same = run_here(capsys, *again, "--regions", lobes)
    assert same.status == 0, same.err
    assert (folder / "again" / "healthy.nrrd").read_bytes() == (first / "healthy.nrrd").read_bytes()
    assert (folder / "again" / "methods.txt").read_bytes() == (first / "methods.txt").read_bytes()
    assert (folder / "again" / "regions.csv").read_bytes() == (first / "regions.csv").read_bytes()


@pytest.mark.slow
def test_a_batch_does_not_take_a_case_with_regions_for_done_and_wants_its_methods_text(case, models_of_module, capsys):
    folder, ct, mask, lobes, _ = case
    out = folder / "batch"
    one = ["segment", ct, "--lung-mask", mask, "-o", out / "chest", "--quiet"]
    assert run_here(capsys, *one, "--regions", lobes).status == 0
    second = folder / "second.nrrd"
    volume, _ = read_volume(ct)
    write_image(second, volume.array, volume)
    refused = run_here(capsys, "segment", ct, second, "-o", out, "--quiet")
    assert refused.status == 1 and "chest" in refused.err
    usage = run_here(capsys, "segment", ct, second, "-o", out, "--regions", lobes)
    assert usage.status == 2 and "--regions is for a single INPUT" in usage.err


def test_regions_on_another_grid_are_refused_before_the_networks_run(case, models_of_module, capsys):
    folder, ct, mask, _, volume = case
    far = volume.ijk_to_ras.copy()
    far[:3, 3] += 5000
    write_image(folder / "far.nrrd", np.ones(volume.shape, np.uint8), Volume(volume.array, far))
    done = run_here(capsys, "segment", ct, "--lung-mask", mask, "--regions", folder / "far.nrrd", "-o", folder / "far")
    assert done.status == 1 and "Reading the regions" in done.err
    assert not (folder / "far" / "report.json").exists()


def test_a_folder_with_contours_stands_for_their_file_and_one_with_several_is_refused(case, models_of_module, capsys):
    folder, ct, mask, _, volume = case
    drawn = folder / "drawn"
    drawn.mkdir()
    outlines = [square(volume.ijk_to_ras, k, (16, 48), (8, 32)) for k in range(volume.shape[0])]
    contours = write_rtstruct(drawn / "rt.dcm", {"half": outlines})
    options = ["--lung-mask", mask, "--device", "cpu", "--quiet"]
    done = run_here(capsys, "segment", ct, *options, "--regions", drawn, "-o", folder / "by-contours")
    assert done.status == 0, done.err
    report = json.loads((folder / "by-contours" / "report.json").read_text("utf-8"))
    assert report["parameters"]["regions"] == hashlib.sha256(contours.read_bytes()).hexdigest()
    assert "half" in [row["region"] for row in report["regions"]]
    result = folder / "by-contours"
    follow = ["follow", result, result, "--regions", drawn, "--quiet", "-o", folder / "followed"]
    done = run_here(capsys, *follow)
    assert done.status == 0, done.err
    change = json.loads((folder / "followed" / "change.json").read_text("utf-8"))
    assert change["parameters"]["regions"] == report["parameters"]["regions"]
    write_rtstruct(drawn / "second.dcm", {"half": outlines})
    for command in (["segment", ct, *options, "--regions", drawn, "-o", folder / "several"],
                    [*follow[:-1], folder / "several-followed"],
                    ["rerun", result, ct, *options[:2], "--regions", drawn, "-o", folder / "repeated"]):  # fmt: skip
        done = run_here(capsys, *command)
        assert done.status == 1 and "found a folder without a DICOM SEG or RTSTRUCT, or with several" in done.err
