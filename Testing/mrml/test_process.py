"""The module's logic on MRML nodes: one CT, any orientation, gives one result, on the CT's own grid, or none at all."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from LesionDecompLib.errors import Cancelled, LesionDecompError
from LesionDecompLib.measurement import live
from repository import CHEST, MODULE, TESTING

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
vtk = pytest.importorskip("vtk")

SLICES = slice(20, 44)  # through the middle of the chest: enough lung, and quick
THRESHOLD = 0.4  # the untrained networks' heat lies on both sides of it

# Name -> axes of the new array in the old one's (k, j, i), and which of the new axes run backwards.
REORDERINGS = {
    "flipped left to right": ((0, 1, 2), (False, False, True)),
    "upside down": ((0, 1, 2), (True, False, False)),
    "coronal slices": ((1, 0, 2), (False, True, False)),
    "sagittal slices, left-handed": ((2, 0, 1), (True, False, True)),
}


def node_matrix(node) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def reorder(array: np.ndarray, ijk_to_ras: np.ndarray, axes, flips) -> tuple[np.ndarray, np.ndarray]:
    """Store a volume in another axis order; every voxel keeps its place in the patient."""
    matrix = ijk_to_ras.copy()
    for new_axis, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        step = ijk_to_ras[:3, 2 - axis]
        matrix[:3, 2 - new_axis] = -step if flip else step
        if flip:
            matrix[:3, 3] += step * (array.shape[axis] - 1)
    flipped = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return array.transpose(axes)[flipped], matrix


def restore(array: np.ndarray, axes, flips) -> np.ndarray:
    flipped = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    return array[flipped].transpose(np.argsort(axes))


def snapshot(scene) -> dict[str, tuple[int, bytes]]:
    """Every node of the scene with the time of its last change, and the voxels of its image."""
    state = {}
    for index in range(scene.GetNumberOfNodes()):
        node = scene.GetNthNode(index)
        image = node.GetImageData() if node.IsA("vtkMRMLVolumeNode") else None
        voxels = slicer.util.arrayFromVolume(node).tobytes() if image is not None else b""
        state[node.GetID()] = (node.GetMTime(), voxels)
    return state


@pytest.fixture
def small_ct(ct_node, lung_node):
    """Some slices of a real CT and its lung mask as two nodes: (CT, mask)."""
    matrix = node_matrix(ct_node)
    matrix[:3, 3] += matrix[:3, 2] * SLICES.start
    arrays = [slicer.util.arrayFromVolume(node)[SLICES].copy() for node in (ct_node, lung_node)]
    slicer.mrmlScene.RemoveNode(ct_node)
    slicer.mrmlScene.RemoveNode(lung_node)
    return add_case(*arrays, matrix)


def add_case(hu: np.ndarray, mask: np.ndarray, matrix: np.ndarray, name: str = "CT"):
    ct = slicer.util.addVolumeFromArray(hu, matrix, name)
    lungs = slicer.util.addVolumeFromArray(mask.astype(np.uint8), matrix, f"{name} mask", "vtkMRMLLabelMapVolumeNode")
    return ct, lungs


def add_transform(matrix: np.ndarray):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Pose")
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def turned(degrees: float) -> np.ndarray:
    """A rotation about a skew axis, and a shift."""
    transform = vtk.vtkTransform()
    transform.Translate(11.3, -7.7, 45.1)
    transform.RotateWXYZ(degrees, 0.3, 0.5, 0.8)
    return slicer.util.arrayFromVTKMatrix(transform.GetMatrix())


def heat_of(nodes) -> np.ndarray:
    return slicer.util.arrayFromVolume(nodes.heatmap)


@pytest.mark.slow
@pytest.mark.parametrize("order", REORDERINGS, ids=str)
def test_storing_the_ct_in_another_order_reorders_the_heat_and_changes_nothing_else(logic, small_ct, order):
    ct, mask = small_ct
    expected = logic.process(ct, mask, threshold=THRESHOLD)
    arrays = [slicer.util.arrayFromVolume(node) for node in (ct, mask)]
    (hu, matrix), (labels, _) = (reorder(array, node_matrix(ct), *REORDERINGS[order]) for array in arrays)
    other = logic.process(*add_case(hu, labels, matrix, "Reordered"), threshold=THRESHOLD)

    np.testing.assert_allclose(restore(heat_of(other), *REORDERINGS[order]), heat_of(expected), atol=1e-3)
    lungs, other_lungs = (slicer.util.arrayFromVolume(nodes.lungs) for nodes in (expected, other))
    np.testing.assert_array_equal(restore(other_lungs, *REORDERINGS[order]), lungs)
    for row in range(expected.table.GetNumberOfRows()):
        for column in range(expected.table.GetNumberOfColumns()):
            assert other.table.GetCellText(row, column) == expected.table.GetCellText(row, column)


def geometries() -> dict[str, np.ndarray]:
    """Matrices that a CT may come with; each is multiplied from the left onto an axial grid's."""
    sheared = np.eye(4)
    sheared[1, 2] = np.tan(np.radians(12.0))  # a gantry tilted by 12 degrees
    return {"oblique": turned(17.0), "left-handed": np.diag([-1.0, 1.0, 1.0, 1.0]), "sheared": sheared}


@pytest.mark.slow
@pytest.mark.parametrize("geometry", ["oblique", "left-handed", "sheared"])
def test_results_lie_on_the_grid_of_the_ct_bit_for_bit(logic, small_ct, geometry):
    ct, mask = small_ct
    matrix = geometries()[geometry] @ node_matrix(ct)
    for node in (ct, mask):
        node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    nodes = logic.process(ct, mask, threshold=THRESHOLD, segmentationNode=True)

    for node, dtype in ((nodes.heatmap, np.float32), (nodes.lungs, np.uint8), (nodes.lesions, np.uint8)):
        array = slicer.util.arrayFromVolume(node)
        assert array.dtype == dtype
        assert array.shape == slicer.util.arrayFromVolume(ct).shape
        np.testing.assert_array_equal(node_matrix(node), node_matrix(ct))
        assert node.GetSpacing() == ct.GetSpacing()
        assert node.GetOrigin() == ct.GetOrigin()
    for segment_id, mask in (
        ("right-lung", slicer.util.arrayFromVolume(nodes.lungs) == 1),
        ("left-lung", slicer.util.arrayFromVolume(nodes.lungs) == 2),
        ("lesion", slicer.util.arrayFromVolume(nodes.lesions) == 1),
    ):
        segment = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, segment_id, ct)
        np.testing.assert_array_equal(segment != 0, mask)


@pytest.mark.slow
def test_a_ct_under_a_transform_gives_what_the_hardened_ct_gives(logic, ct_node, lung_node):
    ct, mask = ct_node, lung_node
    hu, labels = (slicer.util.arrayFromVolume(node).copy() for node in (ct, mask))
    # Lays the patient on another side, and makes them larger: axes change places and volumes grow.
    pose = turned(115.0) @ np.diag([1.1, 1.1, 1.1, 1.0])
    hardened = logic.process(*add_case(hu, labels, pose @ node_matrix(ct), "Hardened"), threshold=THRESHOLD)
    transform = add_transform(pose)
    for node in (ct, mask):
        node.SetAndObserveTransformNodeID(transform.GetID())
    nodes = logic.process(ct, mask, threshold=THRESHOLD, segmentationNode=True)

    np.testing.assert_allclose(heat_of(nodes), heat_of(hardened), atol=1e-3)
    for column in range(nodes.table.GetNumberOfColumns()):
        assert nodes.table.GetCellText(0, column) == hardened.table.GetCellText(0, column)
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions):
        np.testing.assert_array_equal(node_matrix(node), node_matrix(ct))
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions, nodes.segmentation):
        assert node.GetTransformNodeID() == transform.GetID()
    lesion = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", ct)
    np.testing.assert_array_equal(lesion != 0, slicer.util.arrayFromVolume(nodes.lesions) != 0)


def test_a_non_linear_transform_is_refused_with_what_to_do(logic, small_ct):
    ct, mask = small_ct
    bend = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bend")
    bend.SetAndObserveTransformFromParent(vtk.vtkThinPlateSplineTransform())
    ct.SetAndObserveTransformNodeID(bend.GetID())
    before = snapshot(slicer.mrmlScene)
    with pytest.raises(LesionDecompError, match=r"non-linear transform 'Bend'.*Harden"):
        logic.process(ct, mask)
    assert snapshot(slicer.mrmlScene) == before


def test_a_second_result_in_the_same_nodes_leaves_nothing_of_the_first(logic, small_ct):
    ct, mask = small_ct
    nodes = logic.process(ct, mask, threshold=THRESHOLD, segmentationNode=True)
    smaller = slicer.util.arrayFromVolume(mask)
    inside = np.argwhere(smaller)
    low, high = inside.min(axis=0), inside.max(axis=0)
    keep = tuple(slice(a + 2, b - 2) for a, b in zip(low, high, strict=True))
    cut = np.zeros_like(smaller)
    cut[keep] = smaller[keep]
    smaller[:] = cut
    again = logic.process(
        ct, mask, threshold=THRESHOLD, heatmapNode=nodes.heatmap, lungsNode=nodes.lungs, lesionsNode=nodes.lesions,
        segmentationNode=nodes.segmentation,
    )  # fmt: skip
    new = logic.process(ct, mask, threshold=THRESHOLD)
    for before, after in ((again.heatmap, new.heatmap), (again.lungs, new.lungs), (again.lesions, new.lesions)):
        np.testing.assert_array_equal(*(slicer.util.arrayFromVolume(node) for node in (before, after)))
    segment = slicer.util.arrayFromSegmentBinaryLabelmap(again.segmentation, "left-lung", ct)
    np.testing.assert_array_equal(segment != 0, slicer.util.arrayFromVolume(new.lungs) == 2)


def test_a_worker_s_request_lets_go_of_the_ct_and_this_process_works_on_a_copy(small_ct):
    from LesionDecompMrml.run_options import RunOptions
    from LesionDecompMrml.segmentation_run import Request

    ct, mask = small_ct
    volume, lungs = (request := Request.read(ct, RunOptions(lung_mask=mask))).hand_over()
    assert np.shares_memory(volume.array, slicer.util.arrayFromVolume(ct)) and lungs.any()
    assert request.mask is None and not any(isinstance(held, type(volume)) for held in vars(request).values())
    copied = Request.read(ct, RunOptions(lung_mask=mask)).volume
    assert not np.shares_memory(copied.array, slicer.util.arrayFromVolume(ct))


def count_again(monkeypatch) -> list:
    """Note each counting of the lungs' voxels from here on."""
    counted, tally = [], live.tally_lungs
    monkeypatch.setattr(live, "tally_lungs", lambda *arrays: counted.append(arrays) or tally(*arrays))
    return counted


@pytest.mark.parametrize("in_worker", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["here", "in a worker"])
def test_the_slider_takes_what_the_run_has_counted_until_a_voxel_changes(
    logic, small_ct, untrained_segmenter, monkeypatch, in_worker
):
    ct, mask = small_ct
    options = {"threshold": THRESHOLD, "model": str(untrained_segmenter.lesion_bundle.path)}
    if in_worker:
        counted, ended = count_again(monkeypatch), []
        logic.startProcess(ct, mask, onDone=ended.append, onFailed=ended.append, **options).wait()
        (nodes,) = ended
    else:
        nodes = logic.process(ct, mask, **options)
        counted = count_again(monkeypatch)
    nodes.heatmap.GetDisplayNode().SetOpacity(0.3)
    logic.forgetResult()
    rows = logic.result(nodes.heatmap).set_threshold(THRESHOLD + 0.05).statistics()
    assert not counted
    slicer.util.arrayFromVolumeModified(nodes.lungs)  # as the Segment Editor does
    again = logic.result(nodes.heatmap).set_threshold(THRESHOLD + 0.05).statistics()
    assert len(counted) == 1
    for row, other in zip(rows, again, strict=True):
        assert row.values == pytest.approx(other.values, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize("kind", ["labelmap", "segments", "segments on their own grid"])
def test_a_lung_mask_that_reaches_beyond_the_ct_is_reported(logic, small_ct, kind):
    ct, mask = small_ct
    lungs, matrix = slicer.util.arrayFromVolume(mask) != 0, node_matrix(ct)
    top = int(np.flatnonzero(lungs.any(axis=(1, 2)))[-1]) - 3
    cropped = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(ct)[:top].copy(), matrix, "Low")
    share = np.count_nonzero(lungs[top:]) / np.count_nonzero(lungs)
    if kind != "labelmap":
        if "own" in kind:
            lungs = lungs.repeat(2, axis=1)
            finer = matrix.copy()
            finer[:3, 1] /= 2
            finer[:3, 3] -= finer[:3, 1] / 2
            matrix = finer
        grid = slicer.util.addVolumeFromArray(lungs.astype(np.uint8), matrix, "Mine", "vtkMRMLLabelMapVolumeNode")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(grid)
        segment_id = segmentation.GetSegmentation().AddEmptySegment("lungs", "lungs")
        slicer.util.updateSegmentBinaryLabelmapFromArray(lungs.astype(np.uint8), segmentation, segment_id, grid)
        mask = segmentation
    nodes = logic.process(cropped, mask)
    codes = json.loads(nodes.report.GetText())["warning_codes"]
    (found,) = [code for code in codes if code["code"] == "mask_beyond_ct"]
    assert found["value"] == pytest.approx(share, abs=1e-3)
    assert found["text"] in nodes.warnings
    whole = logic.process(ct, mask)
    assert not any(code["code"] == "mask_beyond_ct" for code in json.loads(whole.report.GetText())["warning_codes"])


@pytest.mark.slow
@pytest.mark.parametrize("in_worker", [False, True], ids=["here", "in a worker"])
def test_the_healthy_version_is_a_volume_of_its_own_and_kept_by_the_next_run(
    logic, small_ct, untrained_segmenter, in_worker
):
    from LesionDecompMrml.input_nodes import volume_from_node

    ct, mask = small_ct
    wanted = untrained_segmenter.run(
        volume_from_node(ct), lung_mask=slicer.util.arrayFromVolume(mask), threshold=THRESHOLD, healthy=True
    ).healthy

    def process(**outputs):
        options = {"threshold": THRESHOLD, "model": str(untrained_segmenter.lesion_bundle.path), **outputs}
        if not in_worker:
            return logic.process(ct, mask, **options)
        ended = []
        logic.startProcess(ct, mask, onDone=ended.append, onFailed=ended.append, **options).wait()
        assert not isinstance(ended[0], Exception), ended
        return ended[0]

    nodes = process(makeHealthy=True)
    assert nodes.healthy.GetName() == "CT healthy"
    windows = [node.GetDisplayNode().GetWindowLevelMin() for node in (nodes.healthy, nodes.ct)]
    assert windows[0] == windows[1]  # blended, the two must look alike
    found = slicer.util.arrayFromVolume(nodes.healthy)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, wanted)
    assert (found != slicer.util.arrayFromVolume(ct)).any()
    np.testing.assert_allclose(node_matrix(nodes.healthy), node_matrix(ct))
    found[:] = 0
    again = process(heatmapNode=nodes.heatmap, healthyNode=nodes.healthy)
    assert again.healthy == nodes.healthy
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.healthy), wanted)
    assert process().healthy is None


def test_the_ct_itself_is_left_alone(logic, small_ct):
    before = snapshot(slicer.mrmlScene)
    logic.process(*small_ct, threshold=THRESHOLD, segmentationNode=True)
    after = snapshot(slicer.mrmlScene)
    for node in small_ct:
        for part in (node, node.GetDisplayNode()):
            assert after[part.GetID()] == before[part.GetID()]


@pytest.mark.slow
def test_table_holds_the_figures_of_the_library_with_units_and_definitions(logic, small_ct, untrained_segmenter):
    from LesionDecompLib.measurement.definitions import MEASUREMENTS
    from LesionDecompMrml.input_nodes import volume_from_node

    ct, mask = small_ct
    nodes = logic.process(ct, mask, threshold=THRESHOLD)
    result = untrained_segmenter.run(
        volume_from_node(ct), lung_mask=slicer.util.arrayFromVolume(mask), threshold=THRESHOLD
    )
    table = nodes.table.GetTable()
    assert [table.GetColumn(0).GetValue(row) for row in range(12)] == [row.region for row in result.statistics]
    for column, measurement in enumerate(MEASUREMENTS, start=1):
        values = [table.GetColumn(column).GetValue(row) for row in range(12)]
        np.testing.assert_array_equal(values, [row.values[measurement.key] for row in result.statistics])
        name = nodes.table.GetColumnName(column)
        assert name == measurement.header
        assert nodes.table.GetColumnUnitLabel(name) == measurement.unit
        assert nodes.table.GetColumnDescription(name) == measurement.explanation


def test_report_states_enough_to_repeat_the_run(logic, small_ct, untrained_segmenter):
    nodes = logic.process(*small_ct, threshold=THRESHOLD, device="cpu", batchSize=4)
    report = json.loads(nodes.report.GetText())
    asked = {"threshold": THRESHOLD, "min_volume_ml": 0.1, "device": "cpu", "batch_size": 4}
    assert report["parameters"] == asked | {"regions": None, "engine": "auto"}
    assert report["models"]["lesions"]["sha256"] == untrained_segmenter.lesion_bundle.sha256
    assert report["lung_mask"]["source"] == "supplied"
    np.testing.assert_allclose(report["input"]["ijk_to_ras"], node_matrix(small_ct[0]))


@pytest.mark.slow
@pytest.mark.parametrize("with_result", [False, True], ids=["first run", "run that updates a result"])
def test_cancelling_half_way_leaves_the_scene_as_it_was(logic, small_ct, with_result):
    earlier = logic.process(*small_ct, threshold=THRESHOLD) if with_result else None
    outputs = {"heatmapNode": earlier.heatmap, "lesionsNode": earlier.lesions} if earlier else {}
    before = snapshot(slicer.mrmlScene)
    steps = []
    with pytest.raises(Cancelled):
        logic.process(
            *small_ct,
            segmentationNode=True,
            progress=lambda stage, done, total: steps.append(done / total),
            cancelled=lambda: bool(steps) and steps[-1] >= 0.5,
            **outputs,
        )
    assert 0.5 <= steps[-1] < 1.0
    assert snapshot(slicer.mrmlScene) == before


@pytest.mark.slow
@pytest.mark.parametrize("closing", [True, False], ids=["scene closed", "CT removed"])
def test_losing_the_ct_during_a_run_ends_it_without_a_result(logic, small_ct, closing):
    scene = slicer.mrmlScene

    def lose(stage, done, total):
        if stage == "statistics" and done == total:
            if closing:
                scene.Clear(False)
            else:
                scene.RemoveNode(small_ct[0])

    with pytest.raises(Cancelled):
        logic.process(*small_ct, threshold=THRESHOLD, progress=lose)
    assert scene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == (0 if closing else 1)  # the mask stays


def bend(ct) -> None:
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Bend")
    transform.SetAndObserveTransformFromParent(vtk.vtkThinPlateSplineTransform())
    ct.SetAndObserveTransformNodeID(transform.GetID())


def crop(ct) -> None:
    slicer.util.updateVolumeFromArray(ct, slicer.util.arrayFromVolume(ct)[:12].copy())


def move(ct) -> None:
    ct.SetOrigin(*np.add(ct.GetOrigin(), (0.0, 0.0, 5.0)))


@pytest.mark.parametrize("with_result", [False, True], ids=["first run", "run that updates a result"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (bend, "non-linear transform 'Bend'"),
        (crop, "found 'CT' with 64×64×12 voxels; expected the 64×64×24 that it had when the run began"),
        (move, "'CT' in another place"),
    ],
    ids=["bent", "cropped", "moved"],
)
def test_a_ct_that_changes_its_grid_during_a_run_ends_it_in_words_and_nothing_is_written(
    logic, small_ct, change, words, with_result
):
    ct, mask = small_ct
    earlier = logic.process(ct, mask, threshold=THRESHOLD) if with_result else None
    names = ("heatmap", "lungs", "lesions", "table")
    outputs = {f"{name}Node": getattr(earlier, name) for name in names} if earlier else {}
    before = {}

    def meanwhile(stage, done, total):
        if stage == "statistics" and done == total:
            change(ct)
            before.update(snapshot(slicer.mrmlScene))

    with pytest.raises(LesionDecompError, match=words):
        logic.process(ct, mask, threshold=THRESHOLD, segmentationNode=True, progress=meanwhile, **outputs)
    assert snapshot(slicer.mrmlScene) == before


@pytest.mark.parametrize("failing", ["lungs", "table"])
def test_a_failure_while_a_result_is_updated_keeps_the_voxels_of_the_earlier_one(logic, small_ct, monkeypatch, failing):
    import LesionDecompMrml.result_nodes as result_nodes
    from LesionDecompLib.pipeline import SegmentResult

    nodes = logic.process(*small_ct, threshold=THRESHOLD)
    outputs = {f"{name}Node": getattr(nodes, name) for name in ("heatmap", "lungs", "lesions", "table")}
    held = {}
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions):
        slicer.util.arrayFromVolume(node)[:3] = 1  # what no run writes
        held[node] = slicer.util.arrayFromVolume(node).copy()
    run = nodes.heatmap.GetAttribute(result_nodes.RUN)
    boxed = SegmentResult.boxed

    def fail(*arguments):
        if failing in ("table", arguments[-1]):
            raise MemoryError
        return boxed(*arguments)

    monkeypatch.setattr(*((result_nodes, "fill_table") if failing == "table" else (SegmentResult, "boxed")), fail)
    with pytest.raises(MemoryError):
        logic.process(*small_ct, threshold=THRESHOLD + 0.05, **outputs)
    for node, array in held.items():
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), array)
        np.testing.assert_array_equal(node_matrix(node), node_matrix(nodes.ct))
    assert (nodes.heatmap.GetAttribute(result_nodes.RUN), nodes.threshold) == (run, THRESHOLD)


def test_a_result_that_is_written_stays_where_the_slider_cannot_be_prepared(logic, small_ct, monkeypatch):
    import LesionDecompMrml.segmentation_run as segmentation_run

    def fail(*_arguments):
        raise LesionDecompError("Updating the lesions", "a CT", "another one")

    monkeypatch.setattr(segmentation_run, "hand_over", fail)
    nodes = logic.process(*small_ct, threshold=THRESHOLD)
    logic.result(nodes.heatmap).set_threshold(THRESHOLD + 0.05)
    assert nodes.threshold == pytest.approx(THRESHOLD + 0.05)


def test_a_failure_while_nodes_are_written_takes_the_new_nodes_out_again(logic, small_ct, monkeypatch):
    import LesionDecompMrml.result_nodes as result_nodes

    def fail(*_arguments):
        raise MemoryError("no memory for the table")

    monkeypatch.setattr(result_nodes, "fill_table", fail)
    ids = set(snapshot(slicer.mrmlScene))
    with pytest.raises(MemoryError):
        logic.process(*small_ct, threshold=THRESHOLD, segmentationNode=True)
    left = [slicer.mrmlScene.GetNodeByID(i) for i in set(snapshot(slicer.mrmlScene)) - ids]
    assert all(node.IsA("vtkMRMLColorTableNode") for node in left)
    assert not slicer.mrmlScene.IsBatchProcessing()


def bad_inputs():
    """Name -> what is done to the case, and what the sentence must state."""

    def shifted(ct, mask):
        mask.SetOrigin(*np.add(mask.GetOrigin(), (2.0, 0.0, 0.0)))
        return {}

    def coarser(ct, mask):
        mask.SetSpacing(*(1.5 * value for value in mask.GetSpacing()))
        return {}

    def empty_volume(ct, mask):
        return {"inputVolume": slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")}

    def flat(ct, mask):
        slicer.util.updateVolumeFromArray(ct, np.full((5, 6, 7), 40, np.int16))
        return {"lungMask": None}

    def not_a_number(ct, mask):
        array = slicer.util.arrayFromVolume(ct).astype(np.float32)
        array[3, 3, 3] = np.nan
        slicer.util.updateVolumeFromArray(ct, array)
        return {}

    def vector(ct, mask):
        colors = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Colors")
        slicer.util.updateVolumeFromArray(colors, np.zeros((5, 6, 7, 3), np.uint8))
        return {"inputVolume": colors}

    return {
        "no CT": (lambda ct, mask: {"inputVolume": None}, "no volume"),
        "a node without voxels": (empty_volume, "'Nothing' without voxels"),
        "a labelmap as CT": (lambda ct, mask: {"inputVolume": mask}, "a labelmap"),
        "a color picture": (vector, "3 values in each voxel"),
        "a constant volume": (flat, "found"),
        "NaN": (not_a_number, "NaN"),
        "a mask beside the CT": (shifted, "beside the CT"),
        "a mask of other voxels": (coarser, "nearest neighbor"),
        "threshold 1.5": (lambda ct, mask: {"threshold": 1.5}, "threshold of 1.5"),
        "negative minimum volume": (lambda ct, mask: {"minimumVolumeMl": -1.0}, "minimum volume"),
        "CT as its own output": (lambda ct, mask: {"heatmapNode": ct}, "more than one purpose"),
        "mask as output": (lambda ct, mask: {"lungsNode": mask}, "more than one purpose"),
        "one node for two outputs": (lambda ct, mask: one_node_twice(), "more than one purpose"),
        "a labelmap for the heatmap": (
            lambda ct, mask: {"heatmapNode": one_node_twice()["lungsNode"]},
            "a ScalarVolume",
        ),
    }


def add_labelmap():
    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Output")


def one_node_twice() -> dict:
    node = add_labelmap()
    return {"lungsNode": node, "lesionsNode": node}


@pytest.mark.parametrize("name", bad_inputs(), ids=str)
def test_unusable_input_is_refused_in_one_sentence_and_changes_nothing(logic, small_ct, name):
    ct, mask = small_ct
    spoil, expected = bad_inputs()[name]
    arguments = {"inputVolume": ct, "lungMask": mask, "segmentationNode": True, **spoil(ct, mask)}
    before = snapshot(slicer.mrmlScene)
    with pytest.raises(LesionDecompError) as refusal:
        logic.process(**arguments)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert snapshot(slicer.mrmlScene) == before


@pytest.mark.slow
def test_running_again_updates_the_given_nodes_and_keeps_their_display(logic, small_ct):
    nodes = logic.process(*small_ct, threshold=THRESHOLD, segmentationNode=True)
    nodes.heatmap.GetDisplayNode().SetThreshold(0.3, 1.0)
    count = slicer.mrmlScene.GetNumberOfNodes()
    again = logic.process(
        *small_ct,
        threshold=0.45,
        heatmapNode=nodes.heatmap,
        lungsNode=nodes.lungs,
        lesionsNode=nodes.lesions,
        tableNode=nodes.table,
        segmentationNode=nodes.segmentation,
        reportNode=nodes.report,
    )
    assert again == nodes
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert again.threshold == 0.45
    assert nodes.heatmap.GetDisplayNode().GetLowerThreshold() == 0.3
    lesion = slicer.util.arrayFromSegmentBinaryLabelmap(again.segmentation, "lesion", again.ct)
    np.testing.assert_array_equal(lesion, slicer.util.arrayFromVolume(again.lesions))


@pytest.mark.slow
def test_moving_the_threshold_gives_what_a_run_at_that_threshold_gives(logic, small_ct):
    nodes = logic.process(*small_ct, threshold=0.5, segmentationNode=True)
    logic.updateThreshold(nodes.heatmap, THRESHOLD, minimumVolumeMl=1.0)
    fresh = logic.process(*small_ct, threshold=THRESHOLD, minimumVolumeMl=1.0)
    lesions, expected = (slicer.util.arrayFromVolume(n.lesions) for n in (nodes, fresh))
    assert expected.any()
    np.testing.assert_array_equal(lesions, expected)
    segment = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, "lesion", nodes.ct)
    np.testing.assert_array_equal(segment, expected)
    assert (nodes.threshold, nodes.minimum_volume_ml) == (THRESHOLD, 1.0)
    for row in range(12):
        for column in range(nodes.table.GetNumberOfColumns()):
            assert nodes.table.GetCellText(row, column) == fresh.table.GetCellText(row, column)


def test_a_script_may_take_a_threshold_that_no_slider_shows(logic, small_ct):
    nodes = logic.process(*small_ct, threshold=THRESHOLD)
    parameters = logic.getParameterNode()
    assert parameters.heatmap == nodes.heatmap
    logic.updateThreshold(nodes.heatmap, 0.005, minimumVolumeMl=20.0)
    assert (nodes.threshold, nodes.minimum_volume_ml) == (0.005, 20.0)
    assert (parameters.threshold, parameters.minimumVolumeMl) == (0.01, 10.0)


def test_moving_the_threshold_keeps_the_closed_surface_of_the_segment(logic, small_ct):
    nodes = logic.process(*small_ct, threshold=THRESHOLD, segmentationNode=True)
    assert nodes.segmentation.CreateClosedSurfaceRepresentation()
    logic.updateThreshold(nodes.heatmap, 0.42, withStatistics=False)
    surface = vtk.vtkPolyData()
    assert nodes.segmentation.GetClosedSurfaceRepresentation("lesion", surface)
    assert surface.GetNumberOfPoints() > 0


def test_results_are_filed_under_the_study_of_the_ct(logic, small_ct):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Patient")
    study = hierarchy.CreateStudyItem(patient, "Study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(small_ct[0]), study)
    nodes = logic.process(*small_ct, threshold=THRESHOLD, segmentationNode=True)
    for node in (nodes.heatmap, nodes.lungs, nodes.lesions, nodes.segmentation, nodes.table, nodes.report):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study
    geometry = nodes.segmentation.GetNodeReference(
        slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    )
    assert geometry == small_ct[0]
    for segment_id, code in (("right-lung", "24028007"), ("left-lung", "7771000"), ("lesion", "52988006")):
        terminology = vtk.reference("")
        segment = nodes.segmentation.GetSegmentation().GetSegment(segment_id)
        assert segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology)
        entry = slicer.vtkSlicerTerminologyEntry()
        logic = slicer.modules.terminologies.logic()
        assert logic.DeserializeTerminologyEntry(str(terminology), entry)
        codes = (entry.GetTypeObject().GetCodeValue(), entry.GetTypeModifierObject().GetCodeValue())
        assert code in codes


@pytest.mark.slow
def test_a_ct_loaded_in_slicer_gives_what_the_command_line_gives(logic, mrml_scene, untrained_segmenter):
    from LesionDecompLib.io.masks import read_mask
    from LesionDecompLib.io.readers import read_volume

    volume, _ = read_volume(CHEST / "ct.nrrd")
    mask = read_mask(CHEST / "lungs.nrrd", volume)
    expected = untrained_segmenter.run(volume, lung_mask=mask, threshold=THRESHOLD)
    ct = slicer.util.loadVolume(str(CHEST / "ct.nrrd"), {"name": "CT"})
    lungs = slicer.util.loadVolume(str(CHEST / "lungs.nrrd"), {"name": "Lungs", "labelmap": True})
    nodes = logic.process(ct, lungs, threshold=THRESHOLD)
    np.testing.assert_allclose(heat_of(nodes), expected.heat, atol=1e-3)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(nodes.lungs), expected.lungs)
    column = nodes.table.GetColumnIndex("Lesion volume (mL)")
    lesion_ml = nodes.table.GetTable().GetColumn(column).GetValue(0)
    assert lesion_ml == pytest.approx(expected.statistics[0].values["lesion_volume_ml"], rel=1e-3)


@pytest.mark.slow
def test_loading_the_module_file_imports_neither_torch_nor_scikit_image(tmp_path):
    program = (
        "import sys\n"
        f"sys.path[:0] = [{str(TESTING)!r}, {str(MODULE)!r}]\n"
        "from headless_slicer import boot\n"
        f"boot({str(tmp_path)!r}).load_module({str(MODULE / 'LesionDecomp.py')!r})\n"
        "print(sorted({'torch', 'skimage', 'scipy', 'SimpleITK'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, encoding="utf-8", check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("handedness", [1.0, -1.0])
def test_own_surfaces_lie_around_their_voxels_and_face_outward(logic, small_ct, handedness):
    from LesionDecompMrml.surfaces import surface_of
    from vtk.util.numpy_support import vtk_to_numpy

    ct, mask = small_ct
    matrix = node_matrix(ct) @ np.diag([handedness, 1.0, 1.0, 1.0])
    ct.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    inside = slicer.util.arrayFromVolume(mask) == 1
    volume = inside.sum() * abs(np.linalg.det(matrix[:3, :3]))
    k, j, i = np.nonzero(inside)
    middle = (matrix @ (i.mean(), j.mean(), k.mean(), 1.0))[:3]
    for sampled_mm, tolerance in ((0.0, 0.03), (11.0, 0.05)):
        surface = surface_of(inside, ct, sampled_mm)
        mass = vtk.vtkMassProperties()
        mass.SetInputData(surface)
        assert mass.GetVolume() == pytest.approx(volume, rel=tolerance)
        points = vtk_to_numpy(surface.GetPoints().GetData())
        np.testing.assert_allclose(points.mean(axis=0), middle, atol=12.0)
        # By the divergence theorem: outward normals, weighted by area, give a positive volume.
        triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3)
        a, b, c = (points[triangles[:, n]] - points.mean(axis=0) for n in range(3))
        assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0 == pytest.approx(volume, rel=tolerance)
    assert surface_of(inside & False, ct).GetNumberOfPoints() == 0
