"""A training so small that a test can run it to its end."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from skimage.io import imsave
from test_lesion_training import TINY, slice_image

SETTINGS = tuple(text for text in TINY if not text.startswith("steps="))


def write_training_set(folder: Path, train: int = 8, val: int = 3) -> Path:
    """Slices with an image-level label each, in the product's own format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("val", val)):
        for label in ("lesion", "normal"):
            for number in range(count):
                name = f"{split}_{label}_{number}.png"
                imsave(folder / name, slice_image(rng, label == "lesion"), check_contrast=False)
                rows.append({"file": name, "label": label, "split": split, "scan": f"{split}-{label}-{number // 2}"})
    with open(folder / "index.csv", "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder
