"""Zip archives of a study, unpacked into a private temporary folder while they are read."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ..errors import InputError, LesionDecompError
from .atomic import private_folder
from .stored_image import damaged

ENDING = ".zip"
MAX_FILES = 20_000
MAX_BYTES = 1 << 33  # unpacked; 8 GiB are 16,000 slices
CHUNK_BYTES = 1 << 20
NOT_STUDY = ("__MACOSX",)


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive by its name and its first bytes."""
    if path.suffix.lower() != ENDING or not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


@contextmanager
def unpacked(path: Path, stage: str) -> Iterator[Path]:
    """Give a folder with the archive's files, which is gone when the block ends.

    :raises LesionDecompError: damaged, encrypted, more files or bytes than a study has, or no room to unpack it.
    """
    try:
        folder = private_folder()
    except OSError as error:
        raise _no_room(path, stage, error) from error
    try:
        _unpack(path, folder, stage)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(path: Path, folder: Path, stage: str) -> None:
    room = MAX_BYTES
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir() and _place(member.filename)]
            if len(members) > MAX_FILES:
                raise InputError(
                    stage, f"{len(members)} files in '{path.name}'", f"at most {MAX_FILES}", code="too_many_files"
                )
            if any(member.flag_bits & 1 for member in members):
                advice = "Unpack it with its password, and give the folder."
                raise InputError(stage, "a zip archive with a password", "one without", advice, code="zip_encrypted")
            for member in members:
                room -= _extract(archive, member, folder, room)
                if room < 0:
                    found = f"'{path.name}', which unpacks to more than {MAX_BYTES >> 30} GiB"
                    raise InputError(stage, found, "the archive of one study", code="zip_too_large")
    except LesionDecompError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise damaged(stage, f"zip archive '{path.name}'") from error
    except OSError as error:
        raise _no_room(path, stage, error) from error


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path, room: int) -> int:
    """Unpack one file; return how many bytes that made, at most some more than there is room for."""
    target = folder.joinpath(*_place(member.filename))
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with archive.open(member) as source, target.open("wb") as sink:
        while count <= room and (chunk := source.read(CHUNK_BYTES)):
            sink.write(chunk)
            count += len(chunk)
    return count


def _place(name: str) -> tuple[str, ...]:
    """Where below the folder a file goes; nowhere when its name leads out of it, or is hidden."""
    parts = PurePosixPath(name.replace("\\", "/").replace("\0", "")).parts
    unsafe = any(part == ".." or ":" in part or part.startswith(("/", ".")) or len(part) > 200 for part in parts)
    return () if unsafe or (parts and parts[0] in NOT_STUDY) else parts


def _no_room(path: Path, stage: str, error: OSError) -> LesionDecompError:
    found = f"'{path.name}', which cannot be unpacked ({error.strerror or error})"
    expected = "a complete archive, and room for it in the temporary folder"
    return InputError(stage, found, expected, "Unpack it, and give the folder.", code="zip_not_unpacked")
