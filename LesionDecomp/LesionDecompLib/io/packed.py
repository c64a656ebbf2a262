"""Voxels out of packed streams: gzip, zlib and bzip2, whole or in several parts, with or without bytes behind them."""

from __future__ import annotations

import bz2
import zlib
from typing import BinaryIO

PIECE = 1 << 20
KINDS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2"}
# What a stream can grow to when it is unpacked; beyond, a header that promises more is damaged.
MOST_RATIO = {"": 1, "gzip": 1032, "zlib": 1032, "bzip2": 100_000}


def packing_of(head: bytes) -> str:
    """``"gzip"``, ``"bzip2"`` or ``""`` for plain bytes, by the first bytes of a file."""
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), "")


class Unpacked:
    """A stream's bytes, unpacked as they are asked for.

    :param stream: at the beginning of the packed bytes.
    :param kind: ``"gzip"``, ``"zlib"``, ``"bzip2"`` or ``""``.
    """

    def __init__(self, stream: BinaryIO, kind: str) -> None:
        self._stream, self._kind = stream, kind
        self._raw, self._held = b"", b""  # packed and unpacked bytes not used yet
        self._unpack = self._begun()
        self.ended = False
        self.behind = False  # whether bytes lie behind the packed ones

    def read(self, count: int) -> bytes:
        """The next ``count`` bytes, fewer at the end.

        :raises EOFError, OSError, zlib.error: a damaged or truncated stream.
        """
        parts, missing = [], count
        while missing and (part := self._next(missing)):
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def readinto(self, target: memoryview, /) -> int:
        """Fill the beginning of ``target``; return how many bytes that were, 0 at the end."""
        if not self._kind and not self._held:
            return self._stream.readinto(target)  # type: ignore[attr-defined]
        part = self._next(len(target))
        target[: len(part)] = part
        return len(part)

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes.

        :raises EOFError: there are fewer.
        """
        while count:
            part = self._next(min(count, PIECE))
            if not part:
                raise EOFError
            count -= len(part)

    def finish(self) -> bool:
        """Read to the end of the part in progress, so that its checksum is compared; whether bytes were left over.

        At most a little is unpacked: much more than was asked for need not be sound.
        """
        left = self._next(PIECE).strip(b"\0\r\n")  # which fill up lines and blocks
        return bool(left) or self.behind

    def _next(self, count: int) -> bytes:
        """Up to ``count`` bytes; none at the end."""
        if self._held:
            part, self._held = self._held[:count], self._held[count:]
            return part
        if not self._kind:
            return self._stream.read(min(count, 16 * PIECE))
        while not self.ended:
            part = self._unpacked(min(count, 16 * PIECE))
            if part:
                return part
        return b""

    def _unpacked(self, count: int) -> bytes:
        """Some bytes of the part in progress, or none where it needs more of the stream or has ended."""
        unpack = self._unpack
        if isinstance(unpack, bz2.BZ2Decompressor):
            if unpack.needs_input and not self._fetch():
                raise EOFError
            data = unpack.decompress(self._raw, count)
            self._raw = b""
        else:
            if not self._raw and not self._fetch():
                raise EOFError
            data = unpack.decompress(self._raw, count)
            self._raw = unpack.unconsumed_tail
        if unpack.eof:
            rest = unpack.unused_data or self._stream.read(PIECE)
            if rest.startswith(tuple(KINDS)) and packing_of(rest) == self._kind:
                self._raw, self._unpack = rest, self._begun()
            else:
                # Zeros fill up blocks of tapes and some file systems: nothing that was left behind.
                self.ended, self.behind = True, bool(rest.strip(b"\0"))
        return data

    def _fetch(self) -> bool:
        self._raw += self._stream.read(PIECE)
        return bool(self._raw)

    def _begun(self) -> zlib._Decompress | bz2.BZ2Decompressor:
        if self._kind == "bzip2":
            return bz2.BZ2Decompressor()
        return zlib.decompressobj(zlib.MAX_WBITS if self._kind == "zlib" else 16 + zlib.MAX_WBITS)
