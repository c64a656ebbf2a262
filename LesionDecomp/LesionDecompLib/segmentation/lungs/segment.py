"""A chest CT goes in, a labelmap of the right and left lung comes out.

Axial slices -> 256×256 pixels of 2 mm around the body -> U-Net, a second time where the field of view cuts through a
lung -> clean-up in 3-D -> labels on the scan's own grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ...ct.plausibility import chest_wall_warnings, lung_edge_warnings, lung_hu_warnings, lung_warnings
from ...ct.sparse import sparse_zeros
from ...ct.steps import steps_within
from ...ct.volume import Volume
from ...errors import InputError
from ...models.precision import computing_in, on_device
from ...models.runtime import network_precision
from ...progress import Cancel, Progress, check_cancel
from ...threads import over_slices
from ..body_field import FieldOfView, body_center, body_extent, body_slices, scale_window
from .cleanup import CleanLungs, clean_lungs
from .context import Neighborhoods, neighbor_steps
from .edges import MirroredEdges, cuts_lung
from .sides import LEFT, RIGHT, bounding_box, split_right_left

if TYPE_CHECKING:
    from ...models.bundle import ModelBundle

__all__ = ["LEFT", "RIGHT", "segment_lungs", "split_right_left"]

STAGE = "Lung segmentation"
# Thinner slices are averaged up to this thickness for the network: less noise, less work, nothing lost at 2 mm pixels.
SLAB_MM = 2.0
LEAST_LUNG_ML = 200.0
# A scan of few slices holds less: this much lung for each slice is asked for then.
LEAST_SECTION_CM2 = 20.0


def segment_lungs(
    volume: Volume,
    network: torch.nn.Module,
    bundle: ModelBundle,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    precision: torch.dtype | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Segment both lungs, disease included, trachea and main bronchi not.

    :param network: of ``bundle``, in evaluation mode on ``device``: ``(n, channels, h, w)`` in [-1, 1], a slice with
        the neighbors that the bundle asks for, to logits ``(n, 3, h, w)`` of background, right and left lung.
    :param batch_size: slices at a time.
    :param progress: called with ``("lungs", slices done, slices)``.
    :param cancelled: asked once for each batch.
    :param precision: that the network computes in; None for :func:`LesionDecompLib.models.runtime.network_precision`.
    :return: ``(k, j, i)`` uint8 labels on the volume's grid (0 background, 1 the patient's right lung, 2 the left
        one), and warnings, a sentence each.
    :raises LesionDecompError: no lungs found.
    :raises Cancelled: ``cancelled`` returned True.
    """
    view = volume.view
    stack = view.to_axial(volume.array)
    distance = (view.slice_distance, *view.spacing[1:])
    image = bundle.slice_input
    size, pixel, window = image.size, image.spacing_mm, image.hu_window
    threshold = bundle.default_threshold
    field = FieldOfView.around(stack.shape[1:], distance[1:], body_center(stack), size, pixel, device)
    thickness = max(1, steps_within(SLAB_MM, distance[0]))

    precision = network_precision(bundle, torch.device(device)) if precision is None else precision
    steps = neighbor_steps(image.offsets_mm, thickness * distance[0])

    def opinion(mirrored: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _network_opinion(
            stack, field, network, precision, window, thickness, steps, batch_size, progress, cancelled, mirrored
        )

    probability, evidence, hu = opinion(mirrored=False)
    spacing = (thickness * distance[0], pixel, pixel)
    if cuts_lung(probability >= threshold, hu, field, spacing):
        del probability, evidence, hu
        probability, evidence, hu = opinion(mirrored=True)
    check_cancel(cancelled, STAGE)
    lungs = clean_lungs(probability, evidence, spacing, threshold, hu=hu)
    del probability, evidence, hu
    least = min(LEAST_LUNG_ML, LEAST_SECTION_CM2 * stack.shape[0] * distance[0] / 10.0)
    if lungs.volume_ml < least:
        raise InputError(
            STAGE,
            f"{lungs.volume_ml:.0f} mL of lung",
            f"at least {least:.0f} mL in a chest CT in Hounsfield units",
            "Check that the volume shows the chest and that its spacing is right, or supply a lung mask.",
            code="no_lungs",
        )
    labels = sparse_zeros(volume.shape, np.uint8)
    sections = _write_labels(lungs, field, threshold, thickness, view.to_axial(labels), batch_size, cancelled)
    warnings: list[str] = list(lungs.warnings)
    warnings += lung_warnings(sections * (distance[1] * distance[2] / 100.0), distance[0])
    found = view.to_axial(labels)
    warnings += lung_hu_warnings(stack, found) + lung_edge_warnings(stack, found, view)
    warnings += chest_wall_warnings(stack, found, view)
    if progress is not None:
        progress("lungs", stack.shape[0], stack.shape[0])
    return labels, warnings


def _network_opinion(
    stack: np.ndarray,
    field: FieldOfView,
    network: torch.nn.Module,
    precision: torch.dtype,
    window: tuple[float, float],
    thickness: int,
    steps: list[int],
    batch_size: int,
    progress: Progress | None,
    cancelled: Cancel | None,
    mirrored: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each slab's probability of lung, evidence of side (-1 right, 1 left), both float32, and HU within the window as
    int16, ``(slabs, size, size)``.

    :param steps: how many slabs away each channel of the network's input lies.
    :param mirrored: the network sees the scan's mirror image beyond its edges; nothing is found there.
    """
    size = field.rows.shape[0]
    device = field.rows.device
    slabs = -(-stack.shape[0] // thickness)
    probability = np.zeros((slabs, size, size), dtype=np.float32)
    evidence = np.zeros_like(probability)
    hu = np.full(probability.shape, round(window[0]), dtype=np.int16)
    rows, columns = body_extent(stack, field)
    held = field.part((rows, columns), (slice(None), slice(None)))
    edges = MirroredEdges.of(held) if mirrored else None
    near = (slice(None), slice(None)) if edges is None else edges.near

    def pixels_of(start: int, stop: int) -> torch.Tensor:
        clipped = _clipped(stack[start * thickness : stop * thickness], window)
        slices = _averaged(on_device(clipped, device), thickness)
        pixels = held.to_pixels(slices, window[0])
        return pixels if edges is None else edges.applied(pixels, window[0])

    first, end = body_slices(stack)
    neighborhoods = Neighborhoods(pixels_of, slabs, steps, (first // thickness, -(-end // thickness)))
    with torch.inference_mode():
        for start in range(0, slabs, batch_size):
            check_cancel(cancelled, STAGE)
            stop = min(start + batch_size, slabs)
            pixels, channels = neighborhoods.of(start, stop)
            x = scale_window(channels, window)
            with computing_in(precision, device):
                logits = network(x.contiguous(memory_format=torch.channels_last))
            _, right, left = torch.softmax(logits.float(), dim=1).unbind(dim=1)
            found = torch.stack([right + left, left - right, pixels.round()]).cpu().numpy()
            for layers, values in zip((probability, evidence, hu), found, strict=True):
                layers[start:stop, rows, columns][:, *near] = values[:, *near]
            if progress is not None:
                progress("lungs", min(stop * thickness, stack.shape[0]), stack.shape[0])
    return probability, evidence, hu


def _clipped(slices: np.ndarray, window: tuple[float, float]) -> torch.Tensor:
    """HU cut off at the window's bounds, float32: air far below must not darken pixels at the body's edge."""
    clipped = np.empty(slices.shape, dtype=np.float32)

    def clip(part: slice) -> None:
        clipped[part] = slices[part]
        np.clip(clipped[part], *window, out=clipped[part])

    over_slices(clip, len(slices), fewest=1)
    return torch.from_numpy(clipped)


def _averaged(slices: torch.Tensor, thickness: int) -> torch.Tensor:
    """Means of each ``thickness`` slices; the last one of what is left."""
    if thickness == 1:
        return slices
    whole = len(slices) // thickness
    means = slices[: whole * thickness].unflatten(0, (whole, thickness)).mean(dim=1)
    if whole * thickness < len(slices):
        means = torch.cat([means, slices[whole * thickness :].mean(dim=0, keepdim=True)])
    return means


def _write_labels(
    lungs: CleanLungs,
    field: FieldOfView,
    threshold: float,
    thickness: int,
    labels: np.ndarray,
    batch_size: int,
    cancelled: Cancel | None,
) -> np.ndarray:
    """Bring the lungs back to the scan's slices; returns the voxels of right and left lung in each, ``(z, 2)``."""
    sections = np.zeros((labels.shape[0], 2))
    position = (np.arange(labels.shape[0]) + 0.5) / thickness - 0.5
    low = np.clip(np.floor(position).astype(int), 0, len(lungs.side) - 1)
    high = np.minimum(low + 1, len(lungs.side) - 1)
    weight = torch.from_numpy(np.clip(position - low, 0.0, 1.0).astype(np.float32)).view(-1, 1, 1)
    box = bounding_box(lungs.probability > 0, margin=1)
    if box is None:
        return sections
    pixels = box[1:]
    held = (_touched(field.rows_back[:, pixels[0]]), _touched(field.columns_back[:, pixels[1]]))
    part_field = field.part(pixels, held)
    probability, side = (torch.from_numpy(image[:, pixels[0], pixels[1]]) for image in (lungs.probability, lungs.side))
    filled = np.any(lungs.probability, axis=(1, 2))
    device = field.rows.device
    with torch.inference_mode():
        for start in range(0, labels.shape[0], batch_size):
            check_cancel(cancelled, STAGE)
            part = slice(start, start + batch_size)
            if not (filled[low[part]].any() or filled[high[part]].any()):
                continue
            planes = torch.cat(
                [torch.lerp(image[low[part]], image[high[part]], weight[part]) for image in (probability, side)]
            )
            lung, side_of = part_field.to_slices(on_device(planes, device)).chunk(2)
            lung = lung >= threshold
            right = lung & (side_of <= 0)
            batch = (lung.to(torch.uint8) * LEFT - right.to(torch.uint8)).cpu().numpy()
            labels[(part, *held)] = batch
            sections[part, 0] = np.count_nonzero(batch == RIGHT, axis=(1, 2))
            sections[part, 1] = np.count_nonzero(batch == LEFT, axis=(1, 2))
    return sections


def _touched(matrix: torch.Tensor) -> slice:
    """The rows of a matrix between the first and the last that is not 0."""
    rows = np.flatnonzero((matrix != 0).any(dim=1).cpu().numpy())
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
