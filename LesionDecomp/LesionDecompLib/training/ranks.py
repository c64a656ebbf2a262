"""Training on several processes at once: torch.distributed as ``torchrun`` or SLURM start it.

All ranks draw the same slices of the same global batch and each takes its share of it. Sums over the batch (of the
losses, of batch norm) are sums over all ranks, with gradients: the loss of every rank is the loss of the whole batch,
and DistributedDataParallel's mean over ranks of their gradients is its gradient. For one process alone nothing changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import torch
from torch import distributed, nn

from ..errors import ConfigError

STAGE = "Training on several ranks"
MEET_WITHIN_S = 1800.0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Which of them this is; 0 writes."""
    return distributed.get_rank() if distributed.is_initialized() else 0


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the other ranks, where the environment (``RANK``, ``WORLD_SIZE``) names any; leave them at the end.

    NCCL between CUDA devices (each rank takes that of its ``LOCAL_RANK``), gloo between CPUs.

    :return: the device of this rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        number, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        distributed.init_process_group(backend, store=_store_of_this_start(number), rank=number, world_size=size)
    else:
        distributed.init_process_group(backend)
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def _store_of_this_start(number: int) -> distributed.Store:
    """Where the ranks find each other, without what ranks that have died since have left there.

    ``torchrun`` keeps one store through all restarts, in which a rank may find the address of a dead one, and each of
    its agents counts restarts by itself. So rank 0 names each start, and tells the name to whoever asks under its own.
    """
    from torch.distributed.rendezvous import rendezvous  # not before: it loads much

    store, _, size = next(rendezvous("env://"))
    if number > 0:
        asks = uuid4().hex
        store.set(f"rank {number} asks", asks)
        start = store.get(asks).decode()
        store.set(f"{start} {number}", "knows")
        return distributed.PrefixStore(start, store)
    start, waiting, end = uuid4().hex, set(range(1, size)), time.monotonic() + MEET_WITHIN_S
    while waiting:
        if time.monotonic() > end:
            raise ConfigError(STAGE, f"no rank {min(waiting)}", f"all {size} ranks within {MEET_WITHIN_S:.0f} s")
        for other in waiting:
            if store.check([f"rank {other} asks"]):
                store.set(store.get(f"rank {other} asks").decode(), start)
        waiting = {other for other in waiting if not store.check([f"{start} {other}"])}
        time.sleep(0.02)
    return distributed.PrefixStore(start, store)


def share(count: int) -> slice:
    """This rank's part of ``count`` slices of the global batch.

    :raises LesionDecompError: the ranks cannot take the same number each.
    """
    each, left = divmod(count, world_size())
    if left:
        raise ConfigError(
            STAGE, f"{count} slices of one kind for {world_size()} ranks", "a multiple of the number of ranks"
        )
    return slice(rank() * each, (rank() + 1) * each)


def total(value: torch.Tensor) -> torch.Tensor:
    """Sum of ``value`` over all ranks, differentiable."""
    if world_size() == 1:
        return value
    from torch.distributed.nn.functional import all_reduce  # not before: it loads torch

    return all_reduce(value)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether it holds on any rank: all get the same answer."""
    if world_size() == 1:
        return flag
    flags = torch.tensor([float(flag)], device=device)
    distributed.all_reduce(flags, distributed.ReduceOp.MAX)
    return bool(flags.item())


def data_parallel(module: nn.Module, some_unused: bool = False) -> nn.Module:
    """``module`` in DistributedDataParallel, where there are other ranks; its batch norm counts all ranks' slices.

    :param some_unused: in some updates part of the weights gets no gradient.
    """
    if world_size() == 1:
        return module
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = _BatchNormOverRanks
    return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False, find_unused_parameters=some_unused)


class _BatchNormOverRanks(nn.BatchNorm2d):
    """Batch norm over the slices of all ranks, on any backend (torch's own needs CUDA)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        value = x.float()
        sums = torch.stack([value.sum((0, 2, 3)), value.square().sum((0, 2, 3))])
        count = torch.full((1, self.num_features), float(x.numel() // x.shape[1]), device=x.device)
        sums = total(torch.cat([sums, count]))
        mean = sums[0] / sums[2]
        variance = (sums[1] / sums[2] - mean.square()).clamp_min(0.0)
        with torch.no_grad():
            mean_so_far, variance_so_far, batches = self.running_mean, self.running_var, self.num_batches_tracked
            if mean_so_far is None or variance_so_far is None or batches is None or self.momentum is None:
                raise ValueError("batch norm over ranks keeps running statistics")
            unbiased = variance * (sums[2] / (sums[2] - 1).clamp_min(1.0))
            mean_so_far.lerp_(mean, self.momentum)
            variance_so_far.lerp_(unbiased, self.momentum)
            batches.add_(1)
        factor = self.weight * torch.rsqrt(variance + self.eps)
        shape = (1, -1, 1, 1)
        return ((value - mean.view(shape)) * factor.view(shape) + self.bias.view(shape)).to(x.dtype)
