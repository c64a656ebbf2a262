"""``lesiondecomp summary``: what a batch has left, counted at any time."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from batch_results import summary
from command_line import lungs_in_boxes, names, run_here, small_ct
from LesionDecompLib.__main__ import main
from LesionDecompLib.io.readers import write_image
from LesionDecompLib.report.cohort import OUTLIER, PLAIN, WARNED, Cohort, draw_cohort
from PIL import Image


@pytest.fixture(scope="module")
def finished(tmp_path_factory, home) -> Path:
    """A run of three CTs and a broken file."""
    folder = tmp_path_factory.mktemp("batch")
    *_, volume = small_ct(folder)
    studies = folder / "studies"
    studies.mkdir()
    for number in range(3):
        write_image(studies / f"ct{number}.nrrd", volume.array + np.int16(40 * number), volume)
    (studies / "kaputt.nii.gz").write_bytes(b"\x1f\x8b damaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("LesionDecompLib.segmentation.lungs.segment.segment_lungs", lungs_in_boxes)
        patch.setattr("LesionDecompLib.models.bundle.model_folders", lambda: [home / ".lesiondecomp" / "models"])
        assert main(["segment", str(studies), "-o", str(folder / "out"), "--quiet"]) == 1
    return folder / "out"


@pytest.fixture
def batch(finished, tmp_path) -> Path:
    """The same, for a test alone."""
    return shutil.copytree(finished, tmp_path / "out")


def test_it_is_what_the_run_wrote(batch, capsys):
    before = (batch / "summary.csv").read_bytes()
    done = run_here(capsys, "summary", batch)
    assert done.status == 0 and done.out.strip() == "3 done (3 with warnings), 1 failed"
    assert (batch / "summary.csv").read_bytes() == before


def test_regions_of_all_finished_cases_stand_beside_it(batch, capsys):
    before = (batch / "regions.csv").read_bytes()
    header, *rows = list(csv.reader(before.decode("utf-8-sig").splitlines()))
    assert header[:3] == ["Case", "Set", "Region"] and header[-2:] == ["Severity score", "Severity total"]
    assert sorted({row[0] for row in rows}) == ["ct0", "ct1", "ct2"] and len(rows) == 3 * 12
    own = list(csv.reader((batch / "ct1" / "regions.csv").read_text("utf-8-sig").splitlines()))[1:]
    assert [row[1:] for row in rows if row[0] == "ct1"] == [line[: len(header) - 1] for line in own]
    (batch / "regions.csv").unlink()
    shutil.rmtree(batch / "ct2")
    assert run_here(capsys, "summary", batch).status == 0
    again = list(csv.reader((batch / "regions.csv").read_text("utf-8-sig").splitlines()))
    assert again == [header, *(row for row in rows if row[0] != "ct2")]
    (batch / "regions.csv").write_text("of somebody else", "utf-8")
    done = run_here(capsys, "summary", batch)
    assert done.status == 0 and "left as it is" in done.err
    assert (batch / "regions.csv").read_text("utf-8") == "of somebody else"


def test_a_summary_of_somebody_else_stays_and_a_picture_beside_it(batch, capsys):
    for name in ("summary.csv", "summary.png"):
        (batch / name).write_text("of somebody else", "utf-8")
    done = run_here(capsys, "summary", batch, "--plot")
    assert done.status == 0 and done.out.strip() == "3 done (3 with warnings)"
    for name in ("summary.csv", "summary.png"):
        assert f"'{name}' is not that of a batch; it was left as it is." in done.err
        assert (batch / name).read_text("utf-8") == "of somebody else"


def test_a_batch_that_was_killed_before_its_first_summary_gets_one(batch, capsys):
    whole = summary(batch)
    (batch / "summary.csv").unlink()
    assert run_here(capsys, "summary", batch).status == 0
    assert summary(batch) == {name: row for name, row in whole.items() if row[0] == "done"}


def test_a_case_that_is_gone_is_not_run_and_a_failed_one_stays_so(batch, capsys):
    shutil.rmtree(batch / "ct1")
    (batch / "ct2" / "report.json").write_text("{}", "utf-8")
    done = run_here(capsys, "summary", batch)
    assert done.out.strip() == "1 done (1 with warnings), 1 failed, 2 not run"
    states = summary(batch)
    assert states["ct1"] == states["ct2"] == ("not run", "")
    assert states["kaputt"][0] == "failed" and states["kaputt"][1]


def test_a_folder_without_cases_is_refused_and_left_alone(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "none"):
        done = run_here(capsys, "summary", tmp_path / name)
        assert done.status == 1 and "Summarizing: found no" in done.err and name in done.err
    assert names(tmp_path / "empty") == []


def test_the_plot_shows_every_case(batch, capsys):
    assert run_here(capsys, "summary", batch, "--plot").status == 0
    with Image.open(batch / "summary.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert _has(pixels[580:870], WARNED)


class TestPicture:
    def cohort(self, *values: float, warned: int = 0) -> Cohort:
        flags = np.arange(len(values)) < warned
        return Cohort([f"case {n}" for n in range(len(values))], np.array(values), flags, {"failed": 2})

    def test_outliers_are_tukeys_and_marked(self):
        cohort = self.cohort(1, 2, 3, 4, 5, 6, 7, 30, float("nan"))
        assert cohort.fences() == (2.75 - 1.5 * 3.5, 6.25 + 1.5 * 3.5)
        assert np.flatnonzero(cohort.outliers()).tolist() == [7]
        dots = np.asarray(draw_cohort(cohort))[600:870]
        assert _has(dots, OUTLIER) and _has(dots, PLAIN) and not _has(dots, WARNED)

    def test_nothing_is_marked_where_nothing_is_to_be(self):
        dots = np.asarray(draw_cohort(self.cohort(1, 2, 3, 4)))[580:870]
        assert _has(dots, PLAIN) and not _has(dots, OUTLIER) and not _has(dots, WARNED)
        assert _has(np.asarray(draw_cohort(self.cohort(1, 2, 3, 4, warned=1)))[580:870], WARNED)

    @pytest.mark.parametrize("values", [(), (float("nan"),), (0.0,), (0.0, 0.0), (100.0,) * 3])
    def test_odd_batches_can_be_drawn(self, values):
        assert draw_cohort(self.cohort(*values)).size == (1600, 1000)

    def test_many_cases_stay_in_their_place(self):
        chance = np.random.default_rng(0)
        pixels = np.asarray(draw_cohort(self.cohort(*chance.gamma(1.0, 4.0, 20_000))))
        assert not _has(pixels[503:570, :80], PLAIN)
        assert not _has(pixels[505:560], PLAIN) and not _has(pixels[505:560], OUTLIER)


def _has(pixels: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((pixels == color).all(axis=-1).any())
