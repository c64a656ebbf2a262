"""One writer at a time for a folder, kept by the operating system: the lock of a process that is killed is gone too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

LOCK_NAME = ".lesiondecomp.lock"


@contextmanager
def sole_writer(folder: str | Path, wait: bool = True, stage: str = "Opening the output folder") -> Iterator[None]:
    """Keep other processes that ask for the same from writing into an existing ``folder`` meanwhile.

    A hidden file in the folder is locked, and removed at the end; one that a killed process left is taken over.
    Where the disk knows no such locks (some network disks), nothing is kept.

    :param wait: whether to wait for another process; if not, it is an error.
    :raises LesionDecompError: another process writes there, and ``wait`` is False.
    """
    from filelock import FileLock, Timeout  # comes with torch, which Slicer may lack yet

    lock = FileLock(Path(folder) / LOCK_NAME, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        found = f"another run that writes into '{Path(folder).name}'"
        advice = "Wait for its end or choose another folder."
        raise OutputError(stage, found, "a folder of its own for each run", advice, code="folder_in_use") from error
    except (OSError, NotImplementedError):  # a disk without locks, or one that writing will find to be read-only
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows refuses while it is open, and removes it afterwards
                Path(lock.lock_file).unlink()  # whoever waits sees that it is gone, and makes a new one
        lock.release()
