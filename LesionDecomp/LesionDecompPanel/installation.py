"""The installation of missing packages. The panel can be used meanwhile: what is under way must be known."""

from __future__ import annotations

import logging
from collections.abc import Callable

import slicer
from slicer.i18n import tr as _

_under_way: list[bool] = []  # in this session, whichever part of the panel has asked for it


def is_installing() -> bool:
    """Whether packages are being installed: nothing that needs them can start."""
    return bool(_under_way)


def installing_in_words() -> str:
    """Why nothing can start meanwhile."""
    return _("Python packages are being installed. Wait until this has ended.")


def install_packages(logic, install: Callable[[], bool] | None = None) -> bool:
    """Install what is missing, after asking. It may take minutes, in which Qt's events go on; the panel shows it.

    :param logic: of the module.
    :param install: does it, and says whether everything is there now; None installs what a run needs.
    :return: whether everything is there; if not, the user knows why.
    """
    if is_installing():
        slicer.util.errorDisplay(installing_in_words())
        return False
    _under_way.append(True)
    try:
        logic.getParameterNode().Modified()  # the panel looks at everything anew
        return logic.installMissingPackages() if install is None else install()
    except Exception as error:
        logging.exception("LesionDecomp: packages could not be installed")
        slicer.util.errorDisplay(_("The required Python packages could not be installed.") + f"\n\n{error}")
        return False
    finally:
        _under_way.clear()
        logic.getParameterNode().Modified()
