"""Seeded changes to bytes, texts, JSON values and zip archives: what chance, damage and malice do to files."""

from __future__ import annotations

import copy
import io
import json
import re
import zipfile
from typing import Any

import numpy as np

WORDS = (b"\xff\xff\xff\x7f", bytes(4), b"nan ", b"-1  ", b"1e99", b"\0\0\xc0\x7f", b"%s%n", b"../.")
NUMBERS = (
    "0",
    "-1",
    "1",
    "2147483648",
    "-9223372036854775809",
    "1e308",
    "1e-320",
    "nan",
    "-inf",
    "9" * 400,
    "9" * 5000,
)
TEXTS = (
    "",
    "../../../etc/passwd",
    "/dev/zero",
    "C:\\con",
    "a\0b",
    "\x1b[31mred",
    "line\nbreak",
    "x" * 200_000,
    "Größe ☃ 𝄞",
    "\ud800",
    "'\";--",
    "[" * 20_000,
    "{" * 20_000,
)
VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 10**9, 2**63, 10**400, 1e308, float("nan"), float("inf"), -0.0,
                           "", "x", *TEXTS[1:7], [], {}, [[]], [None], {"": None}, [0, 1, 2, 3], ["1", 2])  # fmt: skip


def mutated(data: bytes, header: int, rng: np.random.Generator) -> bytes:
    """A file with one to five bytes, bits or words changed, dropped or added, most of them in its header."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, max(1, len(changed) if rng.random() < 0.15 else min(header, len(changed)))))
        match int(rng.integers(0, 6)):
            case 0:
                changed[at : at + 1] = rng.bytes(1)
            case 1 if at < len(changed):
                changed[at] ^= 1 << int(rng.integers(0, 8))
            case 2:
                del changed[at : at + int(rng.integers(1, 9))]
            case 3:
                changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
            case 4:
                changed[at : at + 4] = WORDS[int(rng.integers(0, len(WORDS)))]
            case 5 if rng.random() < 0.2:
                del changed[at:]
    return bytes(changed)


def mutated_text(text: str, rng: np.random.Generator) -> bytes:
    """A text with numbers, words or lines replaced, dropped, doubled or swapped; sometimes bytes as in a file."""
    for _ in range(rng.integers(1, 4)):
        lines = text.split("\n")
        at = int(rng.integers(0, len(lines)))
        match int(rng.integers(0, 7)):
            case 0 if len(text) < 100_000:
                numbers = list(re.finditer(r"-?\d+(\.\d+)?", text))
                if numbers:
                    found = numbers[int(rng.integers(0, len(numbers)))]
                    text = text[: found.start()] + _one(NUMBERS, rng) + text[found.end() :]
            case 1 if len(text) < 100_000:
                words = list(re.finditer(r"[^\s,;=\"]+", text))
                if words:
                    found = words[int(rng.integers(0, len(words)))]
                    text = text[: found.start()] + _one(TEXTS, rng) + text[found.end() :]
            case 2:
                text = "\n".join(lines[:at] + lines[at + 1 :])
            case 3:
                text = "\n".join([*lines, *lines[at:]][:5000])
            case 4:
                other = int(rng.integers(0, len(lines)))
                lines[at], lines[other] = lines[other], lines[at]
                text = "\n".join(lines)
            case 5:
                cut = int(rng.integers(0, len(text) + 1))
                text = text[:cut]
            case 6:
                cut = int(rng.integers(0, len(text) + 1))
                text = text[:cut] + _one((",", '"', "\n", "\r", "=", "[", "]", "\0", ";", "\ufeff"), rng) + text[cut:]
    data = text.encode("utf-8", "surrogatepass")
    return mutated(data, len(data), rng) if rng.random() < 0.25 else data


def mutated_json(content: Any, rng: np.random.Generator) -> Any:
    """A JSON value with one or two of its parts replaced, removed, renamed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(rng.integers(1, 3)):
        places = list(_places(content))
        if not places:
            return _one(VALUES, rng)
        parent, key = places[int(rng.integers(0, len(places)))]
        match int(rng.integers(0, 6)):
            case 0 | 1 | 2:
                parent[key] = copy.deepcopy(_one(VALUES, rng))
            case 3:
                del parent[key]
            case 4 if isinstance(parent, dict):
                parent[_one(TEXTS, rng)[:1000]] = parent.pop(key)
            case 5:
                parent[key] = [parent[key]] * int(rng.integers(0, 4))
    return content


def json_bytes(content: Any) -> bytes:
    """A mutated value as a file's bytes; numbers too long for Python's own writer are written all the same."""
    return json.dumps(content, ensure_ascii=True).encode("ascii")


def mutated_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A file whose header states something else of its tensors; its length is right."""
    length = int.from_bytes(data[:8], "little")
    header = json_bytes(mutated_json(json.loads(data[8 : 8 + length]), rng))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def mutated_zip(data: bytes, rng: np.random.Generator) -> bytes:
    """An archive with entries changed, renamed, dropped, doubled, or all of them compressed; checksums are right."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = [[name, archive.read(name)] for name in archive.namelist()]
    method = zipfile.ZIP_STORED
    for _ in range(rng.integers(1, 3)):
        # The pickle that describes the tensors is where damage shows.
        pickles = [number for number, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
        at = pickles[0] if pickles and rng.random() < 0.7 else int(rng.integers(0, len(entries)))
        match int(rng.integers(0, 9)):
            case 0 | 1 | 2 | 3 | 4:
                entries[at][1] = mutated(entries[at][1], len(entries[at][1]), rng)
            case 5:
                entries[at][0] = _one(("../x", "/x", "archive/../x", "archive/data/0", "x" * 60_000, "x"), rng)
            case 6 if len(entries) > 1:
                del entries[at]
            case 7:
                method = _one((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA), rng)
            case 8:
                entries.append([entries[at][0] + _one(("", "0", "/"), rng), entries[at][1] * int(rng.integers(0, 3))])
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return target.getvalue()


def _one(choices: tuple, rng: np.random.Generator) -> Any:
    return choices[int(rng.integers(0, len(choices)))]


def _places(content: Any):
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])
