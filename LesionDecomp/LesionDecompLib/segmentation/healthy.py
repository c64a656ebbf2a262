"""The healthy version of a CT: G1's lung where heat says lesion, the CT everywhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from ..ct.volume import Volume
from ..errors import ModelError
from ..models.precision import computing_in
from ..models.records import HeatDefinition
from ..models.runtime import network_precision
from ..progress import Cancel, Progress
from ..threads import over_slices
from .heat import heat_on_grid
from .slices import LungSlices
from .smoothing import shrink_inside

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..models.networks import DecompositionNet

STAGE = "Healthy version"
INT16 = np.iinfo(np.int16)


def check_healthy_support(bundle: ModelBundle) -> None:
    """Refuse a model that gives no healthy version.

    :raises LesionDecompError: its network has no decoder for the normal version.
    """
    if not bundle.metadata["architecture_arguments"].get("normal_decoder", True):
        found = f"the model '{bundle.name}', which has no decoder for the normal version"
        raise ModelError(STAGE, found, "a decomposition with both decoders", code="model_without_normal_decoder")


def healthy_version(
    volume: Volume,
    lungs: np.ndarray,
    box: tuple[slice, slice, slice],
    heat: np.ndarray,
    network: DecompositionNet,
    bundle: ModelBundle,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    precision: torch.dtype | None = None,
) -> np.ndarray:
    """What the lungs would look like without their lesions, by G1(E(x)): the CT where heat is 0, G1 from the bundle's
    own threshold on, and a mean of both, weighted by the heat, in between.

    :param lungs: ``(k, j, i)`` uint8, 1 right, 2 left.
    :param box: of the lungs in the axial stack.
    :param heat: ``(k, j, i)`` float32, of the same network.
    :param progress: called with ``("healthy", slices done, slices with heat)``.
    :return: ``(k, j, i)`` int16, HU.
    :raises LesionDecompError: see :func:`check_healthy_support`.
    :raises Cancelled: ``cancelled`` returned True.
    """
    check_healthy_support(bundle)
    view, image = volume.view, bundle.slice_input
    slices = LungSlices.of(volume, lungs, box, image, device)
    hot = _near_heat(view.to_axial(heat), slices)
    chosen = network_precision(bundle, torch.device(device)) if precision is None else precision

    def normal(x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return (_normal(bundle.heat_definition, network, x, chosen) + 1) / 2

    def shown(_stage: str, done: int, total: int) -> None:
        if progress is not None:
            progress("healthy", done, total)

    gray = heat_on_grid(volume, replace(slices, filled=hot), normal, batch_size, shown, cancelled)
    healthy = np.empty(volume.shape, dtype=np.int16)
    low, high = image.hu_window
    lows = np.array([0.0, *(low + shift for shift in slices.field.shifts_hu)], dtype=np.float32)
    stacks = [view.to_axial(array) for array in (volume.array, lungs, heat, gray, healthy)]

    def blend(part: slice) -> None:
        ct, labels, warmth, bright, out = (stack[part] for stack in stacks)
        out[...] = ct if ct.dtype == np.int16 else np.clip(np.rint(ct), INT16.min, INT16.max)
        where = np.nonzero((warmth > 0) & (labels != 0))
        share = np.minimum(warmth[where] / np.float32(bundle.default_threshold), 1)
        g1 = lows[labels[where]] + bright[where] * np.float32(high - low)
        out[where] = np.rint(share * g1 + (1 - share) * ct[where])

    over_slices(blend, view.shape[0], fewest=1)
    return healthy


def _near_heat(heat: np.ndarray, slices: LungSlices) -> list[int]:
    """The slices with heat, and those near enough for it to have come from them."""
    hot = {z for z in slices.filled if heat[z].any()}
    reach = range(-slices.depth, slices.depth + 1)
    return [z for z in slices.filled if any(z + step in hot for step in reach)]


@torch.inference_mode()
def _normal(
    definition: HeatDefinition, network: DecompositionNet, x: torch.Tensor, precision: torch.dtype
) -> torch.Tensor:
    """G1(E(x)), ``(n, 1, h, w)`` in [-1, 1]; the mean with that of the mirrored slice where heat is such a mean."""
    seen = shrink_inside(x, definition.shrink) if definition.shrink > 1 else x
    with computing_in(precision, x.device):
        value = network.normal(seen).float()
        if definition.flip:
            value = (value + network.normal(seen.flip(3)).float().flip(3)) / 2
    if definition.shrink > 1:
        value = functional.interpolate(value, scale_factor=definition.shrink, mode="bilinear", align_corners=False)
    return value.clamp(-1.0, 1.0)
