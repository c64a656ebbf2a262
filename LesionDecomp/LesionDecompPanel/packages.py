"""Python packages that Slicer lacks: which they are, and how they are installed without touching Slicer's own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import time
from collections.abc import Callable
from subprocess import CalledProcessError

import slicer
from slicer.i18n import tr as _

# Module that is imported -> name on PyPI.
NEEDED = {
    "torch": "torch",
    "safetensors": "safetensors",
    "skimage": "scikit-image",
    "scipy": "scipy",
    "SimpleITK": "SimpleITK",
    "PIL": "pillow",
}
# What is downloaded, roughly, for the question.
SIZES = {
    "torch": "0.2 GB, with support for NVIDIA GPUs about 3 GB",
    "safetensors": "0.5 MB",
    "scikit-image": "15 MB",
    "scipy": "35 MB",
    "SimpleITK": "50 MB",
    "pillow": "7 MB",
}
# Slicer is built against these; another version would break it.
KEPT = ("numpy", "SimpleITK", "scipy", "pydicom")
PYTORCH_EXTENSION_MODULE = "PyTorchUtils"


def missing_packages() -> list[str]:
    """Packages to be installed before the first run, by their names on PyPI; nothing is imported to find out."""
    importlib.invalidate_caches()
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def install_missing_packages(missing: Callable[[], list[str]] = missing_packages) -> bool:
    """Install what is missing after one question.

    torch comes through the PyTorch extension, which picks the build that suits the computer's GPU; the rest through
    ``slicer.packaging`` (Slicer 5.11 and later) or ``slicer.util.pip_install``.

    :param missing: reports what is missing, before and after.
    :return: whether everything is there now; False if the user declined.
    :raises RuntimeError: in words what could not be installed, and what to do.
    """
    names = missing()
    if not names:
        return True
    if "torch" in names and importlib.util.find_spec(PYTORCH_EXTENSION_MODULE) is None:
        raise RuntimeError(_pytorch_extension_is_missing())  # asked first: a yes could not be kept
    if not slicer.util.confirmOkCancelDisplay(question(names), _("LesionDecomp")):
        return False
    logging.info(f"LesionDecomp: installing {', '.join(names)}")
    if "torch" in names:
        _install_torch()
    others = [name for name in names if name != "torch"]
    if others:
        _pip_install([*others, *_pins()])
    left = missing()
    if left:
        raise RuntimeError(
            _("Still missing after the installation: {packages}. Restart Slicer and try again.").format(
                packages=", ".join(left)
            )
        )
    logging.info("LesionDecomp: all packages are installed")
    return True


def question(names: list[str]) -> str:
    """What is asked before an installation: each package and its size."""
    lines = [_("• {name}: about {size}").format(name=name, size=SIZES.get(name, _("some MB"))) for name in names]
    through = _("torch is installed through the PyTorch extension. ") if "torch" in names else ""
    return "\n".join(
        [
            _("LesionDecomp needs Python packages that Slicer does not have yet. These will be downloaded:"),
            "",
            *lines,
            "",
            through + _("Slicer's own packages keep their versions. It may take several minutes. Continue?"),
        ]
    )


def _pytorch_extension_is_missing() -> str:
    return _(
        "LesionDecomp needs PyTorch, and Slicer installs it through its PyTorch extension, which is not there.\n\n"
        "1. Open View > Extensions Manager, search for 'PyTorch', install it, and restart Slicer.\n"
        "2. Press Apply again.\n\n"
        "Without a connection to the internet: install a wheel of torch for Slicer's Python in the Python console, "
        "slicer.util.pip_install('/path/to/torch.whl')."
    )


def _install_torch() -> None:
    import PyTorchUtils  # another module of Slicer, which may be missing

    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False) is None:
        raise RuntimeError(
            _(
                "The PyTorch extension could not install torch. Its module PyTorch Utils reports why, and lets you "
                "choose another version or computing platform; then press Apply again."
            )
        )


def _pip_install(requirements: list[str]) -> None:
    log: list[str] = []
    try:
        status = _run_pip(requirements, log)
    except CalledProcessError as error:
        status = error.returncode
        log += [text for text in (error.output, error.stderr) if isinstance(text, str)]
    if status != 0:
        raise RuntimeError(failure_in_words("\n".join(log), requirements))


def _run_pip(requirements: list[str], log: list[str]) -> int:
    try:
        from slicer import packaging  # not before: Slicer starts without it
    except ImportError:  # before Slicer 5.11
        slicer.util.pip_install(requirements)
        return 0
    ended: list[int] = []
    packaging.pip_install(
        requirements,
        requester="LesionDecomp",
        blocking=False,
        logCallback=log.append,
        completedCallback=ended.append,
    )
    slicer.app.setOverrideCursor(_busy_cursor())
    try:
        while not ended:
            slicer.app.processEvents()
            time.sleep(0.02)
    finally:
        slicer.app.restoreOverrideCursor()
    return ended[0]


def _busy_cursor():
    import qt  # not there without the application

    return qt.Qt.BusyCursor


# What pip prints -> what it means and what to do; the first that fits is reported.
_PROXY = ("proxyerror", "tunnel connection failed", "407 proxy")
_CERTIFICATE = ("sslerror", "certificate_verify_failed")
_NETWORK = (
    "newconnectionerror",
    "name resolution",
    "getaddrinfo failed",
    "connecttimeout",
    "readtimeout",
    "network is unreachable",
    "connection refused",
)
_DISK = ("no space left", "errno 28", "disk quota")
_PERMISSION = ("permission denied", "errno 13", "access is denied", "read-only file system")
_CONFLICT = ("resolutionimpossible", "conflicting dependencies")
_VERSION = ("no matching distribution", "could not find a version")


def failure_in_words(log: str, requirements: list[str]) -> str:
    """Why pip failed, from its log, and the next step; no command list."""
    text = log.lower()
    offline = _("Without a connection, install wheels: slicer.util.pip_install('/path/to/package.whl').")
    reasons = (
        (_PROXY, _("The proxy refused the connection. Set HTTPS_PROXY to your proxy before starting Slicer.")),
        (_CERTIFICATE, _("The server's certificate was not accepted. Ask your IT department for the proxy's one.")),
        (_NETWORK, _("The package server could not be reached. Check the internet connection.") + " " + offline),
        (_DISK, _("The disk is full. Free some space and try again.")),
        (_PERMISSION, _("Slicer's folder cannot be written. Start Slicer as a user who may, or install it elsewhere.")),
        (_CONFLICT, _("The packages do not fit the versions that Slicer ships. Update Slicer.")),
        (
            _VERSION,
            _(
                "No fitting package was found: the package server cannot be reached, or has none for this Slicer's "
                "Python. Check the connection and the proxy, or update Slicer."
            )
            + " "
            + offline,
        ),
    )
    reason = next((words for signs, words in reasons if any(sign in text for sign in signs)), "")
    names = ", ".join(name for name in requirements if "==" not in name)
    errors = [line.strip() for line in log.splitlines() if line.strip().lower().startswith("error")]
    parts = [
        _("{packages} could not be installed.").format(packages=names),
        reason or _("The package installer ended with an error."),
        _("Its log is in the Python console (View > Python Console)."),
    ]
    if errors:
        parts.append(_("Its last message: {line}").format(line=errors[-1][:300]))
    return "\n".join(parts)


def _pins() -> list[str]:
    """What Slicer ships, as requirements of exactly the versions that are there: pip then leaves them alone."""
    pins = []
    for name in KEPT:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins


def can_write_dicom_seg() -> bool:
    """Whether what a DICOM segmentation is written with is there."""
    return importlib.util.find_spec("highdicom") is not None


def install_for_dicom_seg() -> bool:
    """Install what a DICOM segmentation is written with, after asking.

    :return: whether it is there now; False if the user declined.
    :raises RuntimeError: as :func:`install_missing_packages`.
    """
    words = _("A DICOM segmentation is written with the Python package highdicom (about 5 MB). Download it?")
    if not slicer.util.confirmOkCancelDisplay(words, _("LesionDecomp")):
        return False
    _pip_install(["highdicom", *_pins()])
    importlib.invalidate_caches()
    return can_write_dicom_seg()
