"""Python packages that Slicer lacks: which they are, and how they are installed without touching Slicer's own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

# Module that is imported -> name on PyPI.
NEEDED = {"torch": "torch", "skimage": "scikit-image", "scipy": "scipy", "SimpleITK": "SimpleITK", "PIL": "pillow"}
# Slicer is built against these; another version would break it.
KEPT = ("numpy", "SimpleITK", "scipy")


def missing_packages() -> list[str]:
    """Packages to be installed before the first run, by their names on PyPI; nothing is imported to find out."""
    importlib.invalidate_caches()
    return [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]


def install_missing_packages(missing: Callable[[], list[str]] = missing_packages) -> bool:
    """Install what is missing after one question.

    torch comes through the PyTorch extension, which picks the build that suits the computer's GPU; the rest through
    ``slicer.packaging`` (Slicer 5.11 and later) or ``slicer.util.pip_install``.

    :param missing: tells what is missing, before and after.
    :return: whether everything is there now; False if the user said no.
    :raises RuntimeError: in one sentence what could not be installed, and what to do.
    """
    names = missing()
    if not names:
        return True
    question = _(
        "LesionDecomp needs these Python packages: {packages}. They will be downloaded and installed, which may take "
        "several minutes. Nothing else is changed. Continue?"
    ).format(packages=", ".join(names))
    if not slicer.util.confirmOkCancelDisplay(question, _("LesionDecomp")):
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


def _install_torch() -> None:
    try:
        import PyTorchUtils
    except ImportError as error:
        raise RuntimeError(
            _("Install the PyTorch extension with the Extensions Manager, restart Slicer and try again.")
        ) from error
    if PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False) is None:
        raise RuntimeError(_("The PyTorch extension could not install torch; its module PyTorch Utils says why."))


def _pip_install(requirements: list[str]) -> None:
    try:
        from slicer import packaging
    except ImportError:  # before Slicer 5.11
        slicer.util.pip_install(requirements)
        return
    packaging.pip_install(requirements, requester="LesionDecomp")


def _pins() -> list[str]:
    """What Slicer ships, as requirements of exactly the versions that are there: pip then leaves them alone."""
    pins = []
    for name in KEPT:
        try:
            pins.append(f"{name}=={importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return pins
