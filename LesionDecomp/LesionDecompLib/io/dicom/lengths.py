"""Whether the lengths that a DICOM file's elements claim fit the file, and its sequences don't lie too deep.

GDCM sets aside as much memory as an element's length asks for, up to 4 GB, before it looks whether the file is that
long; and it calls itself for a sequence within a sequence, until the process ends. Walking from element to element
first, without reading their values, keeps a damaged or hostile file from both. pydicom, which reads the headers, does
not look whether lengths fit either, calls itself for sequences, and unpacks deflated files without a limit; and only
GDCM unpacks all kinds of compressed pixels. So this walk stays.
Encoding: DICOM PS3.5, section 7.1, and PS3.10, section 7.1.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNDEFINED = 0xFFFFFFFF
MAX_DEPTH = 64  # of sequences within each other; reports go to about ten
MAX_INFLATED_BYTES = 1 << 26  # of a deflated file; a slice of CT has a few MiB at most
LONG_FORM = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_FORM = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
DELIMITED = 0xFFFE  # group of items and delimiters, which have no value representation
SEQUENCE_END = (0xFFFE, 0xE0DD)
PIXEL_DATA = (0x7FE0, 0x0010)
TRANSFER_SYNTAX = (0x0002, 0x0010)
MEDIA_STORAGE_CLASS, OBJECT_CLASS = (0x0002, 0x0002), (0x0008, 0x0016)
META_BYTES = 1 << 16  # that the file meta information may take
BIG_ENDIAN_GROUPS = (b"\0\x02", b"\0\x08")  # that a file without file meta information begins with
STANDARD_SYNTAX = "1.2.840.10008.1.2"
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def lengths_fit(path: Path) -> bool:
    """Walk over the elements of a DICOM file; False where one claims to reach beyond the file's end.

    False also where sequences lie deeper in each other than ``MAX_DEPTH``, where the file meta information, which sets
    how to read the rest, can't be read, and where a deflated file unpacks to more than ``MAX_INFLATED_BYTES``.
    """
    with open(path, "rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with data:
            return _fits(data)


@contextmanager
def mapped(path: Path) -> Iterator[mmap.mmap]:
    """Give a file for reading that sets aside no more memory than it has bytes left, whatever length is asked for."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def transfer_syntax(path: Path) -> str:
    """The transfer syntax that the file meta information states; empty where there is none to be read."""
    return _meta(_head(path))[0].get(TRANSFER_SYNTAX, "")


def object_class(path: Path) -> str:
    """The class (UID) of the object in a file: by its file meta information, else by the object itself.

    Classes of other objects that it refers to don't count. Empty where there is none to be read.
    """
    data = _head(path)
    meta, at = _meta(data)
    syntax = meta.get(TRANSFER_SYNTAX, "")
    if meta.get(MEDIA_STORAGE_CLASS) or syntax == DEFLATED:
        return meta.get(MEDIA_STORAGE_CLASS, "")
    order = ">" if syntax == BIG_ENDIAN or data[at : at + 2] in BIG_ENDIAN_GROUPS else "<"
    explicit = _is_explicit(data, at)
    while at + 8 <= len(data):
        tag, at, length, _ = _element(data, at, order, explicit)
        if tag == OBJECT_CLASS:
            return _text(data[at : at + length])
        if tag > OBJECT_CLASS or length == UNDEFINED:
            break
        at += length
    return ""


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(META_BYTES)


def _meta(data: bytes) -> tuple[dict[tuple[int, int], str], int]:
    """The file meta information by its tags, as text, and where it ends."""
    found: dict[tuple[int, int], str] = {}
    at = 132 if data[128:132] == b"DICM" else 0
    while data[at : at + 2] == b"\x02\0" and at + 12 <= len(data):
        tag, at, length, _ = _element(data, at, "<", True)
        found[tag] = _text(data[at : at + length])
        at += length
    return found, at


def _text(value: bytes) -> str:
    return value.decode("ascii", "replace").strip("\0 ")


def _fits(data: mmap.mmap) -> bool:
    at = 132 if data[128:132] == b"DICM" else 0
    if data[at : at + 2] != b"\x02\0":
        order = ">" if data[at : at + 2] in BIG_ENDIAN_GROUPS else "<"
        return _walk(data, at, order, _is_explicit(data, at))
    syntax = ""
    while at + 8 <= len(data) and data[at : at + 2] == b"\x02\0":
        if data[at + 4 : at + 6] not in SHORT_FORM | LONG_FORM:
            return False
        tag, at, length, _ = _element(data, at, "<", True)
        if length > len(data) - at:
            return False
        if tag == TRANSFER_SYNTAX:
            syntax = _text(data[at : at + length])
        at += length
    if at + 8 > len(data):
        return True
    if not syntax.startswith(STANDARD_SYNTAX):
        return False
    if syntax != DEFLATED:
        return _walk(data, at, ">" if syntax == BIG_ENDIAN else "<", syntax != IMPLICIT)
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflate.decompress(data[at:], MAX_INFLATED_BYTES)
    except zlib.error:
        return False
    return inflate.eof and _walk(inflated, 0, "<", True)


def _walk(data: mmap.mmap | bytes, at: int, order: str, explicit: bool) -> bool:
    # For each open sequence: where it ends (None: at its delimiter), and how what follows it is encoded.
    open_sequences: list[tuple[int | None, bool]] = []
    in_fragments = False
    while at + 8 <= len(data):
        while open_sequences and open_sequences[-1][0] is not None and at >= open_sequences[-1][0]:
            explicit = open_sequences.pop()[1]
        tag, at, length, kind = _element(data, at, order, explicit)
        if length == UNDEFINED:
            if tag[0] == DELIMITED:  # an item, which is walked into
                continue
            in_fragments = tag == PIXEL_DATA
            if not in_fragments:
                open_sequences.append((None, explicit))
                explicit = explicit and kind != b"UN"  # unknown content is encoded without value representations
            if len(open_sequences) > MAX_DEPTH:
                return False
            continue
        if tag[0] == DELIMITED and not in_fragments:
            if tag == SEQUENCE_END and open_sequences and open_sequences[-1][0] is None:
                explicit = open_sequences.pop()[1]
            continue
        if tag == SEQUENCE_END:
            in_fragments = False
        if length > len(data) - at:
            return False
        if kind == b"SQ":
            open_sequences.append((at + length, explicit))
            if len(open_sequences) > MAX_DEPTH:
                return False
            continue
        at += length
    return True


def _element(data: mmap.mmap | bytes, at: int, order: str, explicit: bool) -> tuple[tuple[int, int], int, int, bytes]:
    # Tag, where the value begins, its length, and its value representation, empty where the file gives none.
    tag = struct.unpack_from(order + "HH", data, at)
    if tag[0] == DELIMITED or not explicit:
        return tag, at + 8, struct.unpack_from(order + "I", data, at + 4)[0], b""
    kind = data[at + 4 : at + 6]
    if kind in LONG_FORM:
        if at + 12 > len(data):
            return tag, at + 8, UNDEFINED - 1, kind
        return tag, at + 12, struct.unpack_from(order + "I", data, at + 8)[0], kind
    return tag, at + 8, struct.unpack_from(order + "H", data, at + 6)[0], kind


def _is_explicit(data: mmap.mmap | bytes, at: int) -> bool:
    return data[at + 4 : at + 6].isalpha() and data[at + 4 : at + 6].isupper()
