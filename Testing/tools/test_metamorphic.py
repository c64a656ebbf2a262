"""How far the outcome may follow a change to a CT that should not matter: bounds of Documentation/metamorphic.md.

On sixteen slices of the bundled sample, through the tumor, with the shipped models.
"""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.pipeline import Segmenter
from metamorphic import CHANGES, axial, effect

pytestmark = pytest.mark.slow

# change: lungs %, overlap of the lungs, lesions in percentage points of the lungs, mean difference of the heat
BOUNDS = {
    "permuted": (1e-9, 1.0, 1e-9, 0.0),
    "mirrored": (2.0, 0.97, 1.0, 0.015),
    "cropped": (0.5, 0.985, 1.0, 0.01),
    "padded": (0.5, 0.99, 0.5, 0.01),
    "padded with -2048": (0.5, 0.99, 0.5, 0.01),
    "finer pixels": (0.5, 0.985, 0.5, 0.01),
    "coarser pixels": (2.0, 0.97, 1.5, 0.03),
    "on a table": (0.5, 0.99, 1.0, 0.01),
    "+20 HU": (0.5, 0.99, 0.5, 0.01),
    "-20 HU": (0.5, 0.99, 1.0, 0.01),
}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(device="cpu")


@pytest.fixture(scope="module")
def ct(sample_folder) -> Volume:
    whole = axial(read_volume(sample_folder / "chest_ct_tumor.nrrd")[0])
    lowest = whole.shape[0] // 2 - 8
    matrix = whole.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * lowest
    return Volume.from_array(np.ascontiguousarray(whole.array[lowest : lowest + 16]), matrix, "sample")


@pytest.fixture(scope="module")
def result(ct, segmenter):
    return segmenter.run(ct)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_change_that_should_not_matter_changes_little(ct, result, segmenter, name):
    assert name in CHANGES
    found = effect(ct, result, name, segmenter)
    lung_percent, lung_dice, lesion_points, heat_mean = BOUNDS[name]
    assert abs(found.lung_percent) <= lung_percent, found
    assert found.lung_dice >= lung_dice, found
    assert abs(found.lesion_points) <= lesion_points, found
    assert found.heat_mean <= heat_mean, found
    assert found.sides_percent < 0.5, found
