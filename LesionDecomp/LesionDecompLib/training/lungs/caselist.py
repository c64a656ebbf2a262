"""Which scans a lung training set holds, who of them is the same patient, and which are left out.

A table, ``cases.csv``, has a row for each scan: ``case`` (path below the training set, without ``_ct.nii.gz``),
``patient``, ``fold`` (all scans of a patient in the same one) and ``tags`` (words separated by spaces). A second one
lists boxes that nothing is learned from where a contour is known to leave lung out, see :class:`IgnoredBox`. Without a
table every pair of files in the folder is a case and a patient of its own.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError

STAGE = "Reading the lung training set"
TISSUES = ("all", "solid", "air")
SOLID_HU = -300  # what is denser in a lung is disease, or a vessel


@dataclass(frozen=True)
class LungCase:
    """A scan of the training set.

    :param name: path of its files below the set's folder, without ``_ct.nii.gz`` and ``_lung.nii.gz``.
    :param fold: of a cross-validation; -1 where there is none.
    """

    name: str
    patient: str
    fold: int = -1
    tags: tuple[str, ...] = ()

    def is_called(self, text: str) -> bool:
        """Whether ``text`` (a case, a patient, a tag, or ``fold:N``) means this case."""
        return text in (self.name, self.patient, f"fold:{self.fold}", *self.tags)


@dataclass(frozen=True)
class IgnoredBox:
    """A box in which background is not learned from; lung in it is.

    :param case: name of the scan.
    :param box: first and last voxel along i, j and k, both inside.
    :param tissue: ``"solid"``: background from -300 HU on, ``"air"``: what lies below, or ``"all"``.
    :param reason: what the contour leaves out there.
    """

    case: str
    box: tuple[int, int, int, int, int, int]
    tissue: str
    reason: str

    def of(self, hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The voxels ignored, ``(k, j, i)`` bool, of a scan's HU and its lung mask."""
        i0, i1, j0, j1, k0, k1 = self.box
        part = (slice(k0, k1 + 1), slice(j0, j1 + 1), slice(i0, i1 + 1))
        ignored = np.zeros(mask.shape, dtype=bool)
        background = mask[part] == 0
        if self.tissue != "all":
            background &= (hu[part] >= SOLID_HU) == (self.tissue == "solid")
        ignored[part] = background
        return ignored


def cases_in(folder: Path) -> list[LungCase]:
    """The cases of a folder without a table: ``NAME_ct.nii.gz`` beside ``NAME_lung.nii.gz``.

    :raises LesionDecompError: no such pair.
    """
    names = sorted(path.name.removesuffix("_ct.nii.gz") for path in Path(folder).glob("*_ct.nii.gz"))
    names = [name for name in names if (Path(folder) / f"{name}_lung.nii.gz").is_file()]
    if not names:
        raise InputError(STAGE, f"no pair of files in '{Path(folder).name}'", "NAME_ct.nii.gz beside NAME_lung.nii.gz")
    return [LungCase(name, name) for name in names]


def read_cases(table: str | Path) -> list[LungCase]:
    """The rows of a table of cases.

    :raises LesionDecompError: unreadable, a case twice, or a patient in two folds.
    """
    cases = []
    for row in _rows(table, ("case", "patient", "fold", "tags")):
        try:
            cases.append(LungCase(row["case"], row["patient"], int(row["fold"] or -1), tuple(row["tags"].split())))
        except ValueError as error:
            found = f"the fold '{row['fold'][:20]}' of '{row['case'][:60]}'"
            raise InputError(STAGE, found, "a whole number, or nothing") from error
    seen: dict[str, int] = {}
    names = set()
    for case in cases:
        if case.name in names:
            raise InputError(STAGE, f"the case '{case.name}' twice in '{Path(table).name}'", "each case once")
        names.add(case.name)
        if seen.setdefault(case.patient, case.fold) != case.fold:
            raise InputError(STAGE, f"the patient '{case.patient}' in two folds", "all scans of a patient in one fold")
    return cases


def chosen(cases: Sequence[LungCase], leave_out: Sequence[str]) -> list[LungCase]:
    """The cases but for those that ``leave_out`` names, by case, patient, tag or ``fold:N``.

    A patient one of whose scans is left out is left out whole.

    :raises LesionDecompError: a name that means none of the cases, or nobody left.
    """
    out = set()
    for text in leave_out:
        meant = {case.patient for case in cases if case.is_called(text)}
        if not meant:
            known = ", ".join(case.name for case in cases)
            raise InputError(STAGE, f"no patient named {text}", f"one of {known}")
        out |= meant
    kept = [case for case in cases if case.patient not in out]
    if not kept:
        raise InputError(STAGE, "every patient left out", "at least one patient to train on")
    return kept


def read_ignored(table: str | Path) -> list[IgnoredBox]:
    """The rows of a table with the columns case, i0, i1, j0, j1, k0, k1, tissue, reason.

    :raises LesionDecompError: unreadable, or a row that is no box.
    """
    boxes = []
    for row in _rows(table, ("case", "i0", "i1", "j0", "j1", "k0", "k1", "tissue", "reason")):
        try:
            i0, i1, j0, j1, k0, k1 = (int(row[key]) for key in ("i0", "i1", "j0", "j1", "k0", "k1"))
        except ValueError as error:
            raise InputError(STAGE, f"a box of '{row['case'][:60]}' that is no box", "six whole numbers") from error
        if min(i0, j0, k0) < 0 or i1 < i0 or j1 < j0 or k1 < k0 or row["tissue"] not in TISSUES:
            expected = f"first and last voxel along i, j and k, and one of {', '.join(TISSUES)}"
            raise InputError(STAGE, f"a box of '{row['case'][:60]}' that is no box", expected)
        boxes.append(IgnoredBox(row["case"], (i0, i1, j0, j1, k0, k1), row["tissue"], row["reason"]))
    return boxes


def _rows(table: str | Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    expected = f"a table with the columns {', '.join(columns)}"
    try:
        with Path(table).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise InputError(STAGE, f"other columns in '{Path(table).name}'", expected)
            return [{key: (row[key] or "").strip() for key in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(STAGE, f"'{Path(table).name}', which cannot be read ({error})", expected) from error
