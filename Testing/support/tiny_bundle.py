"""What stands in a bundle so small that tests write one for each case."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import torch
from LesionDecompLib.models.bundle import METADATA_NAME, ModelBundle
from LesionDecompLib.models.networks import UNet
from LesionDecompLib.models.weights import WEIGHTS_NAME, WEIGHTS_NAMES
from safetensors.torch import load_file

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


def write_format_1(folder: Path) -> ModelBundle:
    """Write the bundle as it was before weights were safetensors."""
    bundle = ModelBundle.save(folder, UNet(**ARGUMENTS).eval(), METADATA, half=False)
    buffer = io.BytesIO()
    torch.save(load_file(folder / WEIGHTS_NAME), buffer)
    (folder / WEIGHTS_NAME).unlink()
    (folder / WEIGHTS_NAMES[1]).write_bytes(buffer.getvalue())
    rewrite(bundle, format_version=1, weights_sha256=hashlib.sha256(buffer.getvalue()).hexdigest())
    return bundle
