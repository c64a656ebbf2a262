"""The weights file of a bundle: safetensors (bundle format 2), or what ``torch.save`` wrote (format 1, read only)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .torch_file import load_torch_file

if TYPE_CHECKING:
    import torch

FORMAT_VERSION = 2
WEIGHTS_NAMES = {1: "weights.pt", 2: "weights.safetensors"}  # by the bundle's format version
WEIGHTS_NAME = WEIGHTS_NAMES[FORMAT_VERSION]


def packed_weights(state: Mapping[str, torch.Tensor], half: bool) -> bytes:
    """A network's state as safetensors; the same tensors, the same bytes.

    :param half: store floating-point weights as float16, but for those that float16 cannot hold.
    """
    from safetensors.torch import save  # not before: it loads torch

    return save({name: _stored(tensor, half) for name, tensor in state.items()})


def unpacked_weights(data: bytes, format_version: int) -> dict[str, torch.Tensor]:
    """Tensors of a weights file by their names, on the CPU, as they are stored.

    :raises NotTensorsError, SafetensorError, KeyError: not such a file, or damaged.
    """
    from safetensors.torch import load  # not before: it loads torch

    return load_torch_file(io.BytesIO(data)) if format_version == 1 else load(data)


def _stored(tensor: torch.Tensor, half: bool) -> torch.Tensor:
    """A copy as the file keeps it; layers that two decoders share are stored once for each."""
    import torch  # slow to import

    copy = tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
    if not half or not copy.is_floating_point():
        return copy
    short = copy.to(torch.float16)
    return short if torch.isfinite(short).all() else copy  # a large running variance
