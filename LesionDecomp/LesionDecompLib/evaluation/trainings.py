"""How the rows of a comparison were trained, from the logs that lie beside their bundles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.bundle import ModelBundle
from ..training.log import LOG_NAME, SECONDS, STEP
from ..training.loop import log_rows
from ..training.val_precision import CHIEF, FLOOR


def trainings_of(bundles: Sequence[ModelBundle]) -> dict[str, dict[str, Any]]:
    """How each bundle was trained whose run it still lies in, by its name.

    :return: ``steps`` (updates done), ``hours`` of wall clock, ``devices`` where the bundle records them, and, where
        the run looked at ``val``, ``curve``: pairs of a step and the average precision after it, and ``floor``, that of
        blurred gray.
    :raises LesionDecompError: a log that cannot be read.
    """
    trainings = {}
    for bundle in bundles:
        log = bundle.path.parent / LOG_NAME
        rows = log_rows(log) if log.is_file() else []
        if not rows:
            continue
        training: dict[str, Any] = {"steps": int(rows[-1][STEP]), "hours": round(float(rows[-1][SECONDS]) / 3600, 2)}
        if "devices" in bundle.metadata["training"]:
            training["devices"] = bundle.metadata["training"]["devices"]
        looks = [row for row in rows if row.get(CHIEF)]
        if looks:
            training["curve"] = [[int(row[STEP]), round(float(row[CHIEF]), 4)] for row in looks]
            training["floor"] = round(float(looks[-1][CHIEF + FLOOR]), 4)
        trainings[bundle.name] = training
    return trainings
