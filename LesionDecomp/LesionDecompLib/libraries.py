"""Libraries that are not installed, or installed but not to be loaded: what a person can do about it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import ConfigError

STAGE = "Loading libraries"
PYTORCH = "Loading PyTorch"
# What loaders answer where a library cannot be mapped into memory.
OUT_OF_MEMORY = ("failed to map segment", "cannot allocate memory", "paging file is too small")
# Module that is imported -> name on PyPI, where that is another one.
NAMES = {
    "dask": "distributed",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slicer": "slicer-core",
}


@contextmanager
def libraries_named() -> Iterator[None]:
    """Report a library that is missing or cannot be loaded in words; a decorator, too.

    :raises ConfigError: in the place of the import's own error.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        cause = library_error(error)
        if cause is None:
            raise
        raise cause from error


def require(*modules: str) -> None:
    """Refuse, before any work is done, what needs libraries that are not there; nothing is imported.

    :raises ConfigError: naming the first that is missing, and what to install.
    """
    for module in modules:
        if module not in sys.modules and importlib.util.find_spec(module) is None:
            raise _missing(module)


def library_error(error: BaseException) -> ConfigError | None:
    """The error in words when it came from importing another's library; None when it came from elsewhere.

    :param error: as it was raised, with its traceback.
    """
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        return None if module.startswith("LesionDecomp") else _missing(module)
    if isinstance(error, FileNotFoundError) and "temporary directory" in str(error):
        advice = "Let the environment variable TMPDIR name a folder that can be written to."
        found, expected = "no temporary folder that can be written to", "one, which PyTorch needs"
        return ConfigError(PYTORCH, found, expected, advice, code="no_temporary_folder")
    library = _imported(error) if isinstance(error, ImportError | OSError) else ""
    if not library:
        return None
    stage, called = (PYTORCH, "PyTorch") if library == "torch" else (STAGE, f"the package {library}")
    reason = " ".join(str(error).split())[:200]
    if any(words in reason.lower() for words in OUT_OF_MEMORY):
        advice = "Possibly out of memory: close other programs, or use a machine with more of it."
        found = f"{called}, for which memory is too short ({reason})"
        return ConfigError(stage, found, "memory to load it", advice, code="out_of_memory")
    found = f"{called}, which cannot be loaded ({reason})"
    code = "torch_not_loadable" if library == "torch" else "library_not_loadable"
    return ConfigError(stage, found, "one that loads", _reinstall(library, called, reason), code=code)


def _missing(module: str) -> ConfigError:
    if module == "torch":
        return ConfigError(
            PYTORCH, "no PyTorch", "the package torch", "Install it: pip install torch.", code="no_torch"
        )
    if module in sys.stdlib_module_names:
        advice = "Install a complete Python."
        return ConfigError(STAGE, f"a Python without its module {module}", "all of Python", advice, code="no_library")
    name = NAMES.get(module, module)
    advice = f"Install it: pip install {name}."
    return ConfigError(STAGE, f"no package '{module}'", "it, which this needs", advice, code="no_library")


def _reinstall(library: str, called: str, reason: str) -> str:
    advice = f"Install {called} anew: pip install --force-reinstall {NAMES.get(library, library)}."
    if sys.platform == "win32" or "WinError" in reason or ".dll" in reason.lower():
        return f"Install the Microsoft Visual C++ Redistributable (x64), and restart. If that does not help: {advice}"
    return f"{advice} It needs the C++ runtime (libstdc++), and must be built for this processor and system."


def _imported(error: BaseException) -> str:
    """Name of the library that was being imported when the error was raised; empty where none was."""
    library, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        name = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if frame.f_code.co_name == "<module>" and not name.startswith(("LesionDecomp", "__main__")):
            library = library or name
        # A library's own libraries are loaded by functions that its module calls.
        trace = trace.tb_next
    return library
