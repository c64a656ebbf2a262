"""Arrays of a result's nodes, for tests."""

from __future__ import annotations

import numpy as np
import slicer


def lesions_of(nodes) -> np.ndarray:
    """Its lesion labelmap, copied."""
    return slicer.util.arrayFromVolume(nodes.lesions).copy()


def expected_lesions(nodes, threshold: float) -> np.ndarray:
    """What has to be lesion at a threshold, where no minimum volume counts."""
    heat, lungs = (slicer.util.arrayFromVolume(node) for node in (nodes.heatmap, nodes.lungs))
    return (heat >= np.float32(threshold)) & (lungs != 0)
