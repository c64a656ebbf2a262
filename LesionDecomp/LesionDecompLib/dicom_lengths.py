"""Whether the lengths that a DICOM file's elements claim fit the file.

GDCM sets aside as much memory as an element's length asks for, up to 4 GB, before it looks whether the file is that
long. Walking from element to element first, without reading their values, keeps a damaged or hostile file from that.
Encoding: DICOM PS3.5, section 7.1, and PS3.10, section 7.1.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

UNDEFINED = 0xFFFFFFFF
LONG_FORM = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
SHORT_FORM = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
DELIMITED = 0xFFFE  # group of items and delimiters, which have no value representation
SEQUENCE_END = (0xFFFE, 0xE0DD)
PIXEL_DATA = (0x7FE0, 0x0010)
TRANSFER_SYNTAX = (0x0002, 0x0010)
STANDARD_SYNTAX = "1.2.840.10008.1.2"
IMPLICIT, BIG_ENDIAN, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"


def lengths_fit(path: Path) -> bool:
    """Walk over the elements of a DICOM file; False where one claims to reach beyond the file's end.

    False also where the file meta information, which says how to read the rest, can't be. A deflated file can't be
    walked and passes.
    """
    with open(path, "rb") as stream:
        try:
            data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return False
        with data:
            return _walk(data)


def _walk(data: mmap.mmap) -> bool:
    at = 132 if data[128:132] == b"DICM" else 0
    syntax, order, explicit = "", "<", True
    in_meta = data[at : at + 2] == b"\x02\0"
    if not in_meta:
        explicit = _is_explicit(data, at)
    in_fragments = False
    while at + 8 <= len(data):
        if in_meta and data[at : at + 2] != b"\x02\0":
            in_meta = False
            if syntax == DEFLATED:
                return True
            if not syntax.startswith(STANDARD_SYNTAX):
                return False
            order = ">" if syntax == BIG_ENDIAN else "<"
            explicit = syntax != IMPLICIT
        if in_meta and data[at + 4 : at + 6] not in SHORT_FORM | LONG_FORM:
            return False
        tag, at, length, is_opaque = _element(data, at, order, explicit)
        if length == UNDEFINED:
            if is_opaque:  # a private sequence of unknown content: beyond it, nothing can be told
                return True
            in_fragments = tag == PIXEL_DATA
            continue
        if tag[0] == DELIMITED and not in_fragments:
            continue  # items are walked into
        if tag == SEQUENCE_END:
            in_fragments = False
        if length > len(data) - at:
            return False
        if in_meta and tag == TRANSFER_SYNTAX:
            syntax = data[at : at + length].decode("ascii", "replace").strip("\0 ")
        at += length
    return True


def _element(data: mmap.mmap, at: int, order: str, explicit: bool) -> tuple[tuple[int, int], int, int, bool]:
    # Tag, where the value begins, its length, and whether its inside is encoded in another way.
    tag = struct.unpack_from(order + "HH", data, at)
    if tag[0] == DELIMITED or not explicit:
        return tag, at + 8, struct.unpack_from(order + "I", data, at + 4)[0], False
    kind = data[at + 4 : at + 6]
    if kind in LONG_FORM:
        if at + 12 > len(data):
            return tag, at + 8, UNDEFINED - 1, False
        return tag, at + 12, struct.unpack_from(order + "I", data, at + 8)[0], kind == b"UN"
    return tag, at + 8, struct.unpack_from(order + "H", data, at + 6)[0], False


def _is_explicit(data: mmap.mmap, at: int) -> bool:
    return data[at + 4 : at + 6].isalpha() and data[at + 4 : at + 6].isupper()
