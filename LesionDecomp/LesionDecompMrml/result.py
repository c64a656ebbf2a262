"""One finished result in the scene, and everything that can be done with it: threshold, views, plots, files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.live import Lesions
from LesionDecompLib.measurement.places import LesionPlace, area_along_body, lesions_by_size
from LesionDecompLib.measurement.region_rows import RegionMeasurements
from LesionDecompLib.measurement.review import PAINT, Review
from LesionDecompLib.measurement.reviewed import lps_of_array_voxel, lps_of_voxel, voxel_at
from LesionDecompLib.measurement.seen_slices import labels_of_seen
from LesionDecompLib.measurement.statistics import RegionStatistics

from . import plots, result_export, views
from .input_nodes import patient_word, volume_from_node
from .lesion_edits import Edit, find_edit, is_edited, remember_written, runs_of
from .live_result import LiveResult
from .present_warnings import warnings_now
from .regions import LiveRegions, choose_regions, chosen_regions, show_region_table
from .result_nodes import ResultNodes, add_segmentation, result_of
from .review import REVIEW, ReviewedLesion, decision_at, keep_review, now, recorded_review, review_of
from .scene_nodes import nodes_of_class
from .statistics_table import read_table, show_readable_table

if TYPE_CHECKING:
    from LesionDecompLib.training.data.reviewed import GrownSet


@dataclass(frozen=True)
class Summary:
    """The key measurements of a result at its threshold."""

    lesion_ml: float
    lung_ml: float
    count: int
    largest_ml: float

    @property
    def involvement_percent(self) -> float:
        """Share of the lungs that is lesion, %; 0 without lungs."""
        return 100.0 * self.lesion_ml / self.lung_ml if self.lung_ml else 0.0


class Result:
    """A complete result; the voxels that its slider works on are listed once, when they are first needed.

    :param nodes: of the result.
    """

    def __init__(self, nodes: ResultNodes) -> None:
        self.nodes = nodes
        self._live: LiveResult | None = None
        self._regions: LiveRegions | None = None

    @classmethod
    def of(cls, heatmap) -> Result:
        """The result that a heatmap node belongs to.

        :raises LesionDecompError: the node is not a heatmap of LesionDecomp, or nodes it needs were removed.
        """
        return cls(result_of(heatmap))

    @property
    def heatmap(self):
        """Its heatmap node, by which it is known."""
        return self.nodes.heatmap

    @property
    def table(self):
        """The table node with its measurements."""
        return self.nodes.table

    @property
    def threshold(self) -> float:
        """Threshold on the heat that its lesions were made with."""
        return self.nodes.threshold

    @property
    def minimum_volume_ml(self) -> float:
        """Lesions smaller than this were left out, mL."""
        return self.nodes.minimum_volume_ml

    @property
    def live(self) -> LiveResult:
        """What the slider needs; made anew when voxels or places of the nodes have changed.

        :raises LesionDecompError: nodes whose grids have become different, or labels that are not lungs.
        """
        if self._live is None or not self._live.is_of(self.nodes):
            self._live = LiveResult.of(self.nodes)
        return self._live

    def is_of(self, nodes: ResultNodes) -> bool:
        """Whether it is about these very nodes."""
        return self.nodes == nodes

    # Threshold

    def set_threshold(
        self,
        threshold: float | None = None,
        minimum_volume_ml: float | None = None,
        *,
        with_statistics: bool = True,
        settled: bool = True,
    ) -> Lesions:
        """Make lesions (and table) at another threshold; quick, no model is needed.

        :param threshold: None keeps the present one.
        :param minimum_volume_ml: smaller lesions are left out, mL; None keeps the present one.
        :param with_statistics: write the table, too.
        :param settled: False while a slider is dragged; see :meth:`~.live_result.LiveResult.update`.
        """
        self.take_edits()
        return self.live.update(
            self.threshold if threshold is None else threshold,
            self.minimum_volume_ml if minimum_volume_ml is None else minimum_volume_ml,
            with_statistics=with_statistics,
            settled=settled,
        )

    def lesions(self) -> Lesions:
        """The lesions at the present threshold, computed anew from the heat, as the reader has left them."""
        return self.live.lesions(self.threshold, self.minimum_volume_ml)

    def summary(self, lesions: Lesions | None = None) -> Summary:
        """Key measurements of some lesions of this result; without any, of the present ones."""
        lesions = self.lesions() if lesions is None else lesions
        live = self.live.live
        sizes = lesions.components.sizes
        return Summary(
            lesions.volume_ml,
            float(live.lung_tally.voxels.sum()) * live.voxel_volume_ml,
            len(sizes),
            float(sizes.max()) * live.voxel_volume_ml if len(sizes) else 0.0,
        )

    def places(self) -> list[LesionPlace]:
        """The lesions from the largest to the smallest, with volume_ml and voxel (k, j, i)."""
        return lesions_by_size(self.lesions().components, self.live.live.voxel_volume_ml)

    # Review

    @property
    def review(self) -> Review:
        """The reader's decisions.

        :raises LesionDecompError: the result has lost its report, which names its CT.
        """
        return review_of(self.nodes)

    @property
    def recorded_review(self) -> Review:
        """The same in the places that the CT had in the run, as the report has it; also where the CT has changed."""
        return recorded_review(self.nodes)

    def reviewed_lesions(self) -> list[ReviewedLesion]:
        """The model's lesions at the present threshold, the largest first, then what the reader added or painted."""
        return self.live.review.lesions(self.review, self.threshold, self.minimum_volume_ml)

    def warnings(self) -> list[str]:
        """What looked wrong to the run, what has changed since, decisions whose place holds no heat, and regions that
        do not meet the lungs."""
        odd: list[str] = []
        with suppress(LesionDecompError):  # nodes that no longer fit: whoever shows their lesions reports it
            placed = self.live.review.placed(self.review) if self.nodes.heatmap.GetAttribute(REVIEW) else None
            odd += [] if placed is None else placed.warnings
            odd += self._live_regions().tallies.warnings if self.regions_node is not None else []
        return warnings_now(self.nodes, odd)

    def decide(self, decision: str, voxel: tuple[int, int, int], threshold: float | None = None) -> Lesions:
        """Accept, reject or add the lesion at a voxel of the axial stack (z, y, x); everything follows.

        :param decision: ``"accept"``, ``"reject"`` or ``"add"``.
        :param threshold: the lesion is the connected heat of at least this; None takes the present one.
        :return: the lesions that are left.
        """
        self.take_edits()
        place = lps_of_voxel(self.live.view, voxel)
        made = decision_at(place, decision, self.threshold if threshold is None else threshold)
        return self._review(self.review.with_decision(made))

    def take_edits(self) -> Edit | None:
        """Count lesions that were edited by hand, in segment or labelmap, as a decision; quick where none were.

        The edit is about voxels: painted ones are lesion at any threshold, erased ones are none at any.

        :return: the edit; None where there is none.
        """
        if not is_edited(self.nodes) or self.nodes.report is None:
            return None
        live = self.live
        edit = find_edit(self.nodes, live.mask(self.lesions()))
        if edit.is_none and not edit.beside and not edit.covered:
            remember_written(self.nodes)
            return None
        if not edit.is_none:
            array_voxel = np.argwhere(edit.painted if edit.painted.any() else edit.erased)[0]
            place = lps_of_array_voxel(live.view, array_voxel)
            made = decision_at(place, PAINT, self.threshold)
            made = replace(made, painted=runs_of(edit.painted), erased=runs_of(edit.erased))
            keep_review(self.nodes, self.review.with_decision(made))
        # Written anew only where it holds other voxels than count: its own undo goes on working otherwise.
        live.update(self.threshold, self.minimum_volume_ml, with_segment=edit.beside > 0 or edit.covered > 0)
        self.update_plots()
        return edit

    def undo_decision(self) -> Lesions:
        """Take back the latest decision, be it about a lesion, about voxels or about slices."""
        self.take_edits()
        return self._review(self.review.undone())

    def mark_slices(self, first: int, last: int, seen: bool) -> None:
        """Mark axial slices, counted from 0 at the lowest, both ends included, as seen or not seen by the reader."""
        review = self.review.with_slices(range(max(first, 0), min(last + 1, self.slices)), seen, now())
        keep_review(self.nodes, review)

    @property
    def slices(self) -> int:
        """Number of axial slices."""
        return int(self.live.view.shape[0])

    def slice_labels(self) -> dict[int, str]:
        """The label of each slice that was seen: ``"lesion"`` where a lesion is left, else ``"normal"``.

        Edits by hand count once they were taken (:meth:`take_edits`).
        """
        live = self.live
        _, areas = area_along_body(self.lesions().components, live.view, live.live.voxel_volume_ml)
        return labels_of_seen(self.review.seen, areas > 0)

    def slice_at(self, ras: tuple[float, float, float]) -> int:
        """The axial slice, counted from 0 at the lowest, that lies nearest to a point of the world, RAS mm."""
        height = np.linalg.solve(self.live.view.axial_to_ras, [*ras, 1.0])[2]
        return int(np.clip(round(float(height)), 0, self.slices - 1))

    def voxel_of(self, ras: tuple[float, float, float]) -> tuple[int, int, int] | None:
        """The voxel of the axial stack (z, y, x) that holds a point of the world, RAS mm; None beside the CT."""
        return voxel_at(self.live.view, (-ras[0], -ras[1], ras[2]))

    def heat_at(self, voxel: tuple[int, int, int]) -> float:
        """Heat at a voxel of the axial stack (z, y, x); 0 outside the lungs."""
        return float(self.live.live.heat[voxel])

    def jump_to_lesion(self, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
        """Move all slice views to a voxel of the axial stack (z, y, x); its RAS, mm."""
        left, posterior, superior = lps_of_voxel(self.live.view, voxel)
        return views.jump_to_point(self.nodes, (-left, -posterior, superior))

    def _review(self, review: Review) -> Lesions:
        keep_review(self.nodes, review)
        lesions = self.set_threshold()
        self.update_plots()
        return lesions

    # Regions

    @property
    def regions_node(self):
        """The segmentation or labelmap whose structures are measured as regions, or None."""
        return chosen_regions(self.heatmap)

    def set_regions(self, node) -> None:
        """Measure the structures of a segmentation or labelmap as regions; None leaves thirds and halves."""
        choose_regions(self.heatmap, node)

    def regions(self, lesions: Lesions | None = None) -> RegionMeasurements:
        """What is measured of some lesions, by default the present ones, in thirds, halves and the chosen regions.

        :raises LesionDecompError: regions without a structure, or on another grid.
        """
        return self._live_regions().at(self.lesions() if lesions is None else lesions)

    def _live_regions(self) -> LiveRegions:
        live = self.live
        if self._regions is None or not self._regions.is_of(live):
            self._regions = LiveRegions(live)
        return self._regions

    def update_region_table(self, *, make: bool = False):
        """Update the table node with the regions, if there is one.

        :param make: make it if there is none.
        :return: the table node, or None.
        """
        return show_region_table(self.nodes, self.regions(), make=make)

    # Views

    def show(self) -> None:
        """Show CT, heatmap and lesion outline in the slice views, at the slice with most lesion."""
        views.show_result(self.nodes)

    def set_look(
        self,
        *,
        heat: bool | None = None,
        outline: bool | None = None,
        opacity: float | None = None,
        legend: bool | None = None,
        legend_view: str = views.RED_VIEW,
        surfaces: bool | None = None,
    ) -> None:
        """Show or hide heatmap, outline, color legend and 3-D surfaces; what is None stays as it is.

        :param opacity: of the heatmap, 0 to 1.
        :param legend_view: ID of the slice view that has the legend.
        :param surfaces: True makes the segmentation where there is none yet.
        """
        if not (heat is None and outline is None and opacity is None):
            views.set_overlay(self.nodes, heat=heat, outline=outline, opacity=opacity)
        if legend is not None:
            views.set_legend_visible(self.nodes, legend, legend_view)
        if surfaces:
            self.nodes = add_segmentation(self.nodes)
        if surfaces is not None and self.nodes.segmentation is not None:
            views.set_surfaces_visible(self.nodes, surfaces)

    def jump_to(self, voxel: tuple[int, int, int]) -> tuple[float, float, float]:
        """Move all slice views to a voxel (k, j, i).

        :return: its RAS, mm.
        """
        return views.jump_to_voxel(self.nodes, voxel)

    # Plots

    def show_plot(self, which: str):
        """Show a plot in Slicer's plot view: "volume" (against the threshold) or "area" (along the body).

        :return: the chart node.
        """
        self.update_plots(make=True)
        chart = self.heatmap.GetNodeReference(f"LesionDecomp.{which}Chart")
        show_chart(chart)
        return chart

    def update_plots(self, *, make: bool = False) -> None:
        """Update the plots, if there are any.

        :param make: make them if there are none.
        """
        if not (make or plots.has_plots(self.heatmap)):
            return
        live, lesions = self.live, self.lesions()
        plots.show_volume_curve(self.heatmap, live.live.curve, self.threshold, lesions.volume_ml)
        areas = area_along_body(lesions.components, live.view, live.live.voxel_volume_ml)
        plots.show_area_along_body(self.heatmap, *areas)

    # Tables

    def measurements(self) -> list[RegionStatistics]:
        """The measurements that the table node holds, a row for each region."""
        return read_table(self.table)

    def show_table(self):
        """Show all measurements, readable, in Slicer's table view.

        :return: the table node for people: measurements as rows, regions as columns.
        """
        table = show_readable_table(self.heatmap, self.measurements())
        show_table(table)
        return table

    # Files

    def statistics_text(self) -> str:
        """The measurements for the clipboard, tab-separated, measured on the nodes as they are now."""
        self.take_edits()
        return result_export.statistics_text(self.nodes)

    def write_statistics(self, path: str | Path) -> None:
        """Write the measurements as CSV, measured on the nodes as they are now.

        :raises LesionDecompError: the file cannot be written; likewise the other files.
        """
        self.take_edits()
        result_export.write_statistics(self.nodes, path)

    def write_regions(self, path: str | Path) -> None:
        """Write regions with severity scores as CSV, measured on the nodes as they are now."""
        self.take_edits()
        result_export.write_regions(self.nodes, path)

    def methods_text(self) -> str:
        """A paragraph for the methods section of a paper, from the manifest; nothing about the patient."""
        self.take_edits()
        return result_export.methods(self.nodes)

    def write_manifest(self, path: str | Path) -> None:
        """Write the manifest as JSON, with threshold and measurements as they are now."""
        self.take_edits()
        result_export.write_manifest(self.nodes, path)

    def write_report(self, path: str | Path) -> None:
        """Write the report: one HTML page with pictures, measurements, definitions and warnings."""
        self.take_edits()
        result_export.write_report(self.nodes, path)

    def add_to_training_set(self, folder: str | Path) -> GrownSet:
        """Have the slices that were seen join a training set, new or old, as images with one label each; no outlines.

        :raises LesionDecompError: no slice was seen, or the folder holds something else.
        """
        from LesionDecompLib.training.data.reviewed import add_reviewed_case  # not before: it loads torch

        self.take_edits()
        nodes = self.nodes
        return add_reviewed_case(
            folder,
            volume_from_node(nodes.ct, copy=False),
            slicer.util.arrayFromVolume(nodes.lungs),
            self.slice_labels(),
            self.review.input_sha256,
            patient_word(nodes.ct),
        )

    def write_dicom_segmentation(self, path: str | Path) -> list[str]:
        """Write lungs and lesions as a DICOM segmentation in the study of the CT, which must come from DICOM.

        :return: names of the segments written.
        """
        from .dicom_export import write_segmentation  # not before: Slicer starts without it

        self.take_edits()
        return write_segmentation(self.nodes, path)


def show_chart(chart: Any) -> None:
    """Show a chart node in Slicer's plot view; does nothing where there is no application."""
    module = getattr(slicer.modules, "plots", None) if hasattr(slicer, "modules") else None
    if module is not None:
        module.logic().ShowChartInLayout(chart)


def show_table(table: Any) -> None:
    """Show a table node in Slicer's table view; does nothing where there is no application."""
    module = getattr(slicer.modules, "tables", None) if hasattr(slicer, "modules") else None
    layouts = nodes_of_class(table.GetScene(), "vtkMRMLLayoutNode")
    selection = slicer.app.applicationLogic().GetSelectionNode()
    if module is None or selection is None:
        return
    for layout in layouts[:1]:
        layout.SetViewArrangement(module.logic().GetLayoutWithTable(layout.GetViewArrangement()))
    selection.SetActiveTableID(table.GetID())
    slicer.app.applicationLogic().PropagateTableSelection()
