"""What is measured: each value is defined once, with title, unit, definition and source.

Tables, CSV headers, JSON, tooltips, the page and the DICOM segmentation's descriptions are all made from these.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Ground glass below, consolidation from here up. One cut inside an outlined lesion, so that the two add up to it; of
# eight cuts compared by Lu et al. (BMC Infect Dis 2021; 21:836, doi 10.1186/s12879-021-06556-z) this served best.
CONSOLIDATION_HU = -300
_SPLIT_RULE = "Ground glass and consolidation add up to the lesion volume."
_SPLIT_SOURCE = f"cut at {CONSOLIDATION_HU} HU: Lu et al., BMC Infect Dis 2021; 21:836, doi 10.1186/s12879-021-06556-z"
_LOBE_SOURCE = "scale: Pan et al., Radiology 2020; 295:715-721, doi 10.1148/radiol.2020200370"
# The abstract has the six zones and the total; the cuts are those that studies of COVID-19 score these zones by.
_ZONE_SOURCE = "six zones and total: Ooi et al., Radiology 2004; 230:836-844, doi 10.1148/radiol.2303030853"
RESEARCH_ONLY = "research only"
_PERCENTILE_RULE = "linear between the two nearest voxels"


@dataclass(frozen=True)
class Measurement:
    """A measurement made of every region.

    :param key: name in code and JSON.
    :param title: name for people.
    :param unit: may be empty.
    :param definition: one or two sentences.
    :param decimals: digits worth showing in a table.
    :param source: the publication that a cut or scale is from; empty where the definition is complete.
    """

    key: str
    title: str
    unit: str
    definition: str
    decimals: int = 1
    source: str = ""

    @property
    def header(self) -> str:
        """Title and unit, e.g. ``"Lesion volume (mL)"``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def explanation(self) -> str:
        """Definition and source."""
        return f"{self.definition} Source: {self.source}." if self.source else self.definition

    @property
    def tooltip(self) -> str:
        """Header, definition and source, for a column's tooltip."""
        return f"{self.header}: {self.explanation}"

    def record(self) -> dict[str, str]:
        """For ``report.json``: title, unit, definition and source."""
        return {"title": self.title, "unit": self.unit, "definition": self.definition, "source": self.source}

    def text(self, value: float) -> str:
        """A value for people: with :attr:`decimals` digits, or a hyphen where it is undefined."""
        return "-" if math.isnan(value) else f"{value:.{self.decimals}f}"


def _hu_measurements(key: str, title: str, voxels: str) -> tuple[Measurement, ...]:
    return (
        Measurement(f"{key}_hu_mean", f"{title} mean", "HU", f"Mean HU of {voxels}."),
        Measurement(
            f"{key}_hu_sd", f"{title} SD", "HU", f"Standard deviation (n - 1) of the HU of {voxels}; needs two voxels."
        ),
        Measurement(
            f"{key}_hu_p05", f"{title} 5th percentile", "HU", f"5th percentile of {voxels}, {_PERCENTILE_RULE}."
        ),
        Measurement(f"{key}_hu_p50", f"{title} median", "HU", f"50th percentile of {voxels}, {_PERCENTILE_RULE}."),
        Measurement(
            f"{key}_hu_p95", f"{title} 95th percentile", "HU", f"95th percentile of {voxels}, {_PERCENTILE_RULE}."
        ),
    )


MEASUREMENTS: tuple[Measurement, ...] = (
    Measurement(
        "lung_volume_ml", "Lung volume", "mL", "Voxels of the lung mask, lesions included, times the voxel volume."
    ),
    Measurement("lesion_volume_ml", "Lesion volume", "mL", "Voxels of the lesion labelmap times the voxel volume.", 2),
    Measurement("involvement_percent", "Involvement", "%", "Lesion volume over lung volume of the same region.", 2),
    Measurement(
        "ground_glass_ml",
        "Ground-glass volume",
        "mL",
        f"Lesion voxels below {CONSOLIDATION_HU} HU, times the voxel volume. {_SPLIT_RULE}",
        2,
        _SPLIT_SOURCE,
    ),
    Measurement(
        "consolidation_ml",
        "Consolidation volume",
        "mL",
        f"Lesion voxels of {CONSOLIDATION_HU} HU and more, times the voxel volume. {_SPLIT_RULE}",
        2,
        _SPLIT_SOURCE,
    ),
    Measurement(
        "lesion_count",
        "Lesion count",
        "",
        "Connected lesions (26 neighbors) of the whole labelmap with at least one voxel in the region; a lesion that "
        "crosses a border counts on both sides of it.",
        0,
    ),
    Measurement(
        "largest_lesion_ml",
        "Largest lesion",
        "mL",
        "Volume inside the region of the connected lesion with most voxels there; 0 without lesions.",
        2,
    ),
    *_hu_measurements("lesion", "Lesion", "the lesion voxels"),
    *_hu_measurements("lung", "Lung", "all voxels of the lung mask, lesions included"),
    Measurement(
        "lung_heat_mean", "Lung heat mean", "", "Mean of the heatmap (0 to 1) over the lung mask, lesions included.", 3
    ),
    Measurement("lesion_heat_mean", "Lesion heat mean", "", "Mean of the heatmap (0 to 1) over the lesion voxels.", 3),
)
# The first of them measure how much there is, the others how dense and how warm it is.
AMOUNTS: tuple[str, ...] = tuple(one.key for one in MEASUREMENTS[:7])

# What is measured of the regions of a set beyond that.
CROSSING_COUNT = Measurement(
    "crossing_count",
    "Crossing lesions",
    "",
    "Lesions counted in this region that also lie beyond its border: they count in more than one region, and may give "
    "a region its score with a small part of themselves.",
    0,
)
LOBE_SCORE = Measurement(
    "lobe_score",
    "Severity score of a lobe",
    "of 5",
    "By involvement: 0 none, 1 below 5 %, 2 from 5 to 25 %, 3 above 25 and below 50 %, 4 from 50 to 75 %, 5 above "
    f"75 %; undefined without lung in the lobe. Measured, where the source scores by eye; {RESEARCH_ONLY}.",
    0,
    _LOBE_SOURCE,
)
LOBE_TOTAL = Measurement(
    "lobe_total",
    "Severity score by lobes",
    "of 25",
    f"Sum of the scores of the five lobes; undefined unless all five are given and hold lung; {RESEARCH_ONLY}.",
    0,
    _LOBE_SOURCE,
)
ZONE_SCORE = Measurement(
    "zone_score",
    "Severity score of a zone",
    "of 4",
    "By involvement: 0 none, 1 below 25 %, 2 from 25 and below 50 %, 3 from 50 and below 75 %, 4 from 75 %; undefined "
    "without lung in the zone. Zones are thirds of the lungs' height, where the source takes carina and inferior "
    f"pulmonary veins; measured, where the source scores by eye; {RESEARCH_ONLY}.",
    0,
    _ZONE_SOURCE,
)
ZONE_TOTAL = Measurement(
    "zone_total",
    "Severity score by zones",
    "of 24",
    f"Sum of the scores of the six zones; undefined unless all six hold lung; {RESEARCH_ONLY}.",
    0,
    _ZONE_SOURCE,
)
REGION_MEASUREMENTS: tuple[Measurement, ...] = (*MEASUREMENTS, CROSSING_COUNT)
SCORES: tuple[Measurement, ...] = (LOBE_SCORE, LOBE_TOTAL, ZONE_SCORE, ZONE_TOTAL)


def measurement(key: str) -> Measurement:
    """The measurement with this key; ``KeyError`` if there is none.

    >>> measurement("involvement_percent").header
    'Involvement (%)'
    >>> measurement("involvement_percent").text(3.14159)
    '3.14'
    """
    return _BY_KEY[key]


_BY_KEY = {m.key: m for m in (*REGION_MEASUREMENTS, *SCORES)}
