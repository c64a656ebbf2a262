"""Reading a DICOM segmentation (SEG) as a labelmap.

Each frame is the mask of one segment in one plane; planes without a voxel are often left out. So the grid is made of
the planes that are there, and of those that must lie between them.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ..stored_image import MAX_VOXELS, check_spacing, lps_to_ras
from .header import DicomSlice, plain
from .labels import StoredLabels, label_type, opened, overlap_warning
from .pixels import UNPACKED, PixelReader, check_syntax

if TYPE_CHECKING:
    from pydicom import Dataset

SAME_PLANE_MM = 0.01
OFF_LATTICE = 0.05  # of the slice distance: what a plane may lie off its place
MAX_GAP = 2_000  # slices
FRACTION = 0.5  # of the largest value: from there on a voxel belongs to the segment


def read_dicom_seg(
    path: str | Path, chosen: Collection[int] | None = None, stage: str = "Reading the lung mask"
) -> StoredLabels:
    """Read a DICOM segmentation: binary, fractional or a label map.

    :param chosen: numbers of the segments to read; None: all. Where segments overlap, the one of the lower number is
        kept, so choose where that matters.
    :return: labels are segment numbers.
    :raises LesionDecompError: damaged, without segments, planes that make no grid, pixels that cannot be unpacked.
    """
    path = Path(path)
    with opened(path, stage) as data:
        is_labelmap = str(data.get("SegmentationType", "")).upper() == "LABELMAP"
        names = {int(item.SegmentNumber): _name(item) for item in data.get("SegmentSequence", []) or []}
        if is_labelmap:
            names.pop(0, None)  # what is in no segment
        kind = label_type(names, stage)
        frames = _frames(data)
        positions = np.array([frame[1] for frame in frames])
        matrix, planes, count = _grid(positions, _orientation(data), *_measures(data), stage)
        rows, columns = int(data.Rows), int(data.Columns)
        if count * rows * columns > MAX_VOXELS or len(frames) != int(data.get("NumberOfFrames") or 1):
            raise ValueError("frames")
        pixels = _pixels(data, path, rows, columns, len(frames), stage)
        pixels(len(frames) - 1)  # before memory is asked for
        array = np.zeros((count, rows, columns), kind)
        overlapping = 0
        wanted = set(names) if chosen is None else set(chosen) & set(names)
        for n in sorted(range(len(frames)), key=lambda n: frames[n][0] or 0):
            plane = array[planes[n]]
            values = pixels(n)
            if is_labelmap:
                plane[...] = np.where(np.isin(values, list(wanted)), values, plane)
            elif frames[n][0] in wanted:
                overlapping += int(np.count_nonzero(values & (plane > 0)))
                plane[values & (plane == 0)] = frames[n][0]
        return StoredLabels(array, matrix, names, tuple(overlap_warning(overlapping)))


def _name(segment: Dataset) -> str:
    """The segment's label, and what its codes mean where the label doesn't have it."""
    label = plain(segment.get("SegmentLabel", "") or "").strip()
    code = (segment.get("SegmentedPropertyTypeCodeSequence") or [None])[0]
    meaning = plain(code.get("CodeMeaning", "") or "").strip() if code is not None else ""
    modifier = ((code.get("SegmentedPropertyTypeModifierCodeSequence") if code is not None else None) or [None])[0]
    if modifier is not None and meaning:
        meaning = f"{modifier.get('CodeMeaning', '')} {meaning}".strip()
    if not label or not meaning or set(meaning.casefold().split()) <= set(label.casefold().split()):
        return label or meaning
    return f"{label} ({meaning})"


def _frames(data: Dataset) -> list[tuple[int | None, tuple[float, ...]]]:
    """Segment number (None in a label map) and position, LPS mm, of each frame."""
    shared = (data.get("SharedFunctionalGroupsSequence") or [{}])[0]
    frames = []
    for groups in data.PerFrameFunctionalGroupsSequence:
        identification = _item(groups, shared, "SegmentIdentificationSequence")
        number = int(identification.ReferencedSegmentNumber) if identification is not None else None
        position = _item(groups, shared, "PlanePositionSequence").ImagePositionPatient
        frames.append((number, tuple(float(value) for value in position)))
    return frames


def _item(groups: Dataset, shared: Dataset, keyword: str) -> Any:
    return ((groups.get(keyword) or shared.get(keyword)) or [None])[0]


def _first_frame(data: Dataset, keyword: str) -> Any:
    shared = (data.get("SharedFunctionalGroupsSequence") or [{}])[0]
    return _item(data.PerFrameFunctionalGroupsSequence[0], shared, keyword)


def _orientation(data: Dataset) -> np.ndarray:
    values = _first_frame(data, "PlaneOrientationSequence").ImageOrientationPatient
    return np.array([float(value) for value in values]).reshape(2, 3)


def _measures(data: Dataset) -> tuple[tuple[float, float], float]:
    """Distance between rows and between columns, and between planes as far as it is stated (else 0), mm."""
    measures = _first_frame(data, "PixelMeasuresSequence")
    rows, columns = (float(value) for value in measures.PixelSpacing)
    stated = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 0
    return (rows, columns), float(stated)


def _grid(
    positions: np.ndarray, orientation: np.ndarray, spacing: tuple[float, float], stated: float, stage: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """Index to RAS matrix, the slice of each frame, and how many slices there are."""
    check_spacing(stage, spacing)
    row, column = orientation
    normal = np.cross(row, column)
    if not (np.abs(np.linalg.norm(orientation, axis=1) - 1) < 0.01).all() or not abs(row @ column) < 0.01:
        raise ValueError("orientation")
    if not np.isfinite(positions).all():
        raise ValueError("positions")
    along = positions @ normal
    places = np.sort(along)
    gaps = np.diff(places)
    gaps = gaps[gaps > SAME_PLANE_MM]
    step = float(gaps.min()) if gaps.size else abs(stated) or 1.0
    if gaps.size and abs(stated) > SAME_PLANE_MM and abs(stated) < step and _even(gaps / abs(stated)):
        step = abs(stated)
    if not _even(gaps / step):
        found = f"planes {gaps.min():.3g} to {gaps.max():.3g} mm apart, which make no grid"
        raise InputError(stage, found, "a DICOM segmentation in even planes", code="mask_other_grid")
    count = int(np.rint((places[-1] - places[0]) / step)) + 1
    if count > MAX_GAP * max(1, gaps.size):
        raise ValueError("planes")
    regular = float(places[-1] - places[0]) / (count - 1) if count > 1 else step
    first, last = positions[np.argmin(along)], positions[np.argmax(along)]
    matrix = np.eye(4)
    matrix[:3, 0] = row * spacing[1]
    matrix[:3, 1] = column * spacing[0]
    matrix[:3, 2] = (last - first) / (count - 1) if count > 1 else normal * regular
    matrix[:3, 3] = first
    return lps_to_ras(matrix), np.rint((along - places[0]) / regular).astype(int), count


def _even(steps: np.ndarray) -> bool:
    return bool(np.all(np.abs(steps - np.rint(steps)) <= OFF_LATTICE * np.maximum(1, np.rint(steps))))


def _pixels(data: Dataset, path: Path, rows: int, columns: int, frames: int, stage: str) -> Any:
    """What gives the pixels of a frame: bool, or labels of a label map."""
    kind = str(data.get("SegmentationType", "")).upper()
    bits = int(data.BitsAllocated)
    syntax = str(data.file_meta.get("TransferSyntaxUID", ""))
    raw = data["PixelData"].value
    size = rows * columns
    if bits == 1 and syntax not in UNPACKED:
        check_syntax(syntax, stage, path.name)
        if len(raw) * 8 < size * frames:
            raise ValueError("pixels")

        def binary(n: int) -> np.ndarray:
            begin, end = n * size, (n + 1) * size
            packed = np.frombuffer(raw, np.uint8, (end + 7) // 8 - begin // 8, begin // 8)
            skipped = begin % 8
            return np.unpackbits(packed, bitorder="little")[skipped : skipped + size].reshape(rows, columns) > 0

        return binary
    item = DicomSlice(
        path,
        (columns, rows, 1),
        {"syntax": syntax, "bits": str(max(bits, 8)), "bits_stored": str(data.BitsStored), "signed": "0"},
        (_pixels_begin(path), -1 if syntax in UNPACKED else len(raw)),
        frames=frames,
    )
    reader = PixelReader(stage)
    largest = float(data.get("MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 1.0

    def stored(n: int) -> np.ndarray:
        values = reader.stored(DicomSlice(item.path, item.size, item.tags, item.pixels, n, frames))
        return values if kind == "LABELMAP" else values >= (FRACTION * largest if kind == "FRACTIONAL" else 1)

    return stored


def _pixels_begin(path: Path) -> int:
    import pydicom  # slow to import

    data = pydicom.dcmread(path, force=True, defer_size=1, specific_tags=["PixelData"])
    return int(data.get_item("PixelData", keep_deferred=True).value_tell)
