"""Large arrays of which only a part is ever written: a heatmap's and a labelmap's air takes no memory."""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np


def sparse_zeros(shape: tuple[int, ...], dtype: type | np.dtype[Any]) -> np.ndarray:
    """Zeros that take memory only where something is written: a heatmap's air takes none.

    numpy asks Linux for pages of 2 MiB, which are taken as a whole when a byte of them is written.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if sys.platform != "linux" or size == 0:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a system without large pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)
