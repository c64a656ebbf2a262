"""PyTorch that is installed but cannot be loaded or used, or not installed at all: what a person can do about it."""

from __future__ import annotations

import sys

from ..errors import ConfigError

STAGE = "Loading PyTorch"
# What loaders answer where a library cannot be mapped into memory.
OUT_OF_MEMORY = ("failed to map segment", "cannot allocate memory", "paging file is too small")


def torch_error(error: BaseException) -> ConfigError | None:
    """The error in words when it came from loading PyTorch; None when it came from elsewhere.

    :param error: as it was raised, with its traceback.
    """
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return ConfigError(STAGE, "no PyTorch", "the package torch", "Install it: pip install torch.", code="no_torch")
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        advice = "Let the environment variable TMPDIR name a folder that can be written to."
        found, expected = "no temporary folder that can be written to", "one, which PyTorch needs"
        return ConfigError(STAGE, found, expected, advice, code="no_temporary_folder")
    if not isinstance(error, ImportError | OSError) or not _came_from_import(error):
        return None
    reason = " ".join(str(error).split())[:200]
    if any(words in reason.lower() for words in OUT_OF_MEMORY):
        advice = "Possibly out of memory: close other programs, or use a machine with more of it."
        found = f"PyTorch, for which memory is too short ({reason})"
        return ConfigError(STAGE, found, "memory to load it", advice, code="out_of_memory")
    advice = "Install PyTorch anew: pip install --force-reinstall torch."
    if sys.platform == "win32" or "WinError" in reason or ".dll" in reason.lower():
        advice = f"Install the Microsoft Visual C++ Redistributable (x64), and restart. If that does not help: {advice}"
    else:
        advice += " It needs the C++ runtime (libstdc++), and must be built for this processor and system."
    return ConfigError(
        STAGE, f"PyTorch, which cannot be loaded ({reason})", "a PyTorch that loads", advice, code="torch_not_loadable"
    )


def _came_from_import(error: BaseException) -> bool:
    """Whether the error was raised while torch's own modules were being imported."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__", "")).split(".")[0] == "torch":
            return True
        # Its libraries are loaded by functions that the module calls.
        trace = trace.tb_next
    return False
