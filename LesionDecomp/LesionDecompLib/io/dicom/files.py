"""Finding the DICOM images in a folder, whatever tree they lie in."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ..folders import files_below
from ..stored_image import damaged
from .header import CT_IMAGE, DicomSlice
from .images import read_images
from .lengths import object_class, transfer_syntax
from .pixels import check_syntax

EXPECTED = "a folder with one CT series"
MAX_FILES = 20_000
MAX_IMAGES = 50_000  # with the frames of enhanced ones
CT_STORAGE = f"{CT_IMAGE}\0".encode()
HEAD_BYTES = 4096
FIRST_GROUPS = (0x0002, 0x0008)  # that a file begins with
LAST_FIRST_ELEMENT = 0x0070  # those of the group 0008 that may come first; further ones follow others
FIRST_BYTES = 140  # of a file, by which DICOM is known
PREAMBLE = 132  # bytes, with the mark behind it


@dataclass(frozen=True, eq=False)
class FoundImages:
    """What a search found.

    :param images: in the order of their paths.
    :param others: how many DICOM objects hold no image (reports, contours).
    :param unsupported: files that claim to hold a CT image whose transfer syntax cannot be read, with that.
    """

    images: list[DicomSlice] = field(default_factory=list)
    others: int = 0
    unsupported: dict[Path, str] = field(default_factory=dict)


def is_dicom_file(path: Path) -> bool:
    """Whether the file begins as DICOM files do, with or without a preamble."""
    return begins_as_dicom(_head(path))


def begins_as_dicom(head: bytes) -> bool:
    """Whether a file's first bytes (``FIRST_BYTES`` of them) are those of DICOM, with or without a preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    for order in "<>":
        group, element = struct.unpack_from(f"{order}HH", head)
        if group not in FIRST_GROUPS or element > LAST_FIRST_ELEMENT:
            continue
        if head[4:6].isalpha() and head[4:6].isupper():
            return True
        length = struct.unpack_from(f"{order}I", head, 4)[0]
        if length <= 64 and (order == "<" or group == 0x0008):
            return True
    return False


def scan_files(paths: list[Path], place: str, stage: str) -> FoundImages:
    """Read the headers of the DICOM images among some files.

    :param place: what messages call the folder.
    :raises LesionDecompError: no image at all, more files than any export has, a damaged CT image, or a file that is
        named like the images and empty, filled with zeros or shorter than a header, as an interrupted copy leaves it.
    """
    found, others, cut = FoundImages(), 0, []
    for path in paths:
        if path.name.upper() == "DICOMDIR":
            continue
        head = _head(path)
        if len(head) < PREAMBLE or not any(head[:PREAMBLE]):
            cut.append(path)
            continue
        if not begins_as_dicom(head):
            continue
        images = read_images(path)
        if images:
            found.images.extend(images)
            if len(found.images) > MAX_IMAGES:
                raise InputError(stage, f"more than {MAX_IMAGES} images in '{place}'", EXPECTED, code="too_many_files")
        elif _claims_ct(path):
            syntax = transfer_syntax(path)
            try:
                check_syntax(syntax, stage, path.name)
            except InputError:
                found.unsupported[path] = syntax
            else:
                raise damaged(stage, f"DICOM file '{path.name}'")
        else:
            others += 1
    if not found.images:
        for path, syntax in found.unsupported.items():
            check_syntax(syntax, stage, path.name)
        text = f"{others} DICOM objects without an image" if others else f"no DICOM file among {len(paths)} files"
        raise InputError(stage, f"{text} in '{place}'", EXPECTED, code="no_dicom_image")
    kinds = {_naming(path) for path in {image.path for image in found.images}} - {""}
    cut = [path for path in cut if _naming(path) in kinds]
    if cut:
        count = f"{len(cut)} files named like the slices are" if len(cut) > 1 else "it is"
        raise damaged(stage, f"DICOM file '{cut[0].name}'", f"{count} empty or without a header")
    return FoundImages(found.images, others, found.unsupported)


def scan_folder(folder: Path, stage: str) -> FoundImages:
    """Read the headers of all DICOM images in ``folder`` and its subfolders, in the order of their paths.

    :raises LesionDecompError: as :func:`scan_files`.
    """
    paths: list[Path] = []
    for path in files_below(folder):
        paths.append(path)
        if len(paths) > MAX_FILES:
            found = f"more than {MAX_FILES} files in '{folder.name}'"
            raise InputError(stage, found, EXPECTED, code="too_many_files")
    return scan_files(paths, folder.name, stage)


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(FIRST_BYTES)


def _naming(path: Path) -> str:
    """What the files of a series have in common: their suffix, or that they are numbered; empty for other names."""
    suffix = path.suffix.lower()
    if suffix.strip(".").isdigit() or not suffix:  # the last part of a UID
        return "numbered" if any(character.isdigit() for character in path.name) else ""
    return suffix


def _claims_ct(path: Path) -> bool:
    """Whether a file states that it holds a CT image; reports and plans merely refer to one."""
    stated = object_class(path)
    if stated:
        return stated == CT_IMAGE or stated.startswith(f"{CT_IMAGE}.")
    with open(path, "rb") as stream:  # too damaged to state anything
        head = stream.read(HEAD_BYTES)
    return CT_STORAGE in head or f"{CT_IMAGE}.".encode() in head
