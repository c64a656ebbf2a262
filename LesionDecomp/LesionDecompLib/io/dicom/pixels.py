"""Stored pixel values of DICOM images, turned into HU.

Pixels that are stored as they are, are read from where the header's reader found them. GDCM unpacks compressed ones,
from a copy of the file whose header holds nothing but how: what else a header states, right or wrong, has no part in
it. That goes for the photometric interpretation, too, which concerns how values are shown (MONOCHROME1: low ones
bright) and not what they mean.
"""

from __future__ import annotations

import struct
import tempfile
import warnings
from pathlib import Path

import numpy as np

from ...errors import InputError, LesionDecompError
from ..stored_image import MAX_DEFLATE_RATIO, captured_stderr, damaged
from .header import BIG_ENDIAN, DicomSlice
from .lengths import DEFLATED

FILL_HU = -1024.0  # of pixels that were not measured
FILLED_ABOVE_HU = -1000.0  # padding below that is as good as air, and stays
BITS = (8, 16, 32)
EXPLICIT = "1.2.840.10008.1.2.1"
# What GDCM unpacks: JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000, RLE.
UNPACKED = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70",
            "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91",
            "1.2.840.10008.1.2.5")  # fmt: skip
NAMES = {
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
    "1.2.840.10008.1.2.4.110": "JPEG XL",
    "1.2.840.10008.1.2.4.111": "JPEG XL",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.4.94": "JPIP, pixels on a server",
    "1.2.840.10008.1.2.4.95": "JPIP, pixels on a server",
}


def check_syntax(syntax: str, stage: str, name: str) -> None:
    """Refuse a transfer syntax that cannot be read, by its name.

    :param syntax: its UID; empty where the file states none.
    :param name: of the file.
    :raises LesionDecompError: it is private, or one that nothing here unpacks.
    """
    standard = syntax.startswith("1.2.840.10008.1.2")
    if syntax == "" or syntax in UNPACKED or (standard and not syntax.startswith("1.2.840.10008.1.2.")):
        return
    if syntax in (BIG_ENDIAN, DEFLATED, EXPLICIT):
        return
    kind = NAMES.get(syntax, "") if standard else "private"
    found = f"the{f' {kind}' if kind == 'private' else ''} transfer syntax {syntax[:64]}"
    found += f" ({kind})" if kind and kind != "private" else ""
    raise InputError(
        stage,
        f"{found} in '{name}', which is not supported",
        "uncompressed, deflated, JPEG, JPEG-LS, JPEG 2000 or RLE pixels",
        "Export the series uncompressed (Explicit VR Little Endian).",
        code="transfer_syntax",
    )


class PixelReader:
    """Reads the stored values of slices; of a compressed file with many frames, all are unpacked once.

    :param stage: the step that errors name.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._unpacked: tuple[Path, np.ndarray] | None = None

    def stored(self, item: DicomSlice) -> np.ndarray:
        """Stored values ``(rows, columns)`` as the file has them: of the whole word, signed as the header states.

        :raises LesionDecompError: damaged or truncated pixels, or a transfer syntax that cannot be read.
        """
        columns, rows = item.size[:2]
        if item.is_uncompressed and item.number("bits") in BITS:
            return self._as_stored(item, rows, columns)
        if self._unpacked is None or self._unpacked[0] != item.path:
            self._unpacked = None
            self._unpacked = item.path, self._unpack(item)
        frames = self._unpacked[1]
        if frames.size % (rows * columns) or (item.frame + 1) * rows * columns > frames.size:
            raise self._damaged(item)
        return frames.reshape(-1, rows, columns)[item.frame]

    def _as_stored(self, item: DicomSlice, rows: int, columns: int) -> np.ndarray:
        begin, length = item.pixels
        kind = np.dtype(f"{'i' if item.number('signed') else 'u'}{int(item.number('bits')) // 8}")
        kind = kind.newbyteorder(">" if item.tags["syntax"] == BIG_ENDIAN else "<")
        count = rows * columns
        if begin <= 0 or count < 1 or (item.frame + 1) * count * kind.itemsize > length:
            raise self._damaged(item)
        with open(item.path, "rb") as stream:
            values = np.fromfile(stream, kind, count, offset=begin + item.frame * count * kind.itemsize)
        if values.size != count:
            raise self._damaged(item)
        return values.astype(kind.newbyteorder("="), copy=False).reshape(rows, columns)

    def _unpack(self, item: DicomSlice) -> np.ndarray:
        import SimpleITK as sitk  # noqa: N813  (slow to import)

        syntax = item.tags["syntax"]
        check_syntax(syntax, self._stage, item.path.name)
        columns, rows = item.size[:2]
        if item.path.stat().st_size * MAX_DEFLATE_RATIO < rows * columns * (item.frame + 1):  # before memory is asked
            raise self._damaged(item)
        if syntax == DEFLATED:
            return self._inflated(item)
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        try:
            with tempfile.TemporaryDirectory(prefix="lesiondecomp-") as folder:
                plain = Path(folder) / "pixels.dcm"
                plain.write_bytes(_plain_header(item) + _from(item.path, item.pixels[0]))
                reader.SetFileName(str(plain))
                with captured_stderr():
                    image = reader.Execute()
        except (RuntimeError, struct.error) as error:  # of a number that no header can hold, too
            raise self._damaged(item) from error
        return sitk.GetArrayFromImage(image)

    def _inflated(self, item: DicomSlice) -> np.ndarray:
        import pydicom  # slow to import

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = pydicom.dcmread(item.path, force=True)["PixelData"].value
            kind = np.dtype(f"<{'i' if item.number('signed') else 'u'}{int(item.number('bits')) // 8}")
            return np.frombuffer(data[: len(data) // kind.itemsize * kind.itemsize], kind)
        except Exception as error:  # pydicom raises a dozen kinds here
            raise self._damaged(item) from error

    def _damaged(self, item: DicomSlice) -> LesionDecompError:
        return damaged(self._stage, f"DICOM file '{item.path.name}'")


def padding_of(item: DicomSlice, stored: np.ndarray) -> np.ndarray | None:
    """``(rows, columns)`` bool: pixels that were not measured, by the header; None where it states none.

    Padding is compared as the word it is stored as: many headers state it as a number of the other sign. Where words
    have bits to spare, their sign may or may not be extended into these, in the header as in the pixels.

    :param stored: as :meth:`PixelReader.stored` gives it.
    """
    values = item.numbers("padding")
    if not values or stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2:
        return None
    limits = item.numbers("padding_limit") or values
    width, spare = 8 * stored.dtype.itemsize, _spare_bits(item, stored.dtype)
    low, high = sorted(_signed_as(value[0], stored.dtype, width) for value in (values, limits))
    if spare and stored.dtype.kind == "i" and -1 << (width - spare - 1) <= low <= high < 1 << (width - spare):
        first, last = (_signed_as(value, stored.dtype, width - spare) for value in (low, high))
        if last - first == high - low:  # no range from positive to negative numbers
            stored, low, high = _sign_extended(stored, spare), first, last
    return (stored >= low) & (stored <= high)


def hu_of(item: DicomSlice, stored: np.ndarray, unmeasured: np.ndarray | None = None) -> np.ndarray:
    """Stored values as HU: integers where rescaling leaves them such, else float64.

    :param unmeasured: pixels that are to become air.
    """
    values = _within_bits(item, stored, unmeasured)
    slope, intercept = rescaling(item)
    hu: np.ndarray
    if slope == 1 and intercept == round(intercept):
        hu = values if intercept == 0 else values.astype(np.int32 if values.dtype.itemsize < 4 else np.int64)
        hu = hu + int(intercept) if intercept else hu
    else:
        hu = values * slope + intercept
    if unmeasured is not None and unmeasured.any():
        whole: np.ndarray = hu.astype(np.int64) if hu.dtype.kind in "iu" else hu
        return np.where(unmeasured & (whole > FILLED_ABOVE_HU), whole.dtype.type(FILL_HU), whole)
    return hu


def rescaling(item: DicomSlice) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header states none, or none that can be."""
    slope = item.number("slope", 1.0)
    return slope if slope != 0 else 1.0, item.number("intercept")


def _within_bits(item: DicomSlice, stored: np.ndarray, unmeasured: np.ndarray | None) -> np.ndarray:
    """Values of the bits stored: what lies above them are overlays of older scanners, or a sign to be extended."""
    spare = _spare_bits(item, stored.dtype)
    if not spare:
        return stored
    bits = 8 * stored.dtype.itemsize - spare
    lowest, highest = (0, 1 << bits) if stored.dtype.kind == "u" else (-1 << (bits - 1), 1 << (bits - 1))
    if int(stored.min()) >= lowest and int(stored.max()) < highest:
        return stored
    values = stored & stored.dtype.type((1 << bits) - 1) if stored.dtype.kind == "u" else _sign_extended(stored, spare)
    return values if unmeasured is None else np.where(unmeasured, stored, values)


def _spare_bits(item: DicomSlice, kind: np.dtype) -> int:
    """How many bits of the pixels' words are not stored, by the header; 0 where it states nothing that can be."""
    width, bits = 8 * kind.itemsize, int(item.number("bits_stored"))
    return width - bits if kind.kind in "iu" and 0 < bits < width else 0


def _sign_extended(stored: np.ndarray, spare: int) -> np.ndarray:
    """The lower bits of signed words, with the highest of them as their sign."""
    extended: np.ndarray = (stored << spare) >> spare
    return extended


def _signed_as(value: float, kind: np.dtype, bits: int) -> int:
    """A value read as the number that the pixels' type makes of the lower bits of its word."""
    word = int(value) & ((1 << bits) - 1)
    return word - (1 << bits) if kind.kind == "i" and word >= 1 << (bits - 1) else word


def _from(path: Path, begin: int) -> bytes:
    """The rest of a file from its pixels on."""
    with open(path, "rb") as stream:
        stream.seek(begin)
        return stream.read()


def _plain_header(item: DicomSlice) -> bytes:
    """A DICOM header, up to the pixels, with nothing but how they are packed."""
    ct, uid = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    columns, rows = item.size[:2]
    bits = int(item.number("bits"))
    syntax = EXPLICIT if item.is_uncompressed else item.tags["syntax"]  # uncompressed ones have the same bytes
    stored = int(item.number("bits_stored", bits))
    frames = b"" if item.frames == 1 else _short(0x0028, 0x0008, b"IS", _padded(str(item.frames), b" "))
    words = (
        (0x0100, bits),
        (0x0101, stored if 0 < stored <= bits else bits),
        (0x0102, (stored if 0 < stored <= bits else bits) - 1),
        (0x0103, int(item.number("signed"))),
    )
    meta = b"".join(
        (
            _short(0x0002, 0x0002, b"UI", _padded(ct, b"\0")),
            _short(0x0002, 0x0003, b"UI", _padded(uid, b"\0")),
            _short(0x0002, 0x0010, b"UI", _padded(syntax, b"\0")),
        )
    )
    body = b"".join(
        (
            _short(0x0008, 0x0016, b"UI", _padded(ct, b"\0")),
            _short(0x0008, 0x0018, b"UI", _padded(uid, b"\0")),
            _short(0x0008, 0x0060, b"CS", b"CT"),
            _short(0x0028, 0x0002, b"US", struct.pack("<H", 1)),
            _short(0x0028, 0x0004, b"CS", b"MONOCHROME2 "),
            frames,
            _short(0x0028, 0x0010, b"US", struct.pack("<H", rows)),
            _short(0x0028, 0x0011, b"US", struct.pack("<H", columns)),
            *(_short(0x0028, element, b"US", struct.pack("<H", value)) for element, value in words),
        )
    )
    length = _short(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
    size = item.pixels[1] if item.pixels[1] >= 0 else 0xFFFFFFFF
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB" if bits <= 8 or size == 0xFFFFFFFF else b"OW", 0, size)
    return bytes(128) + b"DICM" + length + meta + body + pixels


def _short(group: int, element: int, kind: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, kind, len(value)) + value


def _padded(text: str, with_: bytes) -> bytes:
    data = text.encode("ascii", "replace")[:64]
    return data + with_ * (len(data) % 2)
