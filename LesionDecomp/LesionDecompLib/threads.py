"""Threads and memory: the slices of a stack shared out among threads, large arrays laid in large pages.

numpy and scipy release the interpreter while they compute.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")
Part = TypeVar("Part")
MOST_THREADS = 8
# More blocks than threads, as some slices take longer; few enough that a block is worth its calls.
BLOCKS_PER_THREAD = 4
FEWEST_SLICES = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt


def usable_cores() -> int:
    """Processor cores that this process may use."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # Windows, macOS
        return os.cpu_count() or 1


def usable_threads() -> int:
    """As many as torch computes on, where it is loaded: OMP_NUM_THREADS and processes that share a machine count."""
    torch = sys.modules.get("torch")
    return min(MOST_THREADS, usable_cores() if torch is None else torch.get_num_threads())


def over_slices(work: Callable[[slice], T], count: int, fewest: int = FEWEST_SLICES) -> list[T]:
    """Do some work on all slices of a stack, block by block; the outcome must not depend on where blocks begin.

    :param work: takes the slices ``start`` to ``stop`` of a block; several run at a time.
    :param count: slices.
    :param fewest: slices of a block.
    :return: what ``work`` returned, in the order of the slices.
    """
    length = max(fewest, -(-count // (usable_threads() * BLOCKS_PER_THREAD)))
    return in_threads(work, [slice(start, min(start + length, count)) for start in range(0, count, length)])


def in_threads(work: Callable[[Part], T], parts: Sequence[Part]) -> list[T]:
    """Do some work on several parts, at a time where there are several threads; what it returned, in order."""
    threads = min(usable_threads(), len(parts))
    if threads < 2:
        return [work(part) for part in parts]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


def return_freed_memory() -> None:
    """Give the system what arrays that are gone have left behind: the C library keeps it for the next ones (glibc)."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def reuse_freed_memory() -> None:
    """Have the C library give what arrays that are gone have left behind to the next ones, as it usually does (glibc).

    Dask's nanny sets ``MALLOC_TRIM_THRESHOLD_``, with which each array from 128 KiB on is new memory of the system's:
    handing that out took a third of a case's processor time.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library
            for parameter, mib in ((_M_MMAP_THRESHOLD, 32), (_M_TRIM_THRESHOLD, 64)):  # what it gets to by itself
                ctypes.CDLL("libc.so.6").mallopt(parameter, mib << 20)


def ask_for_large_pages() -> None:
    """Have torch lay large arrays in large pages, where Linux gives them when asked; call before torch is imported.

    A layer of the paper's network at full resolution is 64 MiB: in pages of 4 KiB the system spends more time on
    handing out its memory, each time anew, than the processor on filling it.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
