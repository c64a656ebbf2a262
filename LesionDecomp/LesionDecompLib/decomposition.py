"""The lesion heatmap of a CT: lung-masked slices through E and the lesion decoder, back onto the scan's grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from .errors import Cancelled, LesionDecompError
from .geometry import AxialView
from .lesions import lung_box
from .preprocessing import OUTSIDE, LesionField, aligned_window, lung_mode
from .smoothing import blur_inside
from .volume import Volume

if TYPE_CHECKING:
    from .bundles import ModelBundle
    from .networks import DecompositionNet

STAGE = "Lesion heat"
SOURCES = ("gate", "lesion", "difference")


@dataclass(frozen=True)
class HeatDefinition:
    """What a bundle calls heat.

    :param source: ``"gate"``: P, the sigmoid of the lesion decoder's gate; ``"lesion"``: G2(E(x)) above 0;
        ``"difference"``: (x - G1(E(x))) / 2 above 0.
    :param flip: average with the heat of the mirrored slice.
    :param smoothing_px: Gaussian inside the lungs, pixels.
    :param raw, scaled: the piecewise linear rule that brings raw values to heat in [0, 1]; fitted on ``val``.
    """

    source: str = "gate"
    flip: bool = True
    smoothing_px: float = 2.0
    raw: tuple[float, ...] = (0.0, 1.0)
    scaled: tuple[float, ...] = (0.0, 1.0)

    @classmethod
    def of(cls, bundle: ModelBundle) -> HeatDefinition:
        """The definition in a bundle's metadata.

        :raises LesionDecompError: unknown keys or values.
        """
        try:
            heat = dict(bundle.metadata["heat"])
            heat = {key: tuple(value) if isinstance(value, list) else value for key, value in heat.items()}
            definition = cls(**heat)
            rising = all(np.all(np.diff(knots) > 0) for knots in (definition.raw, definition.scaled))
            if definition.source not in SOURCES or len(definition.raw) != len(definition.scaled) or not rising:
                raise ValueError("an unknown source, or a scale that does not rise")
            return definition
        except (TypeError, ValueError) as error:
            raise LesionDecompError(
                STAGE, f"a heat definition that does not read ({error})", "a bundle as trained"
            ) from error

    @torch.inference_mode()
    def heat(self, network: DecompositionNet, x: torch.Tensor) -> torch.Tensor:
        """Heat of slices.

        :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs. :return: the same shape, in [0, 1].
        """
        inside = (x > OUTSIDE).float()
        value = self._raw(network, x)
        if self.flip:
            value = (value + self._raw(network, x.flip(3)).flip(3)) / 2
        if self.smoothing_px > 0:
            value = blur_inside(value, inside, self.smoothing_px)
        return self.scale(value) * inside

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        """Raw values to heat by linear interpolation between the knots."""
        raw = torch.tensor(self.raw, dtype=value.dtype, device=value.device)
        scaled = torch.tensor(self.scaled, dtype=value.dtype, device=value.device)
        upper = torch.bucketize(value, raw).clamp(1, len(raw) - 1)
        share = (value - raw[upper - 1]) / (raw[upper] - raw[upper - 1])
        return torch.lerp(scaled[upper - 1], scaled[upper], share).clamp(0.0, 1.0)

    def _raw(self, network: DecompositionNet, x: torch.Tensor) -> torch.Tensor:
        if self.source == "difference":
            return ((x - network.normal(x).float()) / 2).clamp(0.0, 1.0)
        gate = network.gate(x).float()
        return torch.sigmoid(gate) if self.source == "gate" else gate.clamp(0.0, 1.0)


def lesion_heat(
    volume: Volume,
    view: AxialView,
    lungs: np.ndarray,
    network: DecompositionNet,
    bundle: ModelBundle,
    device: torch.device | str = "cpu",
    batch_size: int = 8,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> np.ndarray:
    """Compute the lesion heatmap on the volume's grid, slice by slice; slices without lung cost nothing.

    :param lungs: ``(k, j, i)`` uint8, lung where not 0. :param network: of ``bundle``, on ``device``.
    :param progress: called with ``("heat", slices done, slices with lung)``. :param cancelled: asked once a batch.
    :return: ``(k, j, i)`` float32 in [0, 1], 0 outside the lungs.
    :raises Cancelled: ``cancelled`` said so.
    """
    heat = np.zeros(volume.shape, dtype=np.float32)
    hu_stack, lung_stack, heat_stack = (view.to_axial(array) for array in (volume.array, lungs, heat))
    levels, rows, columns = lung_box(lung_stack)
    image = bundle.metadata["input"]
    window, _ = aligned_window(
        tuple(float(bound) for bound in image["hu_window"]),
        image.get("lung_mode_hu"),
        lung_mode(hu_stack[levels, rows, columns], lung_stack[levels, rows, columns]),
    )
    field = LesionField.around(
        (rows, columns),
        view.spacing[1:],
        int(image["size"][0]),
        float(image["spacing_mm"]),
        window,
        device,
        int(image.get("rim_pixels", 0)),
    )
    definition = HeatDefinition.of(bundle)
    depth = math.ceil(float(image.get("rim_slab_mm", 0.0)) / view.slice_distance)
    filled = [z for z in range(levels.start, levels.stop) if lung_stack[z].any()]
    for start in range(0, len(filled), batch_size):
        if cancelled is not None and cancelled():
            raise Cancelled(STAGE)
        part = filled[start : start + batch_size]
        mask = np.stack([_inner(lung_stack, z, depth)[rows, columns] for z in part])
        with torch.inference_mode():
            x = field.to_input(hu_stack[part, rows, columns], mask)
            values = definition.heat(network, x.contiguous(memory_format=torch.channels_last))
            heat_stack[part, rows, columns] = field.to_slices(values, (x > OUTSIDE).float(), mask)
        if progress is not None:
            progress("heat", start + len(part), len(filled))
    if depth > 0:
        _fill_from_neighbors(heat_stack[:, rows, columns], lung_stack[:, rows, columns], filled, depth)
    return heat


def _inner(lungs: np.ndarray, z: int, depth: int) -> np.ndarray:
    """Lung of slice ``z`` that has lung above and below it, ``depth`` slices far: a dome of the diaphragm has not.

    Beyond the first and last slice of the scan lung is taken to go on.
    """
    inner = lungs[z] != 0
    for neighbor in range(max(z - depth, 0), min(z + depth + 1, len(lungs))):
        if neighbor != z:
            inner &= lungs[neighbor] != 0
    return inner


def _fill_from_neighbors(heat: np.ndarray, lungs: np.ndarray, filled: list[int], depth: int) -> None:
    """Give lung that :func:`_inner` left out the heat of the nearest slice where it was not, in place."""
    inner = {z: _inner(lungs, z, depth) for z in filled[: depth + 1]}
    for position, z in enumerate(filled):
        for ahead in filled[position : position + depth + 1]:
            inner.setdefault(ahead, None)
            if inner[ahead] is None:
                inner[ahead] = _inner(lungs, ahead, depth)
        open_ = (lungs[z] != 0) & ~inner[z]
        for step in range(1, depth + 1):
            for neighbor in (z + step, z - step):
                if neighbor in inner and open_.any():
                    take = open_ & inner[neighbor]
                    heat[z][take] = heat[neighbor][take]
                    open_ &= ~take
        inner.pop(z - depth, None)
