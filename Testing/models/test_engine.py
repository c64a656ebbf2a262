"""ONNX Runtime in the place of torch: the same heat and lungs, where it fits; recorded; refused where it cannot."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from LesionDecompLib.errors import ConfigError, LesionDecompError, ModelError
from LesionDecompLib.models import onnx_engine, runtime
from LesionDecompLib.models.bundle import ModelBundle, find_bundle
from LesionDecompLib.models.networks import DecompositionNet, UNet
from LesionDecompLib.models.onnx_engine import OnnxNetwork, onnx_bytes
from LesionDecompLib.models.onnx_file import OnnxGraph
from LesionDecompLib.models.runtime import ready_network
from LesionDecompLib.pipeline import Segmenter

CPU = torch.device("cpu")


def slices(count: int = 3, channels: int = 1, rows: int = 64, columns: int = 96) -> torch.Tensor:
    return 2 * torch.rand((count, channels, rows, columns), generator=torch.Generator().manual_seed(7)) - 1


def decomposition(**arguments) -> DecompositionNet:
    torch.manual_seed(2)
    network = DecompositionNet(**{"channels": 8, "levels": 3, **arguments}).eval()
    for module in network.modules():  # statistics that are not those of a new network
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return network


@pytest.fixture
def needs_onnxruntime():
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install .[onnx])")


class TestNetworks:
    @pytest.mark.parametrize(
        ("arguments", "ways"),
        [
            ({"gated": True, "stem": 2}, ("", "gate", "normal")),
            ({"gated": True, "norm": "group"}, ("", "gate", "normal")),
            ({"norm": "none", "shared": True}, ("", "gate", "normal")),
            ({"lesion_decoder": False}, ("normal",)),
            ({"normal_decoder": False, "gated": True}, ("", "gate")),
        ],
    )
    def test_answers_are_those_of_torch_for_any_number_and_size_of_slices(self, needs_onnxruntime, arguments, ways):
        network = decomposition(**arguments)
        for way in ways:
            quick = OnnxNetwork(network, 1, way)
            for x in (slices(), slices(1, 1, 32, 160)):
                with torch.inference_mode():
                    call, fast = (getattr(n, way) if way else n for n in (network, quick))
                    expected, found = call(x), fast(x)
                assert type(found) is type(expected)
                for a, b in zip(*((r if isinstance(r, tuple) else (r,)) for r in (expected, found)), strict=True):
                    torch.testing.assert_close(b, a, atol=2e-5, rtol=0)

    def test_the_lung_network_sees_its_neighbors(self, needs_onnxruntime):
        torch.manual_seed(4)
        network = UNet(in_channels=5, out_channels=3, channels=4, levels=3).eval()
        x = slices(2, 5).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            torch.testing.assert_close(OnnxNetwork(network, 5)(x), network(x), atol=2e-5, rtol=0)

    def test_what_it_does_not_know_is_refused(self):
        class Odd(torch.nn.Module):
            def forward(self, x):
                return torch.erf(x)

        with pytest.raises(ModelError, match="a network with erf"):
            onnx_bytes(Odd(), 1)
        with pytest.raises(ModelError, match="a network with softplus"):
            onnx_bytes(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Softplus()), 1)

    def test_features_are_joined_only_for_what_is_no_convolution(self, needs_onnxruntime):
        class Joined(torch.nn.Module):
            def __init__(self, after):
                super().__init__()
                self.after = after

            def forward(self, x):
                return self.after(torch.cat([x, torch.tanh(x)], dim=1))

        torch.manual_seed(5)
        for after, joined in (
            (torch.nn.Conv2d(4, 3, 3, padding=1), False),
            (torch.nn.Conv2d(4, 4, 3, padding=1, groups=2), True),
            (torch.nn.ReLU(), True),
        ):
            network, x = Joined(after).eval(), slices(2, 2)
            assert (b"Concat" in onnx_bytes(network, 2)) == joined
            with torch.inference_mode():
                torch.testing.assert_close(OnnxNetwork(network, 2)(x), network(x), atol=2e-5, rtol=0)

    def test_answers_that_differ_are_refused(self, needs_onnxruntime, monkeypatch):
        network = decomposition(gated=True)
        plain = OnnxGraph.tensor
        monkeypatch.setattr(OnnxGraph, "tensor", lambda self, values: plain(self, values * 1.01))
        with pytest.raises(ModelError, match="differ from PyTorch's"):
            OnnxNetwork(network, 1)

    def test_the_bytes_are_a_model_that_onnx_accepts(self):
        onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install .[onnx])")
        model = onnx.load_from_string(onnx_bytes(decomposition(gated=True, stem=2), 1))
        onnx.checker.check_model(model, full_check=True)
        (given,) = model.graph.input
        assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == ["n", 1, "h", "w"]
        assert [output.name for output in model.graph.output] == ["y0", "y1", "y2"]


class TestChoice:
    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch):
        monkeypatch.setattr(runtime, "has_onnxruntime", lambda: True)
        monkeypatch.setattr(onnx_engine, "has_onnxruntime", lambda: True)
        monkeypatch.setattr(runtime, "_in_onnx", lambda bundle, network: "quick")
        monkeypatch.setattr(runtime, "inference_network", lambda *_: "plain")
        monkeypatch.setattr(runtime, "fast_precision", lambda device: torch.float32)

    def test_auto_takes_it_on_the_cpu_in_float32(self, monkeypatch):
        bundle = find_bundle(None, "lungs")
        found = ready_network(bundle, CPU)
        assert (found.network, found.engine, found.precision_name) == ("quick", "onnx", "float32")
        assert ready_network(bundle, CPU, engine="torch").network == "plain"
        for device in ("cuda:0", "mps"):
            assert ready_network(bundle, torch.device(device)).engine == "torch"
        monkeypatch.setattr(runtime, "fast_precision", lambda device: torch.bfloat16)
        found = ready_network(bundle, CPU)  # bfloat16 in torch is faster still
        assert (found.engine, found.precision_name) == ("torch", "bfloat16")
        lesions = find_bundle(None, "lesions")  # in float32 beside it, whatever its heat bears
        lesions = ModelBundle(lesions.path, {**lesions.metadata, runtime.BF16_HEAT_ERROR: 0.5})
        found = ready_network(lesions, CPU)
        assert (found.engine, found.precision_name) == ("torch", "float32")
        assert ready_network(bundle, CPU, "float32").engine == "onnx"
        assert ready_network(bundle, CPU, engine="onnx").precision == torch.float32

    def test_without_the_package_auto_is_torch_and_onnx_is_refused(self, monkeypatch):
        monkeypatch.setattr(runtime, "has_onnxruntime", lambda: False)
        monkeypatch.setattr(onnx_engine, "has_onnxruntime", lambda: False)
        bundle = find_bundle(None, "lungs")
        assert ready_network(bundle, CPU).engine == "torch"
        with pytest.raises(ConfigError, match="pip install onnxruntime") as caught:
            ready_network(bundle, CPU, engine="onnx")
        assert caught.value.code == "onnxruntime_missing"

    def test_a_gpu_is_refused(self):
        with pytest.raises(ConfigError, match="ONNX Runtime and the device 'cuda:0'"):
            ready_network(find_bundle(None, "lungs"), torch.device("cuda:0"), engine="onnx")

    @pytest.mark.parametrize("error", [ModelError("x", "a", "b"), ImportError("no library"), OSError("damaged")])
    def test_auto_goes_back_to_torch_where_it_cannot(self, monkeypatch, error):
        def fails(*_):
            raise error

        monkeypatch.setattr(runtime, "_in_onnx", fails)
        bundle = find_bundle(None, "lungs")
        assert ready_network(bundle, CPU).network == "plain"
        with pytest.raises(type(error)):
            ready_network(bundle, CPU, engine="onnx")

    def test_another_engine_is_refused(self):
        with pytest.raises(LesionDecompError, match="engine 'tvm'"):
            Segmenter(device="cpu", engine="tvm")


def test_finding_the_package_imports_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert not onnx_engine.has_onnxruntime()  # a None in sys.modules is no installation


@pytest.mark.slow
def test_heat_of_a_case_is_within_a_ten_thousandth_and_the_report_names_the_engine(
    needs_onnxruntime, chest_case, models, tmp_path
):
    from LesionDecompLib.report.manifest import build_manifest
    from LesionDecompLib.report.methods import methods_text

    volume, lungs = chest_case
    plain, quick = (Segmenter(device="cpu", precision="float32", engine=engine) for engine in ("torch", "onnx"))
    expected, found = (segmenter.run(volume, lung_mask=lungs) for segmenter in (plain, quick))
    assert expected.heat.max() > 0.1
    np.testing.assert_allclose(found.heat, expected.heat, atol=1e-4)
    assert (found.engine, expected.engine) == ({"lesions": "onnx"}, {"lesions": "torch"})
    manifest = build_manifest(volume, found)
    assert manifest["run"]["engine"] == {"lesions": "onnx"}
    assert manifest["run"]["environment"]["onnxruntime"] == needs_onnxruntime.__version__
    assert f"and ONNX Runtime {needs_onnxruntime.__version__} on CPU (float32)" in methods_text(
        json.loads(json.dumps(manifest))
    )
    assert "onnxruntime" not in build_manifest(volume, expected)["run"]["environment"]
    healthy = [segmenter.run(volume, lung_mask=lungs, healthy=True).healthy for segmenter in (plain, quick)]
    assert np.abs(healthy[0].astype(int) - healthy[1]).max() <= 1
