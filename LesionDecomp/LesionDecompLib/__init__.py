"""LesionDecomp: weakly supervised lung-lesion decomposition of chest CT (the method, free of Slicer).

The names below are what scripts need; each is imported with its package when it is first used, so that importing this
library loads neither torch nor SimpleITK.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Programs decide what becomes of the log; without their handlers nothing is printed.
logging.getLogger(__name__).addHandler(logging.NullHandler())

if TYPE_CHECKING:
    from .ct.volume import Volume as Volume
    from .errors import Cancelled as Cancelled
    from .errors import LesionDecompError as LesionDecompError
    from .io.masks import read_mask as read_mask
    from .io.readers import read_volume as read_volume
    from .measurement.statistics import lesion_statistics as lesion_statistics
    from .models.bundle import ModelBundle as ModelBundle
    from .models.bundle import find_bundle as find_bundle
    from .models.bundle import installed_bundles as installed_bundles
    from .pipeline import Segmenter as Segmenter
    from .pipeline import SegmentResult as SegmentResult
    from .report.case import write_case as write_case

_HOMES = {
    "Cancelled": "errors",
    "LesionDecompError": "errors",
    "ModelBundle": "models.bundle",
    "SegmentResult": "pipeline",
    "Segmenter": "pipeline",
    "Volume": "ct.volume",
    "find_bundle": "models.bundle",
    "installed_bundles": "models.bundle",
    "lesion_statistics": "measurement.statistics",
    "read_mask": "io.masks",
    "read_volume": "io.readers",
    "write_case": "report.case",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
