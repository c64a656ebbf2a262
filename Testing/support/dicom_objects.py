"""DICOM objects of more than one slice beside the drawn series: enhanced CT, segmentations, contours."""

from __future__ import annotations

import numpy as np
from dicom_phantom import COLUMNS, ORIGIN, PIXEL_MM, ROW_MM, ROWS, SLICE_MM, SLICES, drawn_hu, drawn_series, made_uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"


def group(keyword: str, **elements: object) -> dict[str, Sequence]:
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return {keyword: Sequence([item])}


def item_of(groups: dict[str, Sequence]) -> Dataset:
    item = Dataset()
    for keyword, value in groups.items():
        setattr(item, keyword, value)
    return item


def enhanced(hu: np.ndarray, series: int = 1, order=None, acquisitions=None) -> Dataset:
    """One file with a frame for each slice, in any order; intercepts shared, positions of each frame.

    :param acquisitions: number of each frame.
    """
    (data,) = drawn_series(hu[:1], series)
    order = range(len(hu)) if order is None else order
    data.SOPClassUID, data.NumberOfFrames = ENHANCED, len(hu)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness",
                    "RescaleSlope", "RescaleIntercept", "RescaleType", "AcquisitionNumber"):  # fmt: skip
        del data[keyword]
    data.SharedFunctionalGroupsSequence = Sequence([item_of({
        **group("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        **group("PixelMeasuresSequence", PixelSpacing=[ROW_MM, PIXEL_MM], SliceThickness=SLICE_MM),
        **group("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
        **group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]),
        **group("CTReconstructionSequence", ConvolutionKernel="B30f"),
    })])  # fmt: skip
    frames = []
    for n, k in enumerate(order):
        position = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + int(k) % len(drawn_hu()) * SLICE_MM]
        number = 1 if acquisitions is None else acquisitions[n]
        frames.append(item_of({
            **group("PlanePositionSequence", ImagePositionPatient=position),
            **group("FrameContentSequence", FrameAcquisitionNumber=number),
        }))  # fmt: skip
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    stored = (hu.astype(np.int32) + 1024).astype(np.uint16)[np.array(list(order)) % len(hu)]
    data.PixelRepresentation, data.PixelData = 0, stored.astype("<u2").tobytes()
    return data


def masks() -> np.ndarray:
    """``(z, y, x)`` 0 to 3: two lungs in the middle slices, a gap of empty ones between them, and a lesion."""
    labels = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
    labels[2:5, 8:30, 4:15] = 1
    labels[7:10, 9:31, 20:33] = 2
    labels[8, 12:15, 22:26] = 3
    return labels


def segments(names: list[str], kinds: tuple[tuple[str, str], ...] | None = None) -> list:
    """Segments of these names.

    :param kinds: code and meaning (SNOMED CT) of each; None: all are lung.
    """
    import highdicom

    code = highdicom.sr.CodedConcept
    manual = code("123109", "DCM", "Manual Processing")
    algorithm = highdicom.AlgorithmIdentificationSequence("drawn", manual, "1")
    tissue = code("123037004", "SCT", "Anatomical Structure")
    described = []
    for number, (name, kind) in enumerate(zip(names, kinds or [("39607008", "Lung")] * len(names), strict=True), 1):
        what = code(kind[0], "SCT", kind[1])
        described.append(highdicom.seg.SegmentDescription(number, name, tissue, what, "SEMIAUTOMATIC", algorithm))
    return described


def write_seg(path, pixels: np.ndarray, names: list[str], kind: str = "BINARY", kinds=None, **options):
    """A SEG of ``(z, y, x)`` labels, or ``(z, y, x, segment)``, beside the drawn series."""
    import highdicom

    seg = highdicom.seg.Segmentation(
        source_images=drawn_series(PositionReferenceIndicator=""),
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=segments(names, kinds),
        series_instance_uid=made_uid("seg"),
        series_number=9,
        sop_instance_uid=made_uid("seg", 1),
        instance_number=1,
        manufacturer="Drawer",
        manufacturer_model_name="Drawer",
        software_versions="1",
        device_serial_number="1",
        **options,
    )
    seg.save_as(path)
    return path


def write_rtstruct(path, structures: dict[str, list[list[tuple[float, float, float]]]], first: int = 1, **contour):
    """An RTSTRUCT: name -> polygons of LPS points, mm; numbered from ``first`` on."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", made_uid("rt")
    data.Modality, data.StructureSetROISequence, data.ROIContourSequence = "RTSTRUCT", [], []
    for number, (name, polygons) in enumerate(structures.items(), start=first):
        roi, item = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        item.ReferencedROINumber, item.ContourSequence = number, []
        for polygon in polygons:
            one = Dataset()
            one.ContourGeometricType = "CLOSED_PLANAR"
            one.NumberOfContourPoints = len(polygon)
            one.ContourData = [f"{value:.6g}" for point in polygon for value in point]
            for keyword, value in contour.items():
                setattr(one, keyword, value)
            item.ContourSequence.append(one)
        data.StructureSetROISequence.append(roi)
        data.ROIContourSequence.append(item)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dcmwrite(path, data, enforce_file_format=True)
    return path


def box(k: float, rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[float, float, float]]:
    """The outline of whole pixels in a slice of the drawn series: half a pixel beyond their centers."""
    low, high = ((columns[0] - 0.5, rows[0] - 0.5), (columns[1] - 0.5, rows[1] - 0.5))
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    return [(-20 + 1.5 * x, -30 + 2 * y, 100 + 4 * k) for x, y in corners]


def square(ijk_to_ras: np.ndarray, k: int, rows: tuple[int, int], columns: tuple[int, int]) -> list[tuple[float, ...]]:
    """The outline of whole pixels in a slice of any CT, LPS mm."""
    corners = [(x - 0.5, y - 0.5, k, 1.0) for x, y in zip(np.repeat(columns, 2), (*rows, *rows[::-1]), strict=True)]
    return [tuple((ijk_to_ras @ corner)[:3] * (-1, -1, 1)) for corner in corners]
