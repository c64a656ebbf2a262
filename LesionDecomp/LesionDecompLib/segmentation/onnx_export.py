"""A bundle's network as an ONNX file: what other engines need to give the same heat or lungs.

The lesion network leaves with all that makes its answer a slice's heat (mirrored pass, smoothing, scale), the lung
network with its softmax, so that a program in any language needs the file and slices alone. Smoothing across slices
(``heat.smoothing_mm`` in the file's metadata) is left to it.
"""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.export import Dim
from torch.nn import functional

from ..errors import ConfigError, ModelError
from ..io.atomic import write_bytes
from ..models.bundle import ModelBundle
from ..models.networks import DecompositionNet
from ..models.records import HeatDefinition
from ..models.runtime import inference_network
from .heat import heat_of_slices
from .slices import OUTSIDE
from .smoothing import shrink_inside

STAGE = "ONNX export"
MULTIPLE = 32  # sides of a slice
LARGEST_ERROR = 1e-4
CHECKED_SIZES = ((2, 64, 96), (1, 160, 64))  # slices, rows, columns
OPSET = 18


class HeatNetwork(nn.Module):
    """Slices to heat: :func:`.heat.heat_of_slices` in operations that ONNX has.

    :param network: of a lesion bundle.
    :param definition: of its heat.
    """

    def __init__(self, network: DecompositionNet, definition: HeatDefinition) -> None:
        super().__init__()
        self.network, self.definition = network, definition
        reach = max(1, math.ceil(3 * definition.smoothing_px))
        steps = torch.arange(-reach, reach + 1, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (steps / max(definition.smoothing_px, 1e-3)) ** 2)
        self.kernel: torch.Tensor
        self.register_buffer("kernel", kernel / kernel.sum(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs, to heat of the same shape in [0, 1]."""
        definition, inside = self.definition, (x > OUTSIDE).float()
        value = self._raw(x)
        if definition.flip:
            value = (value + self._raw(x.flip(3)).flip(3)) / 2
        if definition.smoothing_px > 0:
            value = self._blurred(value, inside)
        if definition.source == "both":
            value = (value[:, :1] * value[:, 1:]).sqrt()
        return self._scaled(value) * inside

    def _raw(self, x: torch.Tensor) -> torch.Tensor:
        shrink, source = self.definition.shrink, self.definition.source
        if shrink > 1:
            x = shrink_inside(x, shrink)
        if source == "both":
            answer = self.network(x)
            value = torch.cat([torch.sigmoid(answer.gate), ((x - answer.normal) / 2).clamp(0.0, 1.0)], dim=1)
        elif source in ("difference", "change"):
            change = (x - self.network.normal(x)) / 2
            value = change.clamp(0.0, 1.0) if source == "difference" else change.abs()
        else:
            gate = self.network.gate(x)
            value = torch.sigmoid(gate) if source == "gate" else gate.clamp(0.0, 1.0)
        if shrink > 1:
            value = functional.interpolate(value, scale_factor=float(shrink), mode="bilinear", align_corners=False)
        return value

    def _blurred(self, value: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        both = torch.cat([value * inside, inside], dim=1)
        count, length = 3 if self.definition.source == "both" else 2, self.kernel.shape[0]
        kernel = self.kernel.repeat(count, 1, 1)
        both = functional.conv2d(both, kernel.view(count, 1, length, 1), padding=(length // 2, 0), groups=count)
        both = functional.conv2d(both, kernel.view(count, 1, 1, length), padding=(0, length // 2), groups=count)
        weight = both[:, -1:]
        return both[:, :-1] / weight.clamp_min(1e-6) * (weight > 1e-6).float()

    def _scaled(self, value: torch.Tensor) -> torch.Tensor:
        raw, scaled = self.definition.raw, self.definition.scaled
        heat = torch.full_like(value, scaled[0])
        for low, high, first, last in zip(raw[:-1], raw[1:], scaled[:-1], scaled[1:], strict=True):
            heat = heat + (value - low).clamp(0.0, high - low) * ((last - first) / (high - low))
        return heat.clamp(0.0, 1.0)


class LungNetwork(nn.Module):
    """Slices with their neighbors to the probabilities of background, right and left lung."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, channels, h, w)`` in [-1, 1] to ``(n, 3, h, w)``, which add up to 1."""
        return torch.softmax(self.network(x), dim=1)


def export_onnx(bundle: ModelBundle, path: str | Path) -> float:
    """Write a bundle's network as an ONNX file, and see that ONNX Runtime gives what torch gives.

    The file's input is ``x``, float32 ``(n, c, h, w)`` with any n, and sides that are multiples of 32; its output is
    ``heat`` ``(n, 1, h, w)`` or ``probability`` ``(n, 3, h, w)``; its metadata are ``bundle``, the text of bundle.json,
    and ``weights_sha256``.

    :return: the largest difference from torch in float32.
    :raises LesionDecompError: onnx, onnxscript or onnxruntime is missing, the results differ by more than 1e-4, or the
        file cannot be written.
    """
    try:
        import onnx  # an extra, slow to import
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        advice = "Install them: pip install onnx onnxscript onnxruntime."
        raise ConfigError(
            STAGE, f"no module '{error.name}'", "the packages for ONNX", advice, code="onnx_missing"
        ) from error
    path = Path(path)
    network = inference_network(bundle, torch.device("cpu"))
    lesions = bundle.task == "lesions"
    wrapped: nn.Module = LungNetwork(network)
    if lesions:
        wrapped = HeatNetwork(cast(DecompositionNet, network), bundle.heat_definition)
    wrapped = wrapped.eval().requires_grad_(False)
    channels = 1 if lesions else len(bundle.slice_input.offsets_mm)
    output = "heat" if lesions else "probability"
    batch, rows, columns = Dim("n", min=1), MULTIPLE * Dim("h32", min=1), MULTIPLE * Dim("w32", min=1)
    with torch.no_grad(), _quiet_exporter():
        program = torch.onnx.export(
            wrapped,
            (drawn_slices(channels, *CHECKED_SIZES[0]),),
            input_names=["x"],
            output_names=[output],
            dynamic_shapes=({0: batch, 2: rows, 3: columns},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:  # torch's exporter of old
        raise ModelError(STAGE, "no exported program", "one that torch.export makes", code="onnx_not_exported")
    model = program.model_proto
    text = json.dumps(bundle.metadata, indent=2, ensure_ascii=False)
    onnx.helper.set_model_props(model, {"bundle": text, "weights_sha256": bundle.sha256})
    model.doc_string = f"{bundle.name} {bundle.version}: {bundle.description}"
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    worst = 0.0
    for size in CHECKED_SIZES:
        x = drawn_slices(channels, *size)
        found = session.run([output], {"x": x.numpy()})[0]
        worst = max(worst, float(np.abs(found - _expected(bundle, network, wrapped, x)).max()))
    if not worst <= LARGEST_ERROR:
        found_text = f"results that differ from torch by {worst:.2g}"
        raise ModelError(
            STAGE, found_text, f"at most {LARGEST_ERROR:g}", "The file was not written.", code="onnx_differs"
        )
    write_bytes(path, data, STAGE)
    return worst


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Torch's exporter without its remarks on packages that are not needed and on its own future."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _expected(bundle: ModelBundle, network: nn.Module, wrapped: nn.Module, x: torch.Tensor) -> np.ndarray:
    """What the product itself computes."""
    if bundle.task == "lesions":
        return heat_of_slices(bundle.heat_definition, cast(DecompositionNet, network), x).numpy()
    with torch.no_grad():
        return wrapped(x).numpy()


def drawn_slices(channels: int, count: int, rows: int, columns: int) -> torch.Tensor:
    """Slices to try the network on: smooth gray in an ellipse of lung, with bright spots."""
    generator = torch.Generator().manual_seed(rows)
    coarse = torch.rand(count, channels, rows // 8, columns // 8, generator=generator)
    gray = functional.interpolate(coarse, size=(rows, columns), mode="bilinear", align_corners=False) ** 3
    y, x = torch.meshgrid(torch.linspace(-1, 1, rows), torch.linspace(-1, 1, columns), indexing="ij")
    return torch.where(y**2 + x**2 < 0.8, 1.8 * gray - 0.9, OUTSIDE)
