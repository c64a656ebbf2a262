"""A result kept in a scene file is the same result when the scene is opened again, in the module or in Slicer."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.review import Decision, Review, SeenSlice
from LesionDecompLib.report.manifest import build_manifest
from LesionDecompMrml.scene_file import write_scene
from repository import MODULE

vtk = pytest.importorskip("vtk")
slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")

THRESHOLD = 0.4


def array_of(node) -> np.ndarray:
    return slicer.util.arrayFromVolume(node).copy()


def table_of(node) -> list[list[str]]:
    rows, columns = node.GetNumberOfRows(), node.GetNumberOfColumns()
    return [[node.GetCellText(row, column) for column in range(columns)] for row in range(rows)]


def matrix_of(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


@pytest.fixture(scope="module")
def segmented(chest_case, untrained_segmenter):
    """A real CT with a tilted gantry, and its result: (volume, result)."""
    ct, lungs = chest_case
    matrix = ct.ijk_to_ras.copy()
    matrix[1, 2] += 0.5
    volume = Volume.from_array(ct.array, matrix, "Jane's CT")
    return volume, untrained_segmenter.run(volume, lung_mask=lungs, threshold=THRESHOLD)


@pytest.fixture
def scene_path(tmp_path, segmented) -> Path:
    volume, result = segmented
    path = tmp_path / "Fälle mit Lücke" / "scene.mrb"
    assert write_scene(path, volume, result, manifest={"report": "ü"}) == path
    assert [entry.name for entry in path.parent.iterdir()] == ["scene.mrb"]
    return path


@pytest.mark.slow
def test_written_scene_holds_the_result(mrml_scene, logic, segmented, scene_path):
    volume, result = segmented
    slicer.util.loadScene(scene_path)
    nodes = logic.resultNodes(slicer.util.getNode("Jane's CT heatmap"))
    np.testing.assert_array_equal(array_of(nodes.ct), volume.array)
    np.testing.assert_array_equal(array_of(nodes.heatmap), result.heat)
    np.testing.assert_array_equal(array_of(nodes.lungs), result.lungs)
    np.testing.assert_array_equal(array_of(nodes.lesions), result.lesions)
    np.testing.assert_allclose(matrix_of(nodes.ct), volume.ijk_to_ras, atol=1e-9)
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions):
        np.testing.assert_allclose(matrix_of(node), matrix_of(nodes.ct), atol=1e-9)
    lesion = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", nodes.ct)
    np.testing.assert_array_equal(lesion, result.lesions)
    assert nodes.threshold == THRESHOLD
    assert json.loads(nodes.report.GetText()) == {"report": "ü"}
    for row, statistics in enumerate(result.statistics):
        lesion_ml = float(nodes.table.GetCellText(row, nodes.table.GetColumnIndex("Lesion volume (mL)")))
        assert lesion_ml == pytest.approx(statistics.values["lesion_volume_ml"], rel=1e-4)
    assert nodes.table.GetColumnUnitLabel("Lesion volume (mL)") == "mL"


def test_writing_a_scene_leaves_the_open_scene_alone(mrml_scene, ct_node, segmented, tmp_path):
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Open view")
    before = {node.GetID(): node.GetMTime() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    write_scene(tmp_path / "scene.mrb", *segmented)
    assert {node.GetID(): node.GetMTime() for node in slicer.util.getNodesByClass("vtkMRMLNode")} == before


@pytest.mark.slow
def test_a_scene_is_written_where_no_application_runs(segmented, tmp_path):
    volume, result = segmented
    arrays = {"hu": volume.array, "heat": result.heat, "lungs": result.lungs, "lesions": result.lesions}
    np.savez(tmp_path / "case.npz", matrix=volume.ijk_to_ras, **arrays)
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(MODULE)!r})\n"
        "import numpy as np\n"
        "from LesionDecompLib.pipeline import SegmentResult\n"
        "from LesionDecompMrml.scene_file import write_scene\n"
        "from LesionDecompLib.ct.volume import Volume\n"
        "case = dict(np.load('case.npz'))\n"
        "volume = Volume.from_array(case.pop('hu'), case.pop('matrix'), 'CT')\n"
        "box = tuple(slice(0, n) for n in volume.shape)\n"
        "rest = dict(device='', warnings=[], timings_s={}, lesion_bundle=None, lung_bundle=None)\n"
        "result = SegmentResult(**case, box=box, statistics=[], threshold=0.4, min_volume_ml=0.1, **rest)\n"
        "write_scene('scene.mrb', volume, result)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, encoding="utf-8"
    )
    assert (run.returncode, run.stderr) == (0, "")
    with zipfile.ZipFile(tmp_path / "scene.mrb") as archive:
        scene = next(archive.read(name).decode() for name in archive.namelist() if name.endswith(".mrml"))
    assert scene.count("backgroundVolume:vtkMRMLScalarVolumeNode1;foregroundVolume:vtkMRMLScalarVolumeNode2;") == 3
    version = re.search(r'<MRML version="slicer-core (\d+)\.(\d+)\.0 \d+"', scene)
    assert (int(version.group(1)), int(version.group(2))) >= (5, 13)


def test_opening_the_scene_shows_the_heatmap_over_the_ct(mrml_scene, logic, scene_path):
    slicer.util.loadScene(scene_path)
    nodes = logic.resultNodes(slicer.util.getNode("Jane's CT heatmap"))
    composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert {node.GetID() for node in composites} == {
        f"vtkMRMLSliceCompositeNode{c}" for c in ("Red", "Green", "Yellow")
    }
    for composite in composites:
        assert composite.GetBackgroundVolumeID() == nodes.ct.GetID()
        assert composite.GetForegroundVolumeID() == nodes.heatmap.GetID()
        assert composite.GetLabelVolumeID() == nodes.lesions.GetID()
        assert 0.0 < composite.GetForegroundOpacity() < 1.0
    window = nodes.ct.GetDisplayNode()
    assert (window.GetWindow(), window.GetLevel()) == (1500.0, -600.0)  # as in the overview and the report
    heat = nodes.heatmap.GetDisplayNode()
    assert heat.GetColorNode().GetName() == "LesionDecomp heat"
    assert (heat.GetApplyThreshold(), heat.GetLowerThreshold()) == (1, 0.1)
    colors = nodes.lungs.GetDisplayNode().GetColorNode()
    assert [colors.GetColorName(label) for label in (1, 2)] == ["right lung", "left lung"]
    views = {view.GetName(): view for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
    assert {name: view.GetOrientation() for name, view in views.items()} == {
        "Red": "Axial",
        "Green": "Coronal",
        "Yellow": "Sagittal",
    }
    # The axial view stands in the slice with the most lesion.
    lesions = array_of(nodes.lesions)
    k = int(lesions.sum(axis=(1, 2)).argmax())
    j, i = (places.mean() for places in np.nonzero(lesions[k]))
    assert views["Red"].GetSliceOffset() == pytest.approx((matrix_of(nodes.ct) @ (i, j, k, 1))[2], abs=0.01)


def test_threshold_moves_on_in_a_reopened_scene(mrml_scene, logic, segmented, scene_path):
    _, result = segmented
    slicer.util.loadScene(scene_path)
    heatmap = slicer.util.getNode("Jane's CT heatmap")
    nodes = logic.updateThreshold(heatmap, 0.42, minimumVolumeMl=0.0)
    np.testing.assert_array_equal(array_of(nodes.lesions) != 0, (result.heat >= np.float32(0.42)) & (result.lungs != 0))


@pytest.mark.slow
def test_scene_of_a_reviewed_run_keeps_the_review_and_takes_it_for_no_edit(
    mrml_scene, logic, segmented, untrained_segmenter, chest_case, tmp_path
):
    volume, own = segmented
    flat = int(np.flatnonzero((own.lungs != 0) & (own.lesions == 0))[0])
    manifest = build_manifest(volume, own)
    paint = Decision((0.0, 0.0, 0.0), "paint", THRESHOLD, "", ((flat, 1),))
    review = Review(manifest["input"]["sha256"], (paint,), (SeenSlice(3, True),))
    result = untrained_segmenter.run(volume, lung_mask=chest_case[1], threshold=THRESHOLD, review=review)
    write_scene(tmp_path / "scene.mrb", volume, result, manifest=build_manifest(volume, result))
    slicer.util.loadScene(tmp_path / "scene.mrb")
    opened = logic.result(slicer.util.getNode("Jane's CT heatmap"))
    assert opened.review == review
    assert opened.take_edits() is None and opened.review == review
    lesions = array_of(opened.nodes.lesions)
    assert lesions.flat[flat] and np.count_nonzero(lesions) == np.count_nonzero(own.lesions) + 1
    opened.undo_decision()  # the slice has no time, so that it counts as the latest
    opened.undo_decision()
    np.testing.assert_array_equal(array_of(opened.nodes.lesions), own.lesions)


@pytest.mark.slow
def test_scene_saved_by_the_user_keeps_result_and_panel(mrml_scene, logic, ct_node, lung_node, tmp_path):
    nodes = logic.process(ct_node, lung_node, threshold=THRESHOLD, segmentationNode=True)
    logic.updateThreshold(nodes.heatmap, 0.43)
    parameters = logic.getParameterNode()
    parameters.inputVolume, parameters.heatmap = ct_node, nodes.heatmap
    parameters.threshold, parameters.minimumVolumeMl, parameters.device = 0.43, 0.25, "cpu"
    heat, lungs, lesions = (array_of(node) for node in (nodes.heatmap, nodes.lungs, nodes.lesions))
    figures, report, name = table_of(nodes.table), nodes.report.GetText(), nodes.heatmap.GetName()
    path = tmp_path / "Müller, study 1.mrb"
    assert slicer.util.saveScene(str(path))

    slicer.mrmlScene.Clear(True)
    slicer.util.loadScene(path)
    parameters = logic.getParameterNode()
    assert (parameters.threshold, parameters.minimumVolumeMl, parameters.device) == (0.43, 0.25, "cpu")
    assert parameters.inputVolume.GetName() == "CT"
    assert parameters.heatmap.GetName() == name
    nodes = logic.resultNodes(parameters.heatmap)
    np.testing.assert_array_equal(array_of(nodes.heatmap), heat)
    np.testing.assert_array_equal(array_of(nodes.lungs), lungs)
    np.testing.assert_array_equal(array_of(nodes.lesions), lesions)
    assert table_of(nodes.table) == figures
    assert nodes.report.GetText() == report
    assert nodes.segmentation.GetSegmentation().GetNumberOfSegments() == 3


def test_a_full_disk_leaves_the_old_file(segmented, tmp_path, monkeypatch):
    import LesionDecompMrml.result_nodes as result_nodes

    def fill_the_disk(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "scene.mrb"
    path.write_bytes(b"an earlier scene")
    monkeypatch.setattr(result_nodes, "fill_table", fill_the_disk)
    with pytest.raises(LesionDecompError, match=r"Writing the scene: found a full disk for 'scene\.mrb'"):
        write_scene(path, *segmented)
    assert path.read_bytes() == b"an earlier scene"
    assert [entry.name for entry in tmp_path.iterdir()] == ["scene.mrb"]


def test_a_folder_that_cannot_be_made_is_reported_so(segmented, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LesionDecompError, match=r"Writing the scene: .*file where a folder should be"):
        write_scene(tmp_path / "taken" / "scene.mrb", *segmented)


def test_a_file_name_that_slicer_would_not_open_is_refused(segmented, tmp_path):
    with pytest.raises(LesionDecompError, match=r"ending in \.mrb"):
        write_scene(tmp_path / "scene.zip", *segmented)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_slicer_core_the_message_states_what_to_install():
    program = (
        "import sys\n"
        "sys.modules['slicer'] = None\n"
        f"sys.path.insert(0, {str(MODULE)!r})\n"
        "from LesionDecompMrml.scene_file import check_scene_support\n"
        "from LesionDecompLib.errors import LesionDecompError\n"
        "try:\n"
        "    check_scene_support()\n"
        "except LesionDecompError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=True)
    assert "pip install lesiondecomp[headless]" in run.stdout


@pytest.mark.slow
def test_the_library_imports_without_slicer_and_vtk():
    program = (
        "import sys\n"
        "sys.modules.update(slicer=None, vtk=None, vtkmodules=None, qt=None, ctk=None)\n"
        f"sys.path.insert(0, {str(MODULE)!r})\n"
        "import importlib, pkgutil, LesionDecompLib\n"
        "for info in pkgutil.walk_packages(LesionDecompLib.__path__, 'LesionDecompLib.'):\n"
        "    if not info.name.endswith('__main__'):\n"
        "        importlib.import_module(info.name)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
