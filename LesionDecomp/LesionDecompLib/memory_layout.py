"""How a network's weights lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def channels_last(network: Network, device: torch.device | str) -> Network:
    """Move a network to ``device``, weights with the channels nearest in memory: convolutions run fastest so."""
    # Module.to takes a memory format, but its signatures in torch do not say so.
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
