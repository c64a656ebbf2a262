"""How networks are made fast: bf16 where the hardware is faster at it, weights laid out for convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than float32 on ``device``: CUDA from Ampere on, CPUs with AMX or AVX-512 bf16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # On other CPUs bf16 is emulated.
    return (
        device.type == "cpu" and torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def mixed_precision(device: torch.device) -> torch.autocast:
    """A context in which networks compute in bf16 where that is fast (:func:`has_fast_bf16`)."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


@contextmanager
def computing_in(precision: torch.dtype, device: torch.device | str) -> Iterator[None]:
    """A context in which networks compute in ``precision``: bfloat16, or float32 without TensorFloat-32."""
    device = torch.device(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield


def channels_last(network: Network, device: torch.device | str) -> Network:
    """Move a network to ``device``, weights with the channels nearest in memory: convolutions run fastest so."""
    # Module.to takes a memory format, but its signatures in torch omit it.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
