"""A body with two lungs, drawn on the lung network's pixels."""

from __future__ import annotations

import torch
from LesionDecompLib.training.lungs.cases import LungPatient


def drawn_patient() -> LungPatient:
    """Nine slices 3 mm apart; the lungs grow from the lowest to the highest."""
    rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")

    def ellipse(row, column, height, width):
        return ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 < 1

    hu = torch.full((9, 256, 256), -1000, dtype=torch.int16)
    labels = torch.zeros((9, 256, 256), dtype=torch.uint8)
    depth = torch.zeros_like(labels)
    for z in range(9):
        hu[z][ellipse(128, 128, 70, 105)] = 30
        for side, column in ((1, 80), (2, 176)):
            lung = ellipse(128, column, 8 + 5 * z, 5 + 4 * z)
            hu[z][lung] = -820
            labels[z][lung] = side
            depth[z][lung] = 10
    return LungPatient("drawn", hu, labels, depth, 3.0)
