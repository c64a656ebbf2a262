"""Widget wiring of the regions: selector, table, severity scores, and the exports that follow; see panel_fixtures."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer.qt_panel import QtWidgets, cells, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import lesions_of  # noqa: E402


def add_regions(result, parts: dict[str, np.ndarray]):
    """A segmentation with a segment for each mask."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Regions")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(result.ct)
    for name, mask in parts.items():
        segment = node.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment, result.ct)
    return node


@pytest.fixture
def halves(result):
    """Two regions that overlap, and their masks."""
    lungs = slicer.util.arrayFromVolume(result.lungs)
    k = np.arange(lungs.shape[0])[:, None, None] * np.ones(lungs.shape)
    middle = lungs.shape[0] // 2
    parts = {"right upper lobe": (lungs == 1) & (k >= middle), "mine": (lungs > 0) & (k <= middle)}
    return add_regions(result, parts), parts


def test_chosen_regions_are_measured_and_follow_the_threshold(panel, result, halves):
    node, parts = halves
    voxel_ml = np.prod(result.ct.GetSpacing()) / 1000.0
    assert "by lobes: undefined: no lobes were given" in text_of(panel.ui.severityLabel)
    assert "of 24 (research only)" in text_of(panel.ui.severityLabel)
    before = cells(panel.ui.measurementsTable)
    assert [row[0] for row in before[-6:]][:2] == ["both, ventral half", "both, dorsal half"]
    panel.ui.regionsSelector.setCurrentNode(node)
    names = [row[0] for row in cells(panel.ui.measurementsTable)]
    assert names[-3:] == ["right upper lobe", "mine", "elsewhere"]
    assert "not given: right middle lobe" in text_of(panel.ui.severityLabel)
    for threshold in (0.4, 0.47):
        drag(panel, threshold)
        wait_for(lambda: panel.panel.look.is_settled)
        lesions = lesions_of(result) != 0
        rows = {row.region: row.values for row in panel.logic.result(result.heatmap).regions().of_set("given")}
        for name, mask in parts.items():
            assert rows[name]["lung_volume_ml"] == pytest.approx(np.count_nonzero(mask) * voxel_ml)
            assert rows[name]["lesion_volume_ml"] == pytest.approx(np.count_nonzero(mask & lesions) * voxel_ml)
    panel.ui.regionsSelector.setCurrentNode(None)
    assert len(cells(panel.ui.measurementsTable)) == len(before)


def test_a_new_result_keeps_the_regions_of_its_ct_and_takes_none_of_another_patient(
    panel, result, halves, chest_case, monkeypatch
):
    node, _ = halves
    ui, parameters = panel.ui, panel.logic.getParameterNode()
    ui.regionsSelector.setCurrentNode(node)
    monkeypatch.setattr(panel.logic, "present", lambda _nodes: None)  # the panel shows it, as after Apply

    def run(ct, lungs):
        nodes = panel.logic.process(ct, lungs, threshold=0.4)
        panel.panel.look.show(nodes, 0.4, 0.1)
        return nodes

    again = run(result.ct, result.lungs)
    assert parameters.regions == node and panel.logic.result(again.heatmap).regions_node == node
    volume, lungs = chest_case
    other = slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "Another patient")
    mask = slicer.util.addVolumeFromArray(lungs, volume.ijk_to_ras, "Lungs", "vtkMRMLLabelMapVolumeNode")
    nodes = run(other, mask)
    assert parameters.regions is None and ui.regionsSelector.currentNode() is None
    assert panel.logic.result(nodes.heatmap).regions_node is None
    assert "mine" not in [row[0] for row in cells(ui.measurementsTable)]
    assert panel.logic.result(again.heatmap).regions_node == node


def test_exports_hold_the_chosen_regions_and_the_methods_text_is_copied(panel, result, halves, tmp_path):
    node, _parts = halves
    panel.ui.regionsSelector.setCurrentNode(node)
    shown = panel.logic.result(result.heatmap)
    shown.write_regions(tmp_path / "regions.csv")
    shown.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    lines = list(csv.DictReader((tmp_path / "regions.csv").open(encoding="utf-8", newline="")))
    assert [line["Region"] for line in lines] == [row["region"] for row in report["regions"]]
    assert lines[-1]["Region"] == "elsewhere" and len(report["parameters"]["regions"]) == 64
    panel.ui.copyMethodsButton.click()
    assert "Regions supplied by the user (1 lobes, 1 other regions)" in QtWidgets.QApplication.clipboard().text()
    table = result.heatmap.GetNodeReference("LesionDecomp.regionTable")
    assert table.GetNumberOfRows() == len(lines)


def test_regions_that_do_not_fit_are_explained_and_the_rest_stays(panel, result, shown_errors):
    other = slicer.util.addVolumeFromArray(
        np.ones((4, 5, 6), np.uint8), np.diag([3.3, 1.7, 2.9, 1.0]), "other", "vtkMRMLLabelMapVolumeNode"
    )
    panel.ui.regionsSelector.setCurrentNode(other)
    assert "Regions: found" in text_of(panel.ui.severityLabel)
    assert len(cells(panel.ui.measurementsTable)) == 12 and shown_errors == []


def test_regions_beside_the_lungs_or_beyond_the_ct_are_warned_of_here_and_in_files(panel, result, halves, tmp_path):
    assert not panel.ui.warningsLabel.property("visible")
    _, parts = halves
    beside = add_regions(result, {**parts, "liver": slicer.util.arrayFromVolume(result.lungs) == 0})
    panel.ui.regionsSelector.setCurrentNode(beside)
    assert "do not meet the lungs were left out: liver" in text_of(panel.ui.warningsLabel)
    shown = panel.logic.result(result.heatmap)
    shown.write_regions(tmp_path / "regions.csv")
    assert "left out: liver" in (tmp_path / "regions.csv").read_text("utf-8")
    lungs = slicer.util.arrayFromVolume(result.lungs)
    shape = (len(lungs) + 5, *lungs.shape[1:])
    labels = np.ones(shape, np.uint8)  # five slices above the CT, on its lattice
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(result.ct))
    larger = slicer.util.addVolumeFromArray(labels, matrix, "larger", "vtkMRMLLabelMapVolumeNode")
    panel.ui.regionsSelector.setCurrentNode(larger)
    share = 100 * 5 / shape[0]
    assert f"{share:.1f} % of the labelmap 'larger' lie beyond the CT" in text_of(panel.ui.warningsLabel)
    shown.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert "mask_beyond_ct" in [one["code"] for one in report["warning_codes"]]
    panel.ui.regionsSelector.setCurrentNode(None)
    assert not panel.ui.warningsLabel.property("visible")


def test_regions_are_chosen_for_a_result(panel, result):
    assert panel.ui.regionsSelector.property("enabled")
    panel.ui.resultSelector.setCurrentNode(None)
    assert not panel.ui.regionsSelector.property("enabled")


def test_the_color_table_of_a_labelmap_names_its_regions(panel, result):
    """Also where one of its labels is beyond the table; Slicer's own tables name no structure of the user's."""
    lungs = slicer.util.arrayFromVolume(result.lungs)
    labels = lungs.copy()
    labels[:, : labels.shape[1] // 2][lungs[:, : labels.shape[1] // 2] == 1] = 7
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(result.ct))
    node = slicer.util.addVolumeFromArray(labels, matrix, "lobes", "vtkMRMLLabelMapVolumeNode")
    display = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeDisplayNode")
    node.SetAndObserveDisplayNodeID(display.GetID())
    voxel_ml = np.prod(result.ct.GetSpacing()) / 1000.0
    for identity, names in (
        ("vtkMRMLColorTableNodeMine", {1: "right upper lobe", 2: "tumor side", 7: "region 7"}),
        ("vtkMRMLColorTableNodeFileGenericColors.txt", {1: "region 1", 2: "region 2", 7: "region 7"}),
    ):
        colors = slicer.vtkMRMLColorTableNode()
        colors.SetTypeToUser()
        colors.SetNumberOfColors(3)
        for value, name in ((0, "background"), (1, "right upper lobe"), (2, "tumor side")):
            colors.SetColor(value, name, 0.1, 0.2, 0.3, 1.0)
        if identity.endswith("txt"):  # as Slicer keeps its own tables, of which there is one
            colors.SetSingletonTag(identity.removeprefix("vtkMRMLColorTableNode"))
        table = slicer.mrmlScene.AddNode(colors)
        assert table.GetID() == identity or not identity.endswith("txt")
        display.SetAndObserveColorNodeID(table.GetID())
        panel.ui.regionsSelector.setCurrentNode(None)
        panel.ui.regionsSelector.setCurrentNode(node)
        rows = panel.logic.result(result.heatmap).regions().of_set("given")
        assert [row.region for row in rows] == [*names.values(), "elsewhere"]
        for row, value in zip(rows, names, strict=False):
            assert row.values["lung_volume_ml"] == pytest.approx(np.count_nonzero(labels == value) * voxel_ml)


def _ijk_to_ras(ct):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    return matrix
