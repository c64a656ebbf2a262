"""When a DICOM series was acquired. Asked for at run time alone; whoever writes it to a file was asked to."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import date
from pathlib import Path

from ...errors import LesionDecompError
from ..archive import is_archive, unpacked
from .series import find_series

STAGE = "Reading the date"
TAGS = ("AcquisitionDate", "SeriesDate", "StudyDate", "ContentDate")  # the nearest to the breath first


def acquisition_date(source: Path, series: str | None = None) -> date | None:
    """The date of a series; None where the header states none.

    :param source: a folder, a file of the series, or a zip archive.
    :param series: of several the one to look at, chosen as :func:`.series.read_dicom` does.
    """
    import pydicom  # slow to import

    try:
        with unpacked(source, STAGE) if is_archive(source) else nullcontext(source) as place:
            first = find_series(place, STAGE, series).slices[0].path
            header = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
    except (LesionDecompError, OSError, ValueError):
        return None
    for tag in TAGS:
        text = str(header.get(tag, "") or "").strip().replace("-", "").replace(".", "")[:8]
        try:
            return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
        except ValueError:
            continue
    return None
