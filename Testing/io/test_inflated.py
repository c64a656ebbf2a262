"""Packed streams are read to their end and no further, and what is wrong with them is noticed."""

from __future__ import annotations

import gzip
import io
import zlib

import numpy as np
import pytest
from LesionDecompLib.io.inflated import PIECE_BYTES, Inflated

DATA = np.random.default_rng(3).integers(0, 64, 3 * PIECE_BYTES + 77, dtype=np.uint8).tobytes()


def _all_of(packed: bytes, is_gzip: bool = True, step: int = 700_001) -> bytes:
    stream, found = Inflated(io.BytesIO(packed), is_gzip), bytearray()
    while part := stream.read(step):
        found += part
    return bytes(found)


@pytest.mark.parametrize("step", [1 << 15, 700_001, len(DATA), 2 * len(DATA)])
def test_a_stream_reads_as_what_was_packed(step):
    assert _all_of(gzip.compress(DATA, 1), step=step) == DATA
    assert _all_of(zlib.compress(DATA, 1), is_gzip=False, step=step) == DATA


@pytest.mark.parametrize("between", [b"", b"\0" * 512, b"\0" * (PIECE_BYTES + 9)])
def test_members_of_a_gzip_file_follow_one_another_and_zeros_after_them_do_not_matter(between):
    packed = gzip.compress(DATA[:99]) + between + gzip.compress(b"") + gzip.compress(DATA[99:], 1) + between
    assert _all_of(packed) == DATA


@pytest.mark.parametrize("left", [0, 5, 1000, -9, -1])
def test_a_stream_that_was_cut_short_is_noticed(left):
    with pytest.raises(EOFError):
        _all_of(gzip.compress(DATA, 1)[: left or 0])


def test_damage_and_strange_bytes_after_the_end_are_noticed():
    packed = bytearray(gzip.compress(DATA, 1))
    packed[-6] ^= 1  # of the checksum
    for damaged in (bytes(packed), gzip.compress(DATA, 1) + b"more", DATA):
        with pytest.raises(zlib.error):
            _all_of(damaged)


def test_a_zlib_stream_ends_where_it_ends():
    stream = io.BytesIO(zlib.compress(b"voxels") + b"something else")
    assert Inflated(stream).read(100) == b"voxels"
