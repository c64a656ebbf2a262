"""Where the repository's parts lie, and what its CMake files state."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "LesionDecomp"  # folder of the Slicer module, from which the library is imported
TESTING = ROOT / "Testing"
CHEST = TESTING / "data" / "cip_ct64"  # a public chest CT of 4 mm voxels: ct.nrrd, lungs.nrrd, dicom


def cmake_list(name: str) -> set[str]:
    """Entries of a ``set(NAME ...)`` of the module's CMakeLists.txt, relative to the module's folder."""
    text = re.sub(r"#.*", "", (MODULE / "CMakeLists.txt").read_text(encoding="utf-8"))
    block = re.search(rf"set\({name}\s([^)]*)\)", text)
    assert block is not None, f"no set({name} ...) in {MODULE / 'CMakeLists.txt'}"
    return {entry.strip('"').replace("${MODULE_NAME}", "LesionDecomp") for entry in block.group(1).split()}


def cmake_metadata() -> dict[str, str]:
    """The extension's ``EXTENSION_...`` settings, by what follows the underscore."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    return dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
