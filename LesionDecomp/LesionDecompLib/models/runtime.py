"""Networks made ready to compute results: nothing in them that only training needs, in the precision that fits, by the
engine that fits.

Precision and engine are chosen by what the hardware does fast, what the model was found to bear and what is installed,
never by a timing: the same machine gives the same bytes each time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import ConfigError, LesionDecompError
from .networks import DecompositionNet
from .onnx_engine import OnnxNetwork, check_onnxruntime, has_onnxruntime
from .precision import InFloat32, channels_last, fast_precision
from .records import HeatDefinition

if TYPE_CHECKING:
    from .bundle import ModelBundle

LOG = logging.getLogger(__name__)
STAGE = "Choosing the engine"

# Heat may differ from that in float32 by this much.
LARGEST_HEAT_ERROR = 0.01
# Key of bundle.json: the largest difference of heat that bfloat16 makes, some parts left in float32
# (:func:`keep_in_float32`), measured when the bundle was released.
BF16_HEAT_ERROR = "bfloat16_heat_error"
PRECISIONS = ("auto", "float32")
TORCH, ONNX = "torch", "onnx"
ENGINES = ("auto", TORCH, ONNX)


@dataclass(frozen=True, eq=False)
class ReadyNetwork:
    """A bundle's network, ready to be called.

    :param network: on its device.
    :param engine: that computes it, ``"torch"`` or ``"onnx"``.
    :param precision: that it computes in.
    """

    network: nn.Module | OnnxNetwork
    engine: str
    precision: torch.dtype

    @property
    def precision_name(self) -> str:
        """``"float32"``, ``"bfloat16"`` or ``"float16"``."""
        return str(self.precision).removeprefix("torch.")


def ready_network(
    bundle: ModelBundle, device: torch.device, precision: str = "auto", engine: str = "auto"
) -> ReadyNetwork:
    """The network of a bundle, in the engine and precision asked for.

    :param precision: see :func:`network_precision`.
    :param engine: ``"torch"``; ``"onnx"``, ONNX Runtime, which computes in float32 on the CPU; ``"auto"``: that where
        it is installed, no GPU is used, and nothing is computed in 16 bits.
    :raises LesionDecompError: ONNX Runtime is asked for where it is not installed, on a GPU, or for a network that it
        cannot compute.
    """
    chosen = torch.float32 if engine == ONNX else network_precision(bundle, device, precision)
    network = inference_network(bundle, device, chosen)
    if engine == ONNX:
        if device.type != "cpu":
            raise ConfigError(STAGE, f"ONNX Runtime and the device '{device}'", "the CPU", code="engine_device")
        check_onnxruntime()
        return ReadyNetwork(_in_onnx(bundle, network), ONNX, chosen)
    # Beside a network in 16 bits torch is as fast for the other: two pools of threads hinder one another.
    fast = torch.float32 if precision == "float32" else fast_precision(device)
    if engine == "auto" and device.type == "cpu" and fast == torch.float32 and has_onnxruntime():
        try:
            return ReadyNetwork(_in_onnx(bundle, network), ONNX, chosen)
        except (LesionDecompError, ImportError, OSError) as error:  # a network or an installation unfit for it
            LOG.warning("PyTorch computes '%s': %s", bundle.name, error)
    return ReadyNetwork(network, TORCH, chosen)


def _in_onnx(bundle: ModelBundle, network: nn.Module) -> OnnxNetwork:
    if bundle.task != "lesions":
        return OnnxNetwork(network, len(bundle.slice_input.offsets_mm))
    return OnnxNetwork(network, 1, called_for(bundle.heat_definition))


def called_for(definition: HeatDefinition) -> str:
    """How the lesion network is called for its heat: ``""`` (itself), ``"gate"`` or ``"normal"``."""
    return {"both": "", "difference": "normal", "change": "normal"}.get(definition.source, "gate")


def inference_network(bundle: ModelBundle, device: torch.device, precision: torch.dtype = torch.float32) -> nn.Module:
    """The network of a bundle with its batch norms folded into the convolutions before them.

    :param precision: that it will compute in; in 16 bits some parts of a lesion network stay in float32
        (:func:`keep_in_float32`).
    """
    network = bundle.network(device)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    if precision != torch.float32 and isinstance(network, DecompositionNet):
        keep_in_float32(network)
    return channels_last(network, device)


def keep_in_float32(network: DecompositionNet) -> None:
    """Keep in float32, in place, what heat needs exact of a network that computes in 16 bits.

    These are E's finest level (its block and its way down), G1's last block, and the heads. Rounding a weight moves
    all pixels the same way, and averaging does not take it back: the first layers' goes through everything, the last
    ones' into x - G1(E(x)), small where heat begins. The error by layer is in Documentation/performance.md.
    """
    parts = dict(network.named_modules())
    last = f"normal_trunk.blocks.{len(network.encoder.downs) - 1}"
    for name in ("encoder.blocks.0", "encoder.downs.0", last, "normal_head", "lesion_head"):
        if name in parts:
            parent, _, own = name.rpartition(".")
            part = InFloat32(parts[name], rounded=name.startswith("encoder."))
            setattr(network.get_submodule(parent), own, part)


def network_precision(bundle: ModelBundle, device: torch.device, asked: str = "auto") -> torch.dtype:
    """What a bundle's network computes in.

    :param asked: ``"auto"``, or ``"float32"`` for nothing less.
    :return: bfloat16 or float16 where the hardware is fast at it (:func:`.precision.fast_precision`) and the heat bears
        bfloat16, the coarser of the two (:data:`LARGEST_HEAT_ERROR`); the lungs' probabilities do. Else float32.
    """
    fast = torch.float32 if asked == "float32" else fast_precision(device)
    if bundle.task == "lungs":
        return fast
    error = bundle.metadata.get(BF16_HEAT_ERROR)
    return fast if isinstance(error, float) and error <= LARGEST_HEAT_ERROR else torch.float32


def _fold_norms(block: nn.Sequential) -> None:
    layers = list(block)
    for index, (layer, norm) in enumerate(pairwise(layers)):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block[index], block[index + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
