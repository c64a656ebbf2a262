"""Pytest fixtures of the module's panel: real Qt controls (PySide6, offscreen) around real nodes.

Controls that only Slicer has are stand-ins; how the panel looks and feels is tried in Slicer.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def panel_settings(tmp_path, untrained_segmenter) -> Iterator[Path]:
    """Slicer's settings, in which the user has added a model folder: networks that are quick."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
    # Qt needs a few libraries of the system too (on Debian libegl1, libgl1), which a bare container may lack.
    pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not usable here", exc_type=ImportError)
    from headless_slicer import qt_panel

    qt_panel.install(tmp_path)
    from LesionDecompPanel.model_choice import remember_folders

    remember_folders([str(untrained_segmenter.lesion_bundle.path)])
    yield tmp_path
    remember_folders([])


@pytest.fixture
def open_panel(module, mrml_scene, panel_settings, monkeypatch) -> Iterator[Callable[..., Any]]:
    """Opens a panel, by default without asking a child process for the computer's devices.

    What is open at the end is closed, and no slot may have raised.
    """
    from LesionDecompPanel.device_choice import DeviceChoice

    from headless_slicer import qt_panel

    raised, opened = [], []
    monkeypatch.setattr(sys, "excepthook", lambda *error: raised.append(error))

    def open_one(*, ask_devices: bool = False):
        if not ask_devices:
            monkeypatch.setattr(DeviceChoice, "ask", lambda self: None)
        opened.append(qt_panel.open_panel(module, monkeypatch, panel_settings))
        return opened[-1]

    yield open_one
    for panel in opened:
        qt_panel.close_panel(panel)
    assert not raised, raised


class FinishedHeat:
    """The segmenter for tests of what comes after the heat: its heat was computed once, the rest is the pipeline's."""

    def __init__(self, result) -> None:
        self._result = result

    def run(
        self, volume, lung_mask=None, threshold=None, min_volume_ml=0.1, progress=None, cancelled=None, healthy=False
    ):
        """What the pipeline makes of the finished heat."""
        from LesionDecompLib.ct.grid import AxialView
        from LesionDecompLib.measurement.statistics import lesion_statistics
        from LesionDecompLib.segmentation.lesions import lesion_labelmap

        heat, lungs = self._result.heat, self._result.lungs
        lesions = lesion_labelmap(heat, lungs, threshold, min_volume_ml, volume.voxel_volume_ml)
        view = AxialView.of(volume.shape, volume.ijk_to_ras)
        arrays = (view.to_axial(array) for array in (volume.array, lungs, lesions, heat))
        statistics = lesion_statistics(*arrays, volume.voxel_volume_ml)
        numbers = {"threshold": threshold, "min_volume_ml": min_volume_ml}
        return dataclasses.replace(self._result, lesions=lesions, statistics=statistics, **numbers)


@pytest.fixture(scope="session")
def finished_heat(chest_case, untrained_segmenter) -> FinishedHeat:
    """Heat of the sample chest by the untrained networks, computed once."""
    volume, lungs = chest_case
    return FinishedHeat(untrained_segmenter.run(volume, lung_mask=lungs, threshold=0.4))


@pytest.fixture
def panel(module, untrained_segmenter, finished_heat, ct_node, lung_node, monkeypatch, open_panel):
    """The panel beside a loaded CT and lung mask; the quick model is chosen."""
    from headless_slicer.qt_panel import choose

    monkeypatch.setattr(module.LesionDecompLogic, "createSegmenter", lambda self, *_arguments: finished_heat)
    panel = open_panel()
    choose(panel.ui.modelComboBox, str(untrained_segmenter.lesion_bundle.path))
    panel.ui.lungMaskSelector.setCurrentNode(lung_node)
    panel.ui.thresholdSlider.value = 0.4
    return panel


@pytest.fixture
def result(panel, ct_node, lung_node):
    """A finished result, shown in the panel."""
    nodes = panel.logic.process(ct_node, lung_node, threshold=0.4)
    panel.panel.look.show(nodes, 0.4, 0.1)
    return nodes


@pytest.fixture
def shown_errors(monkeypatch) -> list[str]:
    """Texts of the error messages that the user is shown."""
    import slicer

    shown: list[str] = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *_a, **_k: shown.append(text))
    return shown
