"""Reload in developer mode: Slicer reloads the module file alone, its packages would stay as they were."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection

TRAININGS = "LesionDecompLib.processes.training_run"


def forget_packages(packages: Collection[str]) -> None:
    """Have packages imported anew; the trainings of this session, which go on meanwhile, stay known."""
    known = sys.modules.get(TRAININGS)
    runs = dict(known.session_runs) if known is not None else {}
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]
    if runs:
        importlib.import_module(TRAININGS).session_runs.update(runs)
