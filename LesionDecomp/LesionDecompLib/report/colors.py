"""The colors of the heatmap, the same in every picture.

A path through CIELAB computed for this project: lightness rises evenly from 10 to 93 while the hue turns from blue over
magenta and red to yellow, so that equal steps of heat look equally large, on a gray print too.
"""

from __future__ import annotations

import numpy as np

# 33 sRGB colors, the same CIELAB distance apart.
_NODES = np.array(
    [
        (13, 21, 74), (19, 22, 83), (27, 21, 92), (41, 20, 101), (57, 17, 107), (74, 11, 112), (91, 5, 115),
        (107, 2, 115), (122, 0, 114), (136, 1, 113), (149, 5, 112), (161, 13, 110), (173, 22, 108), (185, 30, 106),
        (196, 37, 104), (207, 45, 102), (217, 53, 99), (226, 61, 96), (234, 72, 92), (241, 83, 90), (246, 94, 87),
        (250, 106, 86), (253, 118, 85), (255, 130, 85), (255, 142, 86), (255, 154, 89), (255, 166, 93),
        (255, 178, 100), (255, 190, 108), (255, 201, 119), (255, 213, 131), (255, 223, 146), (255, 233, 162),
    ],
    dtype=np.float64,
)  # fmt: skip


def heat_color_table(entries: int = 256) -> np.ndarray:
    """Colors of heat 0 to 1 in even steps: ``(entries, 3)`` uint8 sRGB."""
    position = np.linspace(0, len(_NODES) - 1, entries)
    channels = [np.interp(position, np.arange(len(_NODES)), _NODES[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
