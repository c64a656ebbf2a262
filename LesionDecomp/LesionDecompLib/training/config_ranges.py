"""What a setting of a training may be: a number that makes no sense is refused before any work is done."""

from __future__ import annotations

import math
from typing import Any

# Lowest and highest whole number of the settings so named; all others lie in 0 to 10 million.
WHOLE = {
    "steps": (1, 10_000_000),
    "seed": (0, 2**63 - 1),
    "channels": (1, 4096),
    "widest": (1, 4096),
    "width": (1, 4096),
    "critic_channels": (1, 4096),
    "levels": (1, 10),
    "stem": (1, 8),
    "shrink": (1, 8),
    "size": (32, 2048),
    "batch": (1, 4096),
    "batch_lesion": (1, 4096),
    "batch_normal": (1, 4096),
    "batch_painted": (0, 4096),
}
OTHER_WHOLE = (0, 10_000_000)
REAL = (0.0, 1e6)
MAX_TEXT = 1000


def out_of_range(key: str, value: Any) -> str:
    """What is expected of a setting of the right type whose value makes no sense; empty where it does."""
    if key == "crop":
        fits = len(value) in (0, 2) and all(type(n) is int and 16 <= n <= 4096 for n in value)
        return "" if fits else "height and width, 16 to 4096 pixels, or neither"
    if key == "betas":
        return "" if len(value) == 2 and all(0 <= n < 1 for n in value) else "two numbers in [0, 1)"
    if key == "window":
        fits = len(value) == 2 and -5000 <= value[0] < value[1] <= 5000
        return "" if fits else "two HU, the lower one first"
    if isinstance(value, str):
        return "" if len(value) <= MAX_TEXT else f"a text of at most {MAX_TEXT} characters"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    low, high = WHOLE.get(key, OTHER_WHOLE) if isinstance(value, int) else REAL
    if low <= value <= high and math.isfinite(value):
        return ""
    return f"{low:g} to {high:g}" if isinstance(value, float) else f"{low} to {high}"
