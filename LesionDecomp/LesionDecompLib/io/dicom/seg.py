"""Lungs and lesions as a DICOM segmentation (DICOM SEG) that refers to the CT series they were found in.

highdicom writes it; the optional extra ``dicom`` installs that. Nothing of it is imported with this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ... import __version__
from ...ct.anatomy import LUNG_LESION, LUNGS, NO_CODE, Code, Structure
from ...errors import OutputError
from ..atomic import atomic_file
from ..stored_image import unreadable
from .header import DicomSlice
from .seg_source import STAGE, source_images
from .series import find_series, series_files
from .source import dicom_source, is_dicom_source

if TYPE_CHECKING:
    from ...ct.volume import Volume

SERIES_DESCRIPTION = "LesionDecomp lungs and lesions (research use only)"
DESCRIPTION = "Lungs and lung lesions found by LesionDecomp"
SUPPLIED_MASK = "Lung mask supplied by the user"
# Context group 7162, surface processing algorithm families, which segmentations use too.
MANUAL: Code = ("DCM", "123109", "Manual Processing")
ARTIFICIAL_INTELLIGENCE: Code = ("DCM", "123110", "Artificial Intelligence")
DEVICE = "LesionDecomp"
SERIES_NUMBERS = 10_000_000  # series numbers beyond are cut, so that ours stays within the 31 bits it may have


class Algorithm(Protocol):
    """What found a structure, as the file names it; a model bundle is one."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def version(self) -> str:
        """Version of the model."""

    @property
    def sha256(self) -> str:
        """Hash of its weights, hexadecimal."""


def check_dicom_seg_support() -> None:
    """Refuse early, before any work is done, where no DICOM segmentation can be written.

    :raises LesionDecompError: highdicom is missing.
    """
    try:
        import highdicom  # noqa: F401  (an extra, slow to import)
    except ImportError as error:
        raise OutputError(
            STAGE,
            f"no usable 'highdicom' package ({error})",
            "highdicom",
            "Install it with: pip install 'lesiondecomp[dicom]'",
            code="highdicom_missing",
        ) from error


def check_dicom_input(source: str | Path, series: str | None = None) -> None:
    """Refuse, before any work is done, an input that no DICOM segmentation can refer to.

    A segmentation of one pixel is made in memory, from the headers of two of the series' images.

    :param series: which series of it is read.
    :raises LesionDecompError: it is not DICOM, cannot be read, or its headers lack what a segmentation must state.
    """
    path = Path(source)
    try:
        _check_dicom_input(path, series)
    except OSError as error:
        raise unreadable(path, STAGE, error) from error


def _check_dicom_input(path: Path, series: str | None) -> None:
    if not is_dicom_source(path):
        raise OutputError(
            STAGE,
            f"the input '{path.name}', which is not a DICOM series",
            "a DICOM series, to whose images the segmentation refers",
            "Choose the DICOM folder, or leave out the segmentation.",
            remedy="dicom_seg",
            code="seg_without_dicom",
        )
    with dicom_source(path, STAGE) as place:
        found = find_series(place, STAGE, series)
        items = [found.slices[0], found.slices[-1]]
        columns, rows = items[0].size[:2]
        pixels = np.zeros((2, rows, columns, 1), np.uint8)
        pixels[:, rows // 2, columns // 2] = 1
        _segmentation(items, pixels, {LUNG_LESION: None}, found.grid.distance, "")


def write_dicom_seg(
    path: str | Path,
    source: str | Path,
    volume: Volume,
    lungs: np.ndarray,
    lesions: np.ndarray,
    *,
    lesion_algorithm: Algorithm,
    lung_algorithm: Algorithm | None,
    series: str | None = None,
    descriptions: Mapping[str, str] | None = None,
) -> list[str]:
    """Write right lung, left lung and lesion as a binary DICOM SEG beside the study of its CT.

    It carries the patient and study of the series, as every object of a study does, a new series of its own, SNOMED CT
    codes, and for each frame a reference to the CT image it lies on. Structures without a voxel are left out, and
    so are slices that were interpolated because their images are missing.

    :param path: file to write.
    :param source: the DICOM input that ``volume`` was read from.
    :param lungs, lesions: labelmaps ``(k, j, i)`` uint8 on the volume's grid.
    :param lesion_algorithm, lung_algorithm: what found them; None for a lung mask that was supplied.
    :param descriptions: what segments say of themselves, by ID; ASCII, up to 1024 characters.
    :param series: which series of the source was read.
    :return: names of the segments written.
    :raises LesionDecompError: highdicom missing, the series is not there as it was read, or lacks what a DICOM
        segmentation must state about the patient and the study; no voxel at all.
    :raises OSError: the source can no longer be read.
    """
    check_dicom_seg_support()
    masks = {lung: lungs == lung.label for lung in LUNGS} | {LUNG_LESION: lesions != 0}
    masks = {structure: mask for structure, mask in masks.items() if mask.any()}
    if not masks:
        raise OutputError(STAGE, "neither lung nor lesion", "at least one voxel", code="seg_empty")
    algorithms = {structure: lesion_algorithm if structure is LUNG_LESION else lung_algorithm for structure in masks}
    with dicom_source(Path(source), STAGE) as place:
        items = series_files(place, STAGE, series)
        if len(items) != volume.shape[0]:
            found = f"{len(items)} images in the series"
            raise OutputError(STAGE, found, f"the {volume.shape[0]} that were read before", code="seg_source")
        frames = {
            k: item for k, item in enumerate(items) if item is not None and any(m[k].any() for m in masks.values())
        }
        if not frames:
            found, expected = "no image in the slices with lung or lesion", "a series with an image in each"
            raise OutputError(STAGE, found, expected, code="seg_source")
        pixels = np.stack([mask[list(frames)] for mask in masks.values()], axis=-1).view(np.uint8)
        segmentation = _segmentation(
            list(frames.values()), pixels, algorithms, _slice_distance(volume), lesion_algorithm.sha256
        )
    for segment in segmentation.SegmentSequence:
        if text := (descriptions or {}).get(str(segment.TrackingID)):
            segment.SegmentDescription = text
    with atomic_file(path, "wb", STAGE) as stream:
        segmentation.save_as(stream)
    return [structure.name for structure in masks]


def _segmentation(
    items: list[DicomSlice],
    pixels: np.ndarray,
    algorithms: dict[Structure, Algorithm | None],
    slice_distance: float,
    model_sha256: str,
) -> Any:
    """The DICOM object; ``pixels`` is ``(n, rows, columns, structures)`` uint8, a frame for each of the slices."""
    import highdicom  # an extra, slow to import

    images = source_images(items, slice_distance)
    if items[0].frames > 1:  # a frame for each of the file's, in its order
        whole = np.zeros((items[0].frames, *pixels.shape[1:]), np.uint8)
        whole[[item.frame for item in items]] = pixels
        pixels = whole
    try:
        return highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=pixels,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(number, *one) for number, one in enumerate(algorithms.items(), start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=int(items[0].number("series_number")) % SERIES_NUMBERS * 100 + 1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="LesionDecomp contributors",
            manufacturer_model_name="LesionDecomp",
            software_versions=__version__,
            # What distinguishes one such device from another is the model that it ran.
            device_serial_number=model_sha256[:16] or DEVICE,
            content_label="LUNG_LESIONS",
            content_description=DESCRIPTION,
            series_description=SERIES_DESCRIPTION,
        )
    except MemoryError:
        raise
    except Exception as error:  # of pydicom and highdicom, a dozen kinds: all mean a header that will not do
        reason = " ".join(str(error).split())[:200]
        raise OutputError(
            STAGE,
            f"a series that no segmentation can refer to ({reason})",
            "a complete DICOM CT series",
            "Leave out the segmentation.",
            remedy="dicom_seg",
            code="seg_source",
        ) from error


def _slice_distance(volume: Volume) -> float:
    along_i, along_j, along_k = volume.ijk_to_ras[:3, :3].T
    normal = np.cross(along_i, along_j)
    return float(abs(along_k @ normal) / np.linalg.norm(normal))


def _described(number: int, structure: Structure, model: Algorithm | None) -> Any:
    import highdicom  # an extra, slow to import

    supplied = model is None
    kinds = highdicom.seg.SegmentAlgorithmTypeValues
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=f"LesionDecomp {model.name}"[:64] if model is not None else SUPPLIED_MASK,
        version=model.version if model is not None else __version__,
        family=_concept(MANUAL if supplied else ARTIFICIAL_INTELLIGENCE),
    )
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name,
        segmented_property_category=_concept(structure.category),
        segmented_property_type=_concept(structure.type),
        # How a supplied mask came about is not known to us: somebody chose it.
        algorithm_type=kinds.SEMIAUTOMATIC if supplied else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=highdicom.UID(),
        tracking_id=structure.segment_id,
        anatomic_regions=[_concept(structure.region)] if structure.region != NO_CODE else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*(round(255 * part) for part in structure.color)),
    )
    if structure.modifier != NO_CODE:
        type_code = description.SegmentedPropertyTypeCodeSequence[0]
        type_code.SegmentedPropertyTypeModifierCodeSequence = [_concept(structure.modifier)]
    return description


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept  # an extra, slow to import

    scheme, value, meaning = code
    return CodedConcept(value=value, scheme_designator=scheme, meaning=meaning)
