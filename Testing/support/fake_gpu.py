"""A CUDA GPU that is not there: arrays on it have a shape, a type and a place, but no values.

torch's FakeTensorMode refuses an operation between arrays on different devices, as a GPU would. Here the processor's
own arrays stay real, so that whole programs run; what comes back from the GPU has the values that the same program
gave on the processor (:class:`Replies`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CUDA = torch.device("cuda:0")
CUDA_SLOT, META_SLOT, SLOTS = 1, 14, 20
aten = torch.ops.aten
# Operations that have the processor wait for a GPU.
WAITING = (aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten.unique_consecutive, aten._unique2)


class Replies:
    """What a program asked of its device: recorded where it ran on the processor, then given to it on the GPU."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.used = 0

    @contextmanager
    def recorded(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        plain = torch.Tensor.cpu

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            self.values.append(plain(tensor).detach().clone())
            return plain(tensor)

        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", cpu)
            yield

    def next(self, like: torch.Tensor) -> torch.Tensor:
        value = self.values[self.used]
        assert value.shape == like.shape and value.dtype == like.dtype, f"answer {self.used} is another one on a GPU"
        self.used += 1
        return value.clone()


class FarDevice(TorchDispatchMode):
    """torch's meta device held to a GPU's rules: the backward pass of a fake CUDA array needs a torch built for CUDA.

    :ivar waits: how often the processor waited for it.
    """

    def __init__(self, replies: Replies) -> None:
        super().__init__()
        self.replies, self.waits = replies, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        far = [tensor for tensor in tensors if tensor.is_meta]
        target = kwargs.get("device")
        if far and func.overloadpacket in WAITING:
            raise AssertionError(f"the processor waits for a GPU: {func}")
        if far and target is not None and torch.device(target).type == "cpu":
            self.waits.append(str(func))
            return self.replies.next(far[0])
        if far and func.overloadpacket is not aten.copy_ and any(t.ndim and not t.is_meta for t in tensors):
            raise RuntimeError(f"{func}: arrays on different devices")
        return func(*args, **kwargs)


class FakeGpu(FakeTensorMode):
    """Everything that names :data:`CUDA` is on it, and fake; the rest is computed for real.

    :ivar waits: how often the processor waited for the GPU: names of the operations.
    :ivar copies: bytes of each copy to the GPU.
    """

    def __init__(self, replies: Replies | None = None) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.replies, self.waits, self.copies = replies or Replies(), [], []

    @property
    def avoid_device_init(self) -> bool:
        """There is nothing to begin, whatever :func:`cuda_of` has torch believe."""
        return True

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        target = kwargs.get("device")
        target = torch.device(target) if target is not None else None
        fakes = [tensor for tensor in tensors if isinstance(tensor, FakeTensor)]
        if not fakes and (target is None or target.type != CUDA.type):
            return func(*args, **kwargs)
        if func.overloadpacket in WAITING:
            raise AssertionError(f"the processor waits for a GPU: {func}")
        if fakes and target is not None and target.type == "cpu":
            self.waits.append(str(func))
            return self.replies.next(fakes[0])
        if not fakes and tensors:
            self.copies.append(sum(t.numel() * t.element_size() for t in tensors))
        args, kwargs = tree_map(self._fake, (args, kwargs))
        return super().dispatch(func, types, args, kwargs)

    def _fake(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or isinstance(leaf, FakeTensor):
            return leaf
        return self.from_tensor(leaf, static_shapes=True)

    def placed(self, network: torch.nn.Module) -> torch.nn.Module:
        """A network moved there; it is emptied, not copied."""
        for module in network.modules():
            for held in (module._parameters, module._buffers):
                for name, value in held.items():
                    if value is None:
                        continue
                    with self:
                        moved = value.detach().to(CUDA)
                    if isinstance(value, torch.nn.Parameter):
                        moved = torch.nn.Parameter(moved, requires_grad=value.requires_grad)
                    held[name] = moved
        return network


def _link_driver() -> None:
    """A torch without CUDA asks a driver that is not linked before each index, copy and gradient of an array there.

    The meta device's, which does nothing, stands in for it: a slot of torch's own table (c10/core/DeviceType.h numbers
    them) is filled where it is empty.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    table = (ctypes.c_void_p * SLOTS).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if table[CUDA_SLOT] is None:
        table[CUDA_SLOT] = table[META_SLOT]


@contextmanager
def cuda_of(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """torch finds a CUDA GPU of this capability; gives the sizes of what was pinned."""
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.device.type == "cpu"
        pinned.append(tensor.numel() * tensor.element_size())
        return tensor

    _link_driver()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: capability >= (8, 0))
        patch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU of capability {capability}")
        patch.setattr(torch.Tensor, "pin_memory", pin)
        yield pinned
