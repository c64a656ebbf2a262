"""A folder of studies searched for CTs: image files and DICOM series, whatever tree they lie in.

A folder that holds one DICOM series is that series, wherever in it the files lie. The search opens a few files of each
folder only; what is wrong with a CT is found, and reported, when its turn comes.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ...io.dicom.choice import matches
from ...io.dicom.files import FIRST_BYTES, begins_as_dicom, is_dicom_file
from ...io.dicom.header import DicomSlice
from ...io.dicom.images import read_header
from ...io.folders import walk
from ...io.masks import holds_labels
from ...io.readers import READERS
from ...io.stored_image import itk_header
from ...report.case import ALL_FILES, REPORT

RESULTS = "results of an earlier run"
OUTPUT = "the output folder"
EIGHT_BITS = "8-bit image: a labelmap or a picture"
LABELS = "labelmap"
NO_CT = "DICOM folder without a CT volume"
BESIDE = "image file beside a DICOM series"
OTHER = "file of another type"
NOT_ASKED = "series that is not the one asked for"
SPREAD = "series in several folders that hold others, too"
UNREADABLE = "folder that cannot be opened"
SAME_SERIES = ("series_uid", "study_uid", "patient")  # UIDs of series are not as unique as they should be
NAMED = 3  # of each reason's, in the message


@dataclass
class FolderSearch:
    """What was found in a folder.

    :param cases: image files and DICOM folders, in the order of their paths; of a folder that holds another series
        below it a slice, which stands for the folder.
    :param left_out: reason -> names.
    """

    cases: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def sentence(self, folder: Path) -> str:
        """How many CTs were found, what was left out and why."""
        count = len(self.cases)
        text = f"Found {count} CT{'' if count == 1 else 's'} in '{folder.name or folder.resolve().name}'."
        reasons = []
        for reason, names in sorted(item for item in self.left_out.items() if item[1]):
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            reasons.append(f"{len(names)} × {reason} ({', '.join(names[:NAMED])}{more})")
        return f"{text} Left out: {'; '.join(reasons)}." if reasons else text


def search_folder(folder: Path, output: Path, wanted: str | None = None) -> FolderSearch | None:
    """Find the CTs in a folder and its subfolders; the same ones in the same order on every machine.

    Names that begin with a dot, the output folder and results of earlier runs are passed over, and image files beside
    the slices of a DICOM series.

    :param output: where results go.
    :param wanted: the series that was asked for; others are left out.
    :return: None when the folder is to be read as one DICOM series (it may hold none, which reading it reports).
    """
    search, volumes = FolderSearch(), []
    series_folders: list[tuple[Path, list[Path]]] = []
    for place, files in _folders(folder, output.resolve(), search):
        images = [file for file in files if _is_volume(file) or _is_archive_of_images(file)]
        rest = [file for file in files if file not in images]
        first = next((file for file in rest if _is_dicom(file)), None)
        if first is None:
            volumes += images
            stems = {file.stem for file in images}  # of headers whose voxels lie beside them
            search.left_out[OTHER] += [_name(file, folder) for file in rest if file.stem not in stems]
        else:
            series_folders.append((place, [first, rest[len(rest) // 2], rest[-1]]))
            search.left_out[BESIDE] += [_name(file, folder) for file in images]
    if any(place == folder for place, _ in series_folders) or (not volumes and len(series_folders) < 2):
        return None
    series = _by_series(series_folders, search, folder, wanted)
    if not volumes and len(series) < 2:
        return None
    for file in volumes:
        if _has_eight_bits(file):
            search.left_out[EIGHT_BITS].append(_name(file, folder))
        elif _is_volume(file) and holds_labels(file):
            search.left_out[LABELS].append(_name(file, folder))
        else:
            search.cases.append(file)
    for places, first in series.values():
        case = _to_read(places, first, [place for others, _ in series.values() for place in others])
        if case is None:
            search.left_out[SPREAD] += [_name(place, folder) for place in places]
        else:
            search.cases.append(case)
    search.cases.sort(key=lambda path: path.relative_to(folder).parts)
    return search


def _folders(folder: Path, output: Path, search: FolderSearch) -> Iterator[tuple[Path, list[Path]]]:
    """Folders that hold files, with these in the order of their names."""

    def unreadable(error: OSError) -> None:
        search.left_out[UNREADABLE].append(_name(Path(error.filename), folder))

    for place, names, files in walk(folder, unreadable):
        for name in [name for name in names if name == output.name and (place / name).resolve() == output]:
            names.remove(name)
            search.left_out[OUTPUT].append(_name(place / name, folder))
        kept = [place / name for name in files if name.upper() != "DICOMDIR"]
        if REPORT in files:
            kept = [file for file in kept if file.name not in ALL_FILES]
            search.left_out[RESULTS].append(_name(place, folder))
        if kept:
            yield place, kept


def _by_series(
    folders: list[tuple[Path, list[Path]]], search: FolderSearch, root: Path, wanted: str | None
) -> dict[str, tuple[list[Path], Path]]:
    """The folders of each CT series, and one of its slices, by its UID, study and patient.

    :param folders: each with some of its files.
    :param wanted: the series that was asked for; a folder is left out where none of its files looked at is of it.
    """
    series: dict[str, tuple[list[Path], Path]] = {}
    for place, files in folders:
        headers = _ct_headers(files)
        header = next((one for one in headers if wanted is None or matches(one, wanted)), None)
        if header is None:
            search.left_out[NOT_ASKED if headers else NO_CT].append(_name(place, root))
        else:
            identity = "\0".join(header.tags[key] for key in SAME_SERIES)
            series.setdefault(identity, ([], header.path))[0].append(place)
    return series


def _ct_headers(files: list[Path]) -> list[DicomSlice]:
    """The headers of the CT slices among some files."""
    headers = (read_header(file) for file in dict.fromkeys(files) if _is_dicom(file))
    return [one for one in headers if one is not None and one.is_ct and one.is_placed and not one.is_localizer]


def _to_read(places: list[Path], first: Path, all_places: list[Path]) -> Path | None:
    """The folder to read a series from, or where it holds others below it the slice ``first``; None if neither does.

    :param places: the series' folders.
    """
    common = Path(os.path.commonpath(places))
    if not any(place.is_relative_to(common) for place in all_places if place not in places):
        return common
    return first if len(places) == 1 else None


def _is_dicom(file: Path) -> bool:
    try:
        return file.is_file() and is_dicom_file(file)
    except OSError:
        return False


def _is_volume(file: Path) -> bool:
    return file.name.lower().endswith(tuple(READERS))


def _is_archive_of_images(file: Path) -> bool:
    """Whether a file is a zip archive with DICOM files or an image in it; a few of its files are looked at."""
    if not file.name.lower().endswith(".zip"):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if any(name.lower().endswith(tuple(READERS)) for name in names):
                return True
            looked_at = dict.fromkeys([*names[:1], *names[len(names) // 2 :][:1], *names[-1:]])
            return any(_begins_as_dicom(archive, name) for name in looked_at)
    except (OSError, RuntimeError, NotImplementedError, ValueError, zipfile.BadZipFile, zlib.error):
        return False


def _begins_as_dicom(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as stream:
        return begins_as_dicom(stream.read(FIRST_BYTES))


def _has_eight_bits(file: Path) -> bool:
    """Whether the header states so; what cannot be read is left to the reader, which states why."""
    import SimpleITK as sitk  # noqa: N813  (not before: --help answers at once)

    try:
        reader = itk_header(file)
    except (OSError, RuntimeError):
        return False
    return reader.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8)


def _name(place: Path, folder: Path) -> str:
    return place.name if place == folder else place.relative_to(folder).as_posix()
