"""From HU slices to what the lesion network saw in training, and its heat back to the scan's slices.

The network knows lung-masked gray slices of 256×256 pixels, scaled to [-1, 1], everything outside the lungs exactly
-1. :class:`LesionField` makes these from any axial slices by two matrix products, and brings heat back by two more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from ..ct.volume import Volume
from ..models.records import SliceInput
from ..threads import over_slices
from .body_field import FieldOfView

OUTSIDE = -1.0
DARKEST = -1.0 + 1 / 127.5  # inside the lungs, gray 1 of 255: air must not look like outside
# A lung's mode is looked for here, HU, and a scan is shifted by this much at most.
MODE_RANGE_HU = (-1000, -600)
LARGEST_SHIFT_HU = 80.0
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
    :param rim: pixels taken off the lungs' edge, where chest wall shines in: the slices of the training have none.
    """

    field: FieldOfView
    rows: slice
    columns: slice
    pixel_rows: slice
    pixel_columns: slice
    hu_window: tuple[float, float]
    rim: int = 0

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
            _centered(int(np.ceil(length * spacing / pixel_mm)) + 2 * MARGIN, size)
            for length, spacing in zip(shape, spacing_yx, strict=True)
        ]
        return cls(field, rows, columns, held[0], held[1], hu_window, rim)

    def to_input(self, hu: np.ndarray, lungs: np.ndarray) -> torch.Tensor:
        """Make the network's input of axial slices.

        Gray and lung are resampled together and divided, so that no darkness from outside leaks into the rim.

        :param hu: ``(n, ny, nx)`` of the field's rows and columns, HU.
        :param lungs: the same shape, lung where not 0.
        :return: ``(n, 1, h, w)`` float32 in [-1, 1], exactly -1 outside the lungs.
        """
        low = np.float32(self.hu_window[0])
        both = np.empty((2 * len(hu), *hu.shape[1:]), dtype=np.float32)  # lung, then gray in [0, 2], 0 outside
        scale = np.float32(2.0 / (self.hu_window[1] - self.hu_window[0]))

        def scaled(part: slice) -> None:
            lung, gray = both[: len(hu)][part], both[len(hu) :][part]
            np.not_equal(lungs[part], 0, out=lung)
            np.subtract(hu[part], low, out=gray, dtype=np.float32)
            gray *= scale
            np.clip(gray, 0.0, 2.0, out=gray)
            gray *= lung

        over_slices(scaled, len(hu), fewest=1)
        pixels = self._held.to_pixels(torch.from_numpy(both).to(self.field.rows.device))
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
    :param shift_hu: how far the HU window was moved to meet the scan's healthy lung.
    """

    hu: np.ndarray
    lungs: np.ndarray
    field: LesionField
    filled: list[int]
    depth: int
    shift_hu: float

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
        window, shift = aligned_window(
            image.hu_window,
            image.lung_mode_hu,
            lung_mode(hu_stack[levels, rows, columns], lung_stack[levels, rows, columns]),
        )
        field = LesionField.around(
            (rows, columns), view.spacing[1:], image.size, image.spacing_mm, window, device, image.rim_pixels
        )
        depth = math.ceil(image.rim_slab_mm / view.slice_distance)
        boxed = lung_stack[:, rows, columns]
        filled = [z for z in range(levels.start, levels.stop) if boxed[z].any()]
        return cls(hu_stack[:, rows, columns], boxed, field, filled, depth, shift)

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
        return self.field.to_input(self.hu[compact_index(part)], mask), mask


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


def aligned_window(
    window: tuple[float, float], target_mode: float | None, mode: float | None
) -> tuple[tuple[float, float], float]:
    """Shift the HU window so that the scan's healthy lung has the gray it had in training.

    :param target_mode: HU of healthy lung under ``window``; None to leave the window as it is.
    :param mode: of the scan's lung (:func:`lung_mode`).
    :return: the window, and the shift in HU.
    """
    if target_mode is None or mode is None:
        return window, 0.0
    shift = float(np.clip(mode - target_mode, -LARGEST_SHIFT_HU, LARGEST_SHIFT_HU))
    return (window[0] + shift, window[1] + shift), shift


def _centered(length: int, size: int) -> slice:
    length = min(-(-length // MULTIPLE) * MULTIPLE, size)
    start = (size - length) // 2
    return slice(start, start + length)
