"""A bundle's metadata as typed records: how slices enter the network, and what of its answer is heat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..errors import ModelError

STAGE = "Lesion heat"
MAX_SMOOTHING_PX, MAX_SMOOTHING_MM, MAX_KNOTS, MAX_RAW = 32.0, 20.0, 64, 1e6
SOURCES = ("gate", "lesion", "difference", "change", "both")

SHRINKS = (1, 2, 4)  # factors by which a network's slices may be averaged down


@dataclass(frozen=True)
class SliceInput:
    """How a slice of a CT becomes what the network saw in training.

    :param size: of a slice, pixels; slices are square.
    :param spacing_mm: of its pixels.
    :param hu_window: HU of the darkest and the brightest gray.
    :param lung_mode_hu: HU of healthy lung under this window in training; None to leave a scan's window as it is.
    :param rim_pixels: lung left out at the lungs' edge.
    :param rim_slab_mm: how far above and below lung needs lung to count.
    :param neighbors_mm: how far above and below lie the slices that the lung network sees beside the slice itself.
    """

    size: int
    spacing_mm: float
    hu_window: tuple[float, float]
    lung_mode_hu: float | None = None
    rim_pixels: int = 0
    rim_slab_mm: float = 0.0
    neighbors_mm: tuple[float, ...] = ()

    @property
    def offsets_mm(self) -> tuple[float, ...]:
        """Where each channel of the input lies, from below the slice to above it.

        >>> SliceInput(256, 2.0, (-1000.0, 200.0), neighbors_mm=(6.0, 12.0)).offsets_mm
        (-12.0, -6.0, 0.0, 6.0, 12.0)
        """
        return (*(-distance for distance in reversed(self.neighbors_mm)), 0.0, *self.neighbors_mm)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> SliceInput:
        """The ``input`` of a bundle's checked metadata."""
        image = metadata["input"]
        low, high = (float(bound) for bound in image["hu_window"])
        return cls(
            size=int(image["size"][0]),
            spacing_mm=float(image["spacing_mm"]),
            hu_window=(low, high),
            lung_mode_hu=image.get("lung_mode_hu"),
            rim_pixels=int(image.get("rim_pixels", 0)),
            rim_slab_mm=float(image.get("rim_slab_mm", 0.0)),
            neighbors_mm=tuple(float(distance) for distance in image.get("neighbors_mm", ())),
        )


@dataclass(frozen=True)
class HeatDefinition:
    """What a bundle calls heat.

    :param source: ``"gate"``: P, the sigmoid of the lesion decoder's gate; ``"lesion"``: G2(E(x)) above 0;
        ``"difference"``: (x - G1(E(x))) / 2 above 0; ``"change"``: |x - G1(E(x))| / 2, as in the paper's released code;
        ``"both"``: the geometric mean of P and that difference, high
        where both decoders see a lesion.
    :param flip: average with the heat of the mirrored slice.
    :param smoothing_px: Gaussian inside the lungs, pixels.
    :param smoothing_mm: Gaussian across the slices of a scan, inside the lungs, mm.
    :param shrink: the network sees slices averaged down by this factor (as it did in training).
    :param raw, scaled: the piecewise linear rule that brings raw values to heat in [0, 1]; fitted on ``val``.
    """

    source: str = "gate"
    flip: bool = True
    smoothing_px: float = 2.0
    smoothing_mm: float = 0.0
    shrink: int = 1
    raw: tuple[float, ...] = (0.0, 1.0)
    scaled: tuple[float, ...] = (0.0, 1.0)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> HeatDefinition:
        """The ``heat`` of a lesion bundle's metadata.

        :raises LesionDecompError: unknown keys or values.
        """
        try:
            heat = dict(metadata["heat"])
            heat = {key: tuple(value) if isinstance(value, list) else value for key, value in heat.items()}
            definition = cls(**heat)
            rising = all(a < b for knots in (definition.raw, definition.scaled) for a, b in pairwise(knots))
            rising = rising and 2 <= len(definition.raw) <= MAX_KNOTS
            finite = all(type(n) in (int, float) and abs(n) <= MAX_RAW for n in (*definition.raw, *definition.scaled))
            smooth = 0 <= float(definition.smoothing_px) <= MAX_SMOOTHING_PX
            smooth = smooth and 0 <= float(definition.smoothing_mm) <= MAX_SMOOTHING_MM
            if type(definition.flip) is not bool or not smooth:
                raise ValueError("a flip or smoothing out of range")
            if not finite or not 0 <= definition.scaled[0] <= definition.scaled[-1] <= 1:
                raise ValueError("a scale beyond 0 to 1, or raw values that are not numbers")
            if definition.shrink not in SHRINKS:
                raise ValueError(f"slices shrunk by {definition.shrink}")
            if definition.source not in SOURCES or len(definition.raw) != len(definition.scaled) or not rising:
                raise ValueError("an unknown source, or a scale that does not rise")
            network = metadata.get("architecture_arguments", {})
            if definition.source == "both" and not (network.get("gated") and network.get("normal_decoder", True)):
                raise ValueError("heat of both decoders from a network that is not gated or has no normal decoder")
            return definition
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise ModelError(
                STAGE, f"a heat definition that cannot be read ({error})", "a bundle as trained"
            ) from error
