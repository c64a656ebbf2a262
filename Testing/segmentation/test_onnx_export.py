"""Bundles leave as ONNX files that give what the product gives, for slices of any number and size, and state what they
are."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from LesionDecompLib.__main__ import main
from LesionDecompLib.errors import ConfigError, ModelError
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.networks import ARCHITECTURES
from LesionDecompLib.segmentation import onnx_export
from LesionDecompLib.segmentation.heat import heat_of_slices
from LesionDecompLib.segmentation.onnx_export import HeatNetwork, export_onnx

SCALE = {"raw": [0.0, 0.3, 0.45, 0.55, 1.0], "scaled": [0.0, 0.2, 0.4, 0.6, 1.0]}
DECOMPOSITION = {"channels": 4, "levels": 3, "norm": "batch"}


def bundle(folder, task="lesions", arguments=DECOMPOSITION, heat=None, neighbors=()):
    torch.manual_seed(3)
    architecture = "decomposition" if task == "lesions" else "unet"
    image = {"size": [64, 64], "spacing_mm": 6.0, "hu_window": [-1300.0, -150.0], "mean": 0.0, "std": 1.0}
    metadata = {
        "name": f"small {task} ü",
        "version": "1.2",
        "task": task,
        "description": "Random weights.",
        "architecture": architecture,
        "architecture_arguments": arguments,
        "input": image | ({"neighbors_mm": list(neighbors)} if neighbors else {}),
        "default_threshold": 0.4,
        "heat": (heat or {"source": "gate"}) | SCALE,
        "training": {},
        "metrics": {},
        "git_revision": "none",
    }
    return ModelBundle.save(folder / task, ARCHITECTURES[architecture](**arguments), metadata)


HEATS = [
    ({"source": "both", "flip": True, "smoothing_px": 2.0}, {"gated": True}),
    ({"source": "gate", "flip": False, "smoothing_px": 0.0}, {"gated": True, "stem": 2}),
    ({"source": "difference", "flip": True, "smoothing_px": 1.3, "shrink": 2}, {"lesion_decoder": False}),
    ({"source": "change", "smoothing_px": 0.7}, {"shared": True}),
    ({"source": "lesion", "smoothing_px": 1.0}, {}),
]


@pytest.mark.parametrize(("heat", "network"), HEATS, ids=[heat["source"] for heat, _ in HEATS])
def test_heat_in_operations_of_onnx_is_the_product_s_heat(tmp_path, heat, network):
    made = bundle(tmp_path, arguments=DECOMPOSITION | network, heat=heat)
    net = made.network()
    x = onnx_export.drawn_slices(1, 2, 96, 64)
    with torch.no_grad():
        found = HeatNetwork(net, made.heat_definition)(x)
    torch.testing.assert_close(found, heat_of_slices(made.heat_definition, net, x), atol=2e-6, rtol=0)
    assert found.std() > 0 and not found[x == -1].any()


@pytest.mark.slow
def test_the_file_gives_the_same_heat_for_any_number_and_size_of_slices(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install .[onnx])")
    made = bundle(tmp_path, arguments=DECOMPOSITION | {"gated": True}, heat={"source": "both"})
    path = tmp_path / "heat.onnx"
    assert export_onnx(made, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for size in ((1, 32, 32), (5, 128, 64), (2, 32, 224)):
        x = onnx_export.drawn_slices(1, *size)
        (found,) = session.run(["heat"], {"x": x.numpy()})
        expected = heat_of_slices(made.heat_definition, made.network(), x).numpy()
        assert found.dtype == np.float32 and found.shape == x.shape
        np.testing.assert_allclose(found, expected, atol=1e-4)
    properties = session.get_modelmeta().custom_metadata_map
    assert json.loads(properties["bundle"]) == made.metadata and properties["weights_sha256"] == made.sha256


@pytest.mark.slow
def test_lungs_leave_with_their_neighbors_as_channels_and_their_softmax(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install .[onnx])")
    arguments = {"in_channels": 3, "out_channels": 3, "channels": 4, "levels": 3}
    made = bundle(tmp_path, "lungs", arguments, neighbors=(6.0,))
    path = tmp_path / "lungs.onnx"
    assert export_onnx(made, path) < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = onnx_export.drawn_slices(3, 3, 64, 96)
    (found,) = session.run(["probability"], {"x": x.numpy()})
    with torch.no_grad():
        expected = torch.softmax(made.network()(x), dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_a_file_that_would_give_something_else_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install .[onnx])")
    made = bundle(tmp_path, arguments=DECOMPOSITION | {"gated": True})
    monkeypatch.setattr(onnx_export, "_expected", lambda *_: 0.5)
    with pytest.raises(ModelError, match="differ from torch"):
        export_onnx(made, tmp_path / "heat.onnx")
    assert not (tmp_path / "heat.onnx").exists()


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ConfigError, match="pip install onnx onnxscript onnxruntime"):
        export_onnx(bundle(tmp_path), tmp_path / "heat.onnx")


def test_the_command_refuses_what_is_there_already_and_half_a_request(tmp_path, capsys):
    taken = tmp_path / "taken.onnx"
    taken.write_bytes(b"mine")
    assert main(["models", "--export", "lesions-decomposition", "-o", str(taken)]) == 1
    assert "'taken.onnx', which is there already" in capsys.readouterr().err and taken.read_bytes() == b"mine"
    assert main(["models", "--export", "no-such-model", "-o", str(tmp_path / "new.onnx")]) == 1
    assert "no-such-model" in capsys.readouterr().err
    assert main(["models", "--export", "lesions-decomposition"]) == 2
    assert "--export and -o go together" in capsys.readouterr().err
