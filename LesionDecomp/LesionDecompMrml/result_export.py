"""A result out of the scene: its measurements as text and CSV, its manifest as JSON, its report as one page of HTML.

Everything is measured anew from the nodes, so that what is written is what is seen, edited labelmaps included.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.atomic import write_text
from LesionDecompLib.measurement.live import LiveLesions
from LesionDecompLib.measurement.region_rows import (
    ModelMeasurements,
    RegionMeasurements,
    RegionTallies,
    write_regions_csv,
)
from LesionDecompLib.measurement.review import Review
from LesionDecompLib.measurement.reviewed import PlacedReview
from LesionDecompLib.measurement.statistics import RegionStatistics, statistics_csv, write_statistics_csv
from LesionDecompLib.report.manifest import manifest_of_lesions, manifest_text
from LesionDecompLib.report.methods import methods_text
from LesionDecompLib.report.page import report_page
from LesionDecompLib.segmentation.lesions import lung_box

from .input_nodes import volume_from_node
from .present_warnings import warnings_now, with_present_warnings
from .regions import chosen_regions, given_regions
from .result_nodes import ResultNodes
from .review import REVIEW, recorded_review, review_of

STAGE = "Exporting the result"


@dataclass(frozen=True, eq=False)
class Measured:
    """A result's arrays, ``(k, j, i)`` on the CT's grid, what they measure, and what was odd about that."""

    volume: Volume
    heat: np.ndarray
    lungs: np.ndarray
    lesions: np.ndarray
    statistics: list[RegionStatistics]
    regions: RegionMeasurements
    regions_sha256: str
    review: Review | None
    model: ModelMeasurements | None
    warnings: list[str]


def measure(nodes: ResultNodes) -> Measured:
    """Measure a result as it stands in the scene.

    :raises LesionDecompError: nodes without voxels, or whose grids have become different.
    """
    volume = volume_from_node(nodes.ct, copy=False)
    arrays = [_array(node) for node in (nodes.heatmap, nodes.lungs, nodes.lesions)]
    if any(array.shape != volume.shape for array in arrays):
        raise LesionDecompError(STAGE, "result nodes that no longer fit the CT", "the CT's grid", "Run again.")
    view = volume.view
    heat, lungs, lesions = arrays
    hu, sides, warmth, mask = (view.to_axial(array) for array in (volume.array, lungs, heat, lesions))
    live = LiveLesions(hu, sides, warmth, volume.voxel_volume_ml, lung_box(sides))
    found = live.of_labelmap(mask)
    node = chosen_regions(nodes.heatmap)
    given = given_regions(node, nodes.ct) if node is not None else None
    tallies = RegionTallies.of(live, view.to_axial(given.labels) if given is not None else None, given)
    sha256 = given.sha256 if given is not None else ""
    review = recorded_review(nodes) if nodes.heatmap.GetAttribute(REVIEW) else None
    model, odd = None, tallies.warnings
    if review is not None:
        odd = [*PlacedReview.of(live, view, review_of(nodes)).warnings, *odd]
        own = live.at(nodes.threshold, nodes.minimum_volume_ml)
        model = ModelMeasurements(own.statistics(), tallies.at(own))
    return Measured(volume, heat, lungs, lesions, found.statistics(), tallies.at(found), sha256, review, model, odd)


def statistics_text(nodes: ResultNodes) -> str:
    """The measurements for the clipboard: a header and one line for each region, cells separated by tabs."""
    found = measure(nodes)
    return statistics_csv(found.statistics, warnings_now(nodes, found.warnings), delimiter="\t")


def write_statistics(nodes: ResultNodes, path: str | Path) -> None:
    """Write the measurements as CSV, as the command line does.

    :raises LesionDecompError: it cannot be written.
    """
    found = measure(nodes)
    write_statistics_csv(path, found.statistics, warnings_now(nodes, found.warnings))


def write_regions(nodes: ResultNodes, path: str | Path) -> None:
    """Write thirds, halves and the chosen regions as CSV, as the command line does.

    :raises LesionDecompError: it cannot be written.
    """
    found = measure(nodes)
    write_regions_csv(path, found.regions, warnings_now(nodes, found.warnings))


def methods(nodes: ResultNodes) -> str:
    """A paragraph for a paper about the result as it is now.

    :raises LesionDecompError: the report node is missing or was changed.
    """
    return methods_text(_manifest(nodes, measure(nodes)))


def write_manifest(nodes: ResultNodes, path: str | Path) -> None:
    """Write the JSON manifest of the run, with threshold, smallest lesion and measurements as they are now.

    :raises LesionDecompError: the report node is missing or was changed, or the file cannot be written.
    """
    write_text(path, manifest_text(_manifest(nodes, measure(nodes))), STAGE)


def write_report(nodes: ResultNodes, path: str | Path) -> None:
    """Write the one-page report as HTML.

    :raises LesionDecompError: as :func:`write_manifest`.
    """
    found = measure(nodes)
    html = report_page(found.volume, found.heat, found.lungs, found.lesions, _manifest(nodes, found))
    write_text(path, html, STAGE)


def _manifest(nodes: ResultNodes, found: Measured) -> dict[str, Any]:
    expected = "the report of a LesionDecomp run, which is made with the result"
    if nodes.report is None:
        raise LesionDecompError(STAGE, "a result without its report", expected, "Run LesionDecomp again.")
    try:
        manifest = json.loads(nodes.report.GetText() or "")
        manifest = manifest_of_lesions(
            manifest,
            nodes.threshold,
            nodes.minimum_volume_ml,
            found.statistics,
            found.regions,
            found.regions_sha256,
            found.review,
            found.model,
        )
        return with_present_warnings(manifest, nodes, found.warnings)
    except (ValueError, KeyError, TypeError) as error:
        found_text = f"a report that cannot be read in '{nodes.report.GetName()}'"
        raise LesionDecompError(STAGE, found_text, expected, "Run LesionDecomp again.") from error


def _array(node) -> np.ndarray:
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        raise LesionDecompError(STAGE, f"'{node.GetName()}' without voxels", "a result", "Run LesionDecomp again.")
    return slicer.util.arrayFromVolume(node)
