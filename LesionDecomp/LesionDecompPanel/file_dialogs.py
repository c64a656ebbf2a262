"""Asking for files and folders: names of the case are proposed, the folder is remembered, nothing is overwritten
unasked."""

from __future__ import annotations

import re
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

SAVE_FOLDER = "LesionDecomp/SaveFolder"  # where Slicer's settings keep the folder that was saved into last
LONGEST_NAME = 80


def ask_save_path(title: str, case: str, name: str, kind: str) -> Path | None:
    """Ask where to save.

    :param case: name of the CT, which begins the proposed name.
    :param name: how the proposed name ends, e.g. ``"statistics.csv"``.
    :param kind: e.g. ``"CSV (*.csv)"``.
    :return: None if canceled. A missing ending was added.
    """
    folder = str(qt.QSettings().value(SAVE_FOLDER) or "")
    start = Path(folder) if folder and Path(folder).is_dir() else Path.home()
    answer = _path(qt.QFileDialog.getSaveFileName(None, title, str(start / proposed_name(case, name)), kind))
    if not answer:
        return None
    path = Path(answer)
    if not re.fullmatch(r"\.[A-Za-z0-9]{1,5}", path.suffix):
        path = path.with_name(path.name + Path(name).suffix)
        # The dialog has asked about the name as it was typed.
        if path.exists() and not _may_overwrite(path):
            return None
    qt.QSettings().setValue(SAVE_FOLDER, str(path.parent))
    return path


def proposed_name(case: str, name: str) -> str:
    """A file name of the case that every file system takes: ``"LesionDecompChestCT statistics.csv"``."""
    clean = re.sub(r'[\x00-\x1f<>:"/\\|?*]+', "-", case).strip(" .-")[:LONGEST_NAME]
    return f"{clean} {name}" if clean else name


def _may_overwrite(path: Path) -> bool:
    question = _("'{name}' is already there. Replace it?").format(name=path.name)
    return bool(slicer.util.confirmYesNoDisplay(question, _("LesionDecomp")))


def ask_open_path(title: str, kind: str, start: str = "") -> str:
    """Ask for a file that exists.

    :return: its path, empty if canceled.
    """
    return _path(qt.QFileDialog.getOpenFileName(None, title, start, kind))


def ask_folder(title: str, start: str = "") -> str:
    """Ask for a folder.

    :return: its path, empty if canceled.
    """
    return str(qt.QFileDialog.getExistingDirectory(None, title, start) or "")


def _path(answer) -> str:
    # PythonQt gives the path, other bindings a pair of path and kind.
    return str((answer[0] if isinstance(answer, tuple) else answer) or "")
