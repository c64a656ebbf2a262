"""Widget wiring of the review: list, tick, jump, undo, adding by a click; see panel_fixtures."""

from __future__ import annotations

import json

import numpy as np
import pytest

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer.qt_panel import QtCore, QtWidgets, cells, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import lesions_of  # noqa: E402
from LesionDecompLib.ct.anatomy import LUNGS  # noqa: E402
from LesionDecompMrml.lesion_edits import edited_lung_voxels  # noqa: E402
from LesionDecompMrml.result_nodes import add_segmentation  # noqa: E402
from LesionDecompMrml.review import decision_at, keep_review  # noqa: E402
from scipy.ndimage import label  # noqa: E402

CHECKED, UNCHECKED = QtCore.Qt.CheckState.Checked, QtCore.Qt.CheckState.Unchecked


@pytest.fixture
def several(panel, result):
    """The result at a threshold that leaves several lesions."""
    heat = slicer.util.arrayFromVolume(result.heatmap)
    drag(panel, float(np.percentile(heat[heat > 0], 97)))
    wait_for(lambda: panel.panel.look.is_settled)
    assert len(cells(panel.ui.lesionsTable)) > 1
    return result


def _tick(panel, row: int, state) -> None:
    panel.ui.lesionsTable.item(row, 0).setCheckState(state)


def test_the_list_names_each_lesion_largest_first(panel, several):
    lesions, count = label(lesions_of(several), np.ones((3, 3, 3)))
    sizes = np.sort(np.bincount(lesions.ravel())[1:])[::-1] * np.prod(several.ct.GetSpacing()) / 1000.0
    listed = panel.logic.result(several.heatmap).reviewed_lesions()
    assert len(listed) == count == len(cells(panel.ui.lesionsTable))
    np.testing.assert_allclose([one.lesion.volume_ml for one in listed], sizes)
    hu, heat = (slicer.util.arrayFromVolume(node) for node in (several.ct, several.heatmap))
    largest = lesions == np.argmax(np.bincount(lesions.ravel())[1:]) + 1
    assert listed[0].lesion.mean_hu == pytest.approx(hu[largest].mean())
    assert listed[0].lesion.highest_heat == pytest.approx(heat[largest].max())
    assert "lung" in listed[0].lesion.region and "third" in listed[0].lesion.region


def test_a_list_that_is_cut_says_so_and_keeps_the_readers_own(panel, several, monkeypatch):
    from LesionDecompPanel import review_section

    shown, heat = panel.logic.result(several.heatmap), slicer.util.arrayFromVolume(several.heatmap)
    whole = len(shown.reviewed_lesions())
    monkeypatch.setattr(review_section, "MOST", 1)
    panel.ui.addThresholdSpinBox.value = 0.3
    k, j, i = np.argwhere((heat >= 0.35) & (lesions_of(several) == 0))[0]
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(several.ct))
    panel.panel.review.view_clicked(tuple((matrix @ (i, j, k, 1.0))[:3]))
    names = [row[0] for row in cells(panel.ui.lesionsTable)]
    assert len(names) == 3 and names[1].startswith("added: ")
    assert names[2] == f"{whole - 1} smaller ones are not listed"
    before = lesions_of(several).copy()
    panel.ui.lesionsTable.cellClicked.emit(2, 0)
    np.testing.assert_array_equal(lesions_of(several), before)


def test_an_unticked_lesion_leaves_everything_stays_out_and_comes_back_by_undo(panel, several, tmp_path):
    before = lesions_of(several).copy()
    lesions, _ = label(before, np.ones((3, 3, 3)))
    largest = lesions == np.argmax(np.bincount(lesions.ravel())[1:]) + 1
    own = panel.logic.result(several.heatmap).measurements()[0].values["lesion_volume_ml"]
    _tick(panel, 0, UNCHECKED)
    np.testing.assert_array_equal(lesions_of(several), before * ~largest)
    voxel_ml = np.prod(several.ct.GetSpacing()) / 1000.0
    left = np.count_nonzero(before) * voxel_ml - np.count_nonzero(largest) * voxel_ml
    shown = panel.logic.result(several.heatmap)
    assert shown.measurements()[0].values["lesion_volume_ml"] == pytest.approx(left)
    assert f"Lesions: {left:.2f} mL" in text_of(panel.ui.figuresLabel)
    assert panel.ui.lesionsTable.item(0, 0).checkState() == UNCHECKED
    shown.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["statistics"][0]["lesion_volume_ml"] == pytest.approx(own)
    assert report["review"]["statistics"][0]["lesion_volume_ml"] == pytest.approx(left)
    assert report["review"]["lesions"][0]["decision"] == "reject"
    # By place: a higher threshold leaves no part of it, a lower one does not bring it back.
    threshold = panel.ui.thresholdSlider.value
    for other in (threshold + 0.01, threshold):
        drag(panel, other)
        wait_for(lambda: panel.panel.look.is_settled)
        assert not (lesions_of(several) != 0)[largest].any()
    panel.ui.undoReviewButton.click()
    np.testing.assert_array_equal(lesions_of(several), before)
    panel.ui.undoReviewButton.click()
    assert "no decision to take back" in text_of(panel.ui.reviewLabel)
    np.testing.assert_array_equal(lesions_of(several), before)


def test_a_tick_puts_a_lesion_back(panel, several):
    before = lesions_of(several).copy()
    _tick(panel, 1, UNCHECKED)
    assert (lesions_of(several) != before).any()
    _tick(panel, 1, CHECKED)
    np.testing.assert_array_equal(lesions_of(several), before)
    assert "Put back" in text_of(panel.ui.reviewLabel)


def test_a_click_adds_the_heat_under_it_and_one_beside_the_lungs_nothing(panel, several):
    before = lesions_of(several).copy()
    heat = slicer.util.arrayFromVolume(several.heatmap)
    panel.ui.addThresholdSpinBox.value = 0.3
    review = panel.panel.review
    k, j, i = np.argwhere((heat >= 0.35) & (before == 0))[0]
    matrix = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(several.ct))
    review.view_clicked(tuple((matrix @ (i, j, k, 1.0))[:3]))
    after = lesions_of(several)
    assert after[k, j, i] and (after >= before).all()
    shown, _ = label(heat >= np.float32(panel.ui.addThresholdSpinBox.value), np.ones((3, 3, 3)))
    np.testing.assert_array_equal(after != 0, (before != 0) | (shown == shown[k, j, i]))
    assert "added: " in cells(panel.ui.lesionsTable)[-1][0]
    _tick(panel, len(cells(panel.ui.lesionsTable)) - 1, UNCHECKED)  # what was added goes, the model's lesions stay
    np.testing.assert_array_equal(lesions_of(several), before)
    panel.ui.undoReviewButton.click()
    np.testing.assert_array_equal(lesions_of(several), after)
    review.view_clicked(tuple((matrix @ (0, 0, 0, 1.0))[:3]))
    assert "No lesion there" in text_of(panel.ui.reviewLabel)
    np.testing.assert_array_equal(lesions_of(several), after)


def test_a_click_in_another_module_adds_nothing(panel, several, monkeypatch):
    """Also while a run goes on, which keeps the panel connected."""
    monkeypatch.setattr(type(panel.panel.run), "is_running", True)
    panel.ui.addLesionButton.setProperty("checked", True)
    panel.exit()
    assert not panel.ui.addLesionButton.property("checked")


def _ijk_to_ras(ct):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    return matrix


def _settle_at(panel, threshold: float) -> None:
    drag(panel, threshold)
    wait_for(lambda: panel.panel.look.is_settled)


def _transform(*, turned: float = 0.0):
    """A transform node: the patient elsewhere, or turned about the axis from left to right, degrees."""
    import vtk

    transform = vtk.vtkTransform()
    transform.Translate(40.0, -7.0, 25.0)
    transform.RotateX(turned)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Pose")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


@pytest.mark.parametrize("turned", [0.0, 25.0, 180.0, 90.0])
def test_decisions_and_seen_slices_move_with_the_ct(panel, several, tmp_path, turned):
    ui, shown = panel.ui, panel.logic.result(several.heatmap)
    before, threshold = lesions_of(several) != 0, float(ui.thresholdSlider.value)
    _tick(panel, 0, UNCHECKED)
    left, lesions, slices = lesions_of(several) != 0, shown.review.lesions, shown.slices
    shown.mark_slices(3, 9, True)
    transform = _transform(turned=turned)
    for node in (several.ct, several.heatmap, several.lungs, several.lesions):
        node.SetAndObserveTransformNodeID(transform.GetID())
    for other in (threshold + 0.002, threshold):
        _settle_at(panel, other)
    np.testing.assert_array_equal(lesions_of(several) != 0, left)
    assert ui.lesionsTable.item(0, 0).checkState() == UNCHECKED and not ui.warningsLabel.property("visible")
    # Upside down the slices count from the other end; on the back they are no axial slices any more.
    expected = {180.0: tuple(range(slices - 10, slices - 3)), 90.0: ()}.get(turned, tuple(range(3, 10)))
    assert panel.logic.result(several.heatmap).review.seen == expected
    ui.lesionsTable.item(1, 0).setCheckState(UNCHECKED)
    ui.undoReviewButton.click()
    if turned == 180.0:  # the latest that was not undone
        assert panel.logic.result(several.heatmap).review.lesions != lesions
    panel.logic.result(several.heatmap).write_manifest(tmp_path / "report.json")
    review = json.loads((tmp_path / "report.json").read_text("utf-8"))["review"]
    assert [one["index"] for one in review["slices"]] == list(range(3, 10))  # as in the run
    np.testing.assert_allclose([one["lps_mm"] for one in review["lesions"]], [one.lps_mm for one in lesions], atol=1e-3)
    several.ct.HardenTransform()
    _settle_at(panel, threshold)
    np.testing.assert_array_equal(lesions_of(several) != 0, left)
    several.ct.SetAndObserveTransformNodeID(None)
    ui.undoReviewButton.click()
    ui.undoReviewButton.click()
    np.testing.assert_array_equal(lesions_of(several) != 0, before)


def test_outputs_follow_a_ct_that_was_moved(panel, several):
    nodes = add_segmentation(several)
    threshold = float(panel.ui.thresholdSlider.value)
    transform = _transform()
    nodes.ct.SetAndObserveTransformNodeID(transform.GetID())
    _settle_at(panel, threshold + 0.01)
    outputs = (nodes.heatmap, nodes.lungs, nodes.lesions, nodes.segmentation)
    assert {node.GetTransformNodeID() for node in outputs} == {transform.GetID()}
    nodes.ct.HardenTransform()
    _settle_at(panel, threshold)
    expected = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(nodes.ct))
    for node in outputs[:3]:
        assert node.GetTransformNodeID() is None
        np.testing.assert_array_equal(slicer.util.arrayFromVTKMatrix(_ijk_to_ras(node)), expected)
    # Its segments, too: the lungs are those that were measured, and nobody has edited them.
    assert nodes.segmentation.GetTransformNodeID() is None
    lungs = slicer.util.arrayFromVolume(nodes.lungs)
    for lung in LUNGS:
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, lung.segment_id, nodes.ct)
        np.testing.assert_array_equal(drawn != 0, lungs == lung.label)
    assert edited_lung_voxels(nodes) == 0 and not panel.ui.warningsLabel.property("visible")


def test_segments_that_were_moved_with_the_ct_stay(panel, several):
    nodes = add_segmentation(several)
    threshold = panel.logic.result(several.heatmap).threshold
    transform = _transform()
    for node in (nodes.ct, nodes.segmentation):
        node.SetAndObserveTransformNodeID(transform.GetID())
        node.HardenTransform()
    _settle_at(panel, threshold + 0.01)
    lungs = slicer.util.arrayFromVolume(nodes.lungs)
    for lung in LUNGS:
        drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, lung.segment_id, nodes.ct)
        np.testing.assert_array_equal(drawn != 0, lungs == lung.label)


def test_a_decision_without_heat_at_its_place_is_a_warning(panel, several, tmp_path):
    shown = panel.logic.result(several.heatmap)
    keep_review(several, shown.review.with_decision(decision_at((1e4, 0.0, 0.0), "reject", 0.4)))
    _tick(panel, 0, UNCHECKED)
    lost = "no heat at their places: 1"
    assert lost in text_of(panel.ui.warningsLabel)
    # What is exported warns of the same.
    shown.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert [one["code"] for one in report["warning_codes"]].count("review_not_applied") == 1
    shown.write_statistics(tmp_path / "statistics.csv")
    shown.write_regions(tmp_path / "regions.csv")
    shown.write_report(tmp_path / "report.html")
    for name in ("statistics.csv", "regions.csv", "report.html"):
        assert lost in (tmp_path / name).read_text("utf-8"), name
    panel.ui.undoReviewButton.click()
    panel.ui.undoReviewButton.click()
    assert not panel.ui.warningsLabel.property("visible")


@pytest.fixture
def run_here(panel, ct_node, monkeypatch):
    """Apply runs at once, in this process."""

    def start_process(inputVolume, options, onDone, **_callbacks):
        nodes = panel.logic.process(inputVolume, options=options)
        panel.panel.run._begin()
        onDone(nodes)

    monkeypatch.setattr(panel.logic, "startProcess", start_process)


@pytest.mark.parametrize("answer", ["Yes", "No", "Cancel"])
def test_running_again_asks_before_a_review_is_lost(panel, several, run_here, mrml_scene, monkeypatch, answer):
    asked: list[str] = []
    button = getattr(QtWidgets.QMessageBox, answer)
    monkeypatch.setattr(slicer.util, "messageBox", lambda text, **_k: asked.append(text) or button)
    shown = panel.logic.result(several.heatmap)
    shown.mark_slices(3, 9, True)
    panel.ui.applyButton.click()
    assert not asked and panel.logic.getParameterNode().heatmap == several.heatmap
    assert panel.logic.result(several.heatmap).review.seen == tuple(range(3, 10))  # about the CT, whatever the run
    _tick(panel, 0, UNCHECKED)
    labelmap = slicer.util.arrayFromVolume(several.lesions)
    labelmap[tuple(np.argwhere(labelmap)[:5].T)] = 0  # an edit that nobody has counted yet
    slicer.util.arrayFromVolumeModified(several.lesions)
    left, run = lesions_of(several).copy(), several.heatmap.GetAttribute("LesionDecomp.run")
    panel.ui.applyButton.click()
    assert len(asked) == 1 and "decisions: 2" in asked[0]
    now = panel.logic.getParameterNode().heatmap
    reviews = {node: panel.logic.result(node).review for node in (several.heatmap, now)}
    assert all(review.seen == tuple(range(3, 10)) for review in reviews.values())
    assert (now == several.heatmap) == (answer != "Yes")
    if answer == "No":
        assert not reviews[now].lesions and several.heatmap.GetAttribute("LesionDecomp.run") != run
        return
    assert [one.decision for one in reviews[several.heatmap].lesions] == ["reject", "paint"]
    assert several.heatmap.GetAttribute("LesionDecomp.run") == run
    np.testing.assert_array_equal(lesions_of(several), left)
    if answer == "Yes":
        new = panel.logic.result(now).nodes
        assert not {id(node) for node in vars(new).values()} & {
            id(node) for name, node in vars(several).items() if node is not None and name != "ct"
        }
        assert not reviews[now].lesions
        both = [add_segmentation(one) for one in (several, new)]
        for shown in both:  # segmentations of the same colors are not drawn over one another
            panel.ui.resultSelector.setCurrentNode(shown.heatmap)
            visible = [one.segmentation.GetDisplayNode().GetVisibility() for one in both]
            assert visible == [one is shown for one in both]
        hidden = both[1].segmentation.GetDisplayNode()
        hidden.SetVisibility(False)  # by the reader
        for shown in both:
            panel.ui.resultSelector.setCurrentNode(shown.heatmap)
            assert not hidden.GetVisibility()
    else:
        assert "Not started" in text_of(panel.ui.statusLabel)
