"""One label for each slice of a case: from a CSV file, or from ranges that a person has marked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io.atomic import write_text
from .slices import LABELS, SPLITS

STAGE = "Making the training set"
LABEL_WORDS = {"lesion": "lesion", "1": "lesion", "normal": "normal", "0": "normal"}


@dataclass(frozen=True)
class SliceLabel:
    """Label of one axial slice: ``index`` counts from the lowest slice, from 0; ``split`` may be empty."""

    index: int
    label: str
    split: str


def read_slice_labels(path: str | Path) -> dict[str, list[SliceLabel]]:
    """Read ``case,slice,label`` (and ``split``, if given) and sort by case.

    ``label`` is ``lesion`` or ``normal``, or 1 or 0; ``slice`` counts axial slices from the lowest, from 0.

    :raises LesionDecompError: unreadable, a missing column, a value that makes no sense, a slice labeled twice.
    """
    try:
        if not Path(path).is_file():
            raise OSError("no regular file")
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(STAGE, f"labels that cannot be read ({error})", "a UTF-8 CSV file") from error
    labels: dict[str, list[SliceLabel]] = {}
    labeled: set[tuple[str, int]] = set()
    for number, row in enumerate(rows, start=2):
        found = f"line {number} of the labels ({', '.join(str(value)[:40] for value in list(row.values())[:6])})"
        word = LABEL_WORDS.get((row.get("label") or "").strip().lower())
        index = (row.get("slice") or "").strip()
        split = (row.get("split") or "").strip()
        if not row.get("case") or word is None or not re.fullmatch("[0-9]{1,6}", index):
            raise InputError(STAGE, found, "columns case, slice (from 0 at the lowest) and label (lesion, normal)")
        if split and split not in SPLITS:
            raise InputError(STAGE, found, f"one of the splits {', '.join(SPLITS)}")
        if (row["case"], int(index)) in labeled:
            raise InputError(STAGE, f"{found}, labeled before", "one label for each slice")
        labeled.add((row["case"], int(index)))
        labels.setdefault(row["case"], []).append(SliceLabel(int(index), word, split))
    if not labels:
        raise InputError(STAGE, "labels without a line", "a line for each slice: case,slice,label")
    return labels


def split_cases(cases: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Deal whole cases to ``train`` (eight of ten), ``val`` and ``test``, at random but repeatably."""
    order = [sorted(cases)[index] for index in np.random.default_rng(seed).permutation(len(cases))]
    tenth = max(1, round(len(order) / 10)) if len(order) >= 3 else 0
    return {
        case: "val" if position < tenth else "test" if position < 2 * tenth else "train"
        for position, case in enumerate(order)
    }


@dataclass(frozen=True)
class SliceRange:
    """Slices ``first`` to ``last`` (both included; axial, 0 the lowest) of a case, all with one label.

    ``split`` may be empty: the case is then dealt out with the others.
    """

    case: str
    first: int
    last: int
    label: str
    split: str = ""


def labels_of_ranges(ranges: Sequence[SliceRange]) -> dict[str, list[SliceLabel]]:
    """Labels of every slice that the ranges cover, by case.

    :raises LesionDecompError: no range, an impossible one, or a slice in two ranges.
    """
    if not ranges:
        raise InputError(STAGE, "no marked slices", "ranges of slices that are normal, and with lesion")
    labels: dict[str, list[SliceLabel]] = {}
    for item in ranges:
        text = f"slices {item.first} to {item.last} of '{item.case}'"
        if not 0 <= item.first <= item.last:
            raise InputError(STAGE, text, "a range that runs upwards from 0 at the lowest slice")
        if item.label not in LABELS or item.split not in ("", *SPLITS):
            found = f"{text} as '{item.label}', '{item.split}'"
            raise InputError(STAGE, found, f"labels {', '.join(LABELS)}, splits {', '.join(SPLITS)}")
        case = labels.setdefault(item.case, [])
        twice = {label.index for label in case} & set(range(item.first, item.last + 1))
        if twice:
            raise InputError(STAGE, f"slice {min(twice)} of '{item.case}' in two ranges", "one label for each slice")
        case += [SliceLabel(index, item.label, item.split) for index in range(item.first, item.last + 1)]
    return labels


def assign_splits(labels: Mapping[str, list[SliceLabel]], seed: int = 0) -> dict[str, list[SliceLabel]]:
    """Give every case its split, so that ``train`` and ``val`` have slices of both labels.

    Cases with a split keep it. Of the others, some that hold both labels (or, without such, one of each) are taken for
    ``val`` until it holds both labels and a tenth of the cases; the rest trains.

    :raises LesionDecompError: there are too few cases for that.
    """
    splits = {case: next((item.split for item in items if item.split), "") for case, items in labels.items()}
    kinds = {case: {item.label for item in items} for case, items in labels.items()}
    order = [sorted(labels)[index] for index in np.random.default_rng(seed).permutation(len(labels))]
    free = [case for case in order if not splits[case]]
    tenth = round(len(labels) / 10)

    def held(split: str) -> set[str]:
        return set().union(*(kinds[case] for case in labels if splits[case] == split))

    for case in sorted(free, key=lambda case: -len(kinds[case])):
        rest = [other for other in free if other != case and not splits[other]]
        left = held("train").union(*(kinds[other] for other in rest))
        wanted = not kinds[case] <= held("val") or sum(split == "val" for split in splits.values()) < tenth
        if wanted and left == set(LABELS):
            splits[case] = "val"
    splits = {case: split or "train" for case, split in splits.items()}
    for split in ("train", "val"):
        missing = [label for label in LABELS if label not in held(split)]
        if missing:
            raise InputError(
                STAGE,
                f"no {missing[0]} slices for '{split}' among {len(labels)} volumes",
                "slices of both labels in volumes to train with (train), and in others to check with (val)",
                "Mark slices of more volumes.",
            )
    return {
        case: [SliceLabel(item.index, item.label, splits[case]) for item in items] for case, items in labels.items()
    }


def write_slice_labels(path: str | Path, labels: Mapping[str, list[SliceLabel]]) -> None:
    """Write labels as :func:`read_slice_labels` reads them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "slice", "label", "split"])
    for case, items in labels.items():
        writer.writerows([case, item.index, item.label, item.split] for item in items)
    write_text(path, text.getvalue(), STAGE)
