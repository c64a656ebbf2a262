"""The lesion heatmap of a CT: lung-masked slices through E and the lesion decoder, back onto the scan's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from .errors import Cancelled, LesionDecompError
from .geometry import AxialView
from .inference import network_precision
from .precision import computing_in
from .preprocessing import OUTSIDE, LungSlices, compact_index
from .slice_threads import over_slices
from .smoothing import blur_inside, shrink_inside
from .volume import Volume

if TYPE_CHECKING:
    from .bundles import ModelBundle
    from .networks import DecompositionNet

STAGE = "Lesion heat"
LARGE_SHIFT_HU = 60.0
MAX_SMOOTHING_PX, MAX_KNOTS, MAX_RAW = 32.0, 64, 1e6
SOURCES = ("gate", "lesion", "difference", "both")


@dataclass(frozen=True)
class HeatDefinition:
    """What a bundle calls heat.

    :param source: ``"gate"``: P, the sigmoid of the lesion decoder's gate; ``"lesion"``: G2(E(x)) above 0;
        ``"difference"``: (x - G1(E(x))) / 2 above 0; ``"both"``: the geometric mean of P and that difference, high
        where both decoders see a lesion.
    :param flip: average with the heat of the mirrored slice.
    :param smoothing_px: Gaussian inside the lungs, pixels.
    :param shrink: the network sees slices averaged down by this factor (as it did in training).
    :param raw, scaled: the piecewise linear rule that brings raw values to heat in [0, 1]; fitted on ``val``.
    """

    source: str = "gate"
    flip: bool = True
    smoothing_px: float = 2.0
    shrink: int = 1
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
            rising = rising and 2 <= len(definition.raw) <= MAX_KNOTS
            finite = all(type(n) in (int, float) and abs(n) <= MAX_RAW for n in (*definition.raw, *definition.scaled))
            if type(definition.flip) is not bool or not 0 <= float(definition.smoothing_px) <= MAX_SMOOTHING_PX:
                raise ValueError("a flip or smoothing out of range")
            if not finite or not 0 <= definition.scaled[0] <= definition.scaled[-1] <= 1:
                raise ValueError("a scale beyond 0 to 1, or raw values that are no numbers")
            if definition.shrink not in (1, 2, 4):
                raise ValueError(f"slices shrunk by {definition.shrink}")
            if definition.source not in SOURCES or len(definition.raw) != len(definition.scaled) or not rising:
                raise ValueError("an unknown source, or a scale that does not rise")
            network = bundle.metadata.get("architecture_arguments", {})
            if definition.source == "both" and not (network.get("gated") and network.get("normal_decoder", True)):
                raise ValueError("heat of both decoders from a network that is not gated or has no normal decoder")
            return definition
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise LesionDecompError(
                STAGE, f"a heat definition that cannot be read ({error})", "a bundle as trained"
            ) from error

    @torch.inference_mode()
    def heat(self, network: DecompositionNet, x: torch.Tensor, precision: torch.dtype = torch.float32) -> torch.Tensor:
        """Heat of slices.

        :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
        :param precision: of the network.
        :return: the same shape, in [0, 1].
        """
        inside = (x > OUTSIDE).float()
        value = self._raw(network, x, precision)
        if self.flip:
            value = (value + self._raw(network, x.flip(3), precision).flip(3)) / 2
        if self.smoothing_px > 0:
            value = blur_inside(value, inside, self.smoothing_px)
        if self.source == "both":
            value = value.prod(dim=1, keepdim=True).sqrt()
        heat = torch.zeros_like(value)
        held = inside > 0
        heat[held] = self.scale(value[held])
        return heat

    def scale(self, value: torch.Tensor) -> torch.Tensor:
        """Raw values to heat by linear interpolation between the knots."""
        raw = torch.tensor(self.raw, dtype=value.dtype, device=value.device)
        scaled = torch.tensor(self.scaled, dtype=value.dtype, device=value.device)
        upper = torch.bucketize(value, raw).clamp(1, len(raw) - 1)
        share = (value - raw[upper - 1]) / (raw[upper] - raw[upper - 1])
        return torch.lerp(scaled[upper - 1], scaled[upper], share).clamp(0.0, 1.0)

    def _raw(self, network: DecompositionNet, x: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
        """What the network says, ``(n, 1, h, w)`` in [0, 1]; for ``"both"`` P and the difference, ``(n, 2, h, w)``."""
        if self.shrink > 1:
            x = shrink_inside(x, self.shrink)
        asks: dict[str, Callable[[torch.Tensor], Any]] = {"both": network, "difference": network.normal}
        ask = asks.get(self.source, network.gate)
        with computing_in(precision, x.device):
            answer = ask(x)
        if self.source == "both":
            value = torch.cat([torch.sigmoid(answer.gate.float()), _taken_away(x, answer.normal)], dim=1)
        elif self.source == "difference":
            value = _taken_away(x, answer)
        else:
            gate = answer.float()
            value = torch.sigmoid(gate) if self.source == "gate" else gate.clamp(0.0, 1.0)
        if self.shrink > 1:
            value = functional.interpolate(value, scale_factor=self.shrink, mode="bilinear", align_corners=False)
        return value


def _taken_away(x: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
    """Gray that G1 takes away, as a share of the whole range: (x - G1(E(x))) / 2 above 0."""
    return ((x - normal.float()) / 2).clamp(0.0, 1.0)


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
    precision: torch.dtype | None = None,
) -> tuple[np.ndarray, list[str]]:
    """Compute the lesion heatmap on the volume's grid, slice by slice; slices without lung cost nothing.

    :param lungs: ``(k, j, i)`` uint8, lung where not 0.
    :param network: of ``bundle``, on ``device``.
    :param progress: called with ``("heat", slices done, slices with lung)``.
    :param cancelled: asked once a batch.
    :param precision: that the network computes in; None for :func:`LesionDecompLib.inference.network_precision`.
    :return: ``(k, j, i)`` float32 in [0, 1], 0 outside the lungs; and warnings, a sentence each.
    :raises Cancelled: ``cancelled`` said so.
    """
    definition = HeatDefinition.of(bundle)
    precision = network_precision(bundle, torch.device(device)) if precision is None else precision
    heat = np.zeros(volume.shape, dtype=np.float32)
    slices = LungSlices.of(volume, view, lungs, bundle.metadata["input"], device)
    box = (slice(None), slices.field.rows, slices.field.columns)
    boxed_heat = view.to_axial(heat)[box]
    for start in range(0, len(slices.filled), batch_size):
        if cancelled is not None and cancelled():
            raise Cancelled(STAGE)
        part = slices.filled[start : start + batch_size]
        with torch.inference_mode():
            x, mask = slices.to_input(part)
            values = definition.heat(network, x.contiguous(memory_format=torch.channels_last), precision)
            where = compact_index(part)
            out = boxed_heat[where] if isinstance(where, slice) else None
            found = slices.field.to_slices(values, (x > OUTSIDE).float(), mask, out)
            if out is None:
                boxed_heat[where] = found
        if progress is not None:
            progress("heat", start + len(part), len(slices.filled))
    _fill_from_neighbors(boxed_heat, slices)
    warnings = []
    if abs(slices.shift_hu) >= LARGE_SHIFT_HU:
        warnings.append(
            f"Healthy lung lies {slices.shift_hu:+.0f} HU from what the model was trained on; its window was shifted "
            "with it. A shallow or deep breath or emphysema can cause this, and so can a CT that is not in HU."
        )
    return heat, warnings


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
