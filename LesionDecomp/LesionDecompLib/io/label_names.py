"""What the labels of a labelmap are called: written in its file, or in a color table or list of labels beside it.

Known are segmentations of 3D Slicer (.seg.nrrd), NIfTI files with a label table in their header (as TotalSegmentator
writes), and beside a labelmap the color tables of 3D Slicer (.ctbl, .csv), label descriptions of ITK-SNAP (.txt,
.label), tables (.csv, .tsv, as of BIDS) and JSON ("labels", as of nnU-Net).
"""

from __future__ import annotations

import bz2
import csv
import gzip
import html
import io
import json
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path

MOST_BYTES = 2**20  # of a table of names; a longer one is something else
MOST_EXTENSION_BYTES = 2**22
BESIDE = ("", "_ColorTable", "_colors", "_labels", "_label", "_dseg")
TABLES = (".ctbl", ".txt", ".label", ".csv", ".tsv", ".json")
VALUE_COLUMNS = ("labelvalue", "label value", "index", "value", "label", "id", "label_id")
NAME_COLUMNS = ("name", "structure", "label name", "labelname", "label_name", "segment", "description")
Names = dict[int, str]


def names_beside(path: Path, stem: str) -> Names:
    """Names from a color table or list of labels beside a labelmap, called as it is; none where there is no such file.

    :param path: the labelmap.
    :param stem: its file's name without the format's ending.
    """
    for ending in TABLES:
        for suffix in BESIDE:
            table = path.with_name(f"{stem}{suffix}{ending}")
            with suppress(OSError, ValueError):
                if table != path and table.is_file() and table.stat().st_size <= MOST_BYTES:
                    found = names_of_table(table.read_bytes().decode("utf-8-sig", "replace"), ending)
                    if found:
                        return found
    return {}


def names_of_table(text: str, ending: str) -> Names:
    """Names from the text of a color table or list of labels; none where it is something else.

    :param ending: of the file, which shows how it is written.

    >>> names_of_table("# Color table\\n0 Background 0 0 0 0\\n1 right_lung 90 160 220 255\\n", ".ctbl")
    {0: 'Background', 1: 'right_lung'}
    """
    if ending == ".json":
        return _of_json(text)
    if ending in (".csv", ".tsv"):
        return _of_rows(list(csv.reader(io.StringIO(text), delimiter="\t" if ending == ".tsv" else ",")))
    names: Names = {}
    for line in text.splitlines():
        snap = re.fullmatch(r'\s*(\d{1,9})(?:\s+[\d.]+){4,6}\s+"([^"]*)"\s*', line)
        slicer = re.fullmatch(r"\s*(\d{1,9})\s+(\S.*?)(?:\s+[\d.]+){3,4}\s*", line)
        plain = re.fullmatch(r"\s*(\d{1,9})\s*[:=,\t ]\s*([^\d\W].*?)\s*", line)
        if match := snap or slicer or plain:
            names[int(match[1])] = match[2].strip().strip('"')
    return names


def names_in_nrrd(own: dict[str, str]) -> Names:
    """Names of the segments of a .seg.nrrd, by label; of several layers' equal labels the first.

    :param own: key and value pairs of the header, see :class:`.nrrd_header.NrrdHeader`.
    """
    names: Names = {}
    for segment in segments_in_nrrd(own):
        names.setdefault(segment[0], segment[2])
    return names


def segments_in_nrrd(own: dict[str, str]) -> list[tuple[int, int, str]]:
    """Label, layer and name of each segment of a .seg.nrrd, in order; files of old have a layer for each segment."""
    segments = []
    numbers = sorted(int(m[1]) for m in (re.fullmatch(r"Segment(\d{1,5})_Name", key) for key in own) if m)
    for number in numbers:
        label, layer = (own.get(f"Segment{number}_{key}", "") for key in ("LabelValue", "Layer"))
        value = int(label) if re.fullmatch(r"\d{1,9}", label) else 1
        place = int(layer) if re.fullmatch(r"\d{1,5}", layer) else number
        segments.append((value, place, own[f"Segment{number}_Name"]))
    return segments


def names_in_nifti(path: Path) -> Names:
    """Names from the label table in a NIfTI file's header extension; none where there is no such table."""
    with suppress(OSError, EOFError, zlib.error, struct.error, ValueError), open(path, "rb") as file:
        first = file.read(3)
        file.seek(0)
        stream: io.BufferedIOBase = file
        if first[:2] == b"\x1f\x8b":
            stream = gzip.GzipFile(fileobj=file)
        elif first == b"BZh":
            stream = bz2.BZ2File(file)
        head = stream.read(544)
        order = "<" if struct.unpack("<i", head[:4])[0] in (348, 540) else ">"
        if struct.unpack(order + "i", head[:4])[0] == 540:
            head_bytes, offset = 540, struct.unpack(order + "q", head[168:176])[0]
        else:
            head_bytes, offset = 348, int(struct.unpack(order + "f", head[108:112])[0])
        rest = head[head_bytes:] + stream.read(max(0, min(offset - len(head), MOST_EXTENSION_BYTES)))
        if rest[:1] != b"\x00":  # the first byte states whether there are extensions
            text = rest.decode("utf-8", "replace")
            pairs = re.findall(
                r'<Label\s[^>]*?Key="(\d{1,9})"[^>]*>\s*(?:<!\[CDATA\[(.*?)\]\]>|([^<]*))\s*</Label>', text, re.DOTALL
            )
            return {int(key): data or html.unescape(plain).strip() for key, data, plain in pairs}
    return {}


def _of_json(text: str) -> Names:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    inner = record.get("labels", record.get("label_names")) if isinstance(record, dict) else None
    pairs = inner.items() if isinstance(inner, dict) else record.items() if isinstance(record, dict) else ()
    names = {int(key): value for key, value in pairs if re.fullmatch(r"\d{1,9}", key) and isinstance(value, str)}
    # The other way round only where these are known to be labels: any number may stand beside a name.
    named = inner.items() if isinstance(inner, dict) else ()
    return names | {value: key for key, value in named if type(value) is int and value >= 0}


def _of_rows(rows: list[list[str]]) -> Names:
    rows = [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return {}
    head = [cell.lower() for cell in rows[0]]
    value = next((head.index(name) for name in VALUE_COLUMNS if name in head), None)
    name = next((head.index(name) for name in NAME_COLUMNS if name in head), None)
    if value is None or name is None:
        value, name = 0, 1
    return {
        int(row[value]): row[name]
        for row in rows
        if len(row) > max(value, name) and re.fullmatch(r"\d{1,9}", row[value]) and row[name]
    }
