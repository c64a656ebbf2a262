"""A comparison in a process of its own gives the same labels, rows and motion, and leaves nothing behind."""

from __future__ import annotations

import time

import numpy as np
import pytest
from changing_scans import chest_scan, small_chest
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.measurement.change.comparison import compare_scans
from LesionDecompLib.processes.change import ChangeJob
from LesionDecompLib.processes.child import ENDED, STOPPED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scans():
    """One CT with two sets of lesions: nothing has to be registered."""
    volume, lungs = small_chest()
    k, j, i = (int(n) for n in np.median(np.argwhere(lungs), axis=0))
    found = []
    for size in (3, 5):
        lesions = np.zeros(volume.shape, bool)
        lesions[k - size : k + size, j - size : j + size, i + 8 : i + 12] = True
        found.append(chest_scan(volume, lungs, lesions & (lungs != 0)))
    return found


def finish(job: ChangeJob) -> None:
    end = time.monotonic() + 600
    while job.poll() not in ENDED and time.monotonic() < end:
        time.sleep(0.02)


def test_result_is_that_of_the_library(scans, tmp_path):
    expected = compare_scans(*scans)
    job = ChangeJob(*scans, temporary_folder=tmp_path)
    finish(job)
    found = job.result()
    assert np.array_equal(found.labels, expected.labels)
    assert np.array_equal(found.motion.displacement, expected.motion.displacement)
    for own, other in zip(found.rows, expected.rows, strict=True):
        assert own.region == other.region
        assert own.values == pytest.approx(other.values, nan_ok=True)
    assert found.record == expected.record()
    assert found.warnings == []
    job.close()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_comparison_leaves_nothing(scans, tmp_path):
    job = ChangeJob(*scans, temporary_folder=tmp_path)
    began = time.monotonic()
    job.kill()
    assert time.monotonic() - began < 1
    assert job.state == STOPPED
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused_by_the_child(scans, tmp_path):
    job = ChangeJob(*scans, temporary_folder=tmp_path)
    (job.job_folder / "later_lungs.npy").write_bytes(b"")
    finish(job)
    with pytest.raises(LesionDecompError):
        job.result()
