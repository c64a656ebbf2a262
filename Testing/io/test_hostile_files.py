"""Damaged and hostile files: a clear refusal or a volume, never another error, a crash or a great deal of memory."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import series_files
from dicom_phantom import drawn_series, write_slices
from fuzz.mutations import mutated
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.io.dicom.lengths import lengths_fit
from LesionDecompLib.io.readers import read_volume

MUTATIONS = 60  # of each format, with a fixed seed


def read_or_refuse(path: Path) -> None:
    try:
        volume, _ = read_volume(path)
    except LesionDecompError as error:
        assert "\n" not in str(error) and error.found and error.expected
    else:
        assert volume.array.ndim == 3 and np.isfinite(volume.ijk_to_ras).all() and (volume.spacing > 0).all()


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd"])
def test_mutated_files_are_read_or_refused(tmp_path, ending):
    rng = np.random.default_rng(20)
    image = sitk.GetImageFromArray(rng.integers(-1000, 400, (6, 40, 40), np.int16))
    image.SetSpacing((1, 2, 3))
    written = ending.removesuffix(".gz")
    sitk.WriteImage(image, str(tmp_path / f"seed.{written}"), ending == "nrrd")
    seed = (tmp_path / f"seed.{written}").read_bytes()
    for _ in range(MUTATIONS):
        data = mutated(seed, 400, rng)
        (tmp_path / f"ct.{ending}").write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
        read_or_refuse(tmp_path / f"ct.{ending}")


def test_mutated_dicom_series_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(21)
    seeds = {path.name: path.read_bytes() for path in series_files()[30:34]}
    for _ in range(MUTATIONS):
        victim = list(seeds)[int(rng.integers(0, 4))]
        for name, data in seeds.items():
            (tmp_path / name).write_bytes(mutated(data, 1270, rng) if name == victim else data)
        read_or_refuse(tmp_path)


def test_a_length_beyond_the_end_of_a_dicom_file_is_found_without_reading_it(tmp_path):
    source = series_files()[0]
    assert all(lengths_fit(path) for path in series_files())
    data = source.read_bytes()
    at = data.index(b"\x10\0\x10\0")  # patient's name, implicit VR: tag, then four bytes of length
    claim = data[: at + 4] + struct.pack("<I", 0x70000000) + data[at + 8 :]
    for broken in (claim, data[:-100], b"\0" * 128 + b"DICM" + b"\x02\0\x10\0zz" + bytes(40)):
        (tmp_path / "broken.dcm").write_bytes(broken)
        assert not lengths_fit(tmp_path / "broken.dcm")


@pytest.mark.parametrize(("syntax", "order"), [("1.2.840.10008.1.2.1", "<"), ("1.2.840.10008.1.2.2", ">")])
def test_dicom_sequences_and_fragments_are_walked(tmp_path, syntax, order):
    def element(tag: tuple[int, int], kind: bytes, value: bytes, length: int | None = None, to: str = order) -> bytes:
        head = struct.pack(to + "HH", *tag)
        if tag[0] == 0xFFFE:
            return head + struct.pack(to + "I", len(value) if length is None else length) + value
        if kind in (b"OB", b"SQ"):
            return head + kind + bytes(2) + struct.pack(to + "I", len(value) if length is None else length) + value
        return head + kind + struct.pack(to + "H", len(value) if length is None else length) + value

    undefined = 0xFFFFFFFF
    meta = element((2, 0x10), b"UI", syntax.encode() + b"\0" * (len(syntax) % 2), to="<")
    item = element((0xFFFE, 0xE000), b"", element((8, 0x100), b"SH", b"CODE"), undefined)
    item += element((0xFFFE, 0xE00D), b"", b"")
    sequence = element((8, 0x1140), b"SQ", item, undefined) + element((0xFFFE, 0xE0DD), b"", b"")
    fragments = element((0xFFFE, 0xE000), b"", b"") + element((0xFFFE, 0xE000), b"", b"\xfe\xff" * 50)
    pixels = element((0x7FE0, 0x10), b"OB", fragments, undefined) + element((0xFFFE, 0xE0DD), b"", b"")
    whole = bytes(128) + b"DICM" + meta + sequence + element((0x10, 0x20), b"LO", b"ID") + pixels
    (tmp_path / "whole.dcm").write_bytes(whole)
    assert lengths_fit(tmp_path / "whole.dcm")
    (tmp_path / "cut.dcm").write_bytes(whole[:-40])
    assert not lengths_fit(tmp_path / "cut.dcm")


def dicom_meta(syntax: bytes) -> bytes:
    return bytes(128) + b"DICM" + struct.pack("<HH", 2, 0x10) + b"UI" + struct.pack("<H", len(syntax)) + syntax


@pytest.mark.parametrize("kind", ["explicit", "implicit", "unknown", "of given length"])
@pytest.mark.parametrize(("depth", "fits"), [(40, True), (20_000, False)])
def test_sequences_too_deep_for_the_reader_s_stack_are_refused(tmp_path, kind, depth, fits):
    """GDCM calls itself for each of them and ends the process when the stack is full."""
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    tag, long = struct.pack("<HH", 8, 0x1140), struct.pack("<I", 0xFFFFFFFF)
    if kind == "of given length":
        parts, length = [], 0
        for _ in range(depth):
            parts.append(tag + b"SQ\0\0" + struct.pack("<I", length + 8) + item[:4] + struct.pack("<I", length))
            length += len(parts[-1])
        body = b"".join(reversed(parts))
    else:
        start = {"explicit": tag + b"SQ\0\0" + long, "implicit": tag + long, "unknown": tag + b"UN\0\0" + long}[kind]
        inside = tag + long if kind == "unknown" else start  # unknown content is implicit
        body = start + item + (inside + item) * (depth - 1) + end * depth
    syntax = b"1.2.840.10008.1.2\0" if kind == "implicit" else b"1.2.840.10008.1.2.1\0"
    (tmp_path / "deep.dcm").write_bytes(dicom_meta(syntax) + body)
    assert lengths_fit(tmp_path / "deep.dcm") == fits
    if not fits:
        with pytest.raises(LesionDecompError, match=r"found .*; expected "):
            read_volume(tmp_path)


def test_a_deflated_dicom_file_is_unpacked_no_further_than_a_slice_goes(tmp_path):
    def deflated(data: bytes) -> bytes:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        return dicom_meta(b"1.2.840.10008.1.2.1.99") + packer.compress(data) + packer.flush()

    def pixels(claimed: int, held: int) -> bytes:
        return struct.pack("<HH", 0x7FE0, 0x10) + b"OW\0\0" + struct.pack("<I", claimed) + bytes(held)

    for name, data, fits in (
        ("good", pixels(5000, 5000), True),
        ("lie", pixels(0x7FFFFFF0, 5000), False),
        ("bomb", pixels(1 << 27, 1 << 27), False),
    ):
        (tmp_path / name).write_bytes(deflated(data))
        assert lengths_fit(tmp_path / name) == fits, name
    (tmp_path / "broken").write_bytes(deflated(pixels(5000, 5000))[:-9])
    assert not lengths_fit(tmp_path / "broken")


def test_many_frames_in_one_small_file_are_refused_before_memory_is_asked_for(tmp_path):
    for number in range(3):
        data = drawn_series()[number]
        data.NumberOfFrames = 60_000
        write_slices(tmp_path, [data], f"{number}")
    with pytest.raises(LesionDecompError, match="60000 frames"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["/etc/hostname", "C:\\secret.raw", "\\\\server\\secret.raw"])
@pytest.mark.parametrize("ending", ["nhdr", "mhd"])
def test_a_header_reads_no_file_by_its_whole_path(tmp_path, ending, name):
    image = sitk.GetImageFromArray(np.zeros((6, 40, 40), np.int16))
    sitk.WriteImage(image, str(tmp_path / f"ct.{ending}"))
    header = tmp_path / f"ct.{ending}"
    header.write_bytes(header.read_bytes().replace(b"ct.raw", name.encode()))
    with pytest.raises(LesionDecompError, match="names a data file by its whole path"):
        read_volume(header)


def test_a_header_that_claims_more_than_its_data_file_holds_asks_for_no_memory(tmp_path):
    header = "NRRD0004\ntype: double\ndimension: 3\nsizes: 1024 1024 1024\nencoding: raw\nendian: little\n"
    (tmp_path / "ct.nhdr").write_text(header + "data file: ct.raw\n")
    (tmp_path / "ct.raw").write_bytes(bytes(4096))
    with pytest.raises(LesionDecompError, match="promises 8589934592 bytes"):
        read_volume(tmp_path / "ct.nhdr")


@pytest.mark.parametrize("line", ["x" * 100_000, "content: " + "x" * 100_000, "sizes: 4" + "\x85" * 50_000 + ":=1"])
def test_a_very_long_line_in_a_nrrd_header_is_no_trouble(tmp_path, line):
    """ITK's reader crashes when what it can't read is longer than the room for its message."""
    header = f"NRRD0004\ntype: short\n{line}\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n\n"
    (tmp_path / "ct.nrrd").write_bytes(header.encode() + bytes(128))
    assert read_volume(tmp_path / "ct.nrrd")[0].shape == (4, 4, 4)


def test_long_values_of_the_writer_s_own_are_no_reason_to_refuse_a_nrrd(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((6, 40, 40), np.int16))
    image.SetMetaData("DICOM.instanceUIDs", "1.2.3 " * 20_000)
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    assert read_volume(tmp_path / "ct.nrrd")[0].shape == (6, 40, 40)
