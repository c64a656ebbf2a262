"""DICOM series made from a real one, with the faults that a test wants."""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk  # noqa: N813
from repository import CHEST

SECRET_NAME, SECRET_ID = "Zyzzogeton^Quirin", "PID-777123"


def series_files() -> list[Path]:
    """The 79 files of the real series, in the order of their names."""
    return sorted((CHEST / "dicom").glob("*.dcm"))


def copy_slice(source: Path, target: Path, **changes: str) -> None:
    """Copy one DICOM slice with header fields changed.

    :param changes: ``g0020e0032="x\\\\y\\\\z"`` sets (0020,0032); an empty text removes the field.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(source))
    reader.SetImageIO("GDCMImageIO")
    image = reader.Execute()
    for key in reader.GetMetaDataKeys():
        if key.split("|")[0] not in ("0002",):
            image.SetMetaData(key, reader.GetMetaData(key))
    image.SetMetaData("0010|0010", SECRET_NAME)
    image.SetMetaData("0010|0020", SECRET_ID)
    for name, value in changes.items():
        key = name.removeprefix("g").replace("e", "|", 1)
        if value:
            image.SetMetaData(key, value)
        elif image.HasMetaDataKey(key):
            image.EraseMetaData(key)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(target))
    writer.Execute(image)


def position(path: Path) -> tuple[float, float, float]:
    """Image Position (Patient) of a slice, LPS mm."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return tuple(float(value) for value in reader.GetMetaData("0020|0032").split("\\"))
