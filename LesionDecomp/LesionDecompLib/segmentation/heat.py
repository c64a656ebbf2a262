"""The lesion heatmap of a CT: lung-masked slices through E and the lesion decoder, back onto the scan's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from ..ct.oddity import Oddity
from ..ct.sparse import sparse_zeros
from ..ct.volume import Volume
from ..models.precision import computing_in
from ..models.records import HeatDefinition
from ..models.runtime import called_for, network_precision
from ..progress import Cancel, Progress, check_cancel
from ..threads import over_slices
from .slices import LARGEST_SHIFT_HU, OUTSIDE, LungSlices, compact_index
from .smoothing import AcrossSlices, blur_inside, shrink_inside

if TYPE_CHECKING:
    from ..models.bundle import ModelBundle
    from ..models.networks import DecompositionNet

STAGE = "Lesion heat"
LARGE_SHIFT_HU = 60.0


@torch.inference_mode()
def heat_of_slices(
    definition: HeatDefinition, network: DecompositionNet, x: torch.Tensor, precision: torch.dtype = torch.float32
) -> torch.Tensor:
    """Heat of slices by a bundle's definition of it.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :param precision: of the network.
    :return: the same shape, in [0, 1].
    """
    inside = (x > OUTSIDE).float()
    value = _raw(definition, network, x, precision)
    if definition.flip:
        value = (value + _raw(definition, network, x.flip(3), precision).flip(3)) / 2
    if definition.smoothing_px > 0:
        value = blur_inside(value, inside, definition.smoothing_px)
    if definition.source == "both":
        value = value.prod(dim=1, keepdim=True).sqrt()
    held = inside > 0
    if x.device.type != "cpu":  # to pick the pixels inside, the processor would have to wait for their number
        return torch.where(held, scaled_heat(definition, value), 0.0)
    heat = torch.zeros_like(value)
    heat[held] = scaled_heat(definition, value[held])
    return heat


def scaled_heat(definition: HeatDefinition, value: torch.Tensor) -> torch.Tensor:
    """Raw values to heat by linear interpolation between the knots."""
    raw = torch.tensor(definition.raw, dtype=value.dtype, device=value.device)
    scaled = torch.tensor(definition.scaled, dtype=value.dtype, device=value.device)
    upper = torch.bucketize(value, raw).clamp(1, len(raw) - 1)
    share = (value - raw[upper - 1]) / (raw[upper] - raw[upper - 1])
    return torch.lerp(scaled[upper - 1], scaled[upper], share).clamp(0.0, 1.0)


def _raw(
    definition: HeatDefinition, network: DecompositionNet, x: torch.Tensor, precision: torch.dtype
) -> torch.Tensor:
    """What the network answers, ``(n, 1, h, w)`` in [0, 1]; for ``"both"`` P and the difference, ``(n, 2, h, w)``."""
    if definition.shrink > 1:
        x = shrink_inside(x, definition.shrink)
    way = called_for(definition)
    ask: Callable[[torch.Tensor], Any] = getattr(network, way) if way else network
    with computing_in(precision, x.device):
        answer = ask(x)
    if definition.source == "both":
        value = torch.cat([torch.sigmoid(answer.gate.float()), _taken_away(x, answer.normal)], dim=1)
    elif definition.source == "difference":
        value = _taken_away(x, answer)
    elif definition.source == "change":
        value = (x - answer.float()).abs() / 2
    else:
        gate = answer.float()
        value = torch.sigmoid(gate) if definition.source == "gate" else gate.clamp(0.0, 1.0)
    if definition.shrink > 1:
        value = functional.interpolate(value, scale_factor=definition.shrink, mode="bilinear", align_corners=False)
    return value


def _taken_away(x: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Gray that G1 takes away, as a share of the whole range: (x - G1(E(x))) / 2 above 0."""
    return ((x - normal.float()) / 2).clamp(0.0, 1.0)


def lesion_heat(
    volume: Volume,
    lungs: np.ndarray,
    box: tuple[slice, slice, slice],
    network: DecompositionNet,
    bundle: ModelBundle,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    precision: torch.dtype | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Compute the lesion heatmap on the volume's grid, slice by slice; slices without lung cost nothing.

    :param lungs: ``(k, j, i)`` uint8, lung where not 0.
    :param box: of the lungs in the axial stack.
    :param network: of ``bundle``, on ``device``.
    :param progress: called with ``("heat", slices done, slices with lung)``.
    :param cancelled: asked once a batch.
    :param precision: that the network computes in; None for :func:`LesionDecompLib.models.runtime.network_precision`.
    :return: ``(k, j, i)`` float32 in [0, 1], 0 outside the lungs; and warnings, a sentence each.
    :raises Cancelled: ``cancelled`` returned True.
    """
    definition = bundle.heat_definition
    chosen = network_precision(bundle, torch.device(device)) if precision is None else precision

    def answer(x: torch.Tensor) -> torch.Tensor:
        return heat_of_slices(definition, network, x.contiguous(memory_format=torch.channels_last), chosen)

    slices = LungSlices.of(volume, lungs, box, bundle.slice_input, device)
    heat = heat_on_grid(volume, slices, answer, batch_size, progress, cancelled, definition.smoothing_mm)
    return heat, density_warnings(*slices.measured_hu)


def density_warnings(right: float, left: float) -> list[str]:
    """Whether healthy lung is much denser or emptier than that of the training.

    :param right, left: how far it lies from the training's, HU.
    """
    worst = max(right, left, key=abs)
    if abs(worst) < LARGE_SHIFT_HU:
        return []
    where = f"{worst:+.0f} HU" if right == left else f"{right:+.0f} HU (right) and {left:+.0f} HU (left)"
    moved = "its window was shifted with it"
    if abs(worst) > LARGEST_SHIFT_HU:
        moved = f"its window was shifted by {LARGEST_SHIFT_HU:.0f} HU, the most there is, so that heat may be wrong"
    text = (
        f"Healthy lung lies {where} from what the model was trained on; {moved}. A shallow or deep breath or emphysema "
        "can cause this, and so can a CT that is not in HU."
    )
    return [Oddity(text, "lung_density", worst, LARGE_SHIFT_HU)]


def heat_on_grid(
    volume: Volume,
    slices: LungSlices,
    answer: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int = 8,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    smoothing_mm: float = 0.0,
) -> np.ndarray:
    """Heat that any method gives lung slices, back on the volume's grid.

    :param slices: of the volume.
    :param answer: slices ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs, to their heat in [0, 1].
    :param smoothing_mm: Gaussian across the slices, mm.
    :return: ``(k, j, i)`` float32 in [0, 1], 0 outside the lungs.
    :raises Cancelled: ``cancelled`` returned True.
    """
    heat = sparse_zeros(volume.shape, np.float32)
    box = (slice(None), slices.field.rows, slices.field.columns)
    boxed_heat = volume.view.to_axial(heat)[box]
    across = AcrossSlices(smoothing_mm / volume.view.slice_distance)
    masks: dict[int, np.ndarray] = {}

    def write(done: list[int], values: torch.Tensor, inside: torch.Tensor) -> None:
        if not done:
            return
        mask = np.stack([masks.pop(z) for z in done])
        where = compact_index(done)
        with torch.inference_mode():
            out = boxed_heat[where] if isinstance(where, slice) else None
            found = slices.field.to_slices(values, inside, mask, out)
            if out is None:
                boxed_heat[where] = found

    for start in range(0, len(slices.filled), batch_size):
        check_cancel(cancelled, STAGE)
        part = slices.filled[start : start + batch_size]
        with torch.inference_mode():
            x, mask = slices.to_input(part)
        values = answer(x)
        masks |= dict(zip(part, mask, strict=True))
        with torch.inference_mode():
            ready = across.add(part, values, (x > OUTSIDE).float())
        write(*ready)
        if progress is not None:
            progress("heat", start + len(part), len(slices.filled))
    with torch.inference_mode():
        write(*across.rest())
    _fill_from_neighbors(boxed_heat, slices)
    return heat


def _fill_from_neighbors(heat: np.ndarray, slices: LungSlices) -> None:
    """Give lung that :meth:`LungSlices.inner` leaves out the heat of the nearest slice where it does not, in place."""
    depth, filled = slices.depth, slices.filled
    if depth == 0:
        return

    def fill(part: slice) -> None:
        inner: dict[int, np.ndarray] = {}
        for z in filled[part]:
            for near in range(z - depth, z + depth + 1):
                if near in held and near not in inner:
                    inner[near] = slices.inner(near)
            left_out = (slices.lungs[z] != 0) & ~inner[z]
            # Only what is left out is written, and only the rest is read: blocks do not wait for each other.
            for neighbor in (z + sign * step for step in range(1, depth + 1) for sign in (1, -1)):
                if neighbor in inner and left_out.any():
                    take = left_out & inner[neighbor]
                    heat[z][take] = heat[neighbor][take]
                    left_out &= ~take
            inner.pop(z - depth, None)

    held = set(filled)
    over_slices(fill, len(filled))
