"""Products with matrices whose rows touch a few neighboring columns only, as those of resampling and smoothing do."""

from __future__ import annotations

from dataclasses import dataclass

import torch

# Rows of a block: few enough that a block holds little but its band, many enough that a product is worth its call.
BLOCK = 16


@dataclass(frozen=True, eq=False)
class BandedMatrix:
    """A matrix kept in blocks of rows, each with the columns that it touches.

    :param shape: (rows, columns).
    :param blocks: first and last row, first and last column, and what stands there.
    """

    shape: tuple[int, int]
    blocks: tuple[tuple[slice, slice, torch.Tensor], ...]

    @classmethod
    def of(cls, matrix: torch.Tensor) -> BandedMatrix:
        """Take a dense matrix ``(rows, columns)`` apart; it may be of any kind, but only a banded one gains."""
        blocks, device = [], matrix.device
        matrix = matrix.cpu()  # at once: a look at each block would have the processor wait for a GPU as often
        for start in range(0, matrix.shape[0], BLOCK):
            rows = slice(start, min(start + BLOCK, matrix.shape[0]))
            touched = torch.nonzero((matrix[rows] != 0).any(dim=0)).flatten()
            if len(touched):
                columns = slice(int(touched[0]), int(touched[-1]) + 1)
                blocks.append((rows, columns, matrix[rows, columns].contiguous().to(device)))
        return cls((matrix.shape[0], matrix.shape[1]), tuple(blocks))

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """The matrix times ``x``: ``(n, columns, m)`` to ``(n, rows, m)``."""
        out = x.new_zeros((len(x), self.shape[0], x.shape[2]))
        for rows, columns, block in self.blocks:
            out[:, rows] = block @ x[:, columns]
        return out

    def across(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` times the transposed matrix: ``(n, m, columns)`` to ``(n, m, rows)``."""
        out = x.new_zeros((len(x), x.shape[1], self.shape[0]))
        for rows, columns, block in self.blocks:
            out[:, :, rows] = x[:, :, columns] @ block.T
        return out
