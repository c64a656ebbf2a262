"""From HU slices to what the lesion network saw in training, and its heat back to the scan's slices.

The network knows lung-masked gray slices of 256×256 pixels, scaled to [-1, 1], everything outside the lungs exactly
-1. :class:`LesionField` makes these from any axial slices by two matrix products, and brings heat back by two more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from ..ct.anatomy import LEFT_LUNG, RIGHT_LUNG
from ..ct.steps import steps_covering
from ..ct.volume import Volume
from ..models.precision import on_device
from ..models.records import SliceInput
from ..threads import over_slices
from .body_field import FieldOfView

OUTSIDE = -1.0
DARKEST = -1.0 + 1 / 127.5  # inside the lungs, gray 1 of 255: air must not look like outside
# A lung's mode is looked for here, HU, and a lung is shifted by this much at most.
MODE_RANGE_HU = (-1000, -600)
LARGEST_SHIFT_HU = 80.0
# Lungs whose modes differ by more have a window each, where the peak is that of healthy lung: half or more of the lung
# lies near it. Of 60 lungs the least holds 44 %; ground glass all over a lung leaves no such peak.
DIFFERENT_HU = 25.0
NEAR_MODE_HU = 75.0
LEAST_NEAR_MODE = 0.5
# Grain of the network's input (see `grain`): 19 of 20 normal slices of the training have less. Finer ones are averaged
# until they have no more, over this many millimeters at most.
LARGEST_GRAIN = 14.0
LARGEST_SLAB_MM = 5.0
GRAIN_LOOKS = 8
# Sides of what the network is given: it halves them four times.
MULTIPLE = 32
MARGIN = 8
LEAST_WEIGHT = np.float32(1e-4)  # of the pixels inside the lungs among those that a voxel takes its heat from


@dataclass(frozen=True, eq=False)
class LesionField:
    """Where the lesion network's pixels lie in a scan's axial slices.

    :param field: matrices between the part of the slices named by ``rows`` and ``columns`` and the pixels.
    :param rows, columns: the lungs' bounding box in the scan's slices.
    :param pixel_rows, pixel_columns: the pixels that hold lung, sides a multiple of 32; the others stay outside.
    :param hu_window: HU that become gray -1 and 1.
    :param shifts_hu: how far the window is moved for the right and for the left lung.
    :param rim: pixels taken off the lungs' edge, where chest wall shines in: the slices of the training have none.
    """

    field: FieldOfView
    rows: slice
    columns: slice
    pixel_rows: slice
    pixel_columns: slice
    hu_window: tuple[float, float]
    rim: int = 0
    shifts_hu: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def around(
        cls,
        box: tuple[slice, slice],
        spacing_yx: tuple[float, float],
        size: int,
        pixel_mm: float,
        hu_window: tuple[float, float],
        device: torch.device | str = "cpu",
        rim: int = 0,
        shifts_hu: tuple[float, float] = (0.0, 0.0),
    ) -> LesionField:
        """A field whose middle is the middle of the lungs.

        :param box: rows and columns of the slices that hold lung.
        :param spacing_yx: of the slices, mm.
        :param size: pixels along a side.
        :param pixel_mm: their distance, mm.
        """
        rows, columns = box
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        center = ((shape[0] - 1) / 2, (shape[1] - 1) / 2)
        field = FieldOfView.around(shape, spacing_yx, center, size, pixel_mm, device)
        held = [
            _centered(steps_covering(length * spacing, pixel_mm) + 2 * MARGIN, size)
            for length, spacing in zip(shape, spacing_yx, strict=True)
        ]
        return cls(field, rows, columns, held[0], held[1], hu_window, rim, shifts_hu)

    def to_input(self, hu: np.ndarray, lungs: np.ndarray) -> torch.Tensor:
        """Make the network's input of axial slices.

        Gray and lung are resampled together and divided, so that no darkness from outside leaks into the rim.

        :param hu: ``(n, ny, nx)`` of the field's rows and columns, HU.
        :param lungs: the same shape, lung where not 0; 1 right, 2 left where their windows differ.
        :return: ``(n, 1, h, w)`` float32 in [-1, 1], exactly -1 outside the lungs.
        """
        right, left = (np.float32(self.hu_window[0] + shift) for shift in self.shifts_hu)
        lows = np.array([right, right, left])
        both = np.empty((2 * len(hu), *hu.shape[1:]), dtype=np.float32)  # lung, then gray in [0, 2], 0 outside
        scale = np.float32(2.0 / (self.hu_window[1] - self.hu_window[0]))

        def scaled(part: slice) -> None:
            lung, gray = both[: len(hu)][part], both[len(hu) :][part]
            np.not_equal(lungs[part], 0, out=lung)
            low = right if right == left else lows[lungs[part]]
            np.subtract(hu[part], low, out=gray, dtype=np.float32)
            gray *= scale
            np.clip(gray, 0.0, 2.0, out=gray)
            gray *= lung

        over_slices(scaled, len(hu), fewest=1)
        pixels = self._held.to_pixels(on_device(torch.from_numpy(both), self.field.rows.device))
        coverage, gray = pixels.split(len(hu))
        gray = gray / coverage.clamp_min(0.5) - 1.0
        inside = coverage > 0.5
        if self.rim > 0:
            width = 2 * self.rim + 1
            inside = functional.max_pool2d((~inside).float(), width, stride=1, padding=self.rim) == 0
        return torch.where(inside, gray.clamp(DARKEST, 1.0), OUTSIDE).unsqueeze(1)

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """Input ``(n, 1, h, w)`` with the pixels around that :meth:`to_input` leaves away, ``(n, 1, size, size)``."""
        size = self.field.rows.shape[0]
        square = x.new_full((len(x), 1, size, size), OUTSIDE)
        square[:, :, self.pixel_rows, self.pixel_columns] = x
        return square

    def to_slices(
        self, heat: torch.Tensor, inside: torch.Tensor, lungs: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Bring heat back to the scan's slices: the inverse of :meth:`to_input`, by linear interpolation.

        :param heat: ``(n, 1, h, w)`` in [0, 1].
        :param inside: the same shape, 1 inside the lungs.
        :param lungs: ``(n, ny, nx)``, lung where not 0.
        :param out: where to put the slices.
        :return: ``(n, ny, nx)`` float32 in [0, 1], 0 outside.
        """
        heat, inside = heat[:, 0], inside[:, 0]
        for _ in range(self.rim + 1):  # the rim has the heat of what lies next to it
            share, near = _sum_of_nine(torch.cat([inside, heat * inside])).split(len(heat))
            heat, inside = torch.where(inside > 0, heat, near / share.clamp_min(1.0)), (share > 0).float()
        both = self._held.to_slices(torch.cat([inside, heat * inside])).cpu().numpy()
        weights, values = both[: len(heat)], both[len(heat) :]
        slices = np.empty(lungs.shape, dtype=np.float32) if out is None else out

        def divided(part: slice) -> None:
            weight, value = weights[part], values[part]
            held = (weight > LEAST_WEIGHT) & (lungs[part] != 0)
            value /= np.maximum(weight, LEAST_WEIGHT, out=weight)
            np.minimum(value, 1.0, out=value)
            np.multiply(value, held, out=slices[part])

        over_slices(divided, len(heat), fewest=1)
        return slices

    @cached_property
    def _held(self) -> FieldOfView:
        """The field of the pixels that hold lung."""
        return self.field.part((self.pixel_rows, self.pixel_columns), (slice(None), slice(None)))


@dataclass(frozen=True, eq=False)
class LungSlices:
    """The axial slices of a scan that hold lung, as the lesion network wants them.

    :param hu, lungs: ``(z, y, x)`` of the lungs' bounding box, HU and lung where not 0.
    :param field: of the box.
    :param filled: axial slices with lung, from inferior.
    :param depth: slices above and below in which lung must go on.
    :param measured_hu: how far the healthy lung of each side lies from that of the training; the window follows within
        ``LARGEST_SHIFT_HU``.
    :param reach: slices above and below that each one is averaged with.
    """

    hu: np.ndarray
    lungs: np.ndarray
    field: LesionField
    filled: list[int]
    depth: int
    measured_hu: tuple[float, float] = (0.0, 0.0)
    reach: int = 0

    @classmethod
    def of(
        cls,
        volume: Volume,
        lungs: np.ndarray,
        box: tuple[slice, slice, slice],
        image: SliceInput,
        device: torch.device | str = "cpu",
    ) -> LungSlices:
        """The lung slices of a volume.

        :param lungs: ``(k, j, i)``, lung where not 0.
        :param box: of the lungs in the axial stack.
        :param image: of the lesion bundle.
        """
        view, (levels, rows, columns) = volume.view, box
        hu_stack, lung_stack = view.to_axial(volume.array), view.to_axial(lungs)
        boxed = lung_stack[:, rows, columns]
        measured = (0.0, 0.0)
        if image.lung_mode_hu is not None:
            measured = mode_shifts(hu_stack[levels, rows, columns], boxed[levels], image.lung_mode_hu)
        right, left = (float(np.clip(shift, -LARGEST_SHIFT_HU, LARGEST_SHIFT_HU)) for shift in measured)
        field = LesionField.around(
            (rows, columns),
            view.spacing[1:],
            image.size,
            image.spacing_mm,
            image.hu_window,
            device,
            image.rim_pixels,
            (right, left),
        )
        depth = steps_covering(image.rim_slab_mm, view.slice_distance)
        filled = [z for z in range(levels.start, levels.stop) if boxed[z].any()]
        slices = cls(hu_stack[:, rows, columns], boxed, field, filled, depth, measured)
        return replace(slices, reach=slices.quieting_reach(view.slice_distance))

    def quieting_reach(self, slice_mm: float) -> int:
        """How many slices above and below to average with, so that the input is no grainier than the training's.

        :param slice_mm: distance between slices.
        """
        most = int(LARGEST_SLAB_MM / slice_mm - 1 + 1e-6) // 2
        if most < 1:
            return 0
        looked_at = [self.filled[n] for n in np.linspace(0, len(self.filled) - 1, GRAIN_LOOKS + 2).astype(int)[1:-1]]
        found = grain(torch.cat([self.to_input([z])[0] for z in sorted(set(looked_at))]).cpu())
        # Noise of neighbors is taken to be independent.
        return min(most, max(0, math.ceil(((found / LARGEST_GRAIN) ** 2 - 1) / 2)))

    def inner(self, z: int) -> np.ndarray:
        """Lung of slice ``z`` that goes on above and below: a dome of the diaphragm does not. ``(y, x)`` bool.

        Beyond the first and last slice of the scan lung is taken to go on.
        """
        inner = self.lungs[z] != 0
        for neighbor in range(max(z - self.depth, 0), min(z + self.depth + 1, len(self.lungs))):
            if neighbor != z:
                inner &= self.lungs[neighbor] != 0
        return inner

    def to_input(self, part: list[int]) -> tuple[torch.Tensor, np.ndarray]:
        """Network input ``(n, 1, h, w)`` (see :meth:`LesionField.to_input`) of some slices, and their inner lung."""
        mask = np.stack([self.inner(z) for z in part])
        hu = np.stack([self._averaged(z) for z in part]) if self.reach else self.hu[compact_index(part)]
        lungs = mask * self.lungs[compact_index(part)] if self.field.shifts_hu[0] != self.field.shifts_hu[1] else mask
        return self.field.to_input(hu, lungs), mask

    def _averaged(self, z: int) -> np.ndarray:
        """HU of a slice averaged with its neighbors, where these are lung too; ``(y, x)`` float32."""
        total, count = self.hu[z].astype(np.float32), np.ones(self.hu.shape[1:], np.float32)
        for near in range(max(z - self.reach, 0), min(z + self.reach + 1, len(self.hu))):
            if near != z:
                lung = self.lungs[near] != 0
                np.add(total, self.hu[near], out=total, where=lung)
                count += lung
        total /= count
        return total


def compact_index(numbers: list[int]) -> slice | list[int]:
    """The same index as a slice where the numbers follow one another: no copy, and several times as fast."""
    first, last = numbers[0], numbers[-1]
    return slice(first, last + 1) if last - first + 1 == len(numbers) else numbers


def _sum_of_nine(x: torch.Tensor) -> torch.Tensor:
    """Each pixel with its eight neighbors summed, ``(n, h, w)``."""
    x = functional.pad(x, (1, 1, 1, 1))
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]


def lung_mode(hu: np.ndarray, lungs: np.ndarray) -> float | None:
    """The commonest HU of aerated lung: the peak of the smoothed histogram between -1000 and -600 HU.

    :param hu: ``(z, y, x)``.
    :param lungs: the same shape, lung where not 0.
    :return: HU; None where hardly any lung is aerated.
    """
    step = max(1, int((hu.size / 4e6) ** (1 / 3)))
    part = (slice(None, None, step),) * 3
    hu, lungs = hu[part], lungs[part]

    def of_slices(some: slice) -> tuple[np.ndarray, int]:
        values = hu[some][lungs[some] != 0]
        return _counts_of_five(values, low, high), values.size

    low, high = MODE_RANGE_HU
    found = over_slices(of_slices, len(hu))
    counts, size = np.sum([counts for counts, _ in found], axis=0), sum(size for _, size in found)
    if np.sum(counts) < 0.2 * max(1, size) or np.sum(counts) < 500:
        return None
    smooth = np.convolve(counts, np.hanning(11), mode="same")
    return low + 5 * int(np.argmax(smooth)) + 2.5


def _counts_of_five(values: np.ndarray, low: int, high: int) -> np.ndarray:
    """Histogram with bins of 5 HU from ``low`` to ``high``, which the last one includes."""
    if values.dtype.kind != "i":
        return np.histogram(values, bins=np.arange(low, high + 5, 5))[0]
    inside = values[(values >= low) & (values <= high)]
    counts = np.bincount(inside.astype(np.intp) - low, minlength=high - low + 1)
    counts[-2] += counts[-1]
    return counts[:-1].reshape(-1, 5).sum(axis=1)


def mode_shifts(hu: np.ndarray, lungs: np.ndarray, target_mode: float) -> tuple[float, float]:
    """How far healthy lung lies from that of the training, HU: for the right and for the left lung.

    Both have one shift, that of their common mode (:func:`lung_mode`), unless their own modes differ and each is the
    peak of a lung that is healthy for the most part. Where one lung's is not, as with ground glass all over it, the
    other's counts for both; 0 where hardly any lung is aerated.

    :param hu: ``(z, y, x)``.
    :param lungs: the same shape, 1 right, 2 left; any other labels count as one lung.
    :param target_mode: HU of healthy lung in the training.
    """
    common = lung_mode(hu, lungs)
    if common is None:
        return 0.0, 0.0
    modes = [_own_mode(hu, lungs, label) for label in (RIGHT_LUNG.label, LEFT_LUNG.label)]
    known = [mode for mode in modes if mode is not None]
    if len(known) == 2 and abs(known[0] - known[1]) <= DIFFERENT_HU:
        known = []
    if not known:
        return common - target_mode, common - target_mode
    right, left = (known[0] if mode is None else mode for mode in modes)
    return right - target_mode, left - target_mode


def _own_mode(hu: np.ndarray, lungs: np.ndarray, label: int) -> float | None:
    """The mode of one lung; None where it has none, or too little of the lung lies near it."""
    lung = lungs == label
    mode = lung_mode(hu, lung)
    if mode is None:
        return None
    values = hu[::2, ::2, ::2][lung[::2, ::2, ::2]]
    near = np.count_nonzero(np.abs(values - mode) < NEAR_MODE_HU)
    return mode if near >= LEAST_NEAR_MODE * len(values) else None


def grain(x: torch.Tensor) -> float:
    """How grainy slices are: a robust standard deviation of each pixel from its four neighbors' mean, gray of 255.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :return: the median over the slices of 1.48 times the median deviation, away from the lungs' edge; 0 without lung.
    """
    deep = functional.max_pool2d((x == OUTSIDE).float(), 9, stride=1, padding=4) == 0
    around = functional.pad(x, (1, 1, 1, 1))
    mean = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
    deviation = (x - mean / 4).abs() * 127.5
    found = [1.4826 * float(d[inside].median()) for d, inside in zip(deviation, deep, strict=True) if inside.any()]
    return float(np.median(found)) if found else 0.0


def _centered(length: int, size: int) -> slice:
    length = min(-(-length // MULTIPLE) * MULTIPLE, size)
    start = (size - length) // 2
    return slice(start, start + length)
