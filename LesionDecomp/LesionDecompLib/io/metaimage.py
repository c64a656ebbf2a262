"""Reading MetaImage files (.mha; .mhd with its data file beside it).

They are read here, not by SimpleITK, which takes a zero spacing for 1 mm and crashes on a header it doesn't expect.
Header: https://itk.org/Wiki/MetaIO/Documentation
"""

from __future__ import annotations

import io
import re
import zlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from .stored_image import (
    CT,
    MAX_DEFLATE_RATIO,
    StoredImage,
    check_data_file,
    check_size,
    check_spacing,
    compact,
    damaged,
    fill,
    lps_to_ras,
)

KIND = "MetaImage"
MAX_HEADER_BYTES = 2**16
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
# Newer name first; the format knows several for one thing.
ORIGIN, DIRECTIONS = ("Offset", "Origin", "Position"), ("TransformMatrix", "Rotation", "Orientation")
BIG_ENDIAN = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def read_metaimage(path: Path, stage: str) -> StoredImage:
    """Read a MetaImage.

    :raises LesionDecompError: damaged, truncated, not 3-D, several components, an impossible spacing.
    """
    with open(path, "rb") as stream:
        fields = _fields(stream, stage)
        size = _size(fields, stage)
        spacing = _numbers(fields, ("ElementSpacing", "ElementSize"), [1.0] * 3, 3, stage)
        check_spacing(stage, spacing)
        dtype = _voxel_type(fields, stage)
        data_file = fields["ElementDataFile"]
        if data_file.upper() == "LOCAL":
            array = _voxels(stream, path, fields, np.empty(size[::-1], dtype), stage)
        else:
            target = check_data_file(path, data_file, KIND, stage)
            with open(target, "rb") as voxels:
                array = _voxels(voxels, target, fields, np.empty(size[::-1], dtype), stage)
    if not dtype.isnative:
        array = array.astype(dtype.newbyteorder("="))
    matrix = np.eye(4)
    # Each row of the text is the direction of one axis.
    dims = int(fields["NDims"])
    directions = _numbers(fields, DIRECTIONS, np.eye(dims).ravel().tolist(), dims * dims, stage)
    matrix[:3, :3] = np.array(directions).reshape(dims, dims)[:3, :3].T * spacing
    matrix[:3, 3] = _numbers(fields, ORIGIN, [0.0] * 3, 3, stage)
    return StoredImage(compact(array), lps_to_ras(matrix), KIND, dtype.newbyteorder("=").name)


def _fields(stream: io.BufferedReader, stage: str) -> dict[str, str]:
    # ElementDataFile ends the header; what follows are the voxels.
    fields: dict[str, str] = {}
    while stream.tell() < MAX_HEADER_BYTES and "ElementDataFile" not in fields:
        line = stream.readline(MAX_HEADER_BYTES)
        match = re.fullmatch(r"\s*([^=]+?)\s*=\s*(.*?)\s*", line.decode("utf-8", "replace"))
        if match:
            fields[match[1]] = match[2]
        elif not line or line.strip():
            break
    if "ElementDataFile" not in fields or "DimSize" not in fields:
        raise InputError(stage, "a file without a MetaImage header", "a MetaImage (.mha or .mhd)")
    return fields


def _size(fields: dict[str, str], stage: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"\d{1,2}", fields.get("NDims", "")):
        raise damaged(stage, f"{KIND} file", "no number of dimensions")
    sizes = [int(text) if re.fullmatch(r"\d{1,10}", text) else 0 for text in fields["DimSize"].split()]
    if len(sizes) != int(fields["NDims"]):
        raise damaged(stage, f"{KIND} file", f"{fields['NDims']} dimensions of {len(sizes)} sizes")
    channels = fields.get("ElementNumberOfChannels", "1")
    return check_size(stage, tuple(sizes), int(channels) if re.fullmatch(r"\d{1,4}", channels) else 0)


def _voxel_type(fields: dict[str, str], stage: str) -> np.dtype:
    name = fields.get("ElementType", "")
    if name not in TYPES:
        raise InputError(stage, f"voxels of type '{name[:40]}'", f"{CT} with real numbers")
    if fields.get("BinaryData", "True").upper().startswith("F"):
        raise InputError(stage, "a MetaImage with its voxels as text", "binary voxels", "Save it as NRRD.")
    big = any(fields.get(key, "").upper().startswith("T") for key in BIG_ENDIAN)
    return np.dtype((">" if big else "<") + TYPES[name])


def _numbers(
    fields: dict[str, str], keys: tuple[str, ...], default: list[float], count: int, stage: str
) -> list[float]:
    key = next((key for key in keys if key in fields), None)
    if key is None:
        return default
    try:
        values = [float(text) for text in fields[key].split()]
    except ValueError:
        values = []
    if len(values) < count:
        raise damaged(stage, f"{KIND} file", f"'{key}' without its {count} numbers")
    return values[:count]


def _voxels(stream: io.BufferedReader, path: Path, fields: dict[str, str], array: np.ndarray, stage: str) -> np.ndarray:
    compressed = fields.get("CompressedData", "False").upper().startswith("T")
    if path.stat().st_size * (MAX_DEFLATE_RATIO if compressed else 1) < array.nbytes:  # before memory is touched
        raise damaged(stage, f"{KIND} file", f"the header promises {array.nbytes} bytes of voxels")
    skipped = fields.get("HeaderSize", "0")
    if skipped == "-1" and not compressed:
        stream.seek(-array.nbytes, 2)
    elif re.fullmatch(r"\d{1,9}", skipped):
        stream.seek(int(skipped), 1)
    else:
        raise damaged(stage, f"{KIND} file", "an impossible header size")
    fill(array, _inflated(stream, array.nbytes, stage) if compressed else stream, stage, f"{KIND} file")
    return array


def _inflated(stream: io.BufferedReader, count: int, stage: str) -> io.BytesIO:
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(stream.read(), count)
        if not inflate.eof:
            inflate.decompress(inflate.unconsumed_tail, 1)  # the checksum behind the last byte
    except zlib.error as error:
        raise damaged(stage, f"{KIND} file") from error
    return io.BytesIO(data)
