"""Millimeters to slices and pixels, with a tolerance: positions in DICOM and matrices in NIfTI files round.

Slices that are 3 mm apart may come as 2.9999999999999996 or 3.0000001 mm; a bare ``ceil`` makes two steps of 3 mm of
the one and one of the other. All that turns millimeters into steps comes here.
"""

from __future__ import annotations

import math

TOLERANCE = 1e-6  # steps
SAME_MM = 1e-3  # lengths that differ by less are the same


def steps_within(length_mm: float, step_mm: float) -> int:
    """How many whole steps a length holds.

    >>> steps_within(4.0, 2.0000001), steps_within(4.0, 2.1)
    (2, 1)
    """
    return math.floor(length_mm / step_mm + TOLERANCE)


def steps_covering(length_mm: float, step_mm: float) -> int:
    """How many steps it takes to reach as far as a length.

    >>> steps_covering(3.0, 2.9999999999999996), steps_covering(3.0, 2.9)
    (1, 2)
    """
    return math.ceil(length_mm / step_mm - TOLERANCE)


def nearest_steps(length_mm: float, step_mm: float) -> int:
    """The number of steps that comes nearest to a length; of two as near the larger one.

    >>> nearest_steps(3.0, 2.0000001), nearest_steps(3.0, 1.9999999)
    (2, 2)
    """
    return math.floor(length_mm / step_mm + 0.5 + TOLERANCE)
