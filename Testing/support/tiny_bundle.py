"""What stands in a bundle so small that tests write one for each case."""

from __future__ import annotations

import json

from LesionDecompLib.models.bundle import METADATA_NAME, ModelBundle

INPUT = {"size": [64, 64], "spacing_mm": 2.0, "hu_window": [-1000, 200], "mean": 0.5, "std": 0.5}
ARGUMENTS = {"out_channels": 3, "channels": 4, "levels": 3}
METADATA = {
    "name": "tiny",
    "version": "1.0",
    "task": "lungs",
    "description": "untrained",
    "architecture": "unet",
    "architecture_arguments": ARGUMENTS,
    "input": INPUT,
    "default_threshold": 0.5,
    "heat": {},
    "training": {},
    "metrics": {},
    "git_revision": "none",
}


def rewrite(bundle: ModelBundle, **changes: object) -> None:
    """Change keys of a bundle's metadata on disk."""
    metadata = {**bundle.metadata, **changes}
    (bundle.path / METADATA_NAME).write_text(json.dumps(metadata), "utf-8")
