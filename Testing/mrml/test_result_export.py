"""A result out of the scene: what is written is what is seen, and agrees with Slicer's own way of measuring."""

from __future__ import annotations

import json

import numpy as np
import pytest
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.readers import volume_identity
from LesionDecompLib.measurement.definitions import MEASUREMENTS, measurement
from LesionDecompLib.measurement.statistics import read_statistics_csv

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
import vtk  # noqa: E402
from LesionDecompMrml import ct_change  # noqa: E402

HALF = 0.5  # of the lung's heat, a threshold that makes half of it lesion


@pytest.fixture
def nodes(logic, ct_node, lung_node):
    """A result with a segmentation, about half of the lung called lesion."""
    nodes = logic.process(ct_node, lungMask=lung_node, segmentationNode=True, minimumVolumeMl=0.0, device="cpu")
    heat, lungs = (slicer.util.arrayFromVolume(node) for node in (nodes.heatmap, nodes.lungs))
    logic.updateThreshold(nodes.heatmap, float(np.quantile(heat[lungs > 0], HALF)))
    return nodes


def slicer_statistics(segmentation, segment_id: str, ct) -> tuple[float, float]:
    """Volume (mL) and mean HU of a segment, as Slicer's Segment Statistics computes them.

    Its labelmap plugin counts the voxels of the segment's binary labelmap and multiplies by their size; its scalar
    volume plugin takes the mean of the volume through a stencil of that labelmap, resampled to the volume's grid.
    """
    labelmap = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment_id, labelmap)
    extent = labelmap.GetExtent()
    assert extent[0] <= extent[1]
    ones = vtk.vtkImageThreshold()
    ones.SetInputData(labelmap)
    ones.ThresholdByUpper(1)
    ones.SetInValue(1)
    ones.SetOutValue(0)
    ones.Update()
    counted = vtk.vtkImageAccumulate()
    counted.SetInputData(ones.GetOutput())
    counted.SetComponentOrigin(0, 0, 0)
    counted.SetComponentSpacing(1, 1, 1)
    counted.IgnoreZeroOn()
    counted.Update()
    volume_ml = counted.GetVoxelCount() * float(np.prod(labelmap.GetSpacing())) / 1000.0

    reference = slicer.vtkOrientedImageData()
    reference.ShallowCopy(ct.GetImageData())
    place = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(place)  # segment and CT lie under the same transform: it cancels out
    reference.SetGeometryFromImageToWorldMatrix(place)
    resampled = slicer.vtkOrientedImageData()
    assert slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        labelmap, reference, resampled, False, False
    )
    stencil = vtk.vtkImageToImageStencil()
    stencil.SetInputData(resampled)
    stencil.ThresholdByUpper(1)
    stencil.Update()
    mean = vtk.vtkImageAccumulate()
    mean.SetInputData(ct.GetImageData())
    mean.SetStencilData(stencil.GetOutput())
    mean.Update()
    return volume_ml, float(mean.GetMean()[0])


def figure(nodes, region: str, key: str) -> float:
    """A figure from the table node that the user reads."""
    table = nodes.table
    header = measurement(key).header
    column = next(c for c in range(table.GetNumberOfColumns()) if table.GetColumnName(c) == header)
    row = next(r for r in range(table.GetNumberOfRows()) if table.GetCellText(r, 0) == region)
    return table.GetTable().GetColumn(column).GetValue(row)


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_volume_and_mean_hu_agree_with_segment_statistics(logic, ct_node, lung_node, turned):
    """Also for a CT under a transform with another orientation."""
    if turned:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix = vtk.vtkMatrix4x4()
        matrix.DeepCopy((0.8, -0.6, 0, 20, 0.6, 0.8, 0, -10, 0, 0, 1, 5, 0, 0, 0, 1))
        transform.SetMatrixTransformToParent(matrix)
        for node in (ct_node, lung_node):
            node.SetAndObserveTransformNodeID(transform.GetID())
    nodes = logic.process(ct_node, lungMask=lung_node, segmentationNode=True, minimumVolumeMl=0.0, device="cpu")
    heat, lungs = (slicer.util.arrayFromVolume(node) for node in (nodes.heatmap, nodes.lungs))
    logic.updateThreshold(nodes.heatmap, float(np.quantile(heat[lungs > 0], HALF)))
    for segment_id, region, name in (
        ("lesion", "both lungs", "lesion"),
        ("right-lung", "right lung", "lung"),
        ("left-lung", "left lung", "lung"),
    ):
        volume_ml, mean_hu = slicer_statistics(nodes.segmentation, segment_id, nodes.ct)
        assert volume_ml > 10
        assert figure(nodes, region, f"{name}_volume_ml") == pytest.approx(volume_ml, rel=1e-3)
        assert figure(nodes, region, f"{name}_hu_mean") == pytest.approx(mean_hu, rel=1e-3)


@pytest.mark.slow
def test_every_column_of_the_table_has_its_unit_and_definition(nodes):
    table = nodes.table
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    assert names == ["Region", *(m.header for m in MEASUREMENTS)]
    for m in MEASUREMENTS:
        assert table.GetColumnDescription(m.header) == m.explanation
        assert table.GetColumnUnitLabel(m.header) == m.unit


@pytest.mark.slow
def test_csv_and_clipboard_hold_the_tables_figures(logic, nodes, tmp_path):
    path = tmp_path / "Müller" / "figures.csv"
    path.parent.mkdir()
    logic.result(nodes.heatmap).write_statistics(path)
    rows = read_statistics_csv(path)
    for row in rows:
        for m in MEASUREMENTS:
            shown = figure(nodes, row.region, m.key)
            assert np.isclose(row.values[m.key], shown, rtol=1e-6, equal_nan=True)
    lines = logic.result(nodes.heatmap).statistics_text().splitlines()
    assert lines[0].split("\t")[:2] == ["Region", "Lung volume (mL)"]
    assert len(lines) == 13 and len({line.count("\t") for line in lines}) == 1
    assert float(lines[1].split("\t")[2]) == pytest.approx(figure(nodes, "both lungs", "lesion_volume_ml"), rel=1e-6)


@pytest.mark.slow
def test_manifest_and_report_report_the_threshold_and_edits_as_they_are_now(logic, nodes, tmp_path):
    threshold = nodes.threshold + 0.01
    logic.updateThreshold(nodes.heatmap, threshold)
    logic.result(nodes.heatmap).write_manifest(tmp_path / "run.json")
    manifest = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert manifest["parameters"]["threshold"] == threshold
    both = manifest["statistics"][0]
    assert both["lesion_volume_ml"] == pytest.approx(figure(nodes, "both lungs", "lesion_volume_ml"))
    assert manifest["models"]["lesions"]["name"] == "untrained-lesions"

    # The user erases every lesion by hand: what is exported follows.
    slicer.util.arrayFromVolume(nodes.lesions)[:] = 0
    slicer.util.arrayFromVolumeModified(nodes.lesions)
    logic.result(nodes.heatmap).write_manifest(tmp_path / "run.json")
    edited = json.loads((tmp_path / "run.json").read_text("utf-8"))
    assert (
        edited["review"]["statistics"][0]["lesion_volume_ml"] == figure(nodes, "both lungs", "lesion_volume_ml") == 0.0
    )
    assert edited["statistics"] == manifest["statistics"]  # the model's own stay beside it
    logic.result(nodes.heatmap).write_report(tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.startswith("<!DOCTYPE html>") and html.count("<img ") == 8
    assert f"threshold {threshold:.3g}" in html


@pytest.mark.slow
def test_a_result_without_its_report_is_refused_and_nothing_is_written(logic, nodes, tmp_path):
    nodes.report.SetText("{")
    result = logic.result(nodes.heatmap)
    for write in (result.write_manifest, result.write_report):
        with pytest.raises(LesionDecompError) as reported:
            write(tmp_path / "file")
        assert reported.value.found.startswith("a report that cannot be read in ")
    slicer.mrmlScene.RemoveNode(nodes.report)
    with pytest.raises(LesionDecompError, match="without its report"):
        logic.result(nodes.heatmap).write_manifest(tmp_path / "file")
    logic.result(nodes.heatmap).write_statistics(tmp_path / "figures.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["figures.csv"]


def test_segmentation_is_ready_for_dicom_export(logic, ct_node, lung_node):
    """In the study of its CT, on the CT's grid, which it refers to, with a code for each segment."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(ct_node), study)
    ct_node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    nodes = logic.process(ct_node, lungMask=lung_node, segmentationNode=True, device="cpu")
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(nodes.segmentation)) == study
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert nodes.segmentation.GetNodeReference(role) == ct_node
    segmentation = nodes.segmentation.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == 3
    for index in range(3):
        terminology = vtk.reference("")
        segment = segmentation.GetNthSegment(index)
        assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
        assert "SCT^" in str(terminology)
    # As the exporter asks for it: one labelmap of all segments on the grid of the referenced CT.
    merged = slicer.vtkOrientedImageData()
    nodes.segmentation.GenerateMergedLabelmapForAllSegments(
        merged, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, None, None
    )
    assert merged.GetDimensions() == ct_node.GetImageData().GetDimensions()
    place = vtk.vtkMatrix4x4()
    merged.GetImageToWorldMatrix(place)
    expected = vtk.vtkMatrix4x4()
    ct_node.GetIJKToRASMatrix(expected)
    np.testing.assert_allclose(
        slicer.util.arrayFromVTKMatrix(place), slicer.util.arrayFromVTKMatrix(expected), atol=1e-6
    )


@pytest.mark.slow
def test_exports_report_a_ct_that_changed_after_the_run_and_the_slider_takes_no_hash(
    logic, nodes, tmp_path, monkeypatch
):
    result = logic.result(nodes.heatmap)
    taken = []
    monkeypatch.setattr(ct_change, "volume_identity", lambda volume: taken.append(1) or volume_identity(volume))
    result.write_statistics(tmp_path / "before.csv")
    assert ct_change.CODE not in codes_of(result, tmp_path / "before.json")
    assert "have changed since the run" not in (tmp_path / "before.csv").read_text("utf-8-sig")
    assert taken == []  # the run's own hash holds for voxels that were not touched

    frame = slicer.util.arrayFromVolume(nodes.ct).copy()
    frame[:, 10:40] += 120
    slicer.util.updateVolumeFromArray(nodes.ct, frame)
    result.set_threshold(0.5, settled=False)
    result.set_threshold(0.6, settled=False)
    assert taken == []
    result.write_statistics(tmp_path / "after.csv")
    result.write_report(tmp_path / "after.html")
    assert codes_of(result, tmp_path / "after.json")[0] == ct_change.CODE
    for name in ("after.csv", "after.html"):
        assert "have changed since the run" in (tmp_path / name).read_text("utf-8-sig")
    assert "have changed since the run" in result.statistics_text()
    assert taken == [1]  # once for all exports

    slicer.util.arrayFromVolume(nodes.ct)[:] -= 0  # in place, as filters write
    slicer.util.arrayFromVolumeModified(nodes.ct)
    assert ct_change.change_warning(nodes) is not None and taken == [1, 1]


def codes_of(result, path) -> list[str]:
    """Codes of the warnings in the manifest that a result writes."""
    result.write_manifest(path)
    return [warning["code"] for warning in json.loads(path.read_text("utf-8"))["warning_codes"]]
