"""A finished result folder as one scan of a follow-up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.readers import read_stored, read_volume
from ..measurement.change.scan import Scan
from ..measurement.statistics import RegionStatistics
from .case import LESIONS, LUNGS, REPORT
from .comparison import read_report
from .manifest import shown_measurements

STAGE = "Reading a finished result"
EXPECTED = f"a folder with {REPORT}, {LUNGS} and {LESIONS}, as 'segment' writes it"
SAME_PLACE = 1e-3  # between matrices of files that were written from one


def is_result_folder(path: Path) -> bool:
    """Whether a folder holds a report."""
    return path.is_dir() and (path / REPORT).is_file()


def read_finished(folder: Path, ct: Path | None = None) -> tuple[Scan, dict[str, Any]]:
    """Read lungs, lesions and measurements of a result folder, and its CT.

    :param ct: the CT that was segmented; None leaves its HU out.
    :return: the scan, and the report.
    :raises LesionDecompError: no finished result, files that do not fit, or another CT than the report's, by its hash.
    """
    report = read_report(folder)
    masks = [read_stored(_file(folder, name), STAGE) for name in (LUNGS, LESIONS)]
    lungs, lesions = (stored.array.astype(np.uint8, copy=False) for stored in masks)
    matrix = masks[0].ijk_to_ras
    if lungs.shape != lesions.shape or not np.allclose(matrix, masks[1].ijk_to_ras, atol=SAME_PLACE):
        raise InputError(STAGE, f"{LUNGS} and {LESIONS} of two grids in '{folder.name}'", EXPECTED)
    identity, hu = str(report["input"].get("sha256")), None
    if ct is not None:
        volume, info = read_volume(ct, series=report["parameters"].get("series"))
        if info.sha256 != identity:
            raise InputError(
                STAGE,
                f"a CT with the hash {info.sha256[:12]}… for '{folder.name}'",
                f"the CT of its report, {identity[:12]}…",
                "Give the CTs in the order of the result folders.",
                code="follow_other_ct",
            )
        hu, matrix = volume.array, volume.ijk_to_ras
        if hu.shape != lungs.shape:
            raise InputError(STAGE, f"{LUNGS} of another shape than its CT in '{folder.name}'", EXPECTED)
    return Scan(lungs, lesions, matrix, recorded_rows(report), hu, identity), report


def recorded_rows(report: Mapping[str, Any]) -> list[RegionStatistics]:
    """Measurements of lungs, thirds and halves that a report records.

    :raises LesionDecompError: rows that do not read.
    """
    shown = shown_measurements(report)  # of the lesions that a reader has left, as the labelmap has them
    records = [*shown["statistics"], *(row for row in shown.get("regions") or () if row.get("set") == "halves")]
    try:
        return [
            RegionStatistics(
                record["region"],
                {
                    key: math.nan if value is None else float(value)
                    for key, value in record.items()
                    if value is None or isinstance(value, (int, float))
                },
            )
            for record in records
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(STAGE, "damaged measurements in a report", EXPECTED) from error


def _file(folder: Path, name: str) -> Path:
    for ending in (".nrrd", ".nii.gz"):
        path = folder / f"{Path(name).stem}{ending}"
        if path.is_file():
            return path
    raise InputError(STAGE, f"'{folder.name}' without {name}", EXPECTED)
