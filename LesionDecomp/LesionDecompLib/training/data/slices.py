"""Training sets of lung slices: a folder with ``index.csv``, PNG slices and one image-level label for each."""

from __future__ import annotations

import csv
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError

STAGE = "Training set"
LABELS = ("lesion", "normal")
SPLITS = ("train", "val", "test")
MAX_SIDE = 4096  # of a slice, pixels


@dataclass(frozen=True, eq=False)
class SliceSet:
    """Lung-masked slices of one split with their image-level labels.

    :param images: ``(n, h, w)`` uint8, gray under the lung window, 0 outside the lungs.
    :param lesion: ``(n,)`` bool, the image-level label.
    :param scans: ``(n,)`` str, the scan each slice is from; splits never share a scan.
    :param files: file names relative to ``folder``.
    """

    folder: Path
    images: np.ndarray
    lesion: np.ndarray
    scans: np.ndarray
    files: tuple[str, ...]

    @classmethod
    def load(cls, folder: str | Path, split: str, labels: Sequence[str] = LABELS) -> SliceSet:
        """Read the slices of ``split`` that ``folder/index.csv`` lists; pixel masks are not looked at.

        :param labels: of which there must be slices.
        :raises LesionDecompError: no index, a missing column or label, an unreadable or odd-sized slice.
        """
        folder = Path(folder)
        rows = [row for row in read_index(folder) if row["split"] == split]
        for label in labels:
            if not any(row["label"] == label for row in rows):
                raise InputError(STAGE, f"no {label} slice in split '{split}'", "slices of both labels")
        if not rows:
            raise InputError(STAGE, f"no slice in split '{split}' of '{folder.name}'", f"slices to {split}")
        images = np.stack(_read_all(folder, [row["file"] for row in rows]))
        return cls(
            folder,
            images,
            np.array([row["label"] == "lesion" for row in rows]),
            np.array([row["scan"] for row in rows]),
            tuple(row["file"] for row in rows),
        )

    def joined(self, folders: Sequence[str | Path], split: str) -> SliceSet:
        """This set and the slices of ``split`` of further ones, in one; it has no pixel masks.

        :raises LesionDecompError: as :meth:`load`; no slice, or slices of another size.
        """
        sets = [self]
        for folder in folders:
            more = SliceSet.load(folder, split, labels=())
            if more.images.shape[1:] != self.images.shape[1:]:
                found, expected = ("×".join(map(str, part.images.shape[1:])) for part in (more, self))
                raise InputError(
                    STAGE, f"slices of {found} pixels in '{more.folder.name}'", f"{expected}, as the others"
                )
            sets.append(more)
        return SliceSet(
            self.folder,
            np.concatenate([part.images for part in sets]),
            np.concatenate([part.lesion for part in sets]),
            np.concatenate([part.scans for part in sets]),
            tuple(f"{part.folder.name}/{name}" for part in sets for name in part.files),
        )

    def lists_masks(self, name: str) -> bool:
        """Whether any lesion slice has a pixel mask of annotator ``name``."""
        return any(self._mask_files(name))

    def masks(self, name: str) -> np.ndarray:
        """Pixel masks of annotator ``name`` for the lesion slices, ``(n_lesion, h, w)`` bool; for evaluation only.

        :raises LesionDecompError: the set has no such masks, or masks that are not of the slices' size.
        """
        files = self._mask_files(name)
        marked = [file for file in files if file]
        if len(marked) < len(files):
            raise InputError(STAGE, f"lesion slices without a '{name}' mask", f"the column mask_{name} filled")
        masks = np.stack(_read_all(self.folder, marked)) > 0
        if masks.shape[1:] != self.images.shape[1:]:
            found, expected = ("×".join(map(str, part.shape[1:])) for part in (masks, self.images))
            raise InputError(STAGE, f"'{marked[0]}' of {found} pixels", f"{expected}, as its slice")
        return masks

    def _mask_files(self, name: str) -> list[str | None]:
        """Files of the masks of ``name``, one for each lesion slice; empty or None where it has none."""
        by_file = {row["file"]: row.get(f"mask_{name}") for row in read_index(self.folder)}
        return [by_file[file] for file, lesion in zip(self.files, self.lesion, strict=True) if lesion]


def read_index(folder: Path) -> list[dict[str, str]]:
    """The rows of ``index.csv``, checked for its columns, labels and splits.

    :raises LesionDecompError: no such file, or one that cannot be read; naming the line where a value is wrong.
    """
    file = Path(folder) / "index.csv"
    if not file.is_file():
        raise InputError(STAGE, f"no index.csv in '{Path(folder).name}'", "a training set folder")
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(STAGE, f"an index.csv that cannot be read ({error})", "a UTF-8 CSV file") from error
    listed: set[str] = set()
    splits: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=2):
        missing = [key for key in ("file", "label", "split", "scan") if not row.get(key)]
        if missing:
            raise InputError(STAGE, f"line {number} of index.csv without {missing[0]}", "file,label,split,scan")
        if row["label"] not in LABELS or row["split"] not in SPLITS:
            found = f"label '{row['label'][:40]}', split '{row['split'][:40]}' in line {number} of index.csv"
            raise InputError(STAGE, found, f"labels {LABELS} and splits {SPLITS}")
        if row["file"] in listed:
            found = f"'{row['file'][:100]}' a second time in line {number} of index.csv"
            raise InputError(STAGE, found, "each slice once")
        listed.add(row["file"])
        for kind in ("scan", "patient"):
            whose = row.get(kind)
            if whose and splits.setdefault((kind, whose), row["split"]) != row["split"]:
                found = f"the {kind} '{whose[:100]}' in another split than before in line {number} of index.csv"
                raise InputError(STAGE, found, f"each {kind} in one split: its slices resemble each other")
    return rows


def lung_crops(images: np.ndarray, size: tuple[int, int], around: np.ndarray | None = None) -> np.ndarray:
    """Cut a window of ``size`` around the middle of each slice's lungs.

    Four fifths of a slice lie outside the lungs; what a crop leaves out of very large lungs is lost to training only.

    :param images: ``(n, h, w)``, 0 outside the lungs.
    :param around: slices whose lungs count, if not the images'.
    :return: ``(n, *size)`` of the images' type.
    """
    crops = np.zeros((len(images), *size), dtype=images.dtype)
    for crop, image, lungs in zip(crops, images, images if around is None else around, strict=True):
        window, target = [], []
        for axis, length in enumerate(size):
            inside = np.flatnonzero(lungs.any(axis=1 - axis))
            middle = (inside[0] + inside[-1] + 1) // 2 if len(inside) else image.shape[axis] // 2
            first = middle - length // 2
            low, high = max(first, 0), min(first + length, image.shape[axis])
            window.append(slice(low, high))
            target.append(slice(low - first, high - first))
        crop[tuple(target)] = image[tuple(window)]
    return crops


def _read_all(folder: Path, files: list[str]) -> list[np.ndarray]:
    images: list[np.ndarray] = []
    for name in files:
        image = _read_png(folder, name)
        if images and image.shape != images[0].shape:
            raise InputError(STAGE, f"'{name}' of size {image.shape}", f"{images[0].shape}, as the others")
        images.append(image)
    return images


def _read_png(folder: Path, name: str) -> np.ndarray:
    from PIL import Image  # slow to import

    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InputError(STAGE, f"the file name '{name[:100]}', which leaves the folder", "a file inside it")
        if not path.is_file():
            raise FileNotFoundError
        with Image.open(path, formats=["PNG"]) as picture:  # the header alone
            if picture.mode not in ("L", "1") or max(picture.size) > MAX_SIDE:
                size = "×".join(map(str, picture.size))
                found = f"'{name[:100]}' of mode {picture.mode}, {size} pixels"
                raise InputError(STAGE, found, f"an 8-bit gray PNG of at most {MAX_SIDE} pixels a side")
            image = np.asarray(picture)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(STAGE, f"the unreadable slice '{name[:100]}'", "an 8-bit gray PNG") from error
    # One bit for each pixel, as masks have them.
    return image.view(np.uint8) * np.uint8(255) if image.dtype == bool else image
