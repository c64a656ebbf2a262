"""Bundles of format 1, whose weights ``torch.save`` wrote, made into bundles of format 2."""

from __future__ import annotations

from pathlib import Path

from .bundle import ModelBundle
from .weights import FORMAT_VERSION, unpacked_weights


def convert_bundle(folder: str | Path) -> bool:
    """Convert a bundle in its place, whole or not at all: the same tensors bit for bit, the same metadata but for the
    format's version and the weights' SHA-256; other files in the folder stay.

    :return: False where it is of the newest format already.
    :raises LesionDecompError: no bundle that verifies and loads, or the folder cannot be written.
    """
    bundle = ModelBundle.load(folder)
    if bundle.format_version == FORMAT_VERSION:
        return False
    bundle.network()  # nothing is replaced by what does not load
    ModelBundle.save_state(folder, unpacked_weights(bundle.weights(), bundle.format_version), bundle.metadata, False)
    return True
