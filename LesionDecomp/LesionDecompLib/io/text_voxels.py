"""Voxels written as text: decimal numbers, or bytes as hexadecimal digits."""

from __future__ import annotations

import warnings
from typing import BinaryIO

import numpy as np

from .stored_image import damaged


def from_text(stream: BinaryIO, part: np.ndarray, stage: str, what: str) -> None:
    """Fill ``part`` ``(n,)`` with the numbers of a text.

    :raises LesionDecompError: fewer of them, or something else.
    """
    text = stream.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of what is no number
            numbers = np.fromstring(text, np.float64, sep=" ")
    except (DeprecationWarning, ValueError) as error:
        raise damaged(stage, what, "voxels that are no numbers") from error
    if numbers.size < part.size:
        raise damaged(stage, what, f"{numbers.size} of {part.size} voxels")
    if part.dtype.kind in "iu":
        limits = np.iinfo(part.dtype)
        if not (np.isfinite(numbers).all() and numbers.min() >= limits.min and numbers.max() <= limits.max):
            raise damaged(stage, what, "voxels beyond their type")
    part[:] = numbers[: part.size]


def from_hex(stream: BinaryIO, part: np.ndarray, stage: str, what: str) -> None:
    """Fill ``part`` ``(n,)`` with bytes written as pairs of hexadecimal digits.

    :raises LesionDecompError: fewer of them, or something else.
    """
    try:
        data = bytes.fromhex(stream.read().decode("ascii"))
    except (UnicodeError, ValueError) as error:
        raise damaged(stage, what, "voxels that are no hexadecimal digits") from error
    if len(data) < part.nbytes:
        raise damaged(stage, what, f"{len(data)} of {part.nbytes} bytes of voxels")
    part[:] = np.frombuffer(data[: part.nbytes], part.dtype)
