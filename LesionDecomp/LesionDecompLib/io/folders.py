"""Folders searched with the folders that symbolic links in them lead to, as data managers and clusters make them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    folder: Path, on_error: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Go through a folder as :func:`os.walk` does from the top, through symbolic links, too; circles of links end.

    Each folder is visited once, whatever leads to it. A link to a folder that holds ``folder`` itself is passed over,
    and so are names that begin with a dot.

    :param on_error: told of each folder that cannot be opened.
    :return: a folder, the names of its folders (in their order; take some out to pass them over) and of its files.
    """
    above = {_identity(path) for path in (folder.resolve(), *folder.resolve().parents)}
    seen = set(above)
    for parent, names, files in os.walk(folder, onerror=on_error, followlinks=True):
        place = Path(parent)
        names[:] = [name for name in sorted(names) if not name.startswith(".") and _is_new(place / name, seen)]
        yield place, names, sorted(name for name in files if not name.startswith("."))


def files_below(folder: Path) -> Iterator[Path]:
    """All regular files in a folder and its subfolders, in the order of their paths (see :func:`walk`)."""
    for place, _, files in walk(folder):
        yield from (path for path in (place / name for name in files) if path.is_file())


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    identity = _identity(folder)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _identity(folder: Path) -> tuple[int, int]:
    try:
        state = folder.stat()
    except OSError:  # os.walk finds out, too, and reports it
        return hash(folder), -1
    return state.st_dev, state.st_ino
