"""Widget wiring of seen slices and of lesions edited by hand; see panel_fixtures."""

from __future__ import annotations

import json

import numpy as np
import pytest
from LesionDecompLib.training.data.slices import read_index

slicer = pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)

from headless_slicer import qt_panel  # noqa: E402
from headless_slicer.qt_panel import cells, drag, text_of, wait_for  # noqa: E402
from headless_slicer.result_arrays import lesions_of  # noqa: E402
from LesionDecompLib.ct.anatomy import LUNG_LESION, LUNGS  # noqa: E402
from LesionDecompMrml.input_nodes import volume_from_node  # noqa: E402
from LesionDecompMrml.lesion_edits import edited_lung_voxels  # noqa: E402
from LesionDecompMrml.result_nodes import add_segmentation  # noqa: E402
from LesionDecompMrml.segmentation_run import Request  # noqa: E402
from LesionDecompMrml.segments import oriented_image, write_segment  # noqa: E402
from LesionDecompMrml.views import RED_VIEW  # noqa: E402


@pytest.fixture
def several(panel, result, mrml_scene):
    """The result at a threshold that leaves lesions in some slices and none in others, beside a Red view."""
    if mrml_scene.GetNodeByID(RED_VIEW) is None:
        view = slicer.vtkMRMLSliceNode()
        view.SetSingletonTag("Red")
        view.SetLayoutName("Red")
        mrml_scene.AddNode(view)
    heat = slicer.util.arrayFromVolume(result.heatmap)
    drag(panel, float(np.percentile(heat[heat > 0], 99)))
    wait_for(lambda: panel.panel.look.is_settled)
    return result


def _held(nodes) -> np.ndarray:
    """Which axial slices hold lesion."""
    return volume_from_node(nodes.ct, copy=False).view.to_axial(lesions_of(nodes)).any(axis=(1, 2))


def _go_to_slice(nodes, index: int) -> None:
    view = slicer.mrmlScene.GetNodeByID(RED_VIEW)
    matrix = volume_from_node(nodes.ct, copy=False).view.axial_to_ras
    r, a, s = (matrix @ (4, 4, index, 1.0))[:3]
    view.JumpSliceByCentering(r, a, s)


def _mark(panel, first: int, last: int) -> None:
    panel.ui.seenFirstSpinBox.setProperty("value", first)
    panel.ui.seenLastSpinBox.setProperty("value", last)
    panel.ui.seenRangeButton.click()


def test_the_slice_of_the_red_view_is_marked_shown_kept_and_taken_back(panel, several, tmp_path):
    ui = panel.ui
    assert "No slice was marked" in text_of(ui.seenLabel)
    _go_to_slice(several, 20)
    wait_for(lambda: "20" in text_of(ui.seenButton))
    assert not ui.seenButton.property("checked")
    ui.seenButton.click()
    assert ui.seenButton.property("checked") and text_of(ui.seenButton) == "Slice 20: seen"
    lesion = bool(_held(several)[20])
    assert f"Seen: 1 of {len(_held(several))} slices (20): {int(lesion)} with lesion" in text_of(ui.seenLabel)
    _go_to_slice(several, 21)
    wait_for(lambda: text_of(ui.seenButton) == "Slice 21: mark as seen")
    assert not ui.seenButton.property("checked")
    result = panel.logic.result(several.heatmap)
    result.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    (one,) = report["review"]["slices"]
    assert (one["index"], one["seen"]) == (20, True)
    assert report["review"]["statistics"] == report["statistics"]
    ui.undoReviewButton.click()
    assert "No slice was marked" in text_of(ui.seenLabel)


def test_a_range_is_marked_and_marked_again_it_is_not_seen(panel, several):
    ui = panel.ui
    _mark(panel, 9, 5)
    assert panel.logic.result(several.heatmap).review.seen == (5, 6, 7, 8, 9)
    assert "(5\N{EN DASH}9)" in text_of(ui.seenLabel) and text_of(ui.seenRangeButton) == "Not seen"
    _mark(panel, 7, 7)
    assert "(5\N{EN DASH}6, 8\N{EN DASH}9)" in text_of(ui.seenLabel)
    ui.undoReviewButton.click()
    ui.undoReviewButton.click()
    assert panel.logic.result(several.heatmap).review.seen == ()


def test_seen_slices_become_the_labels_of_train_and_the_others_teach_nothing(panel, several):
    ui, held = panel.ui, _held(several)
    assert held.any() and not held.all()
    ui.useLabelsButton.click()
    assert "Mark the slices" in text_of(ui.reviewLabel)
    first = int(np.flatnonzero(held)[0])
    _mark(panel, first - 3, first + 2)
    ui.useLabelsButton.click()
    source = ui.trainSourceComboBox
    assert source.itemData(source.property("currentIndex")) == "marked"
    expected = {index: "lesion" if held[index] else "normal" for index in range(first - 3, first + 3)}

    def labels() -> dict[int, str]:
        marks = panel.panel.train.marks.marks()
        assert {mark[0].GetName() for mark in marks} == {several.ct.GetName()}
        return {index: label for _, low, high, label, _ in marks for index in range(low, high + 1)}

    assert labels() == expected
    _mark(panel, first + 1, first + 1)  # not seen any longer
    ui.useLabelsButton.click()
    assert labels() == {index: label for index, label in expected.items() if index != first + 1}
    assert f"labels of {len(expected) - 1} slices" in text_of(ui.reviewLabel)


def test_the_seen_slices_join_a_training_folder_which_train_then_takes(panel, several, tmp_path, monkeypatch):
    ui, held = panel.ui, _held(several)
    monkeypatch.setattr(qt_panel.QtWidgets.QFileDialog, "getExistingDirectory", lambda *_a, **_k: str(tmp_path / "set"))
    first = int(np.flatnonzero(held)[0])
    _mark(panel, first, first + 1)
    ui.addToSetButton.click()
    assert "Still needed, from other CTs" in text_of(ui.reviewLabel)
    rows = read_index(tmp_path / "set")
    assert [(row["slice"], row["label"]) for row in rows] == [
        (str(index), "lesion" if held[index] else "normal") for index in (first, first + 1)
    ]
    assert text_of(ui.trainDataEdit) == str(tmp_path / "set")
    source = ui.trainSourceComboBox
    assert source.itemData(source.property("currentIndex")) == "folder"


def _segmented(panel, several):
    nodes = add_segmentation(several)
    panel.panel.review.refresh()
    return nodes


def _draw(nodes, mask: np.ndarray) -> None:
    """Write the lesion segment, as Segment Editor does."""
    write_segment(nodes.segmentation, nodes.ct, LUNG_LESION, mask.astype(np.uint8))


def test_painting_in_a_segment_counts_beside_the_models_own_values_and_survives_the_slider(panel, several, tmp_path):
    nodes = _segmented(panel, several)
    before = lesions_of(nodes) != 0
    lungs = slicer.util.arrayFromVolume(nodes.lungs) != 0
    voxel_ml = np.prod(nodes.ct.GetSpacing()) / 1000.0
    painted = np.zeros_like(before)
    painted[tuple(np.argwhere(lungs & ~before)[:40].T)] = True
    erased = np.zeros_like(before)
    erased[tuple(np.argwhere(before)[:10].T)] = True
    _draw(nodes, before & ~erased | painted)
    wait_for(lambda: "Edited by hand" in text_of(panel.ui.reviewLabel))
    wanted = before & ~erased | painted
    np.testing.assert_array_equal(lesions_of(nodes) != 0, wanted)
    result = panel.logic.result(nodes.heatmap)
    assert result.measurements()[0].values["lesion_volume_ml"] == pytest.approx(wanted.sum() * voxel_ml)
    assert any("painted: " in row[0] for row in cells(panel.ui.lesionsTable))
    result.write_manifest(tmp_path / "report.json")
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["statistics"][0]["lesion_volume_ml"] == pytest.approx(before.sum() * voxel_ml)
    assert report["review"]["statistics"][0]["lesion_volume_ml"] == pytest.approx(wanted.sum() * voxel_ml)
    (decision,) = report["review"]["lesions"]
    assert decision["decision"] == "paint"
    assert sum(count for _, count in decision["painted"]) == 40 and sum(n for _, n in decision["erased"]) == 10
    threshold = float(panel.ui.thresholdSlider.value)
    for other in (threshold - 0.01, threshold + 0.01, threshold):
        drag(panel, other)
        wait_for(lambda: panel.panel.look.is_settled)
        now = lesions_of(nodes) != 0
        assert now[painted].all() and not now[erased].any()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, wanted)
    assert len(result.review.lesions) == 1  # the slider's own writing is no edit
    panel.ui.undoReviewButton.click()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before)
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, LUNG_LESION.segment_id, nodes.ct) != 0
    np.testing.assert_array_equal(drawn, before)


def test_what_was_painted_beside_the_lungs_goes_and_is_reported(panel, several):
    nodes = _segmented(panel, several)
    before = lesions_of(nodes) != 0
    beside = np.argwhere(slicer.util.arrayFromVolume(nodes.lungs) == 0)[:5]
    wanted = before.copy()
    wanted[tuple(beside.T)] = True
    _draw(nodes, wanted)
    panel.panel.review.take_edits()
    assert "outside the lungs do not count" in text_of(panel.ui.reviewLabel)
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before)
    assert panel.logic.result(nodes.heatmap).review.lesions == ()
    drawn = slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, LUNG_LESION.segment_id, nodes.ct) != 0
    np.testing.assert_array_equal(drawn, before)


def test_an_edit_in_another_module_counts_and_its_row_takes_it_out_again(panel, several):
    nodes = _segmented(panel, several)
    before = lesions_of(nodes) != 0
    lungs = slicer.util.arrayFromVolume(nodes.lungs) != 0
    painted = np.zeros_like(before)
    painted[tuple(np.argwhere(lungs & ~before)[-30:].T)] = True
    panel.exit()
    _draw(nodes, before | painted)
    rested = panel.panel.review.edits.rested
    assert rested.is_pending
    rested.flush()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before | painted)
    panel.enter()
    rows = [n for n, row in enumerate(cells(panel.ui.lesionsTable)) if "painted: " in row[0]]
    for row in reversed(rows):
        panel.ui.lesionsTable.item(row, 0).setCheckState(qt_panel.QtCore.Qt.CheckState.Unchecked)
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before)


def _shown_ml(panel) -> tuple[float, float, float]:
    """Volume of the lesions in the figures, in the panel's table, and in the list, where they are ticked, mL."""
    table = panel.ui.lesionsTable
    ticked = [
        float(row[1])
        for n, row in enumerate(cells(table))
        if table.item(n, 0).checkState() == qt_panel.QtCore.Qt.CheckState.Checked
    ]
    return float(text_of(panel.ui.figuresLabel).split()[1]), float(cells(panel.ui.measurementsTable)[0][2]), sum(ticked)


@pytest.mark.parametrize("again", ["entered", "chosen"])
def test_edits_that_nobody_watched_are_counted_before_anything_is_shown(panel, several, again):
    nodes = _segmented(panel, several)
    panel.panel.seen.show(panel.logic.result(nodes.heatmap))
    _mark(panel, 3, 5)
    if again == "entered":
        panel.exit()
    else:
        panel.ui.resultSelector.setCurrentNode(None)
    panel.panel.review.edits.stop()  # as in a scene that was just loaded
    _draw(nodes, np.zeros_like(lesions_of(nodes)))
    if again == "entered":
        panel.enter()
    else:
        panel.ui.resultSelector.setCurrentNode(nodes.heatmap)
    assert not lesions_of(nodes).any()
    assert _shown_ml(panel) == (0, 0, 0)
    assert "0 with lesion, 3 normal" in text_of(panel.ui.seenLabel)
    assert "Edited by hand" in text_of(panel.ui.reviewLabel)


def test_the_panel_follows_an_edit_that_an_export_has_counted(panel, several):
    nodes = _segmented(panel, several)
    _draw(nodes, np.zeros_like(lesions_of(nodes)))
    panel.logic.result(nodes.heatmap).statistics_text()
    wait_for(lambda: not panel.panel.review.edits.rested.is_pending)
    assert _shown_ml(panel) == (0, 0, 0)


def test_an_edited_labelmap_counts_as_well(panel, several):
    before = lesions_of(several) != 0
    labelmap = slicer.util.arrayFromVolume(several.lesions)
    labelmap[before] = 0
    slicer.util.arrayFromVolumeModified(several.lesions)
    result = panel.logic.result(several.heatmap)
    text = result.statistics_text()
    assert result.measurements()[0].values["lesion_volume_ml"] == 0
    assert text.splitlines()[1].split("\t")[2] in ("0", "0.0")
    assert [one.decision for one in result.review.lesions] == ["paint"]


def _segment(nodes, structure) -> np.ndarray:
    return slicer.util.arrayFromSegmentBinaryLabelmap(nodes.segmentation, structure.segment_id, nodes.ct) != 0


def _paint(nodes, structure, mask: np.ndarray, mode: int | None = None) -> None:
    """Paint a segment as Segment Editor does, in the mode that it is in, or in another one."""
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    if mode is not None:
        editor.SetOverwriteMode(mode)
    logic = slicer.vtkSlicerSegmentEditorLogic()
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSegmentEditorNode(editor)
    editor.SetAndObserveSegmentationNode(nodes.segmentation)
    editor.SetAndObserveSourceVolumeNode(nodes.ct)
    editor.SetSelectedSegmentID(structure.segment_id)
    image = oriented_image(mask, nodes.ct)
    logic.ModifySegmentByLabelmap(
        nodes.segmentation, structure.segment_id, image, logic.ModificationModeAdd, False, False
    )


def test_segment_editor_paints_lungs_and_lesions_over_one_another(panel, several):
    lungs, before = slicer.util.arrayFromVolume(several.lungs), lesions_of(several) != 0
    nodes = _segmented(panel, several)
    editor = slicer.mrmlScene.GetSingletonNode("SegmentEditor", "vtkMRMLSegmentEditorNode")
    editor.SetOverwriteMode(editor.OverwriteAllSegments)  # by the reader, for another segmentation
    panel.exit()
    _paint(nodes, LUNGS[0], lungs == 1)
    np.testing.assert_array_equal(_segment(nodes, LUNG_LESION), before)
    painted = np.zeros_like(before)
    painted[tuple(np.argwhere((lungs == 1) & ~before)[:40].T)] = True
    _paint(nodes, LUNG_LESION, painted)
    np.testing.assert_array_equal(_segment(nodes, LUNGS[0]), lungs == 1)
    panel.panel.review.edits.rested.flush()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before | painted)


def test_a_lung_painted_over_lesions_takes_none_out(panel, several):
    nodes = _segmented(panel, several)
    lungs, before = slicer.util.arrayFromVolume(nodes.lungs), lesions_of(nodes) != 0
    erased = np.zeros_like(before)
    erased[tuple(np.argwhere(before)[:10].T)] = True
    _paint(nodes, LUNGS[0], lungs == 1, mode=0)  # overwrite all segments
    _paint(nodes, LUNGS[1], lungs == 2)
    assert not (_segment(nodes, LUNG_LESION) & (lungs != 0)).any()
    panel.panel.review.take_edits()
    assert "that a lung was painted over stay" in text_of(panel.ui.reviewLabel)
    assert panel.logic.result(nodes.heatmap).review.lesions == ()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before)
    np.testing.assert_array_equal(_segment(nodes, LUNG_LESION), before)
    _draw(nodes, before & ~erased)  # the lungs are not touched: a decision
    panel.panel.review.take_edits()
    np.testing.assert_array_equal(lesions_of(nodes) != 0, before & ~erased)


def test_recompute_counts_painted_lesions_as_lung_and_leaves_out_what_was_erased_of_it(panel, several, monkeypatch):
    taken = {}
    monkeypatch.setattr(slicer.util, "messageBox", lambda *_a, **_k: qt_panel.QtWidgets.QMessageBox.Yes)
    monkeypatch.setattr(
        panel.logic, "startProcess", lambda ct, options, **_: taken.update(mask=Request.read(ct, options).mask)
    )
    nodes = _segmented(panel, several)
    lungs, before = slicer.util.arrayFromVolume(nodes.lungs), lesions_of(nodes) != 0
    painted = np.zeros_like(before)
    painted[tuple(np.argwhere((lungs == 1) & ~before)[:40].T)] = True
    _paint(nodes, LUNG_LESION, painted, mode=0)  # overwrite all segments
    assert not (_segment(nodes, LUNGS[0]) & painted).any()
    wrong = (lungs == 2) & (np.arange(len(lungs)) < 20)[:, None, None]  # no lung, though the model found lesion there
    write_segment(nodes.segmentation, nodes.ct, LUNGS[1], (lungs == 2) & ~wrong)
    panel.ui.recomputeButton.click()
    np.testing.assert_array_equal(taken["mask"], np.where(wrong, 0, lungs))


@pytest.mark.parametrize("answer", ["Yes", "No", "Cancel"])
def test_edited_lungs_are_warned_of_and_no_apply_replaces_them_unasked(panel, several, monkeypatch, answer):
    asked, taken = [], []
    button = getattr(qt_panel.QtWidgets.QMessageBox, answer)
    monkeypatch.setattr(slicer.util, "messageBox", lambda text, **_k: asked.append(text) or button)
    monkeypatch.setattr(panel.logic, "startProcess", lambda ct, options, **_: taken.append(Request.read(ct, options)))
    nodes = _segmented(panel, several)
    result, lungs = panel.logic.result(nodes.heatmap), slicer.util.arrayFromVolume(nodes.lungs)

    def warned() -> list[str]:
        return [text for text in result.warnings() if "lung segments were edited" in text]

    panel.ui.applyButton.click()
    assert not asked and not warned() and len(taken) == 1
    _draw(nodes, np.zeros_like(lesions_of(nodes)))
    panel.panel.review.take_edits()
    result.undo_decision()
    assert not warned()  # lesions are not lungs
    wrong = (lungs == 2) & (np.arange(len(lungs)) < 20)[:, None, None]
    write_segment(nodes.segmentation, nodes.ct, LUNGS[1], (lungs == 2) & ~wrong)
    panel.panel.review.take_edits()
    panel.exit()
    panel.enter()
    edited_ml = wrong.sum() * np.prod(nodes.ct.GetSpacing()) / 1000.0
    assert f"({edited_ml:.2f} mL)" in warned()[0]
    assert "lung segments were edited" in text_of(panel.ui.warningsLabel)
    assert warned()[0] in result.statistics_text()
    panel.ui.applyButton.click()
    assert len(asked) == 1 and "lung segments of" in asked[0]
    assert len(taken) == (1 if answer == "Cancel" else 2)
    if answer == "Yes":
        np.testing.assert_array_equal(taken[-1].mask, np.where(wrong, 0, lungs))
    elif answer == "No":
        np.testing.assert_array_equal(taken[-1].mask, taken[0].mask)
    heat = nodes.heatmap.GetImageData()
    for image in (None, slicer.vtkOrientedImageData()):  # which other parts of the panel report
        nodes.heatmap.SetAndObserveImageData(image)
        assert edited_lung_voxels(nodes) == 0
    nodes.heatmap.SetAndObserveImageData(heat)
    assert warned()
    nodes.ct.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode").GetID())
    assert not warned()  # nothing can be measured: whoever measures reports it
    nodes.ct.SetAndObserveTransformNodeID(None)
    write_segment(nodes.segmentation, nodes.ct, LUNGS[1], lungs == 2)
    assert not warned()
