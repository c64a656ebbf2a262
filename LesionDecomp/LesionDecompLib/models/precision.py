"""How networks are made fast: 16 bits where the hardware is faster at them, weights laid out for convolutions, and
copies to a GPU without waiting."""

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


def fast_precision(device: torch.device) -> torch.dtype:
    """The fastest type that networks can compute in on ``device``: bfloat16 (:func:`has_fast_bf16`), float16 on CUDA
    GPUs of capability 7 (Volta, Turing: their tensor cores know no other), float32 everywhere else, MPS included."""
    if has_fast_bf16(device):
        return torch.bfloat16
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0):
        return torch.float16
    return torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """A context in which networks are trained: in bf16 where that is fast (:func:`has_fast_bf16`).

    Never in float16, whose small gradients vanish without a scale of the loss.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


@contextmanager
def computing_in(precision: torch.dtype, device: torch.device | str) -> Iterator[None]:
    """A context in which networks compute in ``precision``: 16 bits, or float32 without TensorFloat-32."""
    device = torch.device(device)
    half = precision != torch.float32
    with torch.autocast(device.type, precision if half else torch.bfloat16, enabled=half):
        if device.type != "cuda":
            yield
            return
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield


class InFloat32(nn.Module):
    """A part of a network that computes in float32 where the rest computes in 16 bits (:func:`computing_in`).

    :param rounded: whether the rest is given its answer in 16 bits; in float32 otherwise.
    """

    def __init__(self, part: nn.Module, *, rounded: bool) -> None:
        super().__init__()
        self.part, self.rounded = part, rounded

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` and the answer as of the part; the same as without this class where everything is in float32."""
        kind = x.device.type
        if not torch.is_autocast_enabled(kind):
            return self.part(x)
        with torch.autocast(kind, enabled=False):
            answer = self.part(x.float())
        return answer.to(torch.get_autocast_dtype(kind)) if self.rounded else answer


def channels_last(network: Network, device: torch.device | str) -> Network:
    """Move a network to ``device``, weights with the channels nearest in memory: convolutions run fastest so."""
    # Module.to takes a memory format, but its signatures in torch omit it.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def on_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``values`` on ``device``; to a CUDA GPU through pinned memory, which the processor need not wait for."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
