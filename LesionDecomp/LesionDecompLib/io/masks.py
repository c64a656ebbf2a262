"""Lung masks and labelmaps of regions, from files: their labels on the CT's grid, and what these are called.

One reader for both. A labelmap must lie on the CT's lattice; stored with other axes, cropped or moved by whole voxels
it is put where it belongs. Formats are those of :mod:`.readers`, DICOM SEG and RTSTRUCT; names
come from :mod:`.label_names` or the objects themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ct.lattice import as_labels, beyond_warnings, labels_on_grid
from ..ct.lung_names import lung_labels, lung_side
from ..ct.oddity import Oddity
from ..ct.volume import Volume
from ..errors import InputError, LesionDecompError
from ..libraries import libraries_named
from .dicom.files import is_dicom_file
from .folders import files_below
from .label_names import names_beside, names_in_nifti, names_in_nrrd, segments_in_nrrd
from .nrrd import read_nrrd_layers
from .nrrd_header import NrrdHeader
from .readers import READERS, case_name, read_stored
from .stored_image import itk_header, unreadable

if TYPE_CHECKING:
    from .dicom.labels import StoredLabels

PACKED_LABELS, PLAIN = 0.25, 1.9  # bytes for each voxel: a packed CT's noise takes more; what is not packed even more
HIGHEST_SEARCHED, MOST_SEARCHED = 1000, 150  # of files that are searched for CTs: highest label, and how many labels


@dataclass(frozen=True, eq=False)
class Labels:
    """A labelmap on a CT's grid.

    :param array: ``(k, j, i)`` uint8 or uint16, 0 outside of all structures.
    :param names: of its labels, as far as they are known; of labels that do not occur, too.
    :param warnings: a sentence each.
    """

    array: np.ndarray
    names: dict[int, str] = field(default_factory=dict)
    warnings: tuple[Oddity, ...] = ()

    @property
    def values(self) -> list[int]:
        """The labels that occur, without 0, in order."""
        return [int(value) for value in np.flatnonzero(np.bincount(self.array.ravel())) if value]


@dataclass(frozen=True, eq=False)
class LungMask:
    """A lung mask on a CT's grid.

    :param array: ``(k, j, i)`` uint8: 1 right and 2 left lung where the mask separates them, else 1.
    :param warnings: a sentence each.
    """

    array: np.ndarray
    warnings: tuple[Oddity, ...] = ()


def read_labels(
    path: str | Path, like: Volume, stage: str = "Reading the labelmap", *, what: str = "the labelmap"
) -> Labels:
    """Read a labelmap of any structures.

    :param path: NIfTI, NRRD (.seg.nrrd included), MetaImage, DICOM SEG or RTSTRUCT, or a folder with one of the latter.
    :param like: the CT.
    :param what: what warnings call it; they get into files, and its file's name may be the patient's.
    :raises LesionDecompError: unreadable (see :func:`.readers.read_volume`), off the CT's lattice, wholly beside the
        CT, or no labelmap: fractions, values below 0, hundreds of different ones.
    """
    return _read(Path(path), like, stage, what, lambda names: None)


def labels_file(path: str | Path, stage: str = "Reading the labelmap") -> Path:
    """The file that holds the labels: the path itself, or the only DICOM SEG or RTSTRUCT in a folder.

    :raises LesionDecompError: a folder with none or with several of them.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = _dicom_object(path)
    if found is None:
        raise InputError(
            stage,
            "a folder without a DICOM SEG or RTSTRUCT, or with several",
            "a labelmap file, or a folder with one such object",
            "Give the file.",
            code="labels_folder",
        )
    return found[0]


@libraries_named()
def _read(
    path: Path, like: Volume, stage: str, what: str, choose: Callable[[dict[int, str]], Collection[int] | None]
) -> Labels:
    """Read labels; of structures that may overlap only those that ``choose`` picks by their names, None for all."""
    try:
        stored = _stored_labels(path, like, stage, choose)
    except OSError as error:
        raise unreadable(path, stage, error) from error
    array, outside = labels_on_grid(stored.array, stored.ijk_to_ras, like, stage)
    warnings = [*stored.warnings, *beyond_warnings(what, max(stored.beyond, outside))]
    return Labels(array, stored.names, tuple(warnings))


def _stored_labels(
    path: Path, like: Volume, stage: str, choose: Callable[[dict[int, str]], Collection[int] | None]
) -> StoredLabels:
    """Labels as the file holds them.

    :raises OSError: the system does not let it be read.
    """
    from .dicom.labels import StoredLabels  # not before: it loads pydicom

    if (dicom := _dicom_object(path)) is not None:
        return _read_dicom(dicom, like, stage, choose)
    if (segments := _layered_segments(path)) is not None:
        return StoredLabels(*_read_layers(path, segments, stage, choose))
    image = read_stored(path, stage)
    return StoredLabels(as_labels(image.array, stage), image.ijk_to_ras, _names(path))


def _dicom_object(path: Path) -> tuple[Path, str] | None:
    """The file of a DICOM segmentation or of contours, and which it is; also the only one in a folder."""
    from .dicom.labels import label_object  # not before: it loads pydicom

    try:
        if path.is_dir():
            found = [(file, kind) for file in files_below(path) if is_dicom_file(file) and (kind := label_object(file))]
            return found[0] if len(found) == 1 else None
        if path.name.lower().endswith(tuple(READERS)) or not path.is_file() or not is_dicom_file(path):
            return None
        kind = label_object(path)
    except OSError:  # which the reader reports
        return None
    return (path, kind) if kind is not None else None


def _read_dicom(
    found: tuple[Path, str], like: Volume, stage: str, choose: Callable[[dict[int, str]], Collection[int] | None]
) -> StoredLabels:
    from .dicom.rtstruct import read_rtstruct  # not before: it loads pydicom
    from .dicom.seg_labels import read_dicom_seg  # not before: it loads pydicom

    path, kind = found

    def read(chosen: Collection[int] | None) -> StoredLabels:
        if kind == "SEG":
            return read_dicom_seg(path, chosen, stage)
        return read_rtstruct(path, like.shape, like.ijk_to_ras, chosen, stage)

    stored = read(None)
    chosen = choose(stored.names)
    return stored if chosen is None else read(chosen)


def _layered_segments(path: Path) -> list[tuple[int, int, str]] | None:
    """Label, layer and name of the segments of a .seg.nrrd with several layers; None for any other file."""
    if not path.name.lower().endswith((".nrrd", ".nhdr")) or not path.is_file():
        return None
    header = NrrdHeader.read(path)
    segments = segments_in_nrrd(header.own)
    sizes = header.fields.get("sizes", "").split()
    return segments if segments and len(sizes) == 4 and sizes[0] != "1" else None


def _read_layers(
    path: Path,
    segments: list[tuple[int, int, str]],
    stage: str,
    choose: Callable[[dict[int, str]], Collection[int] | None],
) -> tuple[np.ndarray, np.ndarray, dict[int, str], tuple[Oddity, ...]]:
    """Segments that overlap as one labelmap, numbered from 1 in the order of the file; the first keeps what it has."""
    layers, matrix = read_nrrd_layers(path, stage)
    names = {number: name for number, (_, _, name) in enumerate(segments, start=1)}
    chosen = choose(names)
    array = np.zeros(layers.shape[1:], np.uint16 if len(names) > 255 else np.uint8)
    overlapping = 0
    for number, (value, layer, _) in enumerate(segments, start=1):
        if layer < len(layers) and (chosen is None or number in chosen):
            inside = layers[layer] == value
            overlapping += int(np.count_nonzero(inside & (array > 0)))
            array[inside & (array == 0)] = number
    warnings = []
    if overlapping:
        text = f"{overlapping} voxels of the mask belong to several structures; the first of them was taken."
        warnings.append(Oddity(text, "structures_overlap", overlapping, 0.0))
    return array, matrix, names, tuple(warnings)


def read_lungs(
    path: str | Path,
    like: Volume,
    chosen: Collection[int] | None = None,
    stage: str = "Reading the lung mask",
    *,
    may_be_empty: bool = False,
) -> LungMask:
    """Read a lung mask: one of lungs alone, or the lungs among the structures of a labelmap.

    :param like: the CT.
    :param chosen: the labels that are lung; None for those that are called so, or the only one, or 1 and 2.
    :param may_be_empty: take a mask without a lung as well.
    :raises LesionDecompError: as :func:`read_labels`; no lung, or none that is known to be one.
    """
    labels = _read(Path(path), like, stage, "the lung mask", lambda names: _lungs_among(names, chosen))
    values = labels.values
    if not values:
        if may_be_empty:
            return LungMask(np.zeros(like.shape, np.uint8), labels.warnings)
        raise InputError(stage, "a mask without a lung voxel", "voxels above 0 inside the lungs", code="mask_empty")
    return LungMask(_of_sides(labels.array, lung_labels(values, labels.names, chosen, stage)), labels.warnings)


def read_mask(
    path: str | Path, like: Volume, stage: str = "Reading the lung mask", *, may_be_empty: bool = False
) -> np.ndarray:
    """The array of :func:`read_lungs`, for scripts: ``(k, j, i)`` uint8, 1 right, 2 left lung, or 1 for both.

    :param like: the CT.
    :param may_be_empty: take a mask without a lung as well.
    :raises LesionDecompError: as :func:`read_lungs`.
    """
    return read_lungs(path, like, None, stage, may_be_empty=may_be_empty).array


def holds_labels(path: Path) -> bool:
    """Whether an image file holds labels rather than a CT: few whole numbers from 0 up, whatever their type.

    A packed CT takes more room than labels do, so that it is not unpacked here. What cannot be read holds none.
    """
    try:
        reader = itk_header(path)
        voxels = float(np.prod([float(n) for n in reader.GetSize()]))
        held = path.stat().st_size
        if PACKED_LABELS * voxels < held < PLAIN * voxels:
            return False
        array = read_stored(path, "Searching the folder").array
    except (OSError, RuntimeError, LesionDecompError):
        return False
    if array.dtype.kind == "f" or array.min(initial=0) < 0 or array.max(initial=0) > HIGHEST_SEARCHED:
        return False
    return int(np.count_nonzero(np.bincount(array.ravel()))) <= MOST_SEARCHED


def _lungs_among(names: dict[int, str], chosen: Collection[int] | None) -> Collection[int] | None:
    """Of structures that may overlap the lungs, so that no lesion or vessel takes their voxels; None where none is."""
    if chosen is not None:
        return chosen
    return [number for number, name in names.items() if lung_side(name) is not None] or None


def _of_sides(array: np.ndarray, sides: dict[int, int]) -> np.ndarray:
    """Labels to 1 right, 2 left; to 1 where a label's side is not known."""
    known = all(sides.values())
    table = np.zeros(int(array.max(initial=0)) + 1, np.uint8)
    for label, side in sides.items():
        table[label] = side if known else 1
    return table[array]


def _names(path: Path) -> dict[int, str]:
    """Names in the file itself, else in a table beside it."""
    lower = path.name.lower()
    names: dict[int, str] = {}
    if lower.endswith((".nrrd", ".nhdr")):
        names = names_in_nrrd(NrrdHeader.read(path).own)
    elif lower.endswith((".nii", ".nii.gz", ".nii.bz2")):
        names = names_in_nifti(path)
    stem = case_name(path)
    return names or names_beside(path, stem) or names_beside(path, stem.removesuffix(".seg"))
