"""Arrays that take memory only where something is written."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from LesionDecompLib.ct.sparse import sparse_zeros


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_they_are_zeros_like_any_other(dtype):
    array = sparse_zeros((3, 4, 5), dtype)
    assert array.shape == (3, 4, 5) and array.dtype == dtype and array.flags.c_contiguous and not array.any()
    plain = np.zeros((3, 4, 5), dtype)
    for each in (array, plain):
        each[1, 2:, ::2] = 7
    assert np.array_equal(array, plain) and array.any()
    assert sparse_zeros((0, 4, 5), dtype).size == 0


def _resident_mib() -> float:
    with open("/proc/self/status") as stream:
        return next(int(line.split()[1]) / 1024 for line in stream if line.startswith("VmRSS:"))


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by Linux")
def test_memory_is_taken_where_something_is_written_and_given_back():
    gc.collect()
    before = _resident_mib()
    array = sparse_zeros((64, 1024, 1024), np.float32)  # 256 MiB
    array[:, 512, 512] = 1.0
    assert _resident_mib() - before < 8
    array[:16] = 1.0
    assert 60 < _resident_mib() - before < 80
    del array
    gc.collect()
    assert _resident_mib() - before < 8
