"""Large pages of memory for large arrays."""

from __future__ import annotations

import os


def ask_for_large_pages() -> None:
    """Have torch lay large arrays in large pages, where Linux gives them when asked; call before torch is imported.

    A layer of the paper's network at full resolution is 64 MiB: in pages of 4 KiB the system spends more time on
    handing out its memory, each time anew, than the processor on filling it.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
