"""One writer at a time for a folder, kept by the operating system: the lock of a process that is killed is gone too."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError

fcntl: Any
msvcrt: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
try:
    import msvcrt
except ImportError:
    msvcrt = None

LOCK_NAME = ".lesiondecomp.lock"  # where folders themselves can't be locked
ASK_AGAIN_S = 0.05


@contextmanager
def sole_writer(folder: str | Path, wait: bool = True, stage: str = "Opening the output folder") -> Iterator[None]:
    """Keep other processes that ask for the same from writing into an existing ``folder`` meanwhile.

    On Windows a hidden file in the folder is locked, which goes with the last who asked; elsewhere the folder itself.
    Where the disk knows no such locks (some network disks), nothing is kept.

    :param wait: whether to wait for another process; if not, it is an error.
    :raises LesionDecompError: another process writes there, and ``wait`` is False.
    """
    lock_file = None if fcntl is not None else Path(folder) / LOCK_NAME
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT) if lock_file else os.open(folder, os.O_RDONLY)
    try:
        if not _lock(descriptor, wait):
            found = f"another run that writes into '{Path(folder).name}'"
            advice = "Wait for its end or choose another folder."
            raise OutputError(stage, found, "a folder of its own for each run", advice)
        yield
    finally:
        os.close(descriptor)  # and with it the lock
        if lock_file:
            with suppress(OSError):  # Windows refuses while another process has it open, who then removes it
                lock_file.unlink()


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock an open folder or file; False where another process has it and nobody waits."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # a disk without locks
            pass
        return True
    while msvcrt is not None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # its first byte, which need not be there
            return True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):  # a disk without locks
                return True
        if not wait:
            return False
        time.sleep(ASK_AGAIN_S)
    return True
