"""The page and the trend chart of a follow-up: complete, well formed, with pictures, and without dates unless asked."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from changing_scans import moved_pair
from LesionDecompLib.measurement.change.coarse import CoarseGrid
from LesionDecompLib.measurement.change.comparison import Comparison
from LesionDecompLib.measurement.change.definitions import COLORS, NAMES
from LesionDecompLib.measurement.change.labels import Change, label_change
from LesionDecompLib.measurement.change.motion import Motion
from LesionDecompLib.measurement.change.quality import Quality
from LesionDecompLib.measurement.change.registration import SPACING_MM
from LesionDecompLib.measurement.change.table import change_rows
from LesionDecompLib.report.change_pictures import change_pictures
from LesionDecompLib.report.follow import FollowUp
from LesionDecompLib.report.follow_files import write_follow
from LesionDecompLib.report.follow_page import follow_page
from LesionDecompLib.report.trend import trend_chart, trend_points

DATES = [date(2031, 5, 2), date(2031, 8, 17)]
REPORT = {
    "models": {"lesions": {"name": "a-model", "version": "1.0.0", "sha256": "0" * 64}},
    "parameters": {"threshold": 0.4, "min_volume_ml": 0.1},
    "warnings": [],
}


@pytest.fixture(scope="module")
def follow() -> FollowUp:
    """Two scans compared without registration: what is drawn does not depend on it."""
    pair = moved_pair()
    grid = CoarseGrid.around(pair.later, SPACING_MM)
    motion = Motion(grid, np.zeros((3, *grid.shape), np.float32))
    change = label_change(pair.earlier, pair.later, motion)
    found = Comparison(
        change.labels,
        change_rows(pair.earlier, pair.later, change)[0],
        change.counts,
        Quality(0.97, 1.2, 5.0, (8.0, 12.0), "CT"),
        motion,
        [],
    )
    return FollowUp([pair.earlier, pair.later], [REPORT, REPORT], [found], DATES)


def test_page_has_trend_pictures_tables_and_definitions(follow):
    page = follow_page(follow, follow.record())
    assert page.count("<img") == 4
    assert page.count("<svg") == 1
    for change in Change:
        assert f"<span>{NAMES[change]}</span><b>{follow.comparisons[0].ml(change):.2f}</b>" in page
    assert "Both lungs, upper third" in page
    assert "Registered by CT, affine" in page
    assert "2031" not in page.replace(follow.record()["run"]["finished_utc"][:4], "")
    assert "2031-08-17" in follow_page(replace(follow, keep_dates=True), replace(follow, keep_dates=True).record())


def test_page_counts_lesions_that_the_later_ct_does_not_show(follow):
    assert "not seen on the later CT" not in follow_page(follow, follow.record())
    counts = {"new": 1, "resolved": 0, "later_kept": 3, "earlier_kept": 3, "earlier_not_seen": 2}
    lost = replace(follow, comparisons=[replace(follow.comparisons[0], counts=counts)])
    page = follow_page(lost, lost.record())
    assert "Lesions: 1 new, 0 resolved, 3 still there, 2 earlier not seen on the later CT." in page


def test_warnings_of_the_scans_own_runs_stand_on_the_page_and_in_the_table(follow, tmp_path):
    assert "No warnings." in follow_page(follow, follow.record())
    warned = replace(follow, reports=[REPORT, {**REPORT, "warnings": ["Thick slices <10 mm>."]}])
    page = follow_page(warned, warned.record())
    assert "No warnings." not in page
    scans = page[page.index("<h2>Scans</h2>") :]
    assert "Thick slices &lt;10 mm&gt;." in scans[scans.index("<dt>Scan 2</dt>") :]
    write_follow(tmp_path, warned)
    with (tmp_path / "change.csv").open(encoding="utf-8-sig", newline="") as file:
        assert {row["Warnings"] for row in csv.DictReader(file)} == {"Scan 2: Thick slices <10 mm>."}


def test_pictures_show_what_changed_in_its_color(follow):
    earlier, later = follow.scans
    found = follow.comparisons[0]
    pictures = change_pictures(earlier, later, found.labels, found.motion)
    right = np.concatenate([np.asarray(one.picture)[:, one.picture.width // 2 :].reshape(-1, 3) for one in pictures])
    left = np.concatenate([np.asarray(one.picture)[:, : one.picture.width // 2].reshape(-1, 3) for one in pictures])
    shown = [c for c in Change if (np.abs(right - np.array(COLORS[c]) * 255).sum(axis=1) < 140).any()]
    assert shown == list(Change)
    assert np.ptp(left.astype(int), axis=1).max() < 20  # gray but for the lettering: the earlier CT has no colors


def test_trend_stands_at_days_or_dates_or_scans():
    values = [10.0, 30.0, 20.0], [1.0, 3.0, 2.0]
    days = [date(2031, 5, 2), date(2031, 5, 12), date(2031, 8, 10)]
    hidden, axis = trend_points(*values, days, shown=False)
    assert ([p.label for p in hidden], axis) == (["day 0", "day 10", "day 100"], "days since the first scan")
    shown, _ = trend_points(*values, days, shown=True)
    assert [p.label for p in shown] == ["2031-05-02", "2031-05-12", "2031-08-10"]
    numbered, _ = trend_points(*values, None, shown=True)
    assert [p.label for p in numbered] == ["scan 1", "scan 2", "scan 3"]
    chart = trend_chart(hidden, axis)
    assert chart.count("<circle") == 3
    x = [float(part.split('"')[1]) for part in chart.split("<circle ")[1:]]
    assert (x[2] - x[0]) / (x[1] - x[0]) == pytest.approx(10, abs=0.05)


def test_trend_of_undefined_and_of_empty_lungs_is_drawn():
    nan = float("nan")
    assert "<svg" in trend_chart(*trend_points([nan, nan], [nan, nan], None, shown=False))
    assert "<svg" in trend_chart(*trend_points([0.0, 0.0], [0.0, 0.0], None, shown=False))
