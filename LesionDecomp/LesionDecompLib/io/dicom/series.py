"""Reading a CT series from DICOM files.

Slices are sorted by position along their normal. Where the positions don't make a regular grid, small gaps are filled
by interpolation with a warning, and the series is refused where that would invent too much (:mod:`.grid`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...ct.oddity import Oddity
from ...ct.plausibility import THICK_SLICE_MM
from ...errors import InputError
from ..stored_image import INT16, StoredImage, check_size, compact
from .choice import choose, no_ct
from .files import EXPECTED, FoundImages, scan_files, scan_folder
from .grid import SliceGrid, fill_gaps, slice_grid
from .header import DicomSlice
from .images import read_header
from .padding import Padding
from .pixels import PixelReader, check_syntax, hu_of, rescaling
from .stacks import MIN_SLICES, SAME_PLACE_MM, SortedImages, Stack, places_of, sort_images
from .strays import without_strays

NAMED = 3  # files or images that a message names
OTHER_ZERO_HU = 500.0  # between the rescale intercepts of slices; scanners go on where they began


@dataclass(frozen=True, eq=False)
class Series:
    """A series that was found and chosen, before its pixels are read.

    :param slices: sorted along their normal, as the grid has them.
    :param warnings: a sentence each.
    """

    slices: list[DicomSlice]
    grid: SliceGrid
    warnings: list[str] = field(default_factory=list)


def read_dicom(source: Path, stage: str, series: str | None = None) -> StoredImage:
    """Read one CT series as a volume in HU.

    Localizers, reports, odd images and copies beside it are left out, with a warning. Of several series one is read by
    a rule (:mod:`.choice`), with a warning that names the others.

    :param source: a folder (its subfolders included), or a file of the series, whose folder holds the others.
    :param series: series UID, number, or a part of what describes it; None: the rule decides.
    :raises LesionDecompError: no CT series, another than was asked for, another modality, damaged files, an unknown
        transfer syntax, too many slices missing, several images at one position, fewer than three slices.
    """
    found = find_series(source, stage, series)
    slices, grid = found.slices, found.grid
    array, warnings = _voxels(slices, stage)
    array = fill_gaps(array, grid)
    warnings = [*found.warnings, *grid.warnings, *_acquisition_warnings(slices, grid), *warnings]
    bits = slices[0].tags["bits"].strip()
    stored = f"int{bits}" if bits in ("8", "16", "32") else "int16"
    return StoredImage(array, grid.ijk_to_ras, "DICOM", stored, tuple(warnings), _facts(slices, grid))


def find_series(source: Path, stage: str, series: str | None = None) -> Series:
    """Find the series that :func:`read_dicom` reads, and the grid its slices lie on.

    :raises LesionDecompError: as :func:`read_dicom`, but for the pixels.
    """
    only = None
    if source.is_dir():
        found = scan_folder(source, stage)
    else:
        only, found = _beside(source, stage)
    images = sort_images(found.images, stage)
    stacks = images.stacks
    if only is not None:
        stacks = [stack for stack in stacks if any(_goes_with(item, only) for item in stack.items)]
        stacks = [s for s in stacks if any(item.path == only.path for item in s.items)] or stacks
        if not stacks:
            raise no_ct([item for item in found.images if _goes_with(item, only)], stage, EXPECTED, MIN_SLICES)
    if not stacks:
        for path, syntax in found.unsupported.items():
            check_syntax(syntax, stage, path.name)
        raise no_ct(found.images, stage, EXPECTED, MIN_SLICES)
    stack, warnings = choose(stacks, series, stage)
    if only is None:
        warnings += _left_out(images, found)
    return _placed(stack, images, warnings, stage)


def series_files(source: Path, stage: str, series: str | None = None) -> list[DicomSlice | None]:
    """The image of each slice (first axis) that :func:`read_dicom` reads; None where it interpolates.

    :raises LesionDecompError: as :func:`read_dicom`.
    """
    found = find_series(source, stage, series)
    return [None if n is None else found.slices[n] for n in found.grid.sources()]


def _beside(file: Path, stage: str) -> tuple[DicomSlice, FoundImages]:
    """The image in a file, and those of the files in its folder."""
    only = read_header(file)
    if only is None:
        scan_files([file], file.name, stage)  # states what is wrong with it
        raise InputError(stage, f"a DICOM file without an image ('{file.name}')", EXPECTED, code="no_dicom_image")
    near = sorted(path for path in file.parent.iterdir() if not path.name.startswith(".") and path.is_file())
    return only, scan_files(near, file.parent.name, stage)


def _goes_with(item: DicomSlice, only: DicomSlice) -> bool:
    return item.path == only.path or item.tags["series_uid"] == only.tags["series_uid"]


def _placed(stack: Stack, images: SortedImages, warnings: list[str], stage: str) -> Series:
    """The stack's slices on a grid, less those that are odd."""
    items, strays = without_strays(stack.items)
    odd = [*images.odd.get(stack.uid, []), *strays]
    if stack.copies:
        count = len(stack.copies)
        text = f"{count} duplicate DICOM file{'s were' if count > 1 else ' was'} left out."
        warnings.append(Oddity(text, "duplicate_slices", count, 0))
    if odd:
        what = "images that do" if len(odd) > 1 else "image that does"
        text = f"Left out: {len(odd)} {what} not fit the others of the series{_instances(odd)}."
        warnings.append(Oddity(text, "odd_images", len(odd), 0))
    if stack.uid in images.gathered:
        uids = len({item.tags["series_uid"] for item in items})
        text = f"The {len(items)} slices have {uids} different series UIDs; they were put together by their headers."
        warnings.append(Oddity(text, "series_uids", uids, 1))
    _check_layout(items, stage)
    _check_places(items, stage)
    grid = slice_grid(
        np.array([item.numbers("position") for item in items]),
        items[0].numbers("orientation"),
        items[0].numbers("pixel_spacing"),
        stage,
    )
    return Series([items[n] for n in grid.order], grid, warnings)


def _left_out(images: SortedImages, found: FoundImages) -> list[str]:
    counts = Counter(images.rest)
    counts["DICOM object without an image"] = found.others
    texts = [(f"Left out: {count} × {what}.", count) for what, count in counts.items() if count]
    if found.unsupported:
        count = len(found.unsupported)
        texts.append((f"Left out: {count} × image of a transfer syntax that cannot be read.", count))
    return [Oddity(text, "left_out", count, 0) for text, count in texts]


def _instances(items: list[DicomSlice]) -> str:
    """Which images they are, by their numbers: warnings get into files, and names may be the patient's."""
    numbers = sorted({item.number("instance_number") for item in items if item.numbers("instance_number")})
    if not numbers:
        return ""
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    what = "instance number" if len(numbers) == 1 else "instance numbers"
    return f" ({what} {', '.join(f'{number:g}' for number in numbers[:NAMED])}{more})"


def _names(paths: list[Path]) -> str:
    names = list(dict.fromkeys(path.name for path in paths))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _check_layout(slices: list[DicomSlice], stage: str) -> None:
    first = slices[0]
    columns, rows = first.size[:2]
    if any(frames != 1 for frames in first.size[2:]):
        raise no_ct(slices, stage, EXPECTED, MIN_SLICES)
    samples = int(first.number("samples", 1.0))
    check_size(stage, (columns, rows, len(slices)), samples)


def _check_places(slices: list[DicomSlice], stage: str) -> None:
    """Refuse two images at one position whose pixels differ, by their names."""
    places = places_of(slices)
    order = np.argsort(places, kind="stable")
    together = np.flatnonzero(np.diff(places[order]) <= SAME_PLACE_MM)
    if together.size:
        pair = [slices[order[together[0] + k]].path for k in (0, 1)]
        count = together.size
        raise InputError(
            stage,
            f"{count} slice position{'s' if count > 1 else ''} with more than one image ({_names(pair)})",
            "one image at each position",
            "Export one phase and one reconstruction.",
            code="several_images_at_one_position",
        )


def _voxels(series: list[DicomSlice], stage: str) -> tuple[np.ndarray, list[str]]:
    columns, rows = series[0].size[:2]
    reader, padding = PixelReader(stage), Padding()
    for item in series:  # before memory is asked for
        if item.is_uncompressed and item.path.stat().st_size < rows * columns * int(item.number("bits", 16.0)) // 8:
            reader.stored(item)
    reader.stored(series[-1])
    array = np.empty((len(series), rows, columns), np.int16)
    for k, item in enumerate(series):
        stored = reader.stored(item)
        plane = hu_of(item, stored, padding.of(item, stored))
        if array.dtype == np.int16 and not _fits_int16(plane):
            array = array.astype(np.float32)
        array[k] = plane
    return compact(array), padding.warnings()


def _fits_int16(plane: np.ndarray) -> bool:
    if plane.dtype == np.int16:
        return True
    if not (np.isfinite(plane).all() and plane.min() >= INT16.min and plane.max() <= INT16.max):
        return False
    return plane.dtype.kind in "iu" or bool(np.array_equal(plane, np.rint(plane)))


def _acquisition_warnings(series: list[DicomSlice], grid: SliceGrid) -> list[str]:
    warnings: list[str] = []
    first = series[0]
    unscaled = sum(not item.numbers("slope") or item.number("slope") == 0 for item in series)
    if unscaled == len(series):
        text = "The DICOM header gives no rescale slope: the stored values were taken for HU."
        warnings.append(Oddity(text, "no_rescale_slope", unscaled, 0))
    elif unscaled:
        text = f"{unscaled} of {len(series)} slices give no rescale slope: it was taken for 1."
        warnings.append(Oddity(text, "no_rescale_slope", unscaled, 0))
    scales = {rescaling(item) for item in series}
    shift = max(intercept for _, intercept in scales) - min(intercept for _, intercept in scales)
    if shift >= OTHER_ZERO_HU:
        text = f"The rescale intercept differs between slices by up to {shift:g} HU."
        warnings.append(Oddity(text, "rescale_differs", shift, OTHER_ZERO_HU))
    if first.tags["rescale_type"] not in ("", "HU", "US"):  # US: unspecified, as many exporters write
        warnings.append(Oddity("The DICOM header states that the values are not in HU.", "not_hu", 1, 0))
    thickness = first.number("thickness")
    if thickness > THICK_SLICE_MM + 0.01 and grid.distance <= THICK_SLICE_MM + 0.01:
        text = f"Slices are {thickness:g} mm thick; beyond {THICK_SLICE_MM:g} mm small lesions are missed."
        warnings.append(Oddity(text, "thick_slices", thickness, THICK_SLICE_MM))
    if 0 < thickness < 0.67 * grid.distance:
        text = f"Slices {thickness:g} mm thick lie {grid.distance:.3g} mm apart: volumes miss what lies between them."
        warnings.append(Oddity(text, "gaps_between_slices", grid.distance, thickness / 0.67))
    return warnings


def _facts(series: list[DicomSlice], grid: SliceGrid) -> dict[str, str | float | bool]:
    # What distinguishes scanners and reconstructions; nothing that distinguishes patients.
    first = series[0]
    facts: dict[str, str | float | bool] = {
        "files": len({item.path for item in series}),
        "series_uid_sha256": hashlib.sha256(first.tags["series_uid"].encode()).hexdigest(),
        "slice_distance_mm": grid.distance,
        "contrast_agent": bool(first.tags["contrast"]),
    }
    if grid.filled:
        facts["interpolated_slices"] = grid.filled
    for name, key in (("thickness", "slice_thickness_mm"), ("tilt", "gantry_tilt_degrees"), ("kvp", "kvp")):
        if first.numbers(name):
            facts[key] = first.numbers(name)[0]
    for name in ("manufacturer", "model", "kernel"):
        text = re.sub(r"\s+", " ", first.tags[name].replace("\\", " "))[:64].strip()
        if text and text != "None":
            facts[name] = text
    return facts
