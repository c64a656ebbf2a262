"""When a DICOM series was acquired. Asked for at run time alone; whoever writes it to a file was asked to."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from ...errors import LesionDecompError
from .series import find_series

TAGS = ("AcquisitionDate", "SeriesDate", "StudyDate", "ContentDate")  # the nearest to the breath first


def acquisition_date(source: Path, series: str | None = None) -> date | None:
    """The date of a series, as :func:`.series.read_dicom` chooses it; None where the header states none."""
    import pydicom  # slow to import

    try:
        found = find_series(source, "Reading the date", series)
        header = pydicom.dcmread(found.slices[0].path, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    except (LesionDecompError, OSError, ValueError):
        return None
    for tag in TAGS:
        text = str(header.get(tag, "") or "").strip().replace("-", "").replace(".", "")[:8]
        try:
            return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            continue
    return None
