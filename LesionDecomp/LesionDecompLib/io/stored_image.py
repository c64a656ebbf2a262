"""What every file format's reader returns, and the checks that all of them share."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..ct.oddity import Oddity
from ..errors import InputError, LesionDecompError
from ..progress import STDERR

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

CT = "a 3-D chest CT in HU"
MAX_VOXELS = 2**31  # a 1024×1024 scan of 2,048 slices; a header that claims more is damaged
MAX_DEFLATE_RATIO = 1032  # no deflate stream grows more when unpacked; see :mod:`.packed` for the others
INT16 = np.iinfo(np.int16)


class Readable(Protocol):
    """What voxels are read from."""

    def readinto(self, target: memoryview, /) -> int:
        """Fill the beginning of ``target``; return how many bytes that were, 0 at the end."""


@dataclass(frozen=True, eq=False)
class StoredImage:
    """Voxels and geometry as a file holds them.

    :param array: ``(k, j, i)``, native byte order, rescaled as the header states; int16 wherever that loses nothing.
    :param ijk_to_ras: ``(4, 4)`` float64, mm.
    :param format: ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"`` or ``"DICOM"``.
    :param stored_type: numpy's name of the voxel type in the file, e.g. ``"int16"``.
    :param facts: what else the header states about how the image was made; nothing about the patient.
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    format: str
    stored_type: str
    warnings: tuple[str, ...] = ()
    facts: dict[str, str | float | bool] = field(default_factory=dict)


def check_size(stage: str, size_ijk: tuple[int, ...], components: int = 1) -> tuple[int, int, int]:
    """Return the size (i, j, k) of a 3-D image, or of a 4-D one with a single time point.

    :raises LesionDecompError: several components, not 3-D, several time points, or an absurd size.
    """
    text = "×".join(str(n) for n in size_ijk)
    if components != 1:
        what = "a color or vector image" if components in (3, 4) else "a multi-component image"
        raise InputError(
            stage, f"{what} with {components} components per voxel ({text})", f"{CT} (one)", code="multi_component"
        )
    if any(n < 1 for n in size_ijk):
        raise InputError(stage, f"a header that claims {text} voxels", CT, code="header_size")
    if len(size_ijk) > 3 and any(n > 1 for n in size_ijk[3:]):
        points = int(np.prod([float(n) for n in size_ijk[3:]]))
        raise InputError(
            stage,
            f"a {len(size_ijk)}-D image of {text} ({points} time points)",
            CT,
            "Save one time point.",
            code="time_points",
        )
    if len(size_ijk) < 3:
        raise InputError(
            stage,
            f"a {len(size_ijk)}-D image of {text} pixels",
            CT,
            "Give the whole stack of slices as one volume.",
            code="not_3d",
        )
    size = (int(size_ijk[0]), int(size_ijk[1]), int(size_ijk[2]))
    if size[0] * size[1] * size[2] > MAX_VOXELS:
        raise InputError(
            stage, f"a header that claims {text} voxels", f"{CT} of at most 2,147,483,648 voxels", code="header_size"
        )
    return size


def check_spacing(stage: str, spacing: list[float] | tuple[float, ...] | np.ndarray) -> None:
    """Refuse a header with a spacing that is zero, negative or not a number.

    :raises LesionDecompError: naming the spacing found.
    """
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        text = "×".join(f"{s:g}" for s in spacing)
        raise InputError(
            stage,
            f"a voxel spacing of {text} mm",
            "a positive spacing along each axis",
            "Correct the file's header.",
            code="spacing",
        )


def damaged(stage: str, what: str, detail: str = "") -> LesionDecompError:
    """Error for a file of a known kind whose content can't be read."""
    found = f"a damaged or truncated {what}" + (f" ({detail})" if detail else "")
    return InputError(stage, found, "a complete file", "Copy or export it again.", code="damaged")


def unreadable(path: Path, stage: str, error: OSError) -> LesionDecompError:
    """Error for a file or folder that the system does not let be read, or not be unpacked."""
    if "temporary directory" in str(error):
        return InputError(
            stage,
            "no temporary folder that can be written to",
            "one, where packed images are unpacked",
            "Let the environment variable TMPDIR name a folder that can be written to.",
            code="no_temporary_folder",
        )
    found = f"'{path.name}', which cannot be opened ({error.strerror or error})"
    return InputError(stage, found, "a readable file or folder", code="cannot_be_opened")


def fill(array: np.ndarray, stream: Readable, stage: str, what: str) -> None:
    """Read all of a C-ordered ``array`` from a binary stream.

    :raises LesionDecompError: the stream ends before the array does.
    """
    target, done = memoryview(array).cast("B"), 0
    while done < array.nbytes:
        try:
            count = stream.readinto(target[done : done + 2**24])
        except EOFError:
            count = 0
        if not count:
            raise damaged(stage, what, f"{done} of {array.nbytes} bytes of voxels")
        done += count


def no_orientation(kind: str) -> Oddity:
    """Warning about a header that does not say where right and left are."""
    text = f"The {kind} header gives no orientation: right and left may be swapped."
    return Oddity(text, "no_orientation", 0.0, 0.0)


def no_spacing(kind: str) -> Oddity:
    """Warning about a header that does not say how large the voxels are."""
    text = f"The {kind} header gives no voxel spacing: 1 mm was taken, and volumes may be wrong."
    return Oddity(text, "no_spacing", 0.0, 0.0)


def bytes_left_over(kind: str) -> Oddity:
    """Warning about bytes that lie behind the voxels."""
    return Oddity(
        f"The {kind} file holds more than its header states; the rest was passed over.", "bytes_left_over", 1, 0
    )


def compact(array: np.ndarray) -> np.ndarray:
    """Make integral values that fit int16, without a second copy of the volume on the way; others stay as they are."""
    if array.dtype == np.int16 or array.size == 0:
        return array
    if array.dtype.kind in "iu":
        fits = int(array.min()) >= INT16.min and int(array.max()) <= INT16.max
        return array.astype(np.int16) if fits else array
    result = np.empty(array.shape, np.int16)
    for source, target in zip(array, result, strict=True):
        if not (np.isfinite(source).all() and source.min() >= INT16.min and source.max() <= INT16.max):
            return array
        target[...] = source
        if not np.array_equal(source, target):
            return array
    return result


def lps_to_ras(matrix: np.ndarray) -> np.ndarray:
    """Turn a ``(4, 4)`` index to LPS matrix into index to RAS, or back (the same sign flips); no negative zeros."""
    flipped = np.array(matrix, dtype=np.float64)
    flipped[:2] *= -1.0
    return flipped + 0.0


def itk_header(path: Path, image_io: str = "") -> sitk.ImageFileReader:
    """SimpleITK's reader of a file whose header it has read; no voxels.

    :param image_io: what reads the file; empty: what its name asks for.
    :raises RuntimeError: it cannot be read.
    :raises OSError: the name is not of UTF-8, and the file cannot be given another one.
    """
    import SimpleITK as sitk  # noqa: N813  (slow to import)

    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    with itk_name(path) as name, captured_stderr():
        reader.SetFileName(name)
        reader.ReadImageInformation()
    return reader


@contextmanager
def itk_name(path: Path) -> Iterator[str]:
    """Give a name of a file that SimpleITK takes; one that is not of UTF-8 would end the process.

    :raises OSError: the file cannot be given another name.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        pass
    else:
        yield str(path)
        return
    ending = re.search(r"(\.nii)?\.[a-z0-9]+$", path.name, re.ASCII | re.IGNORECASE)
    with tempfile.TemporaryDirectory(prefix="lesiondecomp-") as folder:
        link = Path(folder) / f"image{ending[0] if ending else ''}"
        link.symlink_to(path.absolute())
        yield str(link)


@contextmanager
def captured_stderr() -> Iterator[None]:
    """Keep what C++ readers print on the process's stderr out of the user's sight; their exceptions still arrive."""
    with STDERR, _captured():
        yield


@contextmanager
def _captured() -> Iterator[None]:
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, AttributeError, ValueError):  # no stderr at all, as in a windowed application
        yield
        return
    try:
        with open(os.devnull, "wb") as sink:
            os.dup2(sink.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved, 2)
    finally:
        with suppress(OSError):
            os.close(saved)
