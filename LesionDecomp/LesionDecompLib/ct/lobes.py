"""The five lobes of the lungs: which of a labelmap's structures they are, by name, or by the numbers of a known set."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from .anatomy import LEFT_LUNG, RIGHT_LUNG

LOBES = ("right upper lobe", "right middle lobe", "right lower lobe", "left upper lobe", "left lower lobe")
# Numbers that programs give the lobes in files without names, in the order of LOBES.
KNOWN_SETS = {
    "TotalSegmentator v2": dict(zip((12, 13, 14, 10, 11), LOBES, strict=True)),
    "TotalSegmentator v1": dict(zip((15, 16, 17, 13, 14), LOBES, strict=True)),
    "lungmask LTRCLobes": dict(zip((3, 4, 5, 1, 2), LOBES, strict=True)),
}
MOST_ON_ITS_SIDE = 0.9  # share of a lobe's voxels that must lie in its own lung before a number is believed
ABBREVIATIONS = dict(zip(("rul", "rml", "rll", "lul", "lll"), LOBES, strict=True))
SIDE_WORDS = {
    "right": ("right", "rt", "r", "rechts", "rechte", "rechter"),
    "left": ("left", "lt", "l", "links", "linke", "linker"),
}
LEVEL_WORDS = {
    "upper": ("upper", "superior", "ober", "oben", "oberlappen"),
    "middle": ("middle", "mid", "medius", "mittel", "mittellappen"),
    "lower": ("lower", "inferior", "unter", "unten", "unterlappen"),
}
LOBE_WORDS = ("lobe", "lobus", "lappen", "oberlappen", "mittellappen", "unterlappen")


def lobe_called(name: str) -> str:
    """Which of :data:`LOBES` a structure's name stands for; empty where none.

    >>> [lobe_called(name) for name in ("lung_upper_lobe_left", "Right Middle Lobe", "RLL", "left lung", "lobe")]
    ['left upper lobe', 'right middle lobe', 'right lower lobe', '', '']
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    words = [word for word in re.split(r"[\W_]+", parted) if word]
    for word in words:
        if word in ABBREVIATIONS:
            return ABBREVIATIONS[word]
    if not any(word in LOBE_WORDS for word in words):
        return ""
    sides = [side for side, known in SIDE_WORDS.items() if any(word in known for word in words)]
    levels = [level for level, known in LEVEL_WORDS.items() if any(word in known for word in words)]
    if len(sides) != 1 or len(levels) != 1:
        return ""
    lobe = f"{sides[0]} {levels[0]} lobe"
    return lobe if lobe in LOBES else ""


def known_lobes(labels: np.ndarray, lungs: np.ndarray) -> tuple[str, Mapping[int, str]]:
    """Lobes by number alone: of the known sets whose five numbers are all there, the one whose anatomy is right.

    A number is believed only where each label lies in its own lung, and upper lobes above lower ones.

    :param labels: ``(z, y, x)`` axial, unsigned integers, inside the lungs' box.
    :param lungs: ``(z, y, x)`` uint8, 1 right, 2 left.
    :return: the set's name and label -> lobe; empty where none fits, or more than one does.
    """
    highest = max(max(numbers) for numbers in KNOWN_SETS.values())
    counts = np.zeros((highest + 1, 3), np.int64)  # label, lung (0 outside)
    heights = np.zeros(highest + 1)
    for z, (plane, lung) in enumerate(zip(labels, lungs, strict=True)):
        chosen = (plane > 0) & (plane <= highest) & (lung > 0)
        values = plane[chosen].astype(np.intp)
        counts += np.bincount(values * 3 + lung[chosen], minlength=counts.size).reshape(counts.shape)
        heights += z * np.bincount(values, minlength=highest + 1)
    fitting = [(title, lobes) for title, lobes in KNOWN_SETS.items() if _fits(lobes, counts, heights)]
    return fitting[0] if len(fitting) == 1 else ("", {})


def _fits(lobes: Mapping[int, str], counts: np.ndarray, heights: np.ndarray) -> bool:
    """Whether these labels lie where the lobes do."""
    middles: dict[str, float] = {}
    for label, lobe in lobes.items():
        lung = RIGHT_LUNG.label if lobe.startswith("right") else LEFT_LUNG.label
        voxels = int(counts[label].sum())
        if voxels == 0 or counts[label, lung] < MOST_ON_ITS_SIDE * voxels:
            return False
        middles[lobe] = heights[label] / voxels
    return all(middles[f"{side} upper lobe"] > middles[f"{side} lower lobe"] for side in ("right", "left"))
