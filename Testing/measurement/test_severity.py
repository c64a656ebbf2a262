"""What severity scores promise: the published scales at their borders, and no total where a part is unknown."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from LesionDecompLib.ct.lobes import LOBES
from LesionDecompLib.measurement.severity import ZONES, lobe_score, severity_of, zone_score


def _values(percent: float, lesions: int = 2, crossing: int = 1) -> dict[str, float]:
    return {"involvement_percent": percent, "lesion_count": float(lesions), "crossing_count": float(crossing)}


@pytest.mark.parametrize(
    ("percent", "lobe", "zone"),
    [
        (0.0, 0, 0),
        (1e-9, 1, 1),
        (math.nextafter(5, 0), 1, 1),
        (5.0, 2, 1),
        (math.nextafter(25, 0), 2, 1),
        (25.0, 2, 2),
        (math.nextafter(25, 99), 3, 2),
        (math.nextafter(50, 0), 3, 2),
        (50.0, 4, 3),
        (math.nextafter(75, 0), 4, 3),
        (75.0, 4, 4),
        (math.nextafter(75, 99), 5, 4),
        (100.0, 5, 4),
    ],
)
def test_borders_belong_to_the_score_that_the_scale_says(percent, lobe, zone):
    assert (lobe_score(percent), zone_score(percent)) == (lobe, zone)


@given(st.integers(1, 10**7), st.data())
def test_scores_are_those_of_whole_numbers_of_voxels(lung, data):
    """As the scales are written, in fractions that cannot be rounded: equality at a border is decided exactly."""
    near = [lung * percent // 100 + step for percent in (0, 5, 25, 50, 75, 100) for step in (-1, 0, 1)]
    lesion = data.draw(st.one_of(st.integers(0, lung), st.sampled_from([n for n in near if 0 <= n <= lung])))
    share = Fraction(100 * lesion, lung)
    percent = 100.0 * lesion / lung
    lobe = 0 if share == 0 else 1 if share < 5 else 2 if share <= 25 else 3 if share < 50 else 4 if share <= 75 else 5
    zone = 0 if share == 0 else 1 if share < 25 else 2 if share < 50 else 3 if share < 75 else 4
    assert (lobe_score(percent), zone_score(percent)) == (lobe, zone)


@given(st.floats(0, 100), st.floats(0, 100))
def test_more_involvement_never_scores_less(one, other):
    low, high = sorted((one, other))
    assert lobe_score(low) <= lobe_score(high) <= 5
    assert zone_score(low) <= zone_score(high) <= 4


def test_totals_are_the_sums_of_the_parts():
    lobes = {name: _values(percent) for name, percent in zip(LOBES, (0, 3, 20, 40, 90), strict=True)}
    zones = {name: _values(percent) for name, percent in zip(ZONES, (0, 10, 30, 60, 80, 100), strict=True)}
    severity = severity_of(lobes, zones)
    assert severity.lobes.total == 0 + 1 + 2 + 3 + 5 and severity.lobes.text() == "11 of 25"
    assert severity.zones.total == 0 + 1 + 2 + 3 + 4 + 4 and severity.zones.text() == "14 of 24"
    record = severity.record()
    assert [part["score"] for part in record["lobes"]["parts"]] == [0, 1, 2, 3, 5]
    assert record["zones"]["use"] == record["lobes"]["use"] == "research only"
    assert "doi 10.1148/radiol.2020200370" in record["lobes"]["source"]
    assert "doi 10.1148/radiol.2303030853" in record["zones"]["source"]
    assert record["zones"]["parts"][1]["crossing_count"] == 1
    assert "2 lesions, 1 of them crossing its border" in severity.zones.parts[1].text()
    assert severity.scores_of("thirds", ZONES[2]) == (2, 14)
    assert severity.scores_of("given", "right lower lobe") == (2, 11)


def test_a_value_that_is_undefined_says_so_and_why():
    zones = {name: _values(10.0) for name in ZONES}
    none = severity_of({}, zones).lobes
    assert none.total is None and none.text() == "undefined: no lobes were given"
    some = severity_of({name: _values(1.0) for name in LOBES[:3]}, zones).lobes
    assert some.total is None and "not given: left upper lobe, left lower lobe" in some.text()
    zones[ZONES[4]] = _values(math.nan, 0, 0)
    gone = severity_of({}, zones).zones
    assert gone.total is None and f"no lung in the {ZONES[4]}" in gone.text()
    assert gone.record()["parts"][4] == {
        "name": ZONES[4],
        "score": None,
        "involvement_percent": None,
        "lesion_count": 0,
        "crossing_count": 0,
    }
    assert [math.isnan(value) for value in severity_of({}, zones).scores_of("thirds", ZONES[0])] == [False, True]
    assert all(math.isnan(value) for value in severity_of({}, zones).scores_of("halves", "right lung, dorsal half"))
