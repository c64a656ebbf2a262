"""Networks made ready to compute results: nothing in them that only training needs, in the precision that fits.

Lower precision is chosen by what the hardware does fast and by what the model was found to bear, never by a timing:
the same machine gives the same bytes each time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .precision import channels_last, has_fast_bf16

if TYPE_CHECKING:
    from .bundle import ModelBundle

# Heat may differ from that in float32 by this much.
LARGEST_HEAT_ERROR = 0.01
# Key of bundle.json: the largest difference of heat that bfloat16 makes, measured when the bundle was released.
BF16_HEAT_ERROR = "bfloat16_heat_error"
PRECISIONS = ("auto", "float32")


def inference_network(bundle: ModelBundle, device: torch.device) -> nn.Module:
    """The network of a bundle with its batch norms folded into the convolutions before them."""
    network = bundle.network(device)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    return channels_last(network, device)


def network_precision(bundle: ModelBundle, device: torch.device, asked: str = "auto") -> torch.dtype:
    """What a bundle's network computes in.

    :param asked: ``"auto"``, or ``"float32"`` for nothing less.
    :return: bfloat16 where the hardware is fast at it and the heat bears it (:data:`LARGEST_HEAT_ERROR`); the lungs'
        probabilities do. Float32 everywhere else.
    """
    if asked == "float32" or not has_fast_bf16(device):
        return torch.float32
    if bundle.task == "lungs":
        return torch.bfloat16
    error = bundle.metadata.get(BF16_HEAT_ERROR)
    return torch.bfloat16 if isinstance(error, float) and error <= LARGEST_HEAT_ERROR else torch.float32


def _fold_norms(block: nn.Sequential) -> None:
    layers = list(block)
    for index, (layer, norm) in enumerate(pairwise(layers)):
        if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block[index], block[index + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
