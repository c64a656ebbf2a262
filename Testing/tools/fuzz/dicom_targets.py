"""DICOM objects that are fuzzed beside single slices: enhanced CT, segmentations, contours, zip archives."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from dicom_objects import box, enhanced, masks, write_rtstruct, write_seg
from dicom_phantom import drawn_hu, drawn_series, write_slices
from LesionDecompLib.io.dicom.rtstruct import read_rtstruct
from LesionDecompLib.io.dicom.seg_labels import read_dicom_seg
from LesionDecompLib.io.readers import read_volume

from .mutations import mutated, mutated_zip

Rng = np.random.Generator
ELEMENTS = (
    *((0x28, element) for element in (0x8, 0x10, 0x11, 0x30, 0x100, 0x101, 0x120, 0x1052, 0x1053)),
    *((0x20, 0x32), (0x20, 0x37), (0x20, 0x9113), (0x5200, 0x9229), (0x5200, 0x9230), (0x7FE0, 0x10)),
    *((0x62, 0x1), (0x62, 0xB), (0x62, 0x4), (0x3006, 0x50), (0x3006, 0x22), (0x3006, 0x84), (0x18, 0x50)),
)
WORDS = (b"\xff\xff", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x70", b"9999", b"-1\\0", b"nan ", b"1e30", b"\x20\x4e")


def dicom_targets(seeds: Path) -> dict[str, tuple[Callable[[Path, Rng], None], Callable[[Path], object]]]:
    """How each is spoiled and loaded, by name."""
    shape, matrix = drawn_hu().shape, np.diag([-1.5, -2.0, 4.0, 1.0])
    matrix[:3, 3] = (20, 30, 100)
    folder = seeds / "dicom objects"
    folder.mkdir(exist_ok=True)
    frames = next(write_slices(folder / "enhanced", [enhanced(drawn_hu())]).iterdir()).read_bytes()
    segments = write_seg(folder / "seg.dcm", masks(), ["right", "left", "spot"]).read_bytes()
    contours = {"lung": [box(k, (8, 30), (4, 15)) for k in range(2, 6)], "heart": [box(4, (10, 20), (18, 25))]}
    outlines = write_rtstruct(folder / "rt.dcm", contours).read_bytes()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(write_slices(folder / "slices", drawn_series()).iterdir()):
            file.write(path, path.name)
    archive = packed.getvalue()

    def spoil_file(data: bytes) -> Callable[[Path, Rng], None]:
        return lambda place, rng: _write(place / "object.dcm", _spoiled(data, rng))

    def spoil_archive(place: Path, rng: Rng) -> None:
        data = mutated_zip(archive, rng) if rng.random() < 0.5 else mutated(archive, 3000, rng)
        _write(place / "study.zip", data)

    return {
        "enhanced": (spoil_file(frames), lambda place: read_volume(place / "object.dcm")),
        "seg": (spoil_file(segments), lambda place: read_dicom_seg(place / "object.dcm")),
        "rtstruct": (spoil_file(outlines), lambda place: read_rtstruct(place / "object.dcm", shape, matrix)),
        "zip": (spoil_archive, lambda place: read_volume(place / "study.zip")),
    }


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _spoiled(data: bytes, rng: Rng) -> bytes:
    """A DICOM file with a few of its elements' lengths or texts replaced, or with any bytes changed."""
    if rng.random() < 0.3:
        return mutated(data, len(data) if rng.random() < 0.3 else 2000, rng)
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        group, element = ELEMENTS[int(rng.integers(0, len(ELEMENTS)))]
        tag = group.to_bytes(2, "little") + element.to_bytes(2, "little")
        places = [at for at in range(132, len(data) - 20) if data[at : at + 4] == tag][:64]
        if places:
            at = places[int(rng.integers(0, len(places)))] + int(rng.integers(4, 24))
            word = WORDS[int(rng.integers(0, len(WORDS)))] if rng.random() < 0.8 else rng.bytes(4)
            changed[at : at + len(word)] = word
    return bytes(changed)
