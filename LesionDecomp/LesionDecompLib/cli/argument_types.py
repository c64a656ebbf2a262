"""Types of command line arguments that refuse what makes no sense before any work is done."""

from __future__ import annotations

import argparse
import math
import re


def threshold(text: str) -> float:
    """A threshold on heat: above 0, at most 1."""
    value = _number(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 1")
    return value


def volume_ml(text: str) -> float:
    """A volume in mL, 0 or more."""
    value = _number(text)
    if not 0 <= value < 1e5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a volume in mL")
    return value


def share(text: str) -> float:
    """A relative difference, 0 to 1."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 1")
    return value


def batch_size(text: str) -> int:
    """A number of slices, 1 to 1024."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return int(text)


def device(text: str) -> str:
    """auto, cpu, cuda, cuda:N or mps."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d{1,3})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def devices(text: str) -> list[str]:
    """One or more devices, separated by commas."""
    return [device(part) for part in text.split(",")]


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value
