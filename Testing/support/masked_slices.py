"""Slices with image-level labels and the masks of three readers, to evaluate methods on."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image


def write_masked_slices(folder: Path) -> Path:
    """Noise lungs, a bright spot on lesion slices; three scans of either label in each split, with masks."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:64, :64]
    lungs = (((x - 20) / 11) ** 2 + ((y - 32) / 20) ** 2 < 1) | (((x - 44) / 11) ** 2 + ((y - 32) / 20) ** 2 < 1)
    rows = []
    for split in ("train", "val", "test"):
        for label in ("lesion", "normal"):
            for scan in range(3):
                for number in range(2):
                    gray = 97 + 8 * rng.standard_normal((64, 64))
                    spot = (x - 20) ** 2 + (y - rng.integers(24, 40)) ** 2 < 30
                    if label == "lesion":
                        gray += 90 * spot
                    name = f"{split}-{label}-{scan}-{number}.png"
                    Image.fromarray(np.where(lungs, gray.clip(1, 255), 0).astype(np.uint8)).save(folder / name)
                    row = {"file": name, "label": label, "split": split, "scan": f"{split}-{label}-{scan}"}
                    for reader in ("ann0", "ann1", "sel"):
                        mask = f"{reader}-{name}"
                        marked = spot & lungs & (rng.random((64, 64)) < 0.95)
                        Image.fromarray((255 * marked).astype(np.uint8)).save(folder / mask)
                        row[f"mask_{reader}"] = mask if label == "lesion" else ""
                    rows.append(row)
    with open(folder / "index.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return folder
