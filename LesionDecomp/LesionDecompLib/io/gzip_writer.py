"""One gzip stream compressed by several threads, the same bytes whatever their number.

The data is cut into blocks of a fixed size. Each is deflated on its own and ends on a byte, so that the blocks one
after another are one deflate stream (RFC 1951, 1952), which any reader reads. Blocks of zeros, most of a heatmap, are
deflated once. Runs of a byte are written by their length, other repetitions are not searched: heat has none, labelmaps
get smaller so, and it is two to three times as fast.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import numpy as np

from ..threads import usable_cores

BLOCK_BYTES = 1 << 18
HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # deflate; neither time nor name
MOST_THREADS = 8


def write_gzip(stream: IO[bytes], parts: Iterable[memoryview]) -> None:
    """Write the bytes of ``parts`` as one gzip stream.

    :param parts: contiguous bytes, which must not change any more.
    """
    threads = min(MOST_THREADS, usable_cores())
    checksum = size = 0
    zeros = _deflated(bytes(BLOCK_BYTES))
    stream.write(HEADER)
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[bytes] | bytes] = deque()
        for part in parts:
            checksum, size = zlib.crc32(part, checksum), size + len(part)
            for start in range(0, len(part), BLOCK_BYTES):
                block = part[start : start + BLOCK_BYTES]
                is_empty = len(block) == BLOCK_BYTES and not _holds_any(block)
                waiting.append(zeros if is_empty else pool.submit(_deflated, block))
                while len(waiting) > 4 * threads:
                    stream.write(_bytes_of(waiting.popleft()))
        for deflated in waiting:
            stream.write(_bytes_of(deflated))
    stream.write(_compressor().flush())
    stream.write(struct.pack("<II", checksum, size & 0xFFFFFFFF))


def _compressor() -> zlib._Compress:
    return zlib.compressobj(1, zlib.DEFLATED, -15, strategy=zlib.Z_RLE)


def _deflated(block: bytes | memoryview) -> bytes:
    compressor = _compressor()
    return compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)


def _holds_any(block: memoryview) -> bool:
    return bool(np.frombuffer(block, dtype=np.uint64).max())  # three times as fast as `any`


def _bytes_of(block: Future[bytes] | bytes) -> bytes:
    return block if isinstance(block, bytes) else block.result()
