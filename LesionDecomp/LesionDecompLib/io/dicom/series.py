"""Reading the CT series in a folder of DICOM files.

Slices are sorted by position along their normal. Where the positions don't make a regular grid, small gaps are filled
by interpolation with a warning, and the series is refused where that would invent too much (:mod:`.grid`).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np

from ...ct.plausibility import THICK_SLICE_MM
from ...errors import InputError, LesionDecompError
from ..stored_image import INT16, MAX_DEFLATE_RATIO, StoredImage, captured_stderr, check_size, compact, damaged
from .files import EXPECTED, DicomSlice, image_reader, scan_folder
from .grid import SliceGrid, fill_gaps, slice_grid

MIN_SLICES = 3
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def read_dicom_folder(folder: Path, stage: str) -> StoredImage:
    """Read the one CT series in ``folder`` (subfolders included) as a volume in HU.

    Localizers, reports and other objects beside it are left out, with a warning.

    :raises LesionDecompError: no CT series or several, another modality, damaged files, too many slices missing,
        several images at one position, mixed sizes or orientations, fewer than three slices.
    """
    series, grid, warnings = _sorted_series(folder, stage)
    array = fill_gaps(_voxels(series, stage), grid)
    warnings += grid.warnings + _acquisition_warnings(series[0], grid)
    bits = series[0].tags["bits"].strip()
    stored = f"int{bits}" if bits in ("8", "16", "32") else "int16"
    return StoredImage(array, grid.ijk_to_ras, "DICOM", stored, tuple(warnings), _facts(series, grid))


def series_files(folder: Path, stage: str) -> list[Path | None]:
    """The file of each slice (first axis) that :func:`read_dicom_folder` reads; None where it interpolates.

    :raises LesionDecompError: as :func:`read_dicom_folder`.
    """
    series, grid, _ = _sorted_series(folder, stage)
    return [None if n is None else series[n].path for n in grid.sources()]


def _sorted_series(folder: Path, stage: str) -> tuple[list[DicomSlice], SliceGrid, list[str]]:
    slices, others = scan_folder(folder, stage)
    series, warnings = _choose(slices, others, stage)
    series, copies = _without_copies(series)
    if copies:
        warnings.append(f"{copies} duplicate DICOM files were left out.")
    _check_layout(series, stage)
    grid = slice_grid(
        np.array([item.numbers("position") for item in series]),
        series[0].numbers("orientation"),
        series[0].numbers("pixel_spacing"),
        stage,
    )
    return [series[n] for n in grid.order], grid, warnings


def _choose(slices: list[DicomSlice], others: int, stage: str) -> tuple[list[DicomSlice], list[str]]:
    by_series: dict[str, list[DicomSlice]] = {}
    for item in slices:
        by_series.setdefault(item.tags["series_uid"], []).append(item)
    usable: dict[str, list[DicomSlice]] = {}
    skipped: Counter[str] = Counter()
    for uid, items in by_series.items():
        chosen = [
            item
            for item in items
            if item.tags["modality"] == "CT"
            and item.is_placed
            and not item.is_localizer
            and item.tags["sop_class"] != ENHANCED_CT
        ]
        if len(chosen) >= MIN_SLICES:
            usable[uid] = chosen
            skipped["localizer or unplaced image"] += len(items) - len(chosen)
        else:
            skipped[f"image of a series that is not a CT volume ({_kind(items)})"] += len(items)
    if len(usable) > 1:
        listed = "; ".join(_describe(items) for items in sorted(usable.values(), key=len, reverse=True)[:4])
        more = f"; and {len(usable) - 4} more" if len(usable) > 4 else ""
        raise InputError(
            stage, f"{len(usable)} CT series ({listed}{more})", EXPECTED, "Put the series you want into its own folder."
        )
    if not usable:
        raise _no_ct(slices, stage)
    skipped["DICOM object without an image"] = others
    warnings = [f"Left out: {count} × {what}." for what, count in skipped.items() if count]
    return next(iter(usable.values())), warnings


def _kind(items: list[DicomSlice]) -> str:
    if any(item.is_localizer for item in items):
        return "localizer"
    return items[0].tags["modality"] or "modality not given"


def _describe(items: list[DicomSlice]) -> str:
    thickness = items[0].numbers("thickness")
    text = f"'{items[0].tags['description'] or 'without description'}' with {len(items)} slices"
    return text + (f" of {thickness[0]:g} mm" if thickness else "")


def _no_ct(slices: list[DicomSlice], stage: str) -> LesionDecompError:
    modalities = Counter(item.tags["modality"] or "not given" for item in slices)
    if "CT" not in modalities:
        found = ", ".join(f"{name} ({count} images)" for name, count in modalities.most_common(3))
        return InputError(stage, f"images of modality {found}", EXPECTED)
    ct = [item for item in slices if item.tags["modality"] == "CT"]
    if any(item.tags["sop_class"] == ENHANCED_CT or (len(item.size) > 2 and item.size[2] > 1) for item in ct):
        return InputError(
            stage, "an enhanced (multi-frame) CT", "one file for each slice", "Convert it to NRRD or NIfTI first."
        )
    if all(item.is_localizer for item in ct):
        return InputError(stage, f"only localizers ({len(ct)} images)", EXPECTED)
    if not any(item.is_placed for item in ct):
        return InputError(stage, f"{len(ct)} CT images without a position in the patient", EXPECTED)
    count = len([item for item in ct if not item.is_localizer])
    word = "slice" if count == 1 else "slices"
    return InputError(stage, f"{count} CT {word}", f"{EXPECTED} of at least {MIN_SLICES} slices")


def _without_copies(series: list[DicomSlice]) -> tuple[list[DicomSlice], int]:
    unique = {item.tags["sop_instance"] or str(item.path): item for item in series}
    return list(unique.values()), len(series) - len(unique)


def _check_layout(series: list[DicomSlice], stage: str) -> None:
    groups: list[list[DicomSlice]] = []
    for item in series:
        group = next((group for group in groups if group[0].fits(item)), None)
        if group is None:
            groups.append([item])
        else:
            group.append(item)
    if len(groups) > 1:
        counts = " and ".join(str(len(group)) for group in sorted(groups, key=len, reverse=True)[:4])
        raise InputError(
            stage, f"a series of mixed size, orientation or pixel spacing ({counts} slices)", "slices that fit together"
        )
    first = series[0]
    columns, rows = first.size[:2]
    if any(frames != 1 for frames in first.size[2:]):
        frames = "×".join(map(str, first.size[2:]))
        raise InputError(stage, f"{frames} frames in one DICOM file", "one slice in each file")
    samples = int(first.numbers("samples")[0]) if first.numbers("samples") else 1
    check_size(stage, (columns, rows, len(series)), samples)


def _voxels(series: list[DicomSlice], stage: str) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    columns, rows = series[0].size[:2]
    for item in series:
        ratio = 1 if item.is_uncompressed else MAX_DEFLATE_RATIO
        if item.path.stat().st_size * ratio < rows * columns:  # before memory is asked for
            raise damaged(stage, f"DICOM file '{item.path.name}'")
    array = np.empty((len(series), rows, columns), np.int16)
    for k, item in enumerate(series):
        try:
            with captured_stderr():
                image = image_reader(item.path).Execute()
        except RuntimeError as error:
            raise damaged(stage, f"DICOM file '{item.path.name}'") from error
        plane = sitk.GetArrayViewFromImage(image)
        if plane.size != rows * columns:
            raise damaged(stage, f"DICOM file '{item.path.name}'")
        plane = plane.reshape(rows, columns)
        if array.dtype == np.int16 and not _fits_int16(plane):
            array = array.astype(np.float32)
        array[k] = plane
    return compact(array)


def _fits_int16(plane: np.ndarray) -> bool:
    if plane.dtype == np.int16:
        return True
    if not (np.isfinite(plane).all() and plane.min() >= INT16.min and plane.max() <= INT16.max):
        return False
    return plane.dtype.kind in "iu" or bool(np.array_equal(plane, np.rint(plane)))


def _acquisition_warnings(first: DicomSlice, grid: SliceGrid) -> list[str]:
    warnings = []
    if not first.tags["slope"]:
        warnings.append("The DICOM header gives no rescale slope: the stored values were taken for HU.")
    if first.tags["rescale_type"] not in ("", "HU", "US"):  # US: unspecified, as many exporters write
        warnings.append("The DICOM header states that the values are not in HU.")
    thickness = first.numbers("thickness")
    if thickness and thickness[0] > THICK_SLICE_MM + 0.01 and grid.distance <= THICK_SLICE_MM + 0.01:
        warnings.append(f"Slices are {thickness[0]:g} mm thick; beyond {THICK_SLICE_MM:g} mm small lesions are missed.")
    if thickness and 0 < thickness[0] < 0.67 * grid.distance:
        warnings.append(
            f"Slices {thickness[0]:g} mm thick lie {grid.distance:.3g} mm apart: volumes miss what lies between them."
        )
    return warnings


def _facts(series: list[DicomSlice], grid: SliceGrid) -> dict[str, str | float | bool]:
    # What distinguishes scanners and reconstructions; nothing that distinguishes patients.
    first = series[0]
    facts: dict[str, str | float | bool] = {
        "files": len(series),
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
