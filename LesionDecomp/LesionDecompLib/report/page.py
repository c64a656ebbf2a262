"""The report of one case as one page of HTML that needs no other file: pictures, measurements, definitions, warnings.

It prints on two sheets of A4 paper (results; run and definitions), and from there to PDF. It names its CT by the hash
that identifies the input, and nothing about the patient. ``page.html`` is its template; whatever is filled in there is
escaped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ct.grid import AxialView
from ..ct.volume import Volume
from ..measurement.definitions import (
    AMOUNTS,
    CROSSING_COUNT,
    MEASUREMENTS,
    REGION_MEASUREMENTS,
    measurement,
)
from ..measurement.region_rows import RegionMeasurements, RegionRow
from ..measurement.review import Review
from ..measurement.statistics import REGION_HEADER, SIDES
from ..segmentation.lesions import volume_curve
from .charts import axis_chart, volume_chart
from .colors import heat_color_table
from .manifest import shown_measurements
from .panels import slice_panels
from .picture import LESION_COLOR, LUNG_COLOR, LUNG_WINDOW
from .style import STYLE

if TYPE_CHECKING:
    from jinja2 import Template
    from PIL import Image

LETTERS = 1.5  # panels are shown at less than half their size
TITLE = "Lung lesions in chest CT"
TILES = ("involvement_percent", "lesion_volume_ml", "lung_volume_ml", "ground_glass_ml", "consolidation_ml")


def page_template(name: str) -> Template:
    """A page's template beside this file; what is put into it is escaped."""
    # It comes with torch, which Slicer lacks until the user agrees to its installation.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template(name)


def report_page(
    volume: Volume, heat: np.ndarray, lungs: np.ndarray, lesions: np.ndarray, manifest: Mapping[str, Any]
) -> str:
    """Make the page.

    :param volume: the CT.
    :param heat, lungs, lesions: on its grid, ``(k, j, i)``, as a run gives them.
    :param manifest: of the run (:func:`LesionDecompLib.report.manifest.build_manifest`); measurements, warnings and
        settings are taken from it.
    :return: HTML, UTF-8.
    """
    from markupsafe import Markup  # not before: it comes with torch, which Slicer may lack

    view = volume.view
    stacks = [view.to_axial(array) for array in (volume.array, heat, lungs, lesions)]
    threshold = float(manifest["parameters"]["threshold"])
    axial, coronal = slice_panels(view, stacks, threshold, LETTERS)
    curve = volume_chart(*volume_curve(heat, lungs, volume.voxel_volume_ml), threshold)
    areas = axis_chart(view.height_mm(np.arange(view.shape[0])), *_areas(view, stacks[2:]))
    return page_template("page.html").render(
        axial=axial,
        coronal=coronal,
        style=Markup(STYLE),
        volume_chart=Markup(curve),
        axis_chart=Markup(areas),
        **_legend(threshold),
        **_measurements(manifest),
        **_regions(manifest),
        **_run(volume, manifest),
    )


def data_uri(picture: Image.Image) -> str:
    """A picture as it stands in a page."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _areas(view: AxialView, masks: list[np.ndarray]) -> list[np.ndarray]:
    cm2 = view.spacing[1] * view.spacing[2] / 100
    return [np.array([np.count_nonzero(plane) for plane in mask]) * cm2 for mask in masks]


def _legend(threshold: float) -> dict[str, Any]:
    low, high = LUNG_WINDOW
    return {
        "threshold": threshold,
        "threshold_text": f"{threshold:.3g}",
        "colors": heat_color_table(17),
        "lesion_color": LESION_COLOR,
        "lung_color": LUNG_COLOR,
        "window": f"{high - low:.0f}",
        "level": f"{(low + high) / 2:.0f}",
    }


def _measurements(manifest: Mapping[str, Any]) -> dict[str, Any]:
    measurements = {
        row["region"]: {key: float("nan") if row[key] is None else float(row[key]) for key in row if key != "region"}
        for row in shown_measurements(manifest)["statistics"]
    }
    return {
        "measurements": measurements,
        "tiles": _tiles(measurements["both lungs"]),
        "region_header": REGION_HEADER,
        "sides": SIDES,
        "amounts": [m for m in MEASUREMENTS if m.key in AMOUNTS],
        "densities": [m for m in MEASUREMENTS if m.key not in AMOUNTS],
    }


def _regions(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Rows of halves, of the regions that were given, and the scores; thirds are in the table of volumes."""
    rows = [RegionRow.of_record(record) for record in shown_measurements(manifest).get("regions") or ()]
    severity = RegionMeasurements(tuple(rows)).severity if rows else None
    scores = [] if severity is None else [severity.lobes, severity.zones]
    defined = [m for score in scores for m in (score.part_measured, score.measured)]
    return {
        "regions": [row for row in rows if row.set_key != "thirds"],
        "definitions": [*REGION_MEASUREMENTS, *defined] if rows else MEASUREMENTS,
        "region_columns": [*(m for m in MEASUREMENTS if m.key in AMOUNTS), CROSSING_COUNT],
        "scores": scores,
    }


def _tiles(values: Mapping[str, float]) -> list[dict[str, str]]:
    tiles = [
        {"title": m.title, "value": m.text(values[m.key]), "unit": m.unit, "definition": m.explanation}
        for m in map(measurement, (*TILES, "lesion_count"))
    ]
    largest = measurement("largest_lesion_ml")
    tiles[-1]["unit"] = f"largest {largest.text(values[largest.key])} {largest.unit}"
    return tiles


def _run(volume: Volume, manifest: Mapping[str, Any]) -> dict[str, Any]:
    source, parameters = manifest["input"], manifest["parameters"]
    size, spacing = "×".join(str(n) for n in source["size_ijk"]), "×".join(f"{mm:.3g}" for mm in volume.spacing)
    lines = [
        ("Lesion model", _model(manifest["models"]["lesions"])),
        ("Lung model", _model(manifest["models"]["lungs"])),
        ("Threshold", f"heat ≥ {float(parameters['threshold']):.3g}"),
        ("Smallest lesion kept", f"{float(parameters['min_volume_ml']):.3g} mL"),
        ("CT", f"{size} voxels of {spacing} mm, {_format(source)}"),
        *_review(manifest),
        ("Computed on", manifest["run"]["device"]),
    ]
    return {
        "title": TITLE,
        "name": f"CT {source['sha256'][:12]}",
        "finished": manifest["run"]["finished_utc"].replace("T", " ").replace("+00:00", " UTC"),
        "notice": manifest["notice"],
        "warnings": manifest["warnings"],
        "software": manifest["software"],
        "run": lines,
    }


def _review(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How many decisions of a reader the measurements follow, how many slices were seen, and what the model alone had
    found."""
    if not manifest.get("review"):
        return []
    volume = measurement("lesion_volume_ml")
    own = volume.text(float(manifest["statistics"][0][volume.key]))
    review = Review.of_record(manifest["review"])
    count, seen = len(review.lesions), len(review.seen)
    decisions = f"{count} decision{'s' if count != 1 else ''} of a reader"
    slices = f", {seen} slice{'s' if seen != 1 else ''} seen" if seen else ""
    return [("Review", f"{decisions}{slices}; without them {volume.title.lower()} {own} {volume.unit}")]


def _model(bundle: Mapping[str, str] | None) -> str:
    if bundle is None:
        return "none: lung mask supplied"
    return f"{bundle['name']} {bundle['version']} (SHA-256 {bundle['sha256'][:12]}…)"


def _format(source: Mapping[str, Any]) -> str:
    facts = source.get("dicom") or {}
    kernel = f", kernel {facts['kernel']}" if "kernel" in facts else ""
    return ("from 3D Slicer" if source["format"] == "memory" else source["format"]) + kernel
