"""What lies above and below a slice, as further channels of the lung network's input.

A slice alone cannot distinguish a consolidated lobe from the liver. Neighbors are taken where the bundle states
(:attr:`LesionDecompLib.models.records.SliceInput.neighbors_mm`), from the nearest slab; beyond the ends of the scan, or
of the body where slices of air follow, the last slab stands for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from ...ct.steps import nearest_steps
from ...models.precision import on_device


def neighbor_steps(offsets_mm: Sequence[float], slab_mm: float) -> list[int]:
    """How many slabs away the slab nearest to each offset is; halves are rounded away from the slice.

    >>> neighbor_steps((-12.0, -6.0, 0.0, 6.0, 12.0), 2.5)
    [-5, -2, 0, 2, 5]
    """
    return [int(math.copysign(nearest_steps(abs(offset), slab_mm), offset)) for offset in offsets_mm]


class Neighborhoods:
    """Slabs with their neighbors as channels; each slab is made once, and let go of when it is no neighbor any more.

    :param made: the pixels ``(stop - start, h, w)`` of the slabs from ``start`` to ``stop``.
    :param count: slabs in the scan.
    :param steps: of the channels, in slabs (:func:`neighbor_steps`).
    :param body: first slab that holds body, and the one after the last; None: all do.
    """

    def __init__(
        self,
        made: Callable[[int, int], torch.Tensor],
        count: int,
        steps: Sequence[int],
        body: tuple[int, int] | None = None,
    ) -> None:
        self._made, self._count, self._steps = made, count, torch.tensor(list(steps))
        self._body = body or (0, count)
        self._first = 0  # number of the first slab kept
        self._kept: torch.Tensor | None = None

    def of(self, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels ``(n, h, w)`` of the slabs themselves and ``(n, channels, h, w)`` with their neighbors.

        To be asked for from the lowest to the highest.
        """
        low = max(start + int(self._steps.min()), 0)
        high = min(stop + int(self._steps.max()), self._count)
        kept = self._kept
        end = low if kept is None else self._first + len(kept)
        if kept is not None:
            kept = kept[low - self._first :]
        if end < high:
            new = self._made(end, high)
            kept = new if kept is None or not len(kept) else torch.cat([kept, new])
        assert kept is not None
        self._first, self._kept = low, kept
        own = torch.arange(start, stop).view(-1, 1)
        wanted = (own + self._steps).clamp(0, self._count - 1)
        first, end_of_body = self._body
        of_body = (own >= first) & (own < end_of_body)
        wanted = torch.where(of_body, wanted.clamp(first, max(first, end_of_body - 1)), wanted)
        channels = kept[on_device(wanted - low, kept.device)]
        return kept[start - low : stop - low], channels
