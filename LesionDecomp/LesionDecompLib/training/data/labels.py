"""One label for each slice of a case: from a CSV file, or from ranges that a person has marked."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from .slices import LABELS, SPLITS

STAGE = "Making the training set"
LABEL_WORDS = {"lesion": "lesion", "1": "lesion", "normal": "normal", "0": "normal"}
UNSURE = "unsure"


@dataclass(frozen=True)
class SliceLabel:
    """Label of one axial slice: ``index`` counts from the lowest slice, from 0; ``split`` may be empty.

    ``patient``: whose slice it is, where several cases are of one patient; empty where each case has its own.
    """

    index: int
    label: str
    split: str
    patient: str = ""


def read_slice_labels(path: str | Path) -> dict[str, list[SliceLabel]]:
    """Read ``case,slice,label`` (and ``split`` and ``patient``, if given) and sort by case.

    ``label`` is ``lesion`` or ``normal``, or 1 or 0; ``slice`` counts axial slices from the lowest, from 0. Slices
    labeled ``unsure`` teach nothing and are left out; a case of which nothing else is known has no label then.

    :raises LesionDecompError: unreadable, a missing column, a value that makes no sense, a slice labeled twice, a case
        of two patients.
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
    patients: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        found = f"line {number} of the labels ({', '.join(str(value)[:40] for value in list(row.values())[:6])})"
        given = (row.get("label") or "").strip().lower()
        word = UNSURE if given == UNSURE else LABEL_WORDS.get(given)
        index = (row.get("slice") or "").strip()
        split, patient = ((row.get(column) or "").strip() for column in ("split", "patient"))
        if not row.get("case") or word is None or not re.fullmatch("[0-9]{1,6}", index):
            raise InputError(
                STAGE, found, "columns case, slice (from 0 at the lowest) and label (lesion, normal, unsure)"
            )
        if split and split not in SPLITS:
            raise InputError(STAGE, found, f"one of the splits {', '.join(SPLITS)}")
        if (row["case"], int(index)) in labeled:
            raise InputError(STAGE, f"{found}, labeled before", "one label for each slice")
        labeled.add((row["case"], int(index)))
        of_case = labels.setdefault(row["case"], [])
        if patients.setdefault(row["case"], patient) != patient:
            raise InputError(STAGE, f"{found}, another patient than before", "one patient for each case")
        if word != UNSURE:
            of_case.append(SliceLabel(int(index), word, split, patient))
    if not any(labels.values()):
        raise InputError(STAGE, "labels without a line", "a line for each slice: case,slice,label")
    return labels


def patient_of(case: str, labels: Sequence[SliceLabel]) -> str:
    """Whose a case is: the patient that its labels name, or its own name."""
    return next((item.patient for item in labels if item.patient), case)


def split_cases(labels: Mapping[str, Sequence[SliceLabel]], seed: int = 0) -> dict[str, str]:
    """Deal whole patients to ``train`` (eight of ten), ``val`` and ``test``, at random but repeatably.

    Patients with a split keep it. ``val`` and ``test`` get each label that there is, as long as ``train`` keeps it too.

    :return: case -> split.
    """
    count = len({patient_of(case, items) for case, items in labels.items()})
    tenth = max(1, round(count / 10))
    splits = _dealt(labels, seed, {"val": tenth, "test": tenth} if count >= 3 else {})
    return {case: splits[patient_of(case, items)] for case, items in labels.items()}


def _dealt(labels: Mapping[str, Sequence[SliceLabel]], seed: int, least: Mapping[str, int]) -> dict[str, str]:
    """A split for every patient; those that have one keep it.

    :param least: of ``val`` and ``test``, how many patients each gets, and more until it holds each label that there
        is: those with most labels first, otherwise at random, and none without whom ``train`` would lack a label.
    :return: patient -> split.
    """
    of_patient: dict[str, list[SliceLabel]] = {}
    for case, items in labels.items():
        of_patient.setdefault(patient_of(case, items), []).extend(items)
    splits = {name: next((item.split for item in items if item.split), "") for name, items in of_patient.items()}
    kinds = {name: {item.label for item in items} for name, items in of_patient.items()}
    every = set().union(*kinds.values())
    order = [sorted(of_patient)[index] for index in np.random.default_rng(seed).permutation(len(of_patient))]
    free = sorted((name for name in order if not splits[name]), key=lambda name: -len(kinds[name]))

    def held(split: str) -> set[str]:
        return set().union(*(kinds[name] for name in of_patient if splits[name] == split))

    for split, count in least.items():
        for name in free:
            if splits[name]:
                continue
            left = held("train").union(*(kinds[other] for other in free if other != name and not splits[other]))
            few = sum(taken == split for taken in splits.values()) < count
            if (few or not kinds[name] <= held(split)) and left == every:
                splits[name] = split
    return {name: split or "train" for name, split in splits.items()}


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
    """Give every patient a split, so that ``train`` and ``val`` have slices of both labels.

    Patients with a split keep it. Of the others, some that hold both labels (or, without such, one of each) are taken
    for ``val`` until it holds both labels and a tenth of the patients; the rest trains.

    :raises LesionDecompError: there are too few patients for that.
    """
    patients = {case: patient_of(case, items) for case, items in labels.items()}
    splits = _dealt(labels, seed, {"val": round(len(set(patients.values())) / 10)})
    for split in ("train", "val"):
        held = {item.label for case, items in labels.items() if splits[patients[case]] == split for item in items}
        missing = [label for label in LABELS if label not in held]
        if missing:
            raise InputError(
                STAGE,
                f"no {missing[0]} slices for '{split}' among {len(labels)} volumes",
                "slices of both labels in volumes to train with (train), and in others to check with (val)",
                "Mark slices of more volumes.",
            )
    return {case: [replace(item, split=splits[patients[case]]) for item in items] for case, items in labels.items()}
