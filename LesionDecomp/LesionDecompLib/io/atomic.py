"""Files and folders that appear under their final name complete, or not at all.

Everything is first written under a hidden temporary name on the same file system, flushed to the disk, and renamed.
A run that is killed leaves at most such a hidden name, which the next one removes; a run that fails or is interrupted
leaves nothing. Of two runs into one folder the later one wins, with all of its files.

Libraries for atomic writing replace single files; none moves a set of files into a folder that has an older one, and
none removes what a killed process left. A hidden name holds machine and process of its owner rather than a lock in
it: the name moves to its final place with all that is in it, and not every disk knows locks.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ..errors import LesionDecompError, OutputError
from .folder_lock import sole_writer

_UMASK = threading.Lock()
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
        error.errno or 0, (f"the system's error '{error.strerror or error}'", "a file that can be written", "")
    )
    return OutputError(stage, f"{found} for '{name}'" if name else found, expected, advice, code="output_not_writable")


@contextmanager
def atomic_file(
    path: str | Path, mode: str = "wb", stage: str = "Writing the results", **kwargs: Any
) -> Iterator[IO[Any]]:
    """Open a file for writing that replaces ``path`` only once the block has ended without an error.

    :param mode: ``"wb"``, or ``"w"`` for UTF-8 with ``\\n`` line ends unless ``kwargs`` (those of :func:`open`) differ.
    :raises LesionDecompError: full disk, no permission, no such folder; ``path`` is then as it was.
    """
    path = Path(path)
    if "b" not in mode:
        kwargs = {"encoding": "utf-8", "newline": "\n"} | kwargs
    temporary = None
    try:
        _remove_leftovers(path.parent, path.name)
        descriptor, temporary = tempfile.mkstemp(prefix=own_prefix(path.name), suffix=PARTIAL, dir=path.parent)
        with open(descriptor, mode, **kwargs) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        _give_usual_permissions(temporary, 0o666)
        os.replace(temporary, path)
        temporary = None
        _sync(path.parent)
    except OSError as error:
        raise writing_error(error, stage, path.name) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                os.unlink(temporary)


def write_bytes(path: str | Path, data: bytes | memoryview, stage: str = "Writing the results") -> None:
    """Write ``data`` to ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path, "wb", stage) as stream:
        stream.write(data)


def write_text(path: str | Path, text: str, stage: str = "Writing the results") -> None:
    """Write ``text`` as UTF-8 to ``path`` in one step (see :func:`atomic_file`)."""
    with atomic_file(path, "w", stage) as stream:
        stream.write(text)


def write_csv(path: str | Path, text: str, stage: str = "Writing the results") -> None:
    """Write a table as UTF-8 with a byte order mark, by which spreadsheet programs know the encoding.

    Readers open it as ``utf-8-sig``, which passes over the mark where there is one.
    """
    write_text(path, f"\ufeff{text}", stage)


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

    A ``folder`` that does not exist yet appears in one rename with everything in it. Into one that exists, files and
    folders are moved one by one, each in one rename, after those they replace and those named in ``retired`` have gone,
    ``last`` first: at no moment do files of two runs lie side by side, and whoever finds ``last`` finds a complete set.
    Parent folders are made as needed, and removed again on failure.

    :param overwrite: whether files in ``folder`` of the same names, and of those in ``retired``, may be replaced.
    :param last: name of the staged file to move last, e.g. the report.
    :param retired: names in ``folder`` that this set replaces and that may not be part of it any more.
    :raises LesionDecompError: full disk, no permission, a file in the way; ``folder`` is then as it was, but for
        earlier files that the disk refused to put back: these lie in a subfolder ``earlier-results-…``.
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
        _sync(staging)
        if folder.is_dir() or not _appear(staging, folder):
            with sole_writer(folder):
                names = {*retired, *(path.name for path in staging.iterdir())}
                taken = sorted(name for name in names if (folder / name).exists())
                if taken and not overwrite:
                    raise existing_error(stage, folder, taken)
                _move_into(staging, folder, last, retired, stage)
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
    return OutputError(
        stage,
        f"an earlier {names[0]}{more} in '{folder.name}'",
        "a folder without results",
        "Choose another folder, or have earlier results replaced.",
        remedy="overwrite",
        code="output_exists",
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
        # In this order: another case may make the folder in between.
        if (home.exists() and not home.is_dir()) or home.parent == home:
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        home = home.parent
    # A killed run may have found fewer of the parents there, and have left its own farther up.
    for parent in dict.fromkeys((home, *folder.parents[:3])):
        _remove_leftovers(parent, folder.name)
    return Path(tempfile.mkdtemp(prefix=own_prefix(folder.name), suffix=PARTIAL, dir=home))


def process_mark() -> str:
    """Stands in every temporary name that this process makes: machine and process."""
    return f"{_machine()}-{os.getpid()}"


def remove_left_by(folder: str | Path, marks: Collection[str]) -> None:
    """Remove temporary names of processes that are known to be gone, on whatever machine.

    :param marks: of these processes, see :func:`process_mark`.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if entry.name[0] == "." and entry.name.endswith(PARTIAL)]:
            if any(f".{mark}-" in name for mark in marks):
                _remove(Path(folder, name))


def own_prefix(name: str) -> str:
    """Of a temporary name: states whose it is, so that it can be removed once that process is no more."""
    return f".{name[:60]}.{process_mark()}-"


@lru_cache
def _machine() -> str:
    # Processes are numbered anew by each machine, each start of it, and each container.
    parts = [platform.node()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def private_folder(home: str | Path | None = None) -> Path:
    """Make a temporary folder for this user alone (mode 0700), for a patient's images.

    Such folders that a killed process of this user left in ``home`` (default: the system's place) are removed first.

    :raises OSError: no room, no permission.
    """
    home = Path(home or tempfile.gettempdir())
    _remove_dead(home, f"lesiondecomp-{_machine()}-", "")
    return Path(tempfile.mkdtemp(prefix=f"lesiondecomp-{_machine()}-{os.getpid()}-", dir=home))


def _remove_leftovers(home: Path, name: str) -> None:
    """Remove what processes of this machine that were killed left of ``name`` in ``home``."""
    _remove_dead(home, f".{name[:60]}.{_machine()}-", PARTIAL)


def _remove_dead(home: Path, start: str, end: str) -> None:
    # Names go on with the number of the process they belong to.
    if os.name == "nt":  # there a process can't be asked whether it lives without ending it
        return
    with suppress(OSError), os.scandir(home) as entries:
        # Strings, not paths: a folder may hold as many cases as a cohort has.
        for name in [entry.name for entry in entries if entry.name.startswith(start) and entry.name.endswith(end)]:
            process = name.removeprefix(start).partition("-")[0]
            with suppress(OSError):
                if process.isdigit() and not _is_alive(int(process)) and (home / name).lstat().st_uid == os.getuid():
                    _remove(home / name)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _appear(staging: Path, folder: Path) -> bool:
    # False where another run has filled the folder meanwhile.
    made = _make_parents(folder.parent)
    try:
        _give_usual_permissions(staging, 0o777)
        os.rename(staging, folder)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir():
            return False
        _remove_empty(made)
        raise
    return True


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


def _move_into(staging: Path, folder: Path, last: str, retired: tuple[str, ...], stage: str) -> None:
    names = sorted((path.name for path in staging.iterdir()), key=lambda name: (name == last, name))
    old = [name for name in dict.fromkeys((last, *retired, *names)) if name and (folder / name).exists()]
    aside = Path(tempfile.mkdtemp(prefix=own_prefix(folder.name), suffix=PARTIAL, dir=folder))
    try:
        for name in old:
            os.rename(folder / name, aside / name)
        for name in names:
            os.replace(staging / name, folder / name)
    except BaseException as error:
        try:
            _put_back(staging, folder, aside, last, names)
        finally:
            kept = _keep_rest(aside, folder)
        if kept is not None and isinstance(error, OSError):
            told = writing_error(error, stage, folder.name)
            advice = f"The earlier results that could not be put back lie in '{kept.name}'. {told.advice}".rstrip()
            raise OutputError(stage, told.found, told.expected, advice, code=told.code) from error
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(staging: Path, folder: Path, aside: Path, last: str, names: list[str]) -> None:
    """Undo :func:`_move_into` as far as that can be, by what lies where; ``last`` returns to a complete set alone."""
    for name in reversed(names):
        if not os.path.lexists(staging / name):
            with suppress(OSError):
                os.rename(folder / name, staging / name)
    for name in sorted(os.listdir(aside), key=lambda name: (name == last, name)):
        if name != last or os.listdir(aside) == [last]:
            with suppress(OSError):
                os.rename(aside / name, folder / name)


def _keep_rest(aside: Path, folder: Path) -> Path | None:
    """Remove ``aside`` if it is empty, else give it a name that is neither hidden nor removed by the next run."""
    with suppress(OSError):
        aside.rmdir()
        return None
    with suppress(OSError):
        unique = aside.name.removesuffix(PARTIAL).rpartition("-")[2]
        return aside.rename(folder / f"earlier-results-{unique}")
    return aside


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
        with _UMASK:  # it belongs to the whole process, and is read by setting it
            mask = os.umask(0)
            os.umask(mask)
        os.chmod(path, mode & ~mask)
