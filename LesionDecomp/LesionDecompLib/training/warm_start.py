"""Start a training from the weights of another run or a bundle, also of one that saw slices at half the resolution."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import InputError
from ..models.bundle import METADATA_NAME, ModelBundle
from ..models.torch_file import load_torch_file
from .loop import CHECKPOINT_NAME, STAGE

NORMAL_DECODER = "normal_"  # its weights' names begin with it


def start_from(network: nn.Module, run: str | Path, task: str = "lesions") -> None:
    """Give ``network`` the averaged weights of the checkpoint in the folder ``run``, or those of the bundle there.

    Where the other run's network had no stem (it saw slices averaged down) and this one has, the weights are spread
    so that both networks give the same for slices that are constant over each stem block. A normal decoder that the
    other one has not begins as it was drawn.

    :param task: what the network is for, ``lesions`` or ``lungs``.
    :raises LesionDecompError: neither of them, or weights that do not fit.
    """
    file, bundle = Path(run) / CHECKPOINT_NAME, Path(run) / METADATA_NAME
    if not file.is_file() and not bundle.is_file():
        found = f"no {CHECKPOINT_NAME} and no {METADATA_NAME} in '{Path(run).name}'"
        raise InputError(STAGE, found, f"the folder of a training or of a bundle for {task}")
    try:
        held = load_torch_file(file)["average"] if file.is_file() else None
        weights = ModelBundle.load(run, task).network().state_dict() if held is None else held
        drawn = {key: value for key, value in network.state_dict().items() if key.startswith(NORMAL_DECODER)}
        network.load_state_dict(drawn | spread_over_stem(weights, network.state_dict()))
    except Exception as error:  # torch raises half a dozen kinds here; all mean the same to the user
        reason = str(error).splitlines()[-1].strip()[:200] if str(error) else type(error).__name__
        found = f"weights in '{Path(run).name}' that do not fit ({reason})"
        raise InputError(STAGE, found, "a run or bundle with the same network settings") from error


def spread_over_stem(weights: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a network without stem for one with: the first layer averages a block, the heads repeat over it.

    :param weights: of the network without stem (or of one like the target: these come back as they are).
    :param target: weights of the network with stem, for their shapes.
    """
    spread = {}
    for key, value in weights.items():
        wanted = target[key].shape if key in target else value.shape
        if key.endswith("_head.weight") or key.endswith("_head.bias"):
            value = value.repeat_interleave(wanted[0] // value.shape[0], dim=0)
        elif value.dim() == 4 and wanted[1] > value.shape[1]:
            block = wanted[1] // value.shape[1]
            value = value.repeat(1, block, 1, 1) / block
        spread[key] = value
    return spread
