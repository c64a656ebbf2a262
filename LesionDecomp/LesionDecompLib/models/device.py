"""Where the networks run, and why."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from ..errors import ConfigError

if TYPE_CHECKING:
    import torch

STAGE = "Choosing the device"
CPU_ONLY = "a PyTorch for CPUs only beside an NVIDIA card"
CUDA_BUILD = "For the GPU install a PyTorch with CUDA: https://pytorch.org/get-started/locally/"


def choose_device(name: str = "auto") -> tuple[torch.device, str]:
    """The torch device called ``name``, and the choice in words.

    :param name: ``auto`` (CUDA, else MPS, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    :raises LesionDecompError: no such device here.
    """
    import torch  # slow to import

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"CUDA GPU {torch.cuda.get_device_name()} (automatic: a usable GPU was found)"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple GPU (automatic: MPS is available)"
        return torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads (automatic: {_without_gpu()})"
    if name == "cpu":
        return torch.device("cpu"), f"CPU, {torch.get_num_threads()} threads (as asked)"
    if name == "mps" and torch.backends.mps.is_available():
        return torch.device("mps"), "Apple GPU (as asked)"
    cuda = re.fullmatch(r"cuda(?::(\d+))?", name)
    if cuda and torch.cuda.is_available() and int(cuda[1] or 0) < torch.cuda.device_count():
        device = torch.device(name)
        return device, f"CUDA GPU {torch.cuda.get_device_name(device)} (as asked)"
    available = ["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    expected = f"auto or one of {', '.join(available)}"
    if cuda and not torch.version.cuda and has_nvidia_card():
        raise ConfigError(STAGE, f"the device '{name}' and {CPU_ONLY}", expected, CUDA_BUILD, code="cpu_only_torch")
    raise ConfigError(STAGE, f"the device '{name}'", expected, code="no_such_device")


def device_name(device: torch.device) -> str:
    """What computes, as a record of a training names it: a CUDA GPU's model, ``CPU``, ``Apple GPU``."""
    import torch  # slow to import

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"cpu": "CPU", "mps": "Apple GPU"}.get(device.type, device.type)


def has_nvidia_card() -> bool:
    """Whether the driver of an NVIDIA card is there, whatever PyTorch makes of it."""
    if sys.platform == "win32":
        return os.path.exists(os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"))
    return any(os.path.exists(place) for place in ("/dev/nvidia0", "/proc/driver/nvidia/version"))


def _without_gpu() -> str:
    import torch  # slow to import

    if torch.version.cuda:
        return "torch finds no usable CUDA GPU"
    if not torch.version.hip and has_nvidia_card():
        return f"{CPU_ONLY}. {CUDA_BUILD}"
    return "no CUDA or Apple GPU was found"


def available_devices() -> dict[str, str]:
    """Name of each device that :func:`choose_device` takes here -> what it is, in words; ``auto`` comes first."""
    import torch  # slow to import

    devices = {"auto": choose_device("auto")[1]}
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        memory = torch.cuda.get_device_properties(number).total_memory / 2**30
        devices[f"cuda:{number}"] = f"{torch.cuda.get_device_name(number)}, {memory:.0f} GiB"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    devices["cpu"] = f"CPU, {torch.get_num_threads()} threads"
    return devices
