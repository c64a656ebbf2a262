"""Connected components of a 3-D mask, found on runs of voxels instead of on voxels.

A lesion mask is mostly empty and its voxels lie in a few long rows. Only the runs' two ends are kept, so that the one
pass over the array is a comparison of neighbors, and joining touches thousands of runs where the array has millions of
voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True, eq=False)
class Components:
    """The 26-connected components of a mask, as runs along its last axis.

    :param z, y, x: ``(r,)`` int64, first voxel of each run.
    :param lengths: ``(r,)`` int64, voxels of each run.
    :param labels: ``(r,)`` int32, component of each run, 0 to ``count`` - 1.
    :param sizes: ``(count,)`` int64, voxels of each component.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.sizes)

    def voxels(self, runs: np.ndarray | slice = slice(None)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices (z, y, x) of all voxels of the chosen runs, run after run; each ``(n,)`` int64."""
        lengths = self.lengths[runs]
        first = np.cumsum(lengths) - lengths
        x = np.arange(int(lengths.sum())) + np.repeat(self.x[runs] - first, lengths)
        return np.repeat(self.z[runs], lengths), np.repeat(self.y[runs], lengths), x

    def where(self, keep: np.ndarray) -> Components:
        """The components that a mask ``(count,)`` keeps, numbered anew."""
        runs = keep[self.labels]
        numbers = np.cumsum(keep, dtype=self.labels.dtype) - 1
        z, y, x, lengths = (part[runs] for part in (self.z, self.y, self.x, self.lengths))
        return Components(z, y, x, lengths, numbers[self.labels[runs]], self.sizes[keep])


def find_components(mask: np.ndarray) -> Components:
    """Find the 26-connected components of a mask.

    :param mask: ``(z, y, x)`` bool or uint8 with values 0 and 1 only; fastest when the last axis is the one that is
        contiguous in memory.
    """
    return _joined(*_run_ends(mask), mask.shape)


def components_of_positions(positions: np.ndarray, shape: tuple[int, int, int]) -> Components:
    """Find the 26-connected components of voxels given one by one.

    :param positions: ``(n,)`` integers, rising: :func:`padded_position` of each voxel.
    :param shape: (z, y, x) of the stack they lie in.
    """
    if len(positions) == 0:
        return _joined(np.zeros(0, np.int64), np.zeros(0, np.int64), shape)
    gaps = np.flatnonzero(np.diff(positions) != 1)
    starts = positions[np.concatenate([[0], gaps + 1])]
    ends = positions[np.append(gaps, len(positions) - 1)] + 1
    return _joined(starts, ends, shape)


def padded_position(
    z: np.ndarray | int, y: np.ndarray | int, x: np.ndarray | int, shape: tuple[int, int, int]
) -> np.ndarray:
    """Index of voxels in a flat stack of ``shape`` padded by an empty row and an empty column, so that runs end."""
    return np.asarray((z * (shape[1] + 1) + y) * (shape[2] + 1) + x)


def _joined(starts: np.ndarray, ends: np.ndarray, shape: tuple[int, int, int]) -> Components:
    """Join runs, given by their padded positions, that touch."""
    n_y, n_x = shape[1:]
    width, area = n_x + 1, (n_y + 1) * (n_x + 1)
    rows, x = np.divmod(starts, width)
    z, y = np.divmod(rows, n_y + 1)
    # The four rows before a row among its eight neighbors; the other four see it as theirs.
    pairs = [_touching(starts, ends, offset) for offset in (width, area - width, area, area + width)]
    former, latter = (np.concatenate(side) for side in zip(*pairs, strict=True))
    n = len(starts)
    links = coo_array((np.ones(len(former), dtype=np.int8), (former, latter)), shape=(n, n))
    count, labels = connected_components(links, directed=False) if n else (0, np.zeros(0, dtype=np.int32))
    lengths = ends - starts
    # float64 weights are exact for counts below 2**53.
    sizes = np.bincount(labels, weights=lengths, minlength=count).astype(np.int64)
    return Components(z, y, x, lengths, labels, sizes)


def _run_ends(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First index of each run, and the index after its last, in a stack padded by an empty row and an empty column."""
    n_z, n_y, n_x = mask.shape
    padded = np.zeros(1 + (n_y + 1) * (n_x + 1), dtype=bool)
    inner = padded[1:].reshape(n_y + 1, n_x + 1)[:n_y, :n_x]
    found: list[np.ndarray] = []
    for z in range(n_z):
        inner[...] = mask[z]
        here = np.flatnonzero(padded[1:] != padded[:-1])
        if len(here):
            found.append(here + z * (padded.size - 1))
    edges = np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
    return edges[0::2], edges[1::2]


def _touching(starts: np.ndarray, ends: np.ndarray, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs (former, latter) where the former touches the latter moved back by ``offset``, corners included."""
    first = np.searchsorted(ends, starts - offset, side="left")
    last = np.searchsorted(starts, ends - offset, side="right")
    counts = np.maximum(last - first, 0)
    latter = np.repeat(np.arange(len(starts)), counts)
    former = np.arange(len(latter)) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    return former, latter
