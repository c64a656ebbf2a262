"""Files and folders that appear under their final name complete, or not at all.

Everything is first written under a hidden temporary name on the same file system, flushed to the disk, and renamed.
A run that is killed leaves at most such a hidden name; a run that fails or is interrupted leaves nothing.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .errors import LesionDecompError

PARTIAL = ".partial"  # suffix of every temporary name

_REASONS = {
    errno.ENOSPC: ("a full disk", "free space for the results", "Free some space or choose another folder."),
    errno.EDQUOT: ("a used-up disk quota", "free space for the results", "Free some space or choose another folder."),
    errno.EFBIG: ("a limit on the size of files", "room for the results", "Raise the limit or choose another folder."),
    errno.EACCES: ("a folder without write permission", "a writable folder", "Choose another folder."),
    errno.EPERM: ("a folder without write permission", "a writable folder", "Choose another folder."),
    errno.EROFS: ("a read-only disk", "a writable folder", "Choose another folder."),
    errno.ENOTEMPTY: ("a folder that another run filled meanwhile", "a folder of its own for each run", ""),
    errno.ENOTDIR: ("a file where a folder should be", "a folder", "Choose another folder."),
    errno.EEXIST: ("a file where a folder should be", "a folder", "Choose another folder."),
    errno.ENAMETOOLONG: ("a name that is too long for this disk", "a shorter name", ""),
}


def writing_error(error: OSError, stage: str, name: str = "") -> LesionDecompError:
    """Turn an operating system's refusal to write into one sentence.

    :param stage: the step that wrote, e.g. ``"Writing the results"``.
    :param name: name of the file or folder (not its path); may be empty.
    """
    found, expected, advice = _REASONS.get(
        error.errno, (f"the system's error '{error.strerror or error}'", "a file that can be written", "")
    )
    return LesionDecompError(stage, f"{found} for '{name}'" if name else found, expected, advice)


@contextmanager
def atomic_file(path: str | Path, mode: str = "wb", stage: str = "Writing the results", **kwargs) -> Iterator[IO]:
    """Open a file for writing that replaces ``path`` only once the block has ended without an error.

    :param mode: ``"wb"``, or ``"w"`` for UTF-8 with ``\\n`` line ends unless ``kwargs`` (those of :func:`open`) differ.
    :raises LesionDecompError: full disk, no permission, no such folder; ``path`` is then as it was.
    """
    path = Path(path)
    if "b" not in mode:
        kwargs = {"encoding": "utf-8", "newline": "\n"} | kwargs
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=PARTIAL, dir=path.parent)
        with open(descriptor, mode, **kwargs) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _give_usual_permissions(temporary, 0o666)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise writing_error(error, stage, path.name) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def write_bytes(path: str | Path, data: bytes, stage: str = "Writing the results") -> None:
    """Write ``data`` to ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path, "wb", stage) as stream:
        stream.write(data)


def write_text(path: str | Path, text: str, stage: str = "Writing the results") -> None:
    """Write ``text`` as UTF-8 to ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path, "w", stage) as stream:
        stream.write(text)


@contextmanager
def staged_folder(
    folder: str | Path,
    overwrite: bool = False,
    *,
    stage: str = "Writing the results",
    last: str = "",
    retired: tuple[str, ...] = (),
) -> Iterator[Path]:
    """Give a staging folder whose files move into ``folder`` once the block has ended without an error.

    A ``folder`` that does not exist yet appears in one rename with everything in it. Into one that exists, files are
    moved one by one, each in one rename, after the files named in ``retired`` and an older ``last`` have gone: whoever
    finds ``last`` finds a complete set. Parent folders are made as needed, and removed again on failure.

    :param overwrite: whether files of the same names in ``folder`` may be replaced.
    :param last: name of the staged file to move last, e.g. the report.
    :param retired: names in ``folder`` that this set replaces and that may not be part of it any more.
    :raises LesionDecompError: full disk, no permission, a file in the way; ``folder`` is then as it was.
    """
    folder = Path(folder).absolute()
    staging = None
    try:
        staging = _staging_folder(folder)
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                _give_usual_permissions(path, 0o666)
                _sync(path)
        if folder.is_dir():
            taken = sorted(path.name for path in staging.iterdir() if (folder / path.name).exists())
            if taken and not overwrite:
                raise existing_error(stage, folder, taken)
            _move_into(staging, folder, last, retired)
        else:
            _appear(staging, folder)
        _sync(folder)
        _sync(folder.parent)
    except OSError as error:
        raise writing_error(error, stage, folder.name) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def existing_error(stage: str, folder: Path, names: list[str]) -> LesionDecompError:
    """Error for results that would be replaced without leave."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return LesionDecompError(
        stage,
        f"an earlier {names[0]}{more} in '{folder.name}'",
        "a folder without results",
        "Choose another folder or add --overwrite.",
    )


def check_writable(folder: str | Path, stage: str = "Opening the output folder") -> None:
    """Make sure that ``folder`` can be written to, or made; nothing is left behind.

    :raises LesionDecompError: no permission, read-only or full disk, a file in the way.
    """
    folder = Path(folder).absolute()
    staging = None
    try:
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(errno.EEXIST, "File exists")
        staging = _staging_folder(folder)
        with open(staging / "probe", "wb") as stream:
            stream.write(bytes(4096))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise writing_error(error, stage, folder.name) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _staging_folder(folder: Path) -> Path:
    # Inside an existing folder (it may be a disk of its own), else beside the first parent that exists.
    home = folder
    while not home.is_dir():
        if home.exists() or home.parent == home:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        home = home.parent
    return Path(tempfile.mkdtemp(prefix=f".{folder.name[:100]}.", suffix=PARTIAL, dir=home))


def _appear(staging: Path, folder: Path) -> None:
    made = _make_parents(folder.parent)
    try:
        _give_usual_permissions(staging, 0o777)
        os.rename(staging, folder)
    except OSError:
        _remove_empty(made)
        raise


def _make_parents(folder: Path) -> list[Path]:
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    made = []
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            made.append(parent)
    except OSError:
        _remove_empty(made)
        raise
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in reversed(folders):
        with suppress(OSError):
            folder.rmdir()


def _move_into(staging: Path, folder: Path, last: str, retired: tuple[str, ...]) -> None:
    names = sorted(path.name for path in staging.iterdir())
    if last in names:
        (folder / last).unlink(missing_ok=True)
        names.remove(last)
        names.append(last)
    for name in retired:
        if name not in names:
            (folder / name).unlink(missing_ok=True)
    for name in names:
        os.replace(staging / name, folder / name)


def _sync(path: Path) -> None:
    # Folders can't be opened on Windows, and some network disks refuse to sync them: the rename is atomic all the same.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    finally:
        os.close(descriptor)


def _give_usual_permissions(path: str | Path, mode: int) -> None:
    # Temporary names are private; results get what the user's umask grants any new file.
    if os.name != "nt":
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(path, mode & ~mask)
