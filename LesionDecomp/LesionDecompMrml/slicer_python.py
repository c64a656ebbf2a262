"""The Python interpreter that a child process of Slicer has to use: Slicer's own, with Slicer's packages."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import slicer


def slicer_python() -> list[str]:
    """The command that starts Slicer's Python.

    On the desktop that is ``PythonSlicer``, which Slicer puts on its PATH: ``sys.executable`` may be Slicer itself
    there. Without the application it is the interpreter that runs this.
    """
    name = "PythonSlicer.exe" if os.name == "nt" else "PythonSlicer"
    home = getattr(slicer.app, "slicerHome", None) if hasattr(slicer, "app") else None
    beside = [Path(home) / "bin" / name, Path(home) / name] if isinstance(home, str) and home else []
    for candidate in (*beside, shutil.which("PythonSlicer")):
        if candidate is not None and Path(candidate).is_file():
            return [str(candidate)]
    return [sys.executable]
