"""Asking for files and folders."""

from __future__ import annotations

import qt


def ask_save_path(title: str, name: str, kind: str) -> str:
    """Ask where to save.

    :param name: proposed.
    :param kind: e.g. ``"CSV (*.csv)"``.
    :return: empty if cancelled.
    """
    return _path(qt.QFileDialog.getSaveFileName(None, title, name, kind))


def ask_open_path(title: str, kind: str) -> str:
    """Ask for a file that exists.

    :return: its path, empty if cancelled.
    """
    return _path(qt.QFileDialog.getOpenFileName(None, title, "", kind))


def ask_folder(title: str, start: str = "") -> str:
    """Ask for a folder.

    :return: its path, empty if cancelled.
    """
    return str(qt.QFileDialog.getExistingDirectory(None, title, start) or "")


def _path(answer) -> str:
    # PythonQt gives the path, other bindings a pair of path and kind.
    return str((answer[0] if isinstance(answer, tuple) else answer) or "")
