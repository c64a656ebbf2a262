"""The files that hold an image's voxels when its header lies apart: one, a list of them, or numbered ones."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath

from ..errors import InputError

MOST_FILES = 20_000


def data_files(path: Path, named: str, listed: list[str], kind: str, stage: str) -> list[Path]:
    """Find the files that a header names; relative to the header's folder, whatever slashes they have.

    :param path: of the header.
    :param named: a file, ``"LIST …"``, or a pattern with first and last number and step, as ``"ct%03d.raw 1 60 1"``.
    :param listed: the lines behind ``"LIST"``.
    :param kind: of image, for the message.
    :raises LesionDecompError: there is no such regular file, an absolute path, or too many files.
    """
    pattern = re.fullmatch(r"(.*%0?\d{0,2}d\S*)\s+(-?\d{1,9})\s+(-?\d{1,9})(?:\s+(-?\d{1,9}))?(?:\s+\d+)?", named)
    if re.fullmatch(r"LIST(\s.*)?", named, re.IGNORECASE):
        names = [line.strip() for line in listed if line.strip()]
    elif pattern is not None:
        names = _numbered(pattern[1], int(pattern[2]), int(pattern[3]), int(pattern[4] or 1))
    else:
        names = [named]
    if not names or len(names) > MOST_FILES:
        found = f"a {kind} header that names {len(names)} data files"
        raise InputError(stage, found, f"one to {MOST_FILES} files", code="data_file")
    return [_found(path, name, kind, stage) for name in names]


def _numbered(pattern: str, first: int, last: int, step: int) -> list[str]:
    """Names with each number from the first to the last in the place of ``%d`` or ``%03d``."""
    if step == 0 or abs(last - first) // abs(step) >= MOST_FILES:
        return []
    place = re.search(r"%(0?)(\d{0,2})d", pattern)
    if place is None:
        return []
    filler, width = place[1] or " ", int(place[2] or 0)
    numbers = range(first, last + (1 if step > 0 else -1), step)
    return [pattern[: place.start()] + str(n).rjust(width, filler) + pattern[place.end() :] for n in numbers]


def _found(path: Path, name: str, kind: str, stage: str) -> Path:
    if Path(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root:
        found = f"a {kind} header that names a data file by its whole path"
        advice = "Name it relative to the header."
        raise InputError(stage, found, "header and voxels side by side", advice, code="data_file")
    for spelled in (name, name.replace("\\", "/")):
        try:
            if (target := path.parent / spelled).is_file():
                return target
        except (OSError, ValueError):  # a name that no file can have
            continue
    short = PureWindowsPath(name).name[:100]
    raise InputError(
        stage, f"a {kind} header without its data file '{short}'", "header and voxels side by side", code="data_file"
    )
