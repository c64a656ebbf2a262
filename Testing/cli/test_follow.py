"""``lesiondecomp follow``: on finished results with and without their CTs, on CTs; dates that stay out of files."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import lungs_in_boxes, names, run_here, small_ct, snapshot
from dicom_phantom import drawn_series, write_slices
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_stored, read_volume, write_image
from LesionDecompLib.measurement.change.definitions import CHANGES, change_measurement

FILES = ["change.csv", "change.json", "change.nrrd", "report.html", "trend.svg"]
DATES = ("2031-05-02", "2031-08-17")


@pytest.fixture(scope="module")
def chest(tmp_path_factory) -> tuple[Path, Path]:
    """A small CT and its lung mask."""
    ct, mask, _ = small_ct(tmp_path_factory.mktemp("chest"))
    return ct, mask


@pytest.fixture
def result(chest, models, tmp_path, capsys) -> Path:
    """The finished result of the CT; a block of its lung is lesion, whatever the untrained network found."""
    ct, mask = chest
    folder = tmp_path / "first"
    assert run_here(capsys, "segment", ct, "-o", folder, "--lung-mask", mask, "--quiet").status == 0
    return folder


def with_lesions(folder: Path, chest: tuple[Path, Path], rows: slice) -> Path:
    """A result folder whose lesions are these rows of the lungs; its measurements stay those of the network."""
    ct, _ = read_volume(chest[0])
    lungs, _ = read_volume_of(folder / "lungs.nrrd")
    lesions = np.zeros(ct.shape, np.uint8)
    lesions[:, rows] = lungs[:, rows] != 0
    write_image(folder / "lesions.nrrd", lesions, ct)
    return folder


def read_volume_of(path: Path) -> tuple[np.ndarray, np.ndarray]:
    stored = read_stored(path, "Reading")
    return stored.array, stored.ijk_to_ras


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "change.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_result_against_itself_is_persistent_alone(result, chest, tmp_path, capsys):
    with_lesions(result, chest, slice(20, 30))
    out = tmp_path / "follow"
    done = run_here(capsys, "follow", result, result, "--ct", chest[0], chest[0], "-o", out, "--quiet")
    assert done.status == 0, done.err
    assert "Scan 1 to 2: new 0.00 mL, grown 0.00 mL, persistent" in done.out
    assert names(out) == FILES
    labels, matrix = read_volume_of(out / "change.nrrd")
    lesions, own = read_volume_of(result / "lesions.nrrd")
    assert np.array_equal(labels, 3 * lesions)
    assert np.array_equal(matrix, own)
    record = json.loads((out / "change.json").read_text("utf-8"))
    (comparison,) = record["comparisons"]
    assert comparison["warnings"] == []
    assert comparison["registration"]["by"] == "CT"
    assert set(record["measurements"]) == {m.key for m in CHANGES}
    assert set(record["outputs"]) == {*FILES} - {"change.json"}
    row = table(out)[0]
    assert (row["Earlier"], row["Later"], row["Region"]) == ("scan 1", "scan 2", "both lungs")
    volume, _ = read_volume(chest[0])
    persistent = float(row[change_measurement("persistent_ml").header])
    assert persistent == pytest.approx(np.count_nonzero(lesions) * volume.voxel_volume_ml, rel=1e-6)


def test_without_the_cts_the_lungs_are_registered_with_a_warning(result, tmp_path, capsys):
    done = run_here(capsys, "follow", result, result, "-o", tmp_path / "follow", "--quiet")
    assert done.status == 0, done.err
    assert "the lungs' masks alone were registered" in done.err
    record = json.loads((tmp_path / "follow" / "change.json").read_text("utf-8"))
    assert [code["code"] for code in record["comparisons"][0]["warning_codes"]] == ["follow_without_ct"]
    assert "<img" not in (tmp_path / "follow" / "report.html").read_text("utf-8")


def test_regions_beside_the_lungs_or_beyond_the_ct_are_warned_of(result, chest, tmp_path, capsys):
    ct, _ = read_volume(chest[0])
    lungs, _ = read_volume_of(result / "lungs.nrrd")
    labels = np.where(lungs == 1, 1, np.where(lungs == 0, 5, 0)).astype(np.uint8)
    larger = np.concatenate([labels, np.full_like(labels[:2], 1)])  # two slices beyond, on the CT's lattice
    write_image(tmp_path / "regions.nrrd", larger, Volume(larger, ct.ijk_to_ras))
    arguments = ("--ct", chest[0], chest[0], "--regions", tmp_path / "regions.nrrd", "-o", tmp_path / "follow")
    done = run_here(capsys, "follow", result, result, *arguments, "--quiet")
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "follow" / "change.json").read_text("utf-8"))
    codes = [code["code"] for code in record["comparisons"][0]["warning_codes"]]
    assert codes == ["mask_beyond_ct", "regions_outside_lungs"]
    assert "do not meet the lungs were left out: region 5" in done.err


def test_scans_segmented_otherwise_are_a_warning_with_its_code(result, tmp_path, capsys):
    shutil.copytree(result, tmp_path / "second")
    report = json.loads((result / "report.json").read_text("utf-8"))
    report["parameters"]["threshold"] += 0.1
    (tmp_path / "second" / "report.json").write_text(json.dumps(report), "utf-8")
    done = run_here(capsys, "follow", result, tmp_path / "second", "-o", tmp_path / "follow", "--quiet")
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "follow" / "change.json").read_text("utf-8"))
    assert [code["code"] for code in record["warning_codes"]] == ["follow_thresholds"]
    assert [scan["warning_codes"] for scan in record["scans"]] == [report["warning_codes"]] * 2


def test_warnings_of_finished_scans_are_told(result, tmp_path, capsys):
    shutil.copytree(result, tmp_path / "second")
    report = json.loads((result / "report.json").read_text("utf-8"))
    report["warnings"] = ["Thick slices."]
    (tmp_path / "second" / "report.json").write_text(json.dumps(report), "utf-8")
    done = run_here(capsys, "follow", result, tmp_path / "second", "-o", tmp_path / "follow", "--quiet")
    assert done.status == 0, done.err
    assert "Scan 2: Warning: Thick slices." in done.err
    assert "Scan 1: Warning: Thick slices." not in done.err
    assert all("Scan 2: Thick slices." in row["Warnings"] for row in table(tmp_path / "follow"))


def test_another_ct_than_the_results_own_is_refused(result, chest, tmp_path, capsys):
    ct, _ = read_volume(chest[0])
    write_image(tmp_path / "other.nrrd", (ct.array + 1).astype(np.int16), ct)
    done = run_here(
        capsys, "follow", result, result, "--ct", chest[0], tmp_path / "other.nrrd", "-o", tmp_path / "out", "--quiet"
    )
    assert done.status == 1
    assert "with the hash" in done.err
    assert not (tmp_path / "out").exists()


def test_three_scans_give_a_labelmap_for_each_step_and_one_trend(result, chest, tmp_path, capsys):
    folders = [result]
    for name, rows in (("second", slice(20, 34)), ("third", slice(24, 34))):
        shutil.copytree(result, tmp_path / name)
        folders.append(with_lesions(tmp_path / name, chest, rows))
    with_lesions(result, chest, slice(20, 30))
    out = tmp_path / "follow"
    done = run_here(capsys, "follow", *folders, "-o", out, "--ct", *[chest[0]] * 3, "--quiet")
    assert done.status == 0, done.err
    assert names(out) == sorted({*FILES, "change-2.nrrd", "change-3.nrrd"} - {"change.nrrd"})
    second, third = (read_volume_of(out / f"change-{number}.nrrd")[0] for number in (2, 3))
    assert set(np.unique(second)) == {0, 2, 3}
    assert set(np.unique(third)) == {0, 3, 5}
    assert {(row["Earlier"], row["Later"]) for row in table(out)} == {("scan 1", "scan 2"), ("scan 2", "scan 3")}
    assert (out / "trend.svg").read_text("utf-8").count("<circle") == 3


def test_labelmaps_of_an_earlier_follow_up_with_more_scans_go(result, tmp_path, capsys):
    out = tmp_path / "follow"
    out.mkdir()
    for name in ("change-3.nrrd", "change-of-mind.nrrd"):
        (out / name).write_text("earlier")
    arguments = ("follow", result, result, "-o", out, "--quiet")
    refused = run_here(capsys, *arguments)
    assert refused.status == 1
    assert "an earlier change-3.nrrd in" in refused.err
    assert run_here(capsys, *arguments, "--overwrite").status == 0
    assert names(out) == sorted([*FILES, "change-of-mind.nrrd"])


@pytest.mark.parametrize("kept", [False, True])
def test_dates_are_written_only_when_asked_for(result, chest, tmp_path, capsys, kept):
    out = tmp_path / "follow"
    options = ["--keep-dates"] if kept else []
    done = run_here(
        capsys, "follow", result, result, "--ct", *[chest[0]] * 2, "--dates", *DATES, *options, "-o", out, "--quiet"
    )
    assert done.status == 0, done.err
    texts = {name: (out / name).read_bytes() for name in names(out)}
    found = {name for name, content in texts.items() if any(day.encode() in content for day in DATES)}
    assert found == ({"change.json", "report.html", "trend.svg"} if kept else set())
    record = json.loads(texts["change.json"])
    assert [scan["days_since_first"] for scan in record["scans"]] == [0, 107]
    assert ("day 107" in texts["trend.svg"].decode()) != kept


def test_dates_are_those_of_the_series_that_was_segmented(chest, models, monkeypatch, tmp_path, capsys):
    """Of a folder with two studies of the patient."""
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)
    volume, _ = read_volume(chest[0])
    studies, results = tmp_path / "studies", []
    for number, day in enumerate(DATES, start=1):
        slices = drawn_series(volume.array, number, AcquisitionDate=day.replace("-", ""))
        write_slices(studies, slices, f"S{number}-")
        results.append(tmp_path / f"result-{number}")
        done = run_here(capsys, "segment", studies, "--series", number, "-o", results[-1], "--quiet")
        assert done.status == 0, done.err
    done = run_here(capsys, "follow", *results, "--ct", studies, studies, "-o", tmp_path / "follow", "--quiet")
    assert done.status == 0, done.err
    record = json.loads((tmp_path / "follow" / "change.json").read_text("utf-8"))
    assert [scan["days_since_first"] for scan in record["scans"]] == [0, 107]


def test_cts_are_segmented_first(chest, models, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)
    out = tmp_path / "follow"
    done = run_here(capsys, "follow", chest[0], chest[0], "-o", out, "--quiet")
    assert done.status == 0, done.err
    assert names(out) == sorted([*FILES, "scan-1", "scan-2"])
    assert (out / "scan-1" / "report.json").is_file()
    assert set(np.unique(read_volume_of(out / "change.nrrd")[0])) <= {0, 3}
    again = run_here(capsys, "follow", chest[0], chest[0], "-o", out, "--quiet")
    assert again.status == 1
    assert "--overwrite" in again.err


def test_a_follow_up_is_not_written_among_the_files_of_its_input(result, tmp_path, capsys):
    later = tmp_path / "later"
    shutil.copytree(result, later)
    before = snapshot(later)
    done = run_here(capsys, "follow", result, later, "-o", later, "--overwrite", "--quiet")
    assert done.status == 1 and "found the input 'later' where the follow-up goes" in done.err
    assert snapshot(later) == before


def test_a_ct_is_not_segmented_into_the_place_of_a_finished_input(result, chest, tmp_path, capsys):
    out = tmp_path / "out"
    for name in ("scan-1", "scan-2"):
        shutil.copytree(result, out / name)
    before = snapshot(out)
    arguments = ("follow", chest[0], out / "scan-1", out / "scan-2", "-o", out, "--overwrite", "--quiet")
    done = run_here(capsys, *arguments)
    assert done.status == 1
    assert "found the input 'scan-1' where the result of another scan goes" in done.err
    mask = out / "scan-2" / "lungs.nrrd"
    done = run_here(capsys, "follow", chest[0], chest[0], "--regions", mask, "-o", out, "--overwrite", "--quiet")
    assert done.status == 1
    assert "found the input 'lungs.nrrd' where a result of that name goes" in done.err
    assert snapshot(out) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ct", "one.nrrd"], "--ct: 1 given for 2 scans"),
        (["--dates", "2031-05-02"], "--dates: 1 given for 2 scans"),
        (["--dates", "2031-08-17", "2031-05-02"], "EARLIER comes first"),
        (["--dates", "May", "June"], "is not a date like"),
    ],
)
def test_options_that_cannot_be_are_refused_before_any_work(tmp_path, capsys, options, words):
    done = run_here(capsys, "follow", "a", "b", *options, "-o", tmp_path / "out")
    assert done.status == 2
    assert words in done.err
    assert not (tmp_path / "out").exists()
