"""DICOM series of a drawn volume, each element of whose headers a test can set: what hospitals send in small."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

SLICES, ROWS, COLUMNS = 12, 40, 36
PIXEL_MM, ROW_MM, SLICE_MM = 1.5, 2.0, 4.0
ORIGIN = (-20.0, -30.0, 100.0)
STUDY = {
    "StudyDate": "20240229",
    "StudyTime": "081500",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "",
    "PatientName": "Drawn^Body",
    "PatientID": "D-1",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyID": "7",
}


def drawn_hu(seed: int = 1) -> np.ndarray:
    """``(SLICES, ROWS, COLUMNS)`` int16 HU: a body in air, no two slices the same; another seed, another body."""
    z, y, x = np.mgrid[:SLICES, :ROWS, :COLUMNS]
    body = ((x - COLUMNS / 2) / 14) ** 2 + ((y - ROWS / 2) / 16) ** 2 < 1
    noise = np.random.default_rng(seed).integers(-20, 21, z.shape)
    return np.where(body, 40 + 5 * z + noise, -1000 + noise // 2).astype(np.int16)


def made_uid(*parts: object) -> UID:
    """The same UID in every run."""
    return generate_uid(entropy_srcs=["drawn", *map(str, parts)])


def drawn_series(hu: np.ndarray | None = None, series: int = 1, **elements: object) -> list[Dataset]:
    """The slices of a series, the lowest first.

    :param hu: ``(z, y, x)`` stored values, int16 or uint16.
    :param series: its number; other numbers, other UIDs.
    :param elements: of every header, by keyword; None removes one.
    """
    hu = drawn_hu() if hu is None else hu
    slices = []
    for k, plane in enumerate(hu):
        data = Dataset()
        for keyword, value in {
            **STUDY,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": made_uid(series, k),
            "StudyInstanceUID": made_uid("study"),
            "SeriesInstanceUID": made_uid("series", series),
            "FrameOfReferenceUID": made_uid("frame"),
            "Modality": "CT",
            "Manufacturer": "Drawer",
            "SeriesDescription": f"Drawn {series}",
            "SeriesNumber": series,
            "InstanceNumber": k + 1,
            "AcquisitionNumber": 1,
            "ImagePositionPatient": [ORIGIN[0], ORIGIN[1], ORIGIN[2] + k * SLICE_MM],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [ROW_MM, PIXEL_MM],
            "SliceThickness": SLICE_MM,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": plane.shape[0],
            "Columns": plane.shape[1],
            "BitsAllocated": 8 * plane.dtype.itemsize,
            "BitsStored": 8 * plane.dtype.itemsize,
            "HighBit": 8 * plane.dtype.itemsize - 1,
            "PixelRepresentation": int(plane.dtype.kind == "i"),
            "RescaleSlope": 1,
            "RescaleIntercept": 0,
            "RescaleType": "HU",
            "PixelData": np.ascontiguousarray(plane, plane.dtype.newbyteorder("<")).tobytes(),
            **elements,
        }.items():
            if value is not None:
                setattr(data, keyword, value)
        slices.append(data)
    return slices


def write_slices(
    folder: Path, slices: Iterable[Dataset], start: str = "IM", syntax: str = ExplicitVRLittleEndian
) -> Path:
    """Write data sets as DICOM files into a folder; return it.

    :param start: of the files' names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(slices, start=1):
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = UID(syntax)
        data.file_meta.MediaStorageSOPClassUID = data.get("SOPClassUID") or CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID") or made_uid("file", number)
        dcmwrite(folder / f"{start}{number:03d}.dcm", data, enforce_file_format=True)
    return folder
