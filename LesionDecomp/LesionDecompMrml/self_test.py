"""The module's self-test on the bundled sample CT: from the input to a scene that is loaded again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import slicer


def run_self_test(test, logic, sample: Path) -> None:
    """Segment, measure, move the threshold, save and load the sample CT.

    :param test: the module's ``ScriptedLoadableModuleTest``, whose assertions and display are used.
    :param logic: of the module.
    :param sample: file of the CT.
    """
    test.delayDisplay("Loading the sample CT")
    volume = slicer.util.loadVolume(str(sample))
    test.assertEqual(logic.missingPackages(), [], "required Python packages are missing")

    test.delayDisplay("Segmenting in a worker process")
    nodes = _segment_in_worker(test, logic, volume)
    heat = _check_result(test, nodes, volume)

    test.delayDisplay("Moving the threshold")
    higher = nodes.threshold + (1.0 - nodes.threshold) / 2
    lesions = _check_threshold(test, logic, nodes, heat, higher)
    measured = row_of(nodes.table, "both lungs")

    test.delayDisplay("Saving and loading the scene")
    heat, name = heat.copy(), nodes.heatmap.GetName()
    with tempfile.TemporaryDirectory() as folder:
        scene = str(Path(folder) / "result.mrb")
        test.assertTrue(slicer.util.saveScene(scene))
        del nodes, volume
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(scene)
    nodes = logic.result(slicer.util.getNode(name)).nodes
    test.assertEqual(nodes.threshold, higher)
    test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(nodes.heatmap), heat))
    test.assertTrue(np.array_equal(slicer.util.arrayFromVolume(nodes.lesions), lesions))
    for header, value in row_of(nodes.table, "both lungs").items():
        test.assertTrue(np.isclose(value, measured[header], rtol=1e-4, equal_nan=True), header)
    test.delayDisplay("Test passed")


def _segment_in_worker(test, logic, volume):
    """The result of the worker, as the panel's Apply makes it."""
    finished: list[Any] = []
    stages: set[str] = set()
    run = logic.startProcess(
        volume,
        segmentationNode=True,
        device="cpu",
        onProgress=lambda step: stages.add(step.stage),
        onDone=finished.append,
        onFailed=finished.append,
    )
    run.wait()
    test.assertEqual(len(finished), 1)
    if isinstance(finished[0], Exception):
        raise finished[0]
    test.assertTrue({"lungs", "heat"} <= stages, stages)
    return finished[0]


def _check_result(test, nodes, volume) -> np.ndarray:
    heat, lungs, lesions = (slicer.util.arrayFromVolume(n) for n in (nodes.heatmap, nodes.lungs, nodes.lesions))
    for array in (heat, lungs, lesions):
        test.assertEqual(array.shape, slicer.util.arrayFromVolume(volume).shape)
    test.assertTrue(heat.min() >= 0.0 and heat.max() <= 1.0)
    test.assertEqual(float(heat[lungs == 0].max()), 0.0)
    test.assertFalse((lesions[lungs == 0]).any())
    both = row_of(nodes.table, "both lungs")
    test.assertTrue(1000.0 < both["Lung volume (mL)"] < 9000.0)
    test.assertTrue(0.0 < both["Lesion volume (mL)"] < both["Lung volume (mL)"])
    voxel_ml = np.prod(volume.GetSpacing()) / 1000.0
    test.assertAlmostEqual(both["Lesion volume (mL)"], np.count_nonzero(lesions) * voxel_ml, places=3)
    test.assertEqual(nodes.segmentation.GetSegmentation().GetNumberOfSegments(), 3)
    return heat


def _check_threshold(test, logic, nodes, heat: np.ndarray, higher: float) -> np.ndarray:
    lungs, before = (
        slicer.util.arrayFromVolume(nodes.lungs),
        np.count_nonzero(slicer.util.arrayFromVolume(nodes.lesions)),
    )
    logic.updateThreshold(nodes.heatmap, higher, minimumVolumeMl=0.0)
    lesions = slicer.util.arrayFromVolume(nodes.lesions).copy()
    test.assertTrue(np.array_equal(lesions != 0, (heat >= np.float32(higher)) & (lungs != 0)))
    test.assertLess(np.count_nonzero(lesions), before)
    return lesions


def row_of(table, region: str) -> dict[str, float]:
    """A row of a statistics table node as header -> value.

    :raises KeyError: no such region.
    """
    names = [table.GetColumnName(column) for column in range(table.GetNumberOfColumns())]
    for row in range(table.GetNumberOfRows()):
        if table.GetCellText(row, 0) == region:
            columns = table.GetTable()
            return {name: columns.GetColumn(c).GetVariantValue(row).ToDouble() for c, name in enumerate(names) if c}
    raise KeyError(region)
