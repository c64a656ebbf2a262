"""Damaged and hostile files: a clear refusal or a volume, never another error, a crash or a great deal of memory."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from dicom_files import series_files
from LesionDecompLib.dicom_lengths import lengths_fit
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.image_io import read_volume

MUTATIONS = 60  # of each format, with a fixed seed
WORDS = (b"\xff\xff\xff\x7f", bytes(4), b"nan ", b"-1  ", b"1e99", b"\0\0\xc0\x7f", b"%s%n", b"../.")


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


def test_mutated_dicom_series_are_read_or_refused(data_folder, tmp_path):
    rng = np.random.default_rng(21)
    seeds = {path.name: path.read_bytes() for path in series_files(data_folder)[30:34]}
    for _ in range(MUTATIONS):
        victim = list(seeds)[int(rng.integers(0, 4))]
        for name, data in seeds.items():
            (tmp_path / name).write_bytes(mutated(data, 1270, rng) if name == victim else data)
        read_or_refuse(tmp_path)


def test_a_length_beyond_the_end_of_a_dicom_file_is_found_without_reading_it(data_folder, tmp_path):
    source = series_files(data_folder)[0]
    assert all(lengths_fit(path) for path in series_files(data_folder))
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
