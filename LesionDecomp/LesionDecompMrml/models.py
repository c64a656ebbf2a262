"""Which lesion models a run can take."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.models.bundle import ModelBundle, find_bundle, installed_bundles
from LesionDecompLib.processes.training_run import trainings


def offered_models(folders: Iterable[str | Path] = ()) -> list[tuple[str, ModelBundle]]:
    """Lesion models as (name or folder, bundle); the default comes first.

    :param folders: bundles to offer beside the installed ones and those trained in this session; folders without a
        valid bundle are left out.
    """
    trained = [str(run.bundle) for run in trainings() if run.bundle is not None]
    models = [(bundle.name, bundle) for bundle in installed_bundles("lesions")]
    if models:
        default = find_bundle(None, "lesions").name
        models.sort(key=lambda model: model[0] != default)
    for folder in dict.fromkeys([*map(str, folders), *trained]):
        try:
            models.append((str(folder), ModelBundle.load(folder, "lesions")))
        except LesionDecompError as error:
            logging.warning(f"LesionDecomp: {error}")
    return models
