"""Reading the contours of an RTSTRUCT as a labelmap on the grid of the CT they were drawn on.

A structure is a stack of closed polygons in the planes of CT slices; a pixel belongs to it where its center lies within
an odd number of those of one plane, so that a polygon within another is a hole. Of several planes within one slice of
the CT, as those of contours drawn on thinner slices are, the one nearest to the slice's middle counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...ct.lattice import beside_ct
from ...ct.oddity import Oddity
from ...errors import InputError
from .header import decimals, plain
from .labels import StoredLabels, label_type, opened, overlap_warning

if TYPE_CHECKING:
    from pydicom import Dataset

OFF_PLANE = 0.5  # of the slice distance: what a contour's points may lie off one plane
SAME_PLANE = 0.05  # of the slice distance: what contours of one plane may lie apart, their decimals being few
CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR", "")


def read_rtstruct(
    path: str | Path,
    shape: tuple[int, int, int],
    ijk_to_ras: np.ndarray,
    chosen: Collection[int] | None = None,
    stage: str = "Reading the lung mask",
) -> StoredLabels:
    """Read an RTSTRUCT.

    :param shape: of the CT, ``(k, j, i)``.
    :param ijk_to_ras: of the CT, ``(4, 4)`` mm.
    :param chosen: numbers of the structures to read; None: all. Where structures overlap, the one of the lower number
        is kept, so choose where that matters.
    :return: labels are ROI numbers, in the order of the file from 1 on where these are no labels.
    :raises LesionDecompError: damaged, without structures, contours across the CT's slices, or all beside the CT.
    """
    path = Path(path)
    with opened(path, stage) as data:
        structures = _structures(data)
        kind = label_type(structures, stage)
        names = {label: name for label, (name, _) in structures.items()}
        array = np.zeros(shape, kind)
        to_index = np.linalg.inv(ijk_to_ras)
        overlapping, empty, drawn, beyond = 0, 0, 0.0, 0.0
        for label in sorted(structures if chosen is None else set(chosen) & set(structures)):
            mask, areas = _mask(structures[label][1], shape, to_index, stage)
            drawn, beyond = drawn + areas[0], beyond + areas[1]
            overlapping += int(np.count_nonzero(mask & (array > 0)))
            array[mask & (array == 0)] = label
            empty += _gaps(mask)
        if beyond and not array.any():
            raise beside_ct(stage)
        warnings = overlap_warning(overlapping)
        if empty:
            text = f"{empty} slices between contours have none: the mask is empty there."
            warnings.append(Oddity(text, "contours_missing", empty, 0))
        share = beyond / drawn if beyond else 0.0
        return StoredLabels(array, np.array(ijk_to_ras, float), names, tuple(warnings), share)


def _structures(data: Dataset) -> dict[int, tuple[str, list[np.ndarray]]]:
    """Name and polygons, ``(n, 3)`` LPS mm each, of each structure by its label."""
    names = {int(item.ROINumber): plain(item.get("ROIName", "") or "") for item in data.StructureSetROISequence}
    polygons: dict[int, list[np.ndarray]] = {number: [] for number in names}
    for structure in data.get("ROIContourSequence") or []:
        number = int(structure.ReferencedROINumber)
        for contour in structure.get("ContourSequence") or []:
            if str(contour.get("ContourGeometricType", "") or "").strip().upper() not in CLOSED:
                continue
            polygons.setdefault(number, []).append(_points(contour))
    numbers = sorted(polygons)
    as_they_are = all(1 <= number <= np.iinfo(np.uint16).max for number in numbers)
    labels = {number: number if as_they_are else n for n, number in enumerate(numbers, start=1)}
    return {labels[number]: (names.get(number, ""), polygons[number]) for number in numbers}


def _points(contour: Dataset) -> np.ndarray:
    raw = contour.get_item("ContourData")
    if raw is None or not raw.value:
        return np.zeros((0, 3))
    text = raw.value.decode("ascii", "replace") if isinstance(raw.value, bytes) else None
    values = decimals(text.strip("\0 ")) if text is not None else [float(value) for value in raw.value]
    points = np.array(values, float)
    if points.size % 3 or not np.isfinite(points).all():
        raise ValueError("contour")
    return points.reshape(-1, 3)


def _mask(
    polygons: list[np.ndarray], shape: tuple[int, int, int], to_index: np.ndarray, stage: str
) -> tuple[np.ndarray, tuple[float, float]]:
    """``(k, j, i)`` bool; areas of all contours and of what of them lies beyond the CT, in pixels."""
    mask = np.zeros(shape, bool)
    by_slice: dict[int, list[tuple[float, np.ndarray]]] = defaultdict(list)
    drawn, beyond = 0.0, 0.0
    for points in polygons:
        if len(points) < 3:
            continue
        ras = points * (-1.0, -1.0, 1.0)
        indices = ras @ to_index[:3, :3].T + to_index[:3, 3]
        level, outline = float(np.median(indices[:, 2])), indices[:, :2]
        if np.abs(indices[:, 2] - level).max() > OFF_PLANE:
            raise InputError(
                stage,
                "contours that run across the CT's slices",
                "contours drawn on the slices of this CT",
                "Export the structures as a DICOM SEG or a labelmap on the CT's grid.",
                code="contours_across_slices",
            )
        area = _area(outline)
        drawn += area
        if -0.5 <= level <= shape[0] - 0.5:
            by_slice[min(int(np.floor(level + 0.5)), shape[0] - 1)].append((level, outline))
            beyond += _area_beside(outline, shape[1], shape[2])
        else:
            beyond += area
    for k, contours in by_slice.items():
        for outline in _nearest_plane(contours, k):
            _fill(mask[k], outline)
    return mask, (drawn, beyond)


def _nearest_plane(contours: list[tuple[float, np.ndarray]], k: int) -> list[np.ndarray]:
    """Of contours at levels within a slice those of the plane nearest to its middle; of two as near the lower one's."""
    ordered = sorted(contours, key=lambda contour: contour[0])
    levels = np.array([level for level, _ in ordered])
    planes = np.split(np.arange(levels.size), np.flatnonzero(np.diff(levels) > SAME_PLANE) + 1)
    nearest = min(planes, key=lambda plane: round(abs(float(levels[plane].mean()) - k), 2))
    return [ordered[n][1] for n in nearest]


def _area(outline: np.ndarray) -> float:
    """Of a polygon ``(n, 2)``."""
    x, y = (outline - outline[:1]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _area_beside(outline: np.ndarray, rows: int, columns: int) -> float:
    """Of that part of a polygon where a slice of the CT would need more pixels.

    :param outline: ``(n, 2)`` column and row.
    """
    inside, last = outline, (columns, rows)  # -1 and these are the centers of the first pixels that are not there
    if outline.min() >= -1 and (outline <= last).all():
        return 0.0
    for axis in (0, 1):
        for bound, sign in ((-1, 1), (last[axis], -1)):
            inside = _cut(inside, axis, bound, sign)
    return _area(outline) - (_area(inside) if len(inside) else 0.0)


def _cut(outline: np.ndarray, axis: int, bound: float, sign: int) -> np.ndarray:
    """The part of a polygon ``(n, 2)`` above (``sign`` 1) or below (-1) a bound, ``(m, 2)``."""
    depth = sign * (outline[:, axis] - bound)
    earlier, depth_before = np.roll(outline, 1, axis=0), np.roll(depth, 1)
    inside = depth >= 0
    crossing = inside != (depth_before >= 0)
    share = np.divide(depth_before, depth_before - depth, out=np.zeros_like(depth), where=crossing)
    crossed = earlier + share[:, None] * (outline - earlier)
    return np.stack([crossed, outline], axis=1)[np.stack([crossing, inside], axis=1)]


def _fill(plane: np.ndarray, outline: np.ndarray) -> None:
    """Turn the pixels whose centers lie in a polygon.

    :param outline: ``(n, 2)`` column and row.
    """
    from skimage.draw import polygon  # slow to import

    rows, columns = polygon(outline[:, 1], outline[:, 0], plane.shape)
    plane[rows, columns] ^= True


def _gaps(mask: np.ndarray) -> int:
    """Slices without a voxel between others with some: contours were drawn on every second one, or so."""
    held = np.flatnonzero(mask.any(axis=(1, 2)))
    return int(held[-1] - held[0] + 1 - held.size) if held.size else 0
