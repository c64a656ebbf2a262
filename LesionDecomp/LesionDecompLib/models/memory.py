"""Memory of a device: too little of it recognized, what is left over given back, and what a batch will need."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .precision import computing_in

SAYS_SO = ("out of memory", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error states that memory is too short: each device of torch has its own words for it."""
    text = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in text for words in SAYS_SO)


def release_cached(device: torch.device) -> None:
    """Give back what a GPU keeps of arrays that are gone."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


class LiveBytes(TorchDispatchMode):
    """A context that counts the bytes of the arrays that operations in it have made, and that are still there.

    :ivar peak: the most there were at a time.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(leaf)[0] for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                key, size = _storage(leaf)
                if key in self._users or key not in given:  # weights and input were there before
                    self._hold(leaf, key, size)
        return out

    def _hold(self, tensor: torch.Tensor, key: int, size: int) -> None:
        if key not in self._users:
            self._users[key] = 0
            self._now += size
            self.peak = max(self.peak, self._now)
        self._users[key] += 1
        weakref.finalize(tensor, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]
            self._now -= size


def batch_bytes(network: nn.Module, shape: tuple[int, ...], precision: torch.dtype = torch.float32) -> int:
    """Bytes that the arrays of a network's forward pass take at most, found from their shapes alone.

    Weights, input, and what libraries take for themselves come on top. A process on the CPU was measured to
    grow by 1.0 to 1.05 times as much where each array is mapped by itself; with glibc's heap, which leaves holes
    between arrays of other sizes, by up to 1.5 times.

    :param network: ready for inference; its weights are not read.
    :param shape: of the input, ``(n, channels, h, w)``.
    :param precision: that it computes in.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as shapes_alone, torch.inference_mode(), LiveBytes() as live:
        x = shapes_alone.from_tensor(torch.empty(0)).new_empty(shape)
        x = x.contiguous(memory_format=torch.channels_last)
        with computing_in(precision, "cpu"):
            network(x)
    return live.peak


def weight_bytes(network: nn.Module) -> int:
    """Bytes of a network's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _storage(tensor: torch.Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()
