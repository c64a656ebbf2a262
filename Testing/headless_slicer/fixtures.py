"""Pytest fixtures of the headless Slicer: the scene, the module, and a real CT as a node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODULE_FILE = Path(__file__).resolve().parents[2] / "LesionDecomp" / "LesionDecomp.py"


@pytest.fixture(scope="session")
def slicer_session(tmp_path_factory):
    """The application, started once for the session."""
    pytest.importorskip("slicer", reason="slicer-core is not installed (pip install .[headless])")
    from headless_slicer import boot

    return boot(tmp_path_factory.mktemp("slicer"))


@pytest.fixture(scope="session")
def module(slicer_session):
    """The Python module of LesionDecomp.py, loaded as Slicer loads it."""
    return slicer_session.load_module(MODULE_FILE)


@pytest.fixture
def mrml_scene(slicer_session) -> Iterator[Any]:
    """The application's scene, empty before and after the test."""
    slicer_session.clear()
    yield slicer_session.scene
    slicer_session.clear()
    for kind in ("vtkMRMLSliceCompositeNode", "vtkMRMLSliceNode"):  # closing a scene keeps its views
        views = slicer_session.scene.GetNodesByClass(kind)
        views.UnRegister(None)
        for view in [views.GetItemAsObject(n) for n in range(views.GetNumberOfItems())]:
            slicer_session.scene.RemoveNode(view)


@pytest.fixture(scope="session")
def untrained_segmenter(tmp_path_factory):
    """The real pipeline around small networks with random weights: quick, and its heat varies from voxel to voxel.

    Right for what has to hold for any model: geometry, nodes, cancelling.
    """
    import torch
    from LesionDecompLib.models.bundle import ModelBundle
    from LesionDecompLib.models.networks import ARCHITECTURES
    from LesionDecompLib.pipeline import Segmenter

    def bundle(task: str, architecture: str, arguments: dict[str, Any]) -> ModelBundle:
        metadata = {
            "name": f"untrained-{task}",
            "version": "0",
            "task": task,
            "description": "Random weights, for tests.",
            "architecture": architecture,
            "architecture_arguments": arguments,
            "input": {"size": [32, 32], "spacing_mm": 12.0, "hu_window": [-1300.0, -150.0], "mean": 0.0, "std": 1.0},
            "default_threshold": 0.5,
            "heat": {"source": "gate", "flip": False, "smoothing_px": 1.0, "raw": [0.43, 0.49], "scaled": [0.0, 1.0]},
            "training": {},
            "metrics": {},
            "git_revision": "none",
        }
        network = ARCHITECTURES[architecture](**arguments)
        return ModelBundle.save(tmp_path_factory.mktemp("bundles") / task, network, metadata)

    torch.manual_seed(7)
    lesions = bundle("lesions", "decomposition", {"channels": 4, "levels": 2, "norm": "group", "gated": True})
    lungs = bundle("lungs", "unet", {"channels": 4, "levels": 2, "norm": "group"})
    return Segmenter(lesions, lungs, device="cpu")


@pytest.fixture
def logic(module, mrml_scene, untrained_segmenter, monkeypatch):
    """The module's logic with the untrained models."""
    logic = module.LesionDecompLogic()
    monkeypatch.setattr(logic, "createSegmenter", lambda *_arguments: untrained_segmenter)
    return logic


@pytest.fixture(scope="session")
def chest_case(sample_folder):
    """The sample CT, every fourth voxel of its slices (64×64×61), and its lungs (1 right, 2 left): (Volume, array)."""
    from segmented_case import segmented_sample

    volume, result = segmented_sample(sample_folder, step=4)
    return volume, np.ascontiguousarray(result.lungs)


@pytest.fixture
def ct_node(mrml_scene, chest_case):
    """A whole chest CT in the scene."""
    import slicer

    volume, _ = chest_case
    return slicer.util.addVolumeFromArray(volume.array, volume.ijk_to_ras, "CT")


@pytest.fixture
def lung_node(mrml_scene, chest_case):
    """The lungs of :func:`ct_node`, as a labelmap beside it."""
    import slicer

    volume, lungs = chest_case
    return slicer.util.addVolumeFromArray(lungs, volume.ijk_to_ras, "Lung mask", "vtkMRMLLabelMapVolumeNode")
