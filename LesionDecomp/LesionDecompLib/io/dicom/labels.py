"""Segments and structures of DICOM objects as a labelmap: what SEG and RTSTRUCT have in common."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...ct.oddity import Oddity
from ...errors import InputError, LesionDecompError
from ..stored_image import damaged
from .lengths import lengths_fit, mapped

if TYPE_CHECKING:
    from pydicom import Dataset

SEG = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # segmentation, label map segmentation
RTSTRUCT = ("1.2.840.10008.5.1.4.1.1.481.3",)


@dataclass(frozen=True, eq=False)
class StoredLabels:
    """Labels as a DICOM object holds them.

    :param array: ``(k, j, i)`` uint8 or uint16, 0 outside of all structures. Where structures overlap, the one of the
        lower number is kept.
    :param ijk_to_ras: ``(4, 4)`` mm.
    :param names: of all labels, of those without a voxel and of those not chosen, too.
    :param warnings: a sentence each.
    :param beyond: share of what is stored that the array leaves out because it lies beyond the CT.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    names: dict[int, str] = field(default_factory=dict)
    warnings: tuple[Oddity, ...] = ()
    beyond: float = 0.0


def label_object(path: Path) -> str | None:
    """Whether a file is a DICOM segmentation (``"SEG"``), a set of contours (``"RTSTRUCT"``), or neither."""
    import pydicom  # slow to import

    if not lengths_fit(path):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with mapped(path) as file:
                tags = ["SOPClassUID", "Modality"]
                data = pydicom.dcmread(file, force=True, specific_tags=tags, stop_before_pixels=True)
            sop_class, modality = str(data.get("SOPClassUID", "")), str(data.get("Modality", ""))
        except Exception:  # pydicom raises a dozen kinds here
            return None
    if sop_class in SEG or (not sop_class and modality == "SEG"):
        return "SEG"
    return "RTSTRUCT" if sop_class in RTSTRUCT or (not sop_class and modality == "RTSTRUCT") else None


@contextmanager
def opened(path: Path, stage: str) -> Iterator[Dataset]:
    """Give the whole data set of a file; whatever is wrong with its content is one sentence.

    :raises LesionDecompError: damaged or truncated.
    """
    import pydicom  # slow to import

    if not lengths_fit(path):
        raise damaged(stage, f"DICOM file '{path.name}'")
    with warnings.catch_warnings():  # of what others wrote against the standard's letter
        warnings.simplefilter("ignore")
        try:
            with mapped(path) as file:
                yield pydicom.dcmread(file, force=True)
        except (LesionDecompError, MemoryError):
            raise
        except Exception as error:  # pydicom raises a dozen kinds here, where an element is read
            raise damaged(stage, f"DICOM file '{path.name}'") from error


def label_type(numbers: Collection[int], stage: str) -> type[np.unsignedinteger]:
    """The type of a labelmap with these labels.

    :raises LesionDecompError: no labels, or one that is none.
    """
    if not numbers:
        raise InputError(stage, "a DICOM object without a structure", "segments or contours", code="no_structures")
    if not 1 <= min(numbers) <= max(numbers) <= np.iinfo(np.uint16).max:
        found = f"structures numbered {min(numbers)} to {max(numbers)}"
        raise InputError(stage, found, "numbers from 1 to 65535", code="structure_numbers")
    return np.uint8 if max(numbers) < 256 else np.uint16


def overlap_warning(voxels: int) -> list[Oddity]:
    """What is reported of voxels that belong to several structures."""
    if not voxels:
        return []
    text = f"{voxels} voxels of the mask belong to several structures; the first of them was taken."
    return [Oddity(text, "structures_overlap", voxels, 0)]
