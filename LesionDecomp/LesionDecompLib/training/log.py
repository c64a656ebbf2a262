"""Reading ``log.csv`` of a training: for plots, while it is still being written."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

LOG_NAME = "log.csv"
STEP, SECONDS = "step", "seconds"

# What columns of a lesion training mean, for people; others are shown by their own names.
MEANINGS = {
    "L_r": "Equation 1: what normal version and lesion part together leave of a slice unexplained.",
    "L_n": "Equation 2: what the normal version changes in normal slices.",
    "L_c": "Equation 3: the critic's loss.",
    "L_a": "Equation 4: how far the critic is from taking the normal version for normal.",
    "L_g": "Equation 5 and its additions: all that the network is trained by.",
    "L_m": "Whether the hottest part of a slice agrees with the slice's label.",
    "L_s": "Mean heat of normal slices; it should fall.",
    "wasserstein": "The critic's estimate of how far normal versions are from normal slices.",
    "val_AP": "Average precision of the heat on val; below the blurred gray's (val_AP_floor) a blur knows as much.",
    "change_G1": "Mean change that the normal version makes; near 0 it only copies.",
    "heat_lesion": "Mean heat of lesion slices.",
    "heat_normal": "Mean heat of normal slices; far below that of lesion slices when training works.",
}
# Shown first; the others are there to be chosen.
CHIEF = ("L_g", "L_r", "L_n", "L_c", "L_a", "heat_lesion", "heat_normal")


def read_log(folder: str | Path) -> dict[str, np.ndarray]:
    """Columns of the log, float64, NaN where a row has no value; without columns while there is no log.

    A row that cannot be read, as on a full disk, is passed over.
    """
    try:
        with open(Path(folder) / LOG_NAME, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    rows = [row for row in rows if (row.get(STEP) or "").isdigit()]
    names = [name for name in (rows[0] if rows else {}) if name]
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def curve_names(log: dict[str, np.ndarray]) -> list[str]:
    """Columns worth a curve: the chief ones of a lesion training where it has them, else all but step and seconds."""
    names = [name for name in log if name not in (STEP, SECONDS)]
    return [name for name in names if name in CHIEF] or names


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
