"""A training so small that a test can run it to its end."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from skimage.io import imsave

TINY = [
    "steps=6",
    "batch_lesion=2",
    "batch_normal=2",
    "batch_painted=2",
    "crop=[64, 64]",
    "network.channels=4",
    "network.levels=3",
    "critic_channels=4",
    "judge_steps=2",
]
SETTINGS = tuple(text for text in TINY if not text.startswith("steps="))


def slice_image(rng, lesion: bool) -> np.ndarray:
    """Two ellipses of noise as lungs, with a bright spot in one where there is a lesion."""
    y, x = np.mgrid[:64, :64]
    lungs = ((x - 20) / 11) ** 2 + ((y - 32) / 20) ** 2 < 1
    lungs |= ((x - 44) / 11) ** 2 + ((y - 32) / 20) ** 2 < 1
    gray = 97 + 8 * rng.standard_normal((64, 64))
    if lesion:
        row, column = rng.integers(22, 42), rng.choice([20, 44])
        gray += 100 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 30)
    return np.where(lungs, np.clip(gray, 1, 255), 0).astype(np.uint8)


def write_training_set(folder: Path, train: int = 8, val: int = 3, test: int = 0) -> Path:
    """Slices with an image-level label each, in the product's own format."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("train", train), ("val", val), ("test", test)):
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
