"""Where a DICOM input lies: in a folder, beside a file, or in a zip archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..archive import is_archive, unpacked
from .files import is_dicom_file


def is_dicom_source(path: Path) -> bool:
    """Whether an input may be DICOM: a folder, an archive, or a DICOM file."""
    return path.is_dir() or is_archive(path) or (path.is_file() and is_dicom_file(path))


@contextmanager
def dicom_source(path: Path, stage: str) -> Iterator[Path]:
    """Give the folder or file to read a DICOM input from; an archive is unpacked while the block runs.

    :raises LesionDecompError: an archive that cannot be unpacked.
    """
    if is_archive(path):
        with unpacked(path, stage) as folder:
            yield folder
    else:
        yield path
