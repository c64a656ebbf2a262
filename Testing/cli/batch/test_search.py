"""A folder of studies: what is found in it, what is left out and why, and how a run with it goes."""

from __future__ import annotations

import csv
import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from command_line import lungs_in_boxes, names, run_apart, run_here, small_ct
from dicom_files import copy_slice, series_files
from LesionDecompLib.cli.batch.plan import plan_cases
from LesionDecompLib.cli.batch.search import search_folder
from LesionDecompLib.io.readers import write_image


@pytest.fixture
def models(models, monkeypatch):
    """Small untrained models, and boxes for lungs."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)


def _series(folder: Path, uid: str = "1.2.3.4", **changes: str) -> Path:
    """Twelve slices of a real series under a UID of its own."""
    folder.mkdir(parents=True)
    for number, source in enumerate(series_files()[30:42]):
        copy_slice(source, folder / f"IM{number:04d}.dcm", g0020e000e=uid, **changes)
        (folder / f"IM{number:04d}.dcm").rename(folder / f"IM{number:04d}")  # as most archives name them
    return folder


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two patients with a CT each, one with a localizer beside it; image files, a mask, a text; nothing else."""
    root = tmp_path / "Archiv 1"
    _series(root / "p1" / "s1" / "CT", "1.2.3.1")
    _series(root / "p2" / "s1" / "CT", "1.2.3.2")
    scout = root / "p1" / "s1" / "scout"
    scout.mkdir()
    copy_slice(
        series_files()[30],
        scout / "IM0.dcm",
        g0020e000e="1.2.3.9",
        g0008e0008="ORIGINAL\\PRIMARY\\LOCALIZER",
    )
    files = root / "files"
    files.mkdir()
    small_ct(files)
    (root / ".hidden").mkdir()
    (root / ".hidden" / "ct.nrrd").write_bytes((files / "chest.nrrd").read_bytes())
    (root / "notes.txt").write_text("nothing to see", "utf-8")
    return root


def _relative(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_image_files_and_series_are_found_and_the_rest_is_reported(tree, tmp_path):
    search = search_folder(tree, tmp_path / "out")
    assert _relative(search.cases, tree) == ["files/chest.nrrd", "p1/s1/CT", "p2/s1/CT"]
    assert search.sentence(tree) == (
        "Found 3 CTs in 'Archiv 1'. Left out: 1 × 8-bit image: a labelmap or a picture (files/lungs.nrrd); "
        "1 × DICOM folder without a CT volume (p1/s1/scout); 1 × file of another type (notes.txt)."
    )
    found_in = dict.fromkeys(search.cases, tree)
    cases = plan_cases(search.cases, tmp_path / "out", found_in)
    assert [case.name for case in cases] == [
        "chest",
        "p1_s1_CT",
        "p2_s1_CT",
    ]  # as much of the path as distinguishes them
    assert [case.name for case in plan_cases(search.cases[:2], tmp_path, found_in)] == ["chest", "CT"]


def test_a_folder_with_one_series_is_that_series_however_deep_it_lies(tree, tmp_path):
    out = tmp_path / "out"
    assert search_folder(tree / "p1", out) is None  # with its localizer
    assert search_folder(tree / "p2" / "s1" / "CT", out) is None
    assert search_folder(tree / ".hidden" / "..", out) is not None
    small_ct(tree / "p2" / "s1" / "CT")  # a mask, or the same CT once more: no part of the series
    assert search_folder(tree / "p2" / "s1" / "CT", out) is None
    empty = tmp_path / "empty"
    empty.mkdir()
    assert search_folder(empty, out) is None  # reading it states what is missing


def test_a_series_spread_over_folders_is_one_case_or_left_out(tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    parts = [_series(root / "p1" / "CT" / name, "1.2.3.1") for name in ("a", "b")]
    assert search_folder(root, out) is None
    _series(root / "p2", "1.2.3.2")
    assert _relative(search_folder(root, out).cases, root) == ["p1/CT", "p2"]
    parts[1].rename(root / "p3")
    search = search_folder(root, out)
    assert _relative(search.cases, root) == ["p2"]
    assert "2 × series in several folders that hold others, too (p1/CT/a, p3)" in search.sentence(root)


@pytest.mark.slow
def test_results_and_the_output_folder_are_no_studies(tmp_path, capsys, models):
    root = tmp_path / "studies"
    root.mkdir()
    ct, mask, volume = small_ct(root)
    mask.unlink()
    assert run_here(capsys, "segment", ct, "-o", root / "earlier", "--quiet").status == 0
    done = run_here(capsys, "segment", root, "-o", root / "results", "--quiet")
    assert done.status == 0, done.err
    assert "Found 1 CT in 'studies'. Left out: 1 × results of an earlier run (earlier)." in done.err
    assert names(root / "results") == ["chest", "regions.csv", "summary.csv"]  # a subfolder each, also for one
    report = (root / "results" / "chest" / "report.json").read_text("utf-8")

    # Another study has come: the first one is not computed again, and the results are not taken for studies.
    write_image(root / "more.nrrd", volume.array + np.int16(3), volume)
    again = run_here(capsys, "segment", root, "-o", root / "earlier" / ".." / "results", "--quiet")
    assert again.status == 0, again.err
    assert "Found 2 CTs in 'studies'. Left out: 1 × results of an earlier run (earlier); 1 × the output" in again.err
    assert "1 of 2 cases are done already" in again.err
    assert (root / "results" / "chest" / "report.json").read_text("utf-8") == report
    with (root / "results" / "summary.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [(row["Case"], row["Status"]) for row in csv.DictReader(file)] == [("chest", "done"), ("more", "done")]


def test_what_goes_with_one_input_does_not_go_with_a_folder_of_studies(tmp_path, capsys):
    root = tmp_path / "studies"
    root.mkdir()
    _, mask, _ = small_ct(root)
    assert run_here(capsys, "segment", root, "-o", tmp_path / "out", "--lung-mask", mask).status == 2
    (root / "chest.nrrd").unlink()
    alone = run_here(capsys, "segment", root, "-o", tmp_path / "out")
    assert alone.status == 1
    assert "Found 0 CTs" in alone.err and "8-bit image" in alone.err and "no CT in 'studies'" in alone.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_of_its_own_over_a_tree(tree, tmp_path):
    (tmp_path / "home").mkdir()
    (tree / "p3").mkdir()
    (tree / "p3" / "broken.nii.gz").write_bytes(b"\x1f\x8b damaged")
    arguments = ["segment", tree, "-o", tmp_path / "out", "--device", "cpu,cpu", "--quiet"]
    done = run_apart(tmp_path, tmp_path / "home", *arguments)
    assert done.status == 1, done.err
    assert done.err.count("Found 4 CTs in 'Archiv 1'.") == 1  # by one of three processes
    assert "3 of 4 cases done" in done.err
    assert names(tmp_path / "out") == ["chest", "p1_s1_CT", "p2_s1_CT", "regions.csv", "summary.csv"]
    report = json.loads((tmp_path / "out" / "p1_s1_CT" / "report.json").read_text("utf-8"))
    assert report["input"]["format"] == "DICOM" and report["input"]["size_ijk"][2] == 12


def test_labelmaps_of_any_type_are_left_out_and_zip_archives_are_found(tmp_path):
    root = tmp_path / "studies"
    for number in (1, 2):
        (root / f"study {number}").mkdir(parents=True)
        ct, mask, volume = small_ct(root / f"study {number}")
        lungs, _ = read_volume_of_labels(mask)
        mask.unlink()
        write_image(root / f"study {number}" / "lungs16.nrrd", lungs.astype(np.int16), volume)
        sitk.WriteImage(sitk.GetImageFromArray(lungs.astype(np.int16)), str(root / f"study {number}" / "plain.nii"))
        write_image(root / f"study {number}" / "unsigned.nrrd", (volume.array + 1024).astype(np.uint16), volume)
    for name, content in (("dicom", series_files()[30:42]), ("image", [ct]), ("texts", [])):
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for file in content:
                archive.write(file, file.name)
            archive.writestr("read me.txt", "nothing to see")
    (root / "broken.zip").write_bytes(b"PK\3\4" + bytes(100))
    found = search_folder(root, tmp_path / "out")
    assert found is not None
    assert _relative(found.cases, root) == [
        "dicom.zip",
        "image.zip",
        *(f"study {n}/{name}.nrrd" for n in (1, 2) for name in ("chest", "unsigned")),
    ]
    assert sorted(found.left_out["labelmap"]) == [
        f"study {n}/{m}" for n in (1, 2) for m in ("lungs16.nrrd", "plain.nii")
    ]
    assert sorted(found.left_out["file of another type"]) == ["broken.zip", "texts.zip"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_of_utf8_are_read_like_others(tmp_path, capsys, models):
    root = tmp_path / os.fsdecode(b"Gr\xf6\xdfen")
    root.mkdir()
    ct, mask, volume = small_ct(root)
    for name in (b"\xfcber.nii.gz", b"sp\xe4t.mha", b"fr\xfch.nrrd"):
        image = sitk.GetImageFromArray(volume.array)
        image.SetSpacing([4.0, 4.0, 4.0])
        plain = tmp_path / f"plain{Path(os.fsdecode(name)).suffix.replace('.gz', '.nii.gz')}"
        sitk.WriteImage(image, str(plain))
        plain.rename(root / os.fsdecode(name))
    ct.unlink()
    mask.rename(root / os.fsdecode(b"ma\xdfke.nrrd"))
    done = run_here(capsys, "segment", root, "-o", tmp_path / "out", "--quiet")
    assert done.status == 0, done.err
    assert "Found 3 CTs" in done.err and "1 × 8-bit image" in done.err
    assert len(list((tmp_path / "out").glob("*/heatmap.nrrd"))) == 3


def read_volume_of_labels(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a file as it holds them, and its matrix."""
    from LesionDecompLib.io.nrrd import read_nrrd

    stored = read_nrrd(path, "Reading")
    return stored.array, stored.ijk_to_ras
