"""Lists of inputs as people and other programs write them: any Unicode encoding, quotes, comments."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path

from ...errors import InputError

STAGE = "Reading the list of inputs"
EXPECTED = "one input a line, in UTF-8 or UTF-16"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
         codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # fmt: skip


def listed_inputs(file: Path) -> list[Path]:
    """The inputs that a text file names; ``-`` is standard input. Relative ones lie where the command runs.

    :raises LesionDecompError: it cannot be read.
    """
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        found = f"'{file.name}', which cannot be read ({error.strerror or error})"
        raise InputError(STAGE, found, EXPECTED, code="list") from error
    try:
        return [Path(name) for name in names_in(data)]
    except UnicodeError as error:
        advice = "Save it as UTF-8."
        found = f"'{file.name}', which is neither UTF-8 nor UTF-16 text"
        raise InputError(STAGE, found, EXPECTED, advice, code="list_encoding") from error


def names_in(data: bytes) -> list[str]:
    r"""The names in a list's bytes: one a line; quotes around a name and lines that begin with ``#`` are passed over.

    :raises UnicodeError: no text in UTF-8, nor in UTF-16 or UTF-32 with a byte order mark.

    >>> names_in('# mine\r\n"a b.nrrd"\r\n\r\nc.nii.gz # not a comment\r\n'.encode("utf-16"))
    ['a b.nrrd', 'c.nii.gz # not a comment']
    """
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "")
    if not encoding and data[:4].count(0) in (1, 2):  # every other byte of Latin text in UTF-16 is 0
        encoding = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    lines = (line.strip() for line in data.decode(encoding or "utf-8").splitlines())
    names = (_unquoted(line) for line in lines if not line.startswith("#"))
    return [name for name in names if name]


def _unquoted(name: str) -> str:
    for quote in "\"'":
        if len(name) >= 2 and name.startswith(quote) and name.endswith(quote):
            return name[1:-1].strip()
    return name
