"""What networks cost by their shapes alone: operations, memory, and the time at a plain matrix product's rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from ...models.bundle import ModelBundle
from ...models.memory import batch_bytes, weight_bytes
from ...models.precision import InFloat32, computing_in
from ...models.runtime import called_for, inference_network

Shape = tuple[int, ...]


def forward_flops(network: nn.Module, way: str, shape: Shape) -> int:
    """Floating-point operations of a forward pass; nothing is computed.

    :param way: how the network is called, ``""`` (itself), ``"gate"`` or ``"normal"``.
    :param shape: of the input.
    """
    return int(_counted(network, way, shape).get_total_flops())


def float32_flops(network: nn.Module, way: str, shape: Shape) -> int:
    """Those of :func:`forward_flops` that stay in float32 where the network computes in 16 bits."""
    count = _counted(network, way, shape).get_flop_counts()
    names = (name for name, module in network.named_modules() if isinstance(module, InFloat32))
    return sum(sum(count.get(f"{type(network).__name__}.{name}", {}).values()) for name in names)


def _counted(network: nn.Module, way: str, shape: Shape) -> FlopCounterMode:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), FlopCounterMode(display=False) as count:
        (getattr(network, way) if way else network)(torch.empty(shape))
    return count


def roofline(
    networks: Mapping[str, tuple[nn.Module, Counter[tuple[str, Shape]], str]],
    gflops: Mapping[str, float],
    networks_s: float,
) -> dict[str, Any]:
    """The forward passes of a case against a plain matrix product.

    :param networks: for each task the network, how often it was called in which way with which shape, and what it
        computed in.
    :param gflops: rate of the matrix product in each precision.
    :param networks_s: what the forward passes took, on the clock.
    :return: GFLOP of each task, their rate, seconds at the matrix product's, and the share of that rate.
    """
    work, ideal = {}, 0.0
    for task, (network, calls, precision) in networks.items():
        flops, exact = (
            sum(times * count(network, way, shape) for (way, shape), times in calls.items())
            for count in (forward_flops, float32_flops)
        )
        work[task] = round(flops / 1e9, 1)
        ideal += (flops - exact) / 1e9 / gflops[precision] + exact / 1e9 / gflops["float32"]
    return {
        "gflop": work,
        "gflops": round(sum(work.values()) / networks_s, 1),
        "seconds_at_matrix_product": round(ideal, 3),
        "of_roofline": round(ideal / networks_s, 3),
    }


def expected_batch(bundle: ModelBundle, batch_size: int, precision: torch.dtype) -> dict[str, Any]:
    """What a batch of a bundle's network takes, whole slices taken, the most there can be.

    :return: GFLOP a slice and forward pass, MiB of weights (float32) and of a batch's arrays.
    """
    network = inference_network(bundle, torch.device("cpu"), precision)
    image, lesions = bundle.slice_input, bundle.task == "lesions"
    way = called_for(bundle.heat_definition) if lesions else ""
    shape = (batch_size, 1 if lesions else len(image.offsets_mm), image.size, image.size)
    with computing_in(precision, "cpu"):
        flops = forward_flops(network, way, shape)
    return {
        "slices": batch_size,
        "input": list(shape),
        "precision": str(precision).removeprefix("torch."),
        "gflop_a_slice": round(flops / batch_size / 1e9, 2),
        "weights_mib": round(weight_bytes(network) / 2**20, 1),
        "batch_mib": round(batch_bytes(network, shape, precision) / 2**20, 1),
    }
