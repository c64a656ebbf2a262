"""Rows of a comparison that differ in nothing but the seed they were trained with: their mean and spread."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..models.bundle import ModelBundle
from .localizers import Localizer

SEED_BEHIND = re.compile(r"[-_ ]?(seed)?\d+$")
METRICS = ("average_precision", "best_dice")


def over_seeds(localizers: Sequence[Localizer], entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean and standard deviation over the seeds of each training that was repeated.

    :param entries: of ``results.json``, by the localizers' names.
    :return: by the name of a training's first row without the seed behind it (``paper`` for ``paper-seed0``; with it
        where that is another's already); of one seed there is no spread, and no group.
    """
    groups: dict[tuple[str, str], dict[Any, Localizer]] = defaultdict(dict)
    for localizer in localizers:
        if localizer.bundle is not None:
            seed, training = _training(localizer.bundle)
            groups[training, localizer.method].setdefault(seed, localizer)  # the same training twice counts once
    spread = {}
    for of_seeds in groups.values():
        rows = list(of_seeds.values())
        if len(rows) < 2:
            continue
        bundle, slash, method = rows[0].name.partition("/")
        metrics: dict[str, Any] = {"rows": [row.name for row in rows]}
        for key in METRICS:
            values = [float(entries[row.name]["mean"][key]) for row in rows]
            metrics[key] = {
                "mean": round(float(np.mean(values)), 4),
                "sd": round(float(np.std(values, ddof=1)), 4),
                "least": min(values),
                "most": max(values),
            }
        group = SEED_BEHIND.sub("", bundle) + slash + method
        spread[rows[0].name if group in spread else group] = metrics
    return spread


def _training(bundle: ModelBundle) -> tuple[Any, str]:
    """The seed a bundle was trained with, and all else that its training was given: configuration, data, teachers."""
    training = bundle.metadata["training"]
    settings = dict(training.get("configuration", {}))
    seed = settings.pop("seed", None)
    return seed, json.dumps([settings, training.get("data"), training.get("sources")], sort_keys=True)
