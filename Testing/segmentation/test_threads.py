"""How many threads share the slices of a scan changes no byte of what comes out."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch
from LesionDecompLib.measurement.statistics import lesion_statistics, statistics_csv
from LesionDecompLib.segmentation.lesions import lesion_labelmap
from LesionDecompLib.segmentation.lungs.cleanup import clean_lungs
from LesionDecompLib.segmentation.slices import LesionField, lung_mode
from LesionDecompLib.threads import in_threads, over_slices
from repository import MODULE


@pytest.fixture
def threads():
    usual = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(usual)


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("count", [0, 1, 5, 63])
def test_every_slice_is_worked_on_once_and_results_come_in_order(threads, number, count):
    threads(number)
    parts = over_slices(lambda part: list(range(count))[part], count)
    assert [n for part in parts for n in part] == list(range(count))


def test_an_error_in_a_thread_arrives(threads):
    threads(4)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda n: 1 // n, [1, 0, 1])


NEW_PAGES = """
import resource
import numpy as np
from LesionDecompLib.threads import reuse_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        np.ones(1 << 17)  # 1 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(new_pages())
reuse_freed_memory()
new_pages()
print(new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_of_an_array_that_is_gone_is_the_next_one_s_whatever_dask_has_set():
    environment = {**os.environ, "PYTHONPATH": str(MODULE), "MALLOC_TRIM_THRESHOLD_": "65536"}
    words = [sys.executable, "-c", NEW_PAGES]
    done = subprocess.run(words, env=environment, capture_output=True, encoding="utf-8", timeout=60)
    before, after = map(int, done.stdout.split())
    assert before > 10_000 and after < 1000, done.stderr


def _chest(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, probability of lung and evidence of side of two rough lungs with holes, crumbs, dark regions, a windpipe."""
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:45, :96, :120]
    lungs = np.zeros(z.shape, dtype=bool)
    for middle in (35, 85):
        lungs |= ((z - 22) / 18) ** 2 + ((y - 48) / 30) ** 2 + ((x - middle) / 20) ** 2 < 1
    noise = rng.random(z.shape)
    hu = np.where(lungs, -830, 30) + rng.integers(-60, 60, z.shape)
    dark = ((z - 25) / 8) ** 2 + ((y - 50) / 12) ** 2 + ((x - 35) / 9) ** 2 < 1
    pipe = (abs(x - 60) < 5) & (abs(y - 50) < 5) & (z > 15)
    hu[dark | pipe] = -990
    probability = np.where(lungs & ~dark & (noise > 0.02), 0.6 + 0.4 * noise, 0.2 * noise)
    probability[5:8, 4:8, 4:8] = 0.9
    return hu.astype(np.int16), probability.astype(np.float32), ((x > 60) * 2.0 - 1).astype(np.float32)


def test_lungs_lesions_and_figures_are_those_of_one_thread(threads):
    hu, probability, evidence = _chest()
    heat = np.random.default_rng(1).random(hu.shape, dtype=np.float32)
    found = []
    for number in (1, 3):
        threads(number)
        clean = clean_lungs(probability, evidence, (3.0, 2.0, 2.0), hu=hu)
        lungs = np.where(clean.probability >= 0.5, np.where(clean.side > 0, 2, 1), 0).astype(np.uint8)
        lesions = lesion_labelmap(heat, lungs, 0.6, 0.05, 0.012)
        rows = [lesion_statistics(values, lungs, lesions, heat, 0.012) for values in (hu, hu + np.float32(0.25))]
        found.append(
            [clean.probability, clean.side, lesions, *map(statistics_csv, rows), lung_mode(hu, lungs), clean.volume_ml]
        )
    for one, several in zip(*found, strict=True):
        np.testing.assert_array_equal(one, several)
    assert set(np.unique(lungs)) == {0, 1, 2}
    assert 0 < np.count_nonzero(lesions) < np.count_nonzero(lungs)


def test_the_network_s_input_and_heat_on_the_scan_are_those_of_one_thread(threads):
    hu, probability, _ = _chest()
    lungs = probability > 0.5
    field = LesionField.around((slice(0, 96), slice(0, 120)), (2.0, 2.0), 256, 1.6, (-1300.0, -150.0), rim=1)
    found = []
    for number in (1, 3):
        threads(number)
        x = field.to_input(hu, lungs)
        into = np.full(hu.shape, np.nan, dtype=np.float32)
        heat = (x + 1) / 2
        back = field.to_slices(heat, (x > -1).float(), lungs)
        assert field.to_slices(heat, (x > -1).float(), lungs, into) is into
        np.testing.assert_array_equal(back, into)
        found.append((x.numpy(), back))
    for one, several in zip(*found, strict=True):
        np.testing.assert_allclose(one, several, rtol=0, atol=1e-6)  # matrix products may round otherwise
