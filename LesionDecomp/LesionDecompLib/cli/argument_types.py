"""Types of command line arguments that refuse what makes no sense before any work is done."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection

HIGHEST_LABEL = 65535


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


def labels(text: str) -> tuple[int, ...]:
    """Labels of a labelmap: numbers and ranges, separated by commas, as in 10-14,20; sorted, each once."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= HIGHEST_LABEL:
            raise argparse.ArgumentTypeError(f"{text!r} is not like 1, 10-14 or 10,11,14 (1 to {HIGHEST_LABEL})")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def labels_text(chosen: Collection[int] | None) -> str | None:
    """Labels as :func:`labels` takes them, in their shortest form; None where none were chosen.

    >>> labels_text((10, 11, 12, 14))
    '10-12,14'
    """
    if chosen is None:
        return None
    runs: list[list[int]] = []
    for label in sorted(chosen):
        if runs and label == runs[-1][-1] + 1:
            runs[-1].append(label)
        else:
            runs.append([label])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


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


def count(text: str) -> int:
    """A number of processes or threads, 1 to 1024."""
    return batch_size(text)


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
