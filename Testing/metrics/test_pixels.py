"""The metrics agree with hand-computed cases and with scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from LesionDecompLib.metrics.pixels import BINS, HeatCounts


def counted(heat, mask):
    counts = HeatCounts()
    counts.add(np.asarray(heat, dtype=np.float32), np.asarray(mask, dtype=bool))
    return counts


def test_by_hand():
    counts = counted([0.9, 0.8, 0.3, 0.1], [1, 0, 1, 0])
    # From the hottest down: precision 1, 1/2, 2/3, 1/2 at recall 1/2, 1/2, 1, 1.
    assert counts.average_precision() == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    np.testing.assert_allclose(counts.dice([0.0, 0.2, 0.5, 0.85, 1.0]), [4 / 6, 4 / 5, 1 / 2, 2 / 3, 0])
    assert counts.share_found(0.5)[0] == pytest.approx(0.5)


def test_a_pixel_at_the_threshold_is_found():
    assert counted([0.4], [1]).dice(0.4)[0] == 1.0


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_against_scikit_learn(share):
    from sklearn.metrics import auc, average_precision_score, precision_recall_curve

    rng = np.random.default_rng(3)
    mask = rng.random(20_000) < share
    heat = np.floor(np.clip(rng.normal(0.3 + 0.2 * mask, 0.2), 0, 1) * BINS) / BINS
    counts = HeatCounts()
    for part in np.array_split(np.arange(len(mask)), 3):
        counts.add(heat[part], mask[part])
    assert counts.average_precision() == pytest.approx(average_precision_score(mask, heat), abs=1e-9)
    precision, recall, _ = precision_recall_curve(mask, heat)
    assert counts.auc_pr() == pytest.approx(auc(recall, precision), abs=1e-4)
    found = heat >= 0.5
    assert counts.dice(0.5)[0] == pytest.approx(2 * (found & mask).sum() / (found.sum() + mask.sum()))


def test_no_lesion_at_all_gives_zero_and_no_warning():
    counts = counted([0.2, 0.7], [0, 0])
    assert counts.average_precision() == 0.0 and counts.dice(0.5)[0] == 0.0
