"""Reading MetaImage files (.mha; .mhd with its data files beside it).

They are read here, not by SimpleITK, which takes a zero spacing for 1 mm and crashes on a header it doesn't expect.
Header: https://itk.org/Wiki/MetaIO/Documentation
"""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np

from ..ct.oddity import Oddity
from ..errors import InputError
from .data_files import data_files
from .packed import MOST_RATIO, Unpacked
from .stored_image import (
    CT,
    StoredImage,
    bytes_left_over,
    check_size,
    check_spacing,
    compact,
    damaged,
    fill,
    lps_to_ras,
    no_orientation,
    no_spacing,
)
from .text_voxels import from_text

KIND, FILE = "MetaImage", "MetaImage file"
MAX_HEADER_BYTES = 2**22
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",  # as the format has it; some write eight bytes
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LONG = {"MET_LONG": "i8", "MET_ULONG": "u8"}
# Newer name first; the format knows several for one thing.
ORIGIN, DIRECTIONS = ("Offset", "Origin", "Position"), ("TransformMatrix", "Rotation", "Orientation")
SPACING = ("ElementSpacing", "ElementSize")
BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
# Direction of an axis that begins at a side of the body, LPS.
TOWARDS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "I": (0, 0, 1), "S": (0, 0, -1)}


def read_metaimage(path: Path, stage: str) -> StoredImage:
    """Read a MetaImage.

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as stream:
        fields, listed = _fields(stream, stage)
        size = _size(fields, stage)
        dims = int(fields["NDims"])
        check_spacing(stage, _numbers(fields, SPACING, [1.0] * 3, 3, stage))
        data_file = fields["ElementDataFile"]
        if data_file.upper() == "LOCAL":
            files, starts = [path], stream.tell()
        else:
            files, starts = data_files(path, data_file, listed, KIND, stage), 0
    dtype = _voxel_type(fields, files, starts, int(np.prod(size, dtype=np.int64)), stage)
    array, left_over = _voxels(files, starts, fields, np.empty(size[::-1], dtype), stage)
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    matrix, warnings = _geometry(fields, dims, stage)
    if left_over:
        warnings.append(bytes_left_over(KIND))
    return StoredImage(compact(array), matrix, KIND, dtype.newbyteorder("=").name, tuple(warnings))


def metaimage_files(path: Path, stage: str) -> list[Path]:
    """The files that hold the voxels of a MetaImage beside its header; none where it holds them itself.

    :raises LesionDecompError: no header, or one of them is not there.
    """
    with open(path, "rb") as stream:
        fields, listed = _fields(stream, stage)
    named = fields["ElementDataFile"]
    return [] if named.upper() == "LOCAL" else data_files(path, named, listed, KIND, stage)


def _fields(stream: io.BufferedReader, stage: str) -> tuple[dict[str, str], list[str]]:
    """The header's fields, and the lines behind ``ElementDataFile = LIST``; the stream then stands at the voxels."""
    fields: dict[str, str] = {}
    while stream.tell() < MAX_HEADER_BYTES and "ElementDataFile" not in fields:
        line = stream.readline(MAX_HEADER_BYTES)
        name, equals, value = line.decode("utf-8", "replace").partition("=")
        if equals and name.strip():
            fields[name.strip()] = value.strip()
        elif not line or line.strip():
            break
    if "ElementDataFile" not in fields or "DimSize" not in fields:
        raise InputError(stage, "a file without a MetaImage header", "a MetaImage (.mha or .mhd)", code="no_header")
    if not fields["ElementDataFile"].upper().startswith("LIST"):
        return fields, []
    return fields, stream.read(MAX_HEADER_BYTES).decode("utf-8", "replace").splitlines()


def _geometry(fields: dict[str, str], dims: int, stage: str) -> tuple[np.ndarray, list[Oddity]]:
    """Index to RAS, ``(4, 4)``, mm, and warnings about what the header leaves open."""
    warnings: list[Oddity] = []
    spacing = _numbers(fields, SPACING, [1.0] * 3, 3, stage)
    if not any(key in fields for key in SPACING):
        warnings.append(no_spacing(KIND))
    matrix = np.eye(4)
    if any(key in fields for key in DIRECTIONS):
        # Each row of the text is the direction of one axis.
        directions = _numbers(fields, DIRECTIONS, [], dims * dims, stage)
        matrix[:3, :3] = np.array(directions).reshape(dims, dims)[:3, :3].T
    else:
        letters = fields.get("AnatomicalOrientation", "").strip().upper()[:3]
        axes = [TOWARDS[letter] for letter in letters if letter in TOWARDS]
        if len(axes) == 3 and abs(np.linalg.det(axes)) == 1:
            matrix[:3, :3] = np.array(axes).T
        else:
            warnings.append(no_orientation(KIND))
    matrix[:3, :3] *= spacing
    matrix[:3, 3] = _numbers(fields, ORIGIN, [0.0] * 3, 3, stage)
    return lps_to_ras(matrix), warnings


def _size(fields: dict[str, str], stage: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"\d{1,2}", fields.get("NDims", "")):
        raise damaged(stage, FILE, "no number of dimensions")
    sizes = [int(text) if re.fullmatch(r"\d{1,10}", text) else 0 for text in fields["DimSize"].split()]
    if len(sizes) != int(fields["NDims"]):
        raise damaged(stage, FILE, f"{fields['NDims']} dimensions of {len(sizes)} sizes")
    channels = fields.get("ElementNumberOfChannels", "1")
    return check_size(stage, tuple(sizes), int(channels) if re.fullmatch(r"\d{1,4}", channels) else 0)


def _voxel_type(fields: dict[str, str], files: list[Path], starts: int, count: int, stage: str) -> np.dtype:
    name = fields.get("ElementType", "")
    if name not in TYPES:
        found = f"voxels of type '{name[:40]}'"
        raise InputError(stage, found, f"{CT} with real numbers", code="voxel_type")
    code = TYPES[name]
    if name in LONG and not _is_true(fields, "CompressedData") and not _is_text(fields):
        held = sum(file.stat().st_size for file in files) - starts
        code = LONG[name] if held >= 8 * count else code
    elif name in LONG and _is_true(fields, "CompressedData"):
        code = LONG[name] if _unpacked_size(files[0], starts, 8 * count) >= 8 * count else code
    return np.dtype((">" if any(_is_true(fields, key) for key in BIG_ENDIAN) else "<") + code)


def _unpacked_size(file: Path, starts: int, most: int) -> int:
    """Bytes in a packed stream, counted up to ``most``; a damaged stream's up to where it is."""
    counted = 0
    with open(file, "rb") as stream:
        stream.seek(starts)
        unpacked = Unpacked(stream, "zlib")
        try:
            while counted < most and (part := unpacked.read(min(most - counted, 1 << 22))):
                counted += len(part)
        except (EOFError, OSError, zlib.error):
            pass
    return counted


def _numbers(
    fields: dict[str, str], keys: tuple[str, ...], default: list[float], count: int, stage: str
) -> list[float]:
    key = next((key for key in keys if key in fields), None)
    if key is None:
        return default
    try:
        # Numbers stand between spaces here, so that a comma can only be a decimal sign.
        values = [float(text.replace(",", ".")) for text in fields[key].split()]
    except ValueError:
        values = []
    if len(values) < count:
        raise damaged(stage, FILE, f"'{key}' without its {count} numbers")
    return values[:count]


def _voxels(
    files: list[Path], starts: int, fields: dict[str, str], array: np.ndarray, stage: str
) -> tuple[np.ndarray, bool]:
    """Fill ``array`` from the files, each its part; whether bytes are left over."""
    packing = "zlib" if _is_true(fields, "CompressedData") else ""
    skipped = fields.get("HeaderSize", "0")
    if not re.fullmatch(r"\d{1,9}", skipped) and (skipped != "-1" or packing):
        raise damaged(stage, FILE, "an impossible header size")
    size = sum(file.stat().st_size for file in files)
    ratio = array.itemsize if _is_text(fields) else MOST_RATIO[packing]
    if size * ratio < array.nbytes or array.size % len(files):  # before memory is touched
        raise damaged(stage, FILE, f"the header promises {array.nbytes} bytes of voxels")
    left_over = False
    for part, file in zip(array.reshape(len(files), -1), files, strict=True):
        with open(file, "rb") as stream:
            if skipped == "-1":
                if stream.seek(0, 2) < part.nbytes:
                    raise damaged(stage, FILE, f"less than {part.nbytes} bytes of voxels")
                stream.seek(-part.nbytes, 2)
            else:
                stream.seek(starts + int(skipped))
            if _is_text(fields):
                from_text(stream, part, stage, FILE)
                continue
            unpacked = Unpacked(stream, packing)
            try:
                fill(part, unpacked, stage, FILE)
                left_over |= unpacked.finish()
            except (EOFError, OSError, zlib.error) as error:
                raise damaged(stage, FILE) from error
    return array, left_over


def _is_true(fields: dict[str, str], key: str) -> bool:
    return fields.get(key, "").upper().startswith("T")


def _is_text(fields: dict[str, str]) -> bool:
    """Whether voxels are written as numbers in text."""
    return fields.get("BinaryData", "True").upper().startswith("F")
