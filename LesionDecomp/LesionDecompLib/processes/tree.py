"""A child process and everything it starts, as one thing that can be watched, asked to end, and ended.

Output goes to two files of a folder instead of to pipes. Nobody has to read along: a busy or idle parent cannot block
the child, no thread is needed (Slicer's event loop would starve one), and what the child printed outlives it.
The parent calls :meth:`ProcessTree.new_lines` and :meth:`ProcessTree.poll` when it likes, a desktop from a timer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import LesionDecompError

STAGE = "Starting a process"
LONGEST_LINE = 1 << 20  # bytes; a longer one is not a line of ours and is cut
MOST_BYTES = 1 << 22  # read at a time, so that a talkative child cannot stall the parent
TAIL_BYTES = 1 << 14
WAIT_STEP_S = 0.02
KILL_TIMEOUT_S = 5.0
NO_LIFELINE_S = 1.0
INTERRUPTED = 130  # exit status: 128 + SIGINT, as shells have it
LIFELINE = "LESIONDECOMP_LIFELINE"  # environment variable: the child ends when its standard input does


class ProcessTree:
    """A command running in a process group of its own.

    :param command: program and arguments.
    :param folder: existing, for the files ``stdout.txt`` and ``stderr.txt``.
    :param environment: the child's, complete; None for the parent's.
    :param cwd: folder to start in.
    :param lifeline: the child is to end (see :func:`end_with_parent`) when this process is gone, however it ended.
    :raises LesionDecompError: the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        folder: str | os.PathLike[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        lifeline: bool = True,
    ) -> None:
        self.stdout_path, self.stderr_path = Path(folder) / "stdout.txt", Path(folder) / "stderr.txt"
        self._offset, self._rest = 0, b""
        environment = dict(os.environ if environment is None else environment)
        environment["PYTHONUNBUFFERED"] = "1"  # or lines would come in blocks of eight kilobytes
        environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"
        if lifeline:
            environment[LIFELINE] = "1"
        command = [os.fspath(part) for part in command]
        try:
            with open(self.stdout_path, "ab") as stdout, open(self.stderr_path, "ab") as stderr:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if lifeline else subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment,
                    cwd=cwd,
                    **_group_options(),
                )
        except OSError as error:
            raise LesionDecompError(
                STAGE,
                f"'{Path(command[0]).name}' that does not start ({error.strerror or error})",
                "a program that can be started",
                "Install LesionDecomp again, or restart Slicer.",
            ) from error

    @property
    def pid(self) -> int:
        """Process id of the command; on POSIX also that of its process group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit status once the command has ended, else None; negative is the signal that ended it."""
        return self._process.poll()

    def new_lines(self) -> list[str]:
        """Complete lines of standard output since the last call, less their line ends; after the end also the rest.

        None where somebody has removed the folder: the process goes on, and ends as one that reported nothing.
        """
        ended = self.poll() is not None
        data = b""
        with suppress(OSError), open(self.stdout_path, "rb") as stream:
            stream.seek(self._offset)
            data = stream.read(MOST_BYTES)
        more = len(data) == MOST_BYTES
        self._offset += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE or (ended and not more and self._rest):
            lines.append(self._rest)
            self._rest = b""
        return [line[:LONGEST_LINE].decode("utf-8", "replace").rstrip("\r") for line in lines]

    def last_errors(self, lines: int = 12) -> list[str]:
        """The last lines of standard error that are not empty."""
        with suppress(OSError), open(self.stderr_path, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
            return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
        return []

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for the command's end.

        :return: its exit status, or None after ``timeout_s``.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.poll()) is None and (end is None or time.monotonic() < end):
            time.sleep(WAIT_STEP_S)
        return status

    def interrupt(self) -> None:
        """Ask the tree to end by itself, as Ctrl-C does; a trainer then writes its checkpoint first."""
        if self.poll() is None:
            with suppress(OSError):
                if sys.platform == "win32":
                    self._process.send_signal(signal.CTRL_BREAK_EVENT)
                else:
                    os.killpg(self.pid, signal.SIGINT)

    def hang_up(self) -> None:
        """Let go of the lifeline: a child that watches it (:func:`end_with_parent`) ends as when its parent is gone.

        Unlike :meth:`interrupt` it works on every system, also where the child has no console of ours.
        """
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()

    def kill(self) -> None:
        """End the command and everything it has started, now; returns when it is gone and leaves no zombie."""
        if sys.platform == "win32":
            if self.poll() is None:
                # The only way to the children of a process group that needs no handle of each. Where it is missing or
                # hangs, the command itself is ended all the same.
                with suppress(OSError, subprocess.TimeoutExpired):
                    subprocess.run(
                        ["taskkill", "/PID", str(self.pid), "/T", "/F"],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        creationflags=subprocess.CREATE_NO_WINDOW,
                        timeout=KILL_TIMEOUT_S,
                        check=False,
                    )
                self._process.kill()
        else:
            # Also where the command itself has ended: what it left running is still in its group.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_TIMEOUT_S)
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.close()


def end_with_parent(before: Callable[[], object] | None = None) -> None:
    """In the child: end at once, children too, when the parent is gone, be it killed; does nothing without a lifeline.

    :param before: called then, in another thread, e.g. to remove temporary files.

    The parent holds the other end of standard input and never writes: its end is the parent's end.
    """
    if os.environ.get(LIFELINE) != "1" or sys.stdin is None:
        return
    descriptor, parent, began = os.dup(sys.stdin.fileno()), os.getppid(), time.monotonic()

    def watch() -> None:
        with suppress(OSError):
            while os.read(descriptor, 4096):
                continue
        if time.monotonic() - began < NO_LIFELINE_S:
            # A launcher between parent and child may give it no standard input at all: that is nobody's death.
            time.sleep(WAIT_STEP_S * 10)  # a dying parent's files are closed before its children notice
            if os.getppid() == parent:
                return
        if before is not None:
            before()
        # The group is this process's own, or that of the launcher that the parent started.
        if sys.platform != "win32" and os.getpgrp() == os.getsid(0):
            os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def library_environment() -> dict[str, str]:
    """This process's environment, with this library where a child's ``python -m LesionDecompLib`` finds it."""
    folder = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([folder, known] if known else [folder])}


def exit_in_words(status: int) -> str:
    """What an exit status means, e.g. ``"killed by signal 9 (SIGKILL)"``."""
    if status < 0:
        with suppress(ValueError):
            name = signal.Signals(-status).name
            more = ", possibly out of memory" if name == "SIGKILL" else ""
            return f"killed by signal {-status} ({name}{more})"
        return f"killed by signal {-status}"
    return f"exit status {status}"


def _group_options() -> dict[str, Any]:
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}
