"""The images of a DICOM file, by its header; their pixels stay where they are."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

from .enhanced import frames_of
from .header import BIG_ENDIAN, CT_IMAGE, LARGE_BYTES, PATIENT, PIXELS, SIZE, TAGS, DicomSlice, text_of
from .lengths import lengths_fit


def read_images(path: Path) -> list[DicomSlice] | None:
    """The images of a file: one, or the frames of an enhanced one; None where it holds none, or is damaged."""
    import pydicom  # slow to import

    if not lengths_fit(path):
        return None
    wanted = [*TAGS.values(), *SIZE, *PATIENT, "SpecificCharacterSet", PIXELS]
    try:
        with warnings.catch_warnings():  # of what others wrote against the standard's letter
            warnings.simplefilter("ignore")
            data = pydicom.dcmread(path, force=True, defer_size=LARGE_BYTES, specific_tags=wanted)
            pixels = data.get_item(PIXELS, keep_deferred=True) if PIXELS in data else None
            if pixels is None:
                return None
            size = (int(data.Columns), int(data.Rows), int(data.get("NumberOfFrames") or 1))
            tags = {name: text_of(data, keyword) for name, keyword in TAGS.items()}
            tags["syntax"] = str(data.file_meta.get("TransferSyntaxUID", "")).strip("\0 ")
            tags["patient"] = _hash(*(text_of(data, keyword) for keyword in PATIENT))
            if not tags["syntax"] and not data.original_encoding[1]:
                tags["syntax"] = BIG_ENDIAN
            length = pixels.length if pixels.length != 0xFFFFFFFF else -1
            image = DicomSlice(path, size, tags, (int(pixels.value_tell), int(length)), 0, size[2])
            if size[2] > 1 or tags["sop_class"].startswith(f"{CT_IMAGE}."):
                return frames_of(image)
            return [image]
    except MemoryError:
        raise
    except Exception:  # pydicom raises a dozen kinds here; all mean that the header is damaged
        return None


def read_header(path: Path) -> DicomSlice | None:
    """The first image of a file; None where it holds no image, or is damaged."""
    images = read_images(path)
    return images[0] if images else None


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest() if any(texts) else ""
