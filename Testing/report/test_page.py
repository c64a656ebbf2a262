"""The report page needs no other file, holds every figure with its definition, and nothing about the patient."""

from __future__ import annotations

import base64
import io
import json
import re
from html import unescape
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import names, run_here, small_ct, small_models
from LesionDecompLib.ct.oddity import Oddity
from LesionDecompLib.measurement.definitions import AMOUNTS, MEASUREMENTS, measurement
from LesionDecompLib.measurement.statistics import SIDES
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.report.charts import axis_chart, volume_chart
from LesionDecompLib.report.manifest import RESEARCH_USE, build_manifest, manifest_of_lesions
from LesionDecompLib.report.page import report_page
from LesionDecompLib.report.picture import LESION_COLOR
from PIL import Image
from segmented_case import segmented_sample

VOID = {"meta", "img", "br", "rect", "line", "circle", "polyline", "polygon"}


class Page(HTMLParser):
    """A page's tags, checked for being closed in order, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if self._open[-1:] != ["style"]:
            self.text.append(data)

    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(s.removeprefix("data:image/png;base64,")))) for s in sources]


@pytest.fixture(scope="module")
def case(sample_folder):
    """A segmented real CT, and its manifest."""
    volume, result = segmented_sample(sample_folder, step=4)
    result.lesion_bundle = SimpleNamespace(
        name="a-model", version="1.0.0", task="lesions", sha256="ab" * 32, metadata_sha256="cd" * 32
    )
    result.warnings = ["Slices are <b>7 mm</b> apart & more."]
    return volume, result, build_manifest(volume, result)


@pytest.fixture(scope="module")
def html(case) -> str:
    volume, result, manifest = case
    return report_page(volume, result.heat, result.lungs, result.lesions, manifest)


@pytest.mark.slow
def test_page_needs_no_other_file_and_runs_no_script(html):
    page = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:")
    assert "url(" not in html and "@import" not in html
    for tag, attributes in page.tags:
        assert tag != "img" or attributes["alt"]


def test_page_holds_every_figure_its_definition_the_warnings_and_the_notice(case, html):
    _, result, _ = case
    text = "".join(Page(html).text)
    for m in MEASUREMENTS:
        assert m.definition in text and m.source in text
        assert m.title in text
    rows = re.findall(r'<tr[^>]*><th scope="row"[^>]*>([^<]*)</th>(.*?)</tr>', html)
    cells = [(unescape(region).lower(), re.findall(r"<td>([^<]*)</td>", row)) for region, row in rows]
    for row in result.statistics:
        shown = [value for region, values in cells if region == row.region for value in values]
        wanted = [m.text(row.values[m.key]) for m in MEASUREMENTS if row.region in SIDES or m.key in VOLUME_KEYS]
        assert sorted(shown) == sorted(wanted)
    for row in result.regions.of_set("halves"):
        shown = next(values for region, values in cells if region == row.region)
        assert shown == [measurement(key).text(row.values[key]) for key in (*AMOUNTS, "crossing_count")]
    zones = result.regions.severity.zones
    assert f"Severity score by zones: {zones.total} of 24" in text
    assert all(part.text() in text for part in zones.parts) and "undefined: no lobes were given" in text
    assert "Slices are <b>7 mm</b> apart & more." in text
    assert RESEARCH_USE in text
    assert "a-model 1.0.0" in text and "heat ≥ 0.4" in text


VOLUME_KEYS = {m.key for m in MEASUREMENTS[:7]}


def test_page_shows_slices_with_heat_and_outlines(case, html):
    pictures = Page(html).pictures()
    assert len(pictures) == 8
    pixels = [np.asarray(picture).astype(int) for picture in pictures]
    assert all((np.abs(p - LESION_COLOR).max(axis=-1) < 12).any() for p in pixels[1:4])
    volume, result, manifest = case
    cold = report_page(volume, result.heat * 0, result.lungs, result.lesions * 0, manifest)
    for warm, plain in zip(pixels, Page(cold).pictures(), strict=True):
        assert warm.shape == np.asarray(plain).shape
    assert any((a != np.asarray(b)).any() for a, b in zip(pixels, Page(cold).pictures(), strict=True))


def test_nothing_reports_whose_ct_it_is(case, html):
    volume, _, manifest = case
    assert volume.name == "Surname^Forename"
    assert "Surname" not in html
    assert manifest["input"]["sha256"][:12] in html


def test_manifest_has_the_codes_of_warnings_that_have_one(case):
    volume, result, _ = case
    coded = Oddity("The lungs have -300 HU on average.", "lung_hu", -300.0, -500.0)
    manifest = build_manifest(volume, SimpleNamespace(**{**vars(result), "warnings": ["Thick slices.", coded]}))
    assert manifest["warnings"] == ["Thick slices.", "The lungs have -300 HU on average."]
    assert manifest["warning_codes"] == [
        {"code": "lung_hu", "value": -300.0, "limit": -500.0, "text": "The lungs have -300 HU on average."}
    ]


def test_manifest_follows_the_threshold_and_the_rest_of_the_run_stays(case):
    volume, result, manifest = case
    moved = manifest_of_lesions(manifest, 0.7, 0.25, result.statistics[:3], result.regions, "ab12")
    assert moved["parameters"]["regions"] == "ab12"
    assert (moved["parameters"]["threshold"], moved["parameters"]["min_volume_ml"]) == (0.7, 0.25)
    assert [row["region"] for row in moved["statistics"]] == list(SIDES)
    assert manifest["parameters"]["threshold"] == 0.4 and len(manifest["statistics"]) == 12
    assert {k: v for k, v in moved.items() if k not in ("parameters", "statistics")} == {
        k: v for k, v in manifest.items() if k not in ("parameters", "statistics")
    }
    html = report_page(volume, result.heat, result.lungs, result.lesions, moved | {"warnings": []})
    assert "heat ≥ 0.7" in html and "No warnings." in html


def test_volume_chart_marks_the_volume_at_the_threshold():
    thresholds = np.linspace(0, 1, 1001)
    svg = volume_chart(thresholds, 4000 * (1 - thresholds) ** 6, 0.4)
    assert "187 mL at 0.4" in svg  # 4000 * 0.6 ** 6
    x, y = (float(v) for v in re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg).groups())
    curve = [tuple(map(float, p.split(","))) for p in re.search(r'polyline points="([^"]*)"', svg)[1].split()]
    assert min(abs(x - a) + abs(y - b) for a, b in curve) < 2
    # No heat at all: still a chart, without a division by zero.
    assert "0 mL at 0.4" in volume_chart(thresholds, np.zeros(1001), 0.4)


def test_axis_chart_has_superior_on_top():
    lung = np.array([0, 0, 40.0, 80.0, 60.0, 0])
    lesion = np.array([0, 0, 0, 0, 30.0, 0])
    svg = axis_chart(np.arange(6) * 5.0 - 20.0, lung, lesion)
    lesion_points = re.findall(r'polygon points="([^"]*)"', svg)[1].split()
    heights = {float(p.split(",")[1]) for p in lesion_points if float(p.split(",")[0]) > 41}
    assert heights == {16.0}  # the highest slice with lung lies at the upper margin
    assert axis_chart(np.arange(3.0), np.zeros(3), np.zeros(3)).startswith("<svg")


@pytest.mark.slow
def test_command_writes_the_page_as_part_of_the_set(tmp_path, capsys, monkeypatch):
    models = small_models(tmp_path / "models")
    monkeypatch.setattr(bundles, "model_folders", lambda: [models])
    ct, mask, _ = small_ct(tmp_path)
    out = tmp_path / "out"
    arguments = ["segment", ct, "-o", out, "--lung-mask", mask, "--quiet", "--overwrite"]
    done = run_here(capsys, *arguments, "--report")
    assert done.status == 0, done.err
    manifest = json.loads((out / "report.json").read_text("utf-8"))
    assert set(manifest["outputs"]) == set(names(out)) - {"report.json"}
    html = (out / "report.html").read_text("utf-8")
    volume = measurement("lesion_volume_ml")
    assert f"<td>{volume.text(manifest['statistics'][0]['lesion_volume_ml'])}</td>" in html
    assert str(tmp_path) not in html and "chest.nrrd" not in html
    # A later run without it leaves no page of another result behind.
    assert run_here(capsys, *arguments).status == 0
    assert "report.html" not in names(out)
