"""Which input goes into which folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from .folder_names import LONGEST, safe_folder_name

RESERVED = ("summary.csv", "regions.csv")


@dataclass(eq=False, slots=True)  # a cohort has a million
class Case:
    """One input of a run, and how it went.

    :param status: ``""`` while not run, then ``"done"`` or ``"failed"``.
    :param message: the error, or the warnings of a case that was done.
    :param measurements: of both lungs, by the measurements' keys.
    """

    name: str
    path: Path
    folder: Path
    status: str = ""
    message: str = ""
    input_sha256: str = ""
    measurements: dict[str, float] = field(default_factory=dict)


def plan_cases(
    inputs: list[Path], output: Path, found_in: Mapping[Path, Path] | None = None, several: bool = False
) -> list[Case]:
    """Give each input its output folder: ``output`` for a single one, a subfolder named after the input otherwise.

    Folders have names that every system takes. Names that clash (also where only the case of letters differs) are
    distinguished by the folder the input lies in, and by a number where that does not help. An input given twice is run
    once.

    :param found_in: the folder that was searched, of inputs that were found so: names that clash are then distinguished
        by as many of the folders in between as it takes.
    :param several: a subfolder for a single input, too.
    :return: the cases in the order of the inputs.
    """
    from ...io.readers import case_name  # not before: --help answers at once

    found_in = found_in or {}
    unique = list({path.absolute(): path for path in inputs}.values())
    if len(unique) == 1 and len(inputs) == 1 and not several:
        return [Case(case_name(unique[0]), unique[0], output)]
    called = [_named_by(path) if path in found_in else path for path in unique]
    names, level = [safe_folder_name(case_name(path)) for path in called], 0
    above = [_folders_above(name, found_in.get(path)) for name, path in zip(called, unique, strict=True)]
    while level < max(map(len, above), default=0):
        level, counts = level + 1, _counts(names)
        names = [
            f"{safe_folder_name(folders[-level])}_{name}"[:LONGEST]
            if counts[name.casefold()] > 1 and len(folders) >= level
            else name
            for name, folders in zip(names, above, strict=True)
        ]
    taken = set(RESERVED)
    cases = []
    for name, path in zip(names, unique, strict=True):
        number, free = 1, name
        while free.casefold() in taken:
            number += 1
            free = f"{name}-{number}"
        taken.add(free.casefold())
        cases.append(Case(free, path, output / free))
    return cases


def _named_by(found: Path) -> Path:
    """What a found input is called after: a slice stands for its folder."""
    from ...io.readers import READERS  # not before: --help answers at once

    is_named = found.name.lower().endswith((*READERS, ".zip"))
    return found if is_named or not found.is_file() else found.parent


def _folders_above(path: Path, searched: Path | None) -> tuple[str, ...]:
    """Names of the folders that distinguish an input from others of its name, the nearest last."""
    if searched is not None:
        return path.relative_to(searched).parts[:-1]
    nearest = path.absolute().parent.name
    return (nearest,) if nearest else ()


def check_inputs_stay(cases: list[Case], output: Path, others: list[Path]) -> None:
    """Refuse a run whose results would take the place of one of its inputs.

    :param others: files that are read beside the cases' own, e.g. the lung mask.
    :raises LesionDecompError: naming the input.
    """
    from ...report.case import ALL_FILES  # not before: --help answers at once

    inputs = [path.resolve() for path in [*(case.path for case in cases), *others]]
    # Few inputs are called as a result is: a cohort's folders need not be looked at one by one.
    suspects = {path for path in inputs if path.name in ALL_FILES or path.name in RESERVED}
    if not suspects:
        return
    results = {(output / name).resolve() for name in RESERVED}
    results |= {case.folder.resolve() / name for case in cases for name in ALL_FILES}
    for path in sorted(suspects & results):
        raise InputError(
            "Opening the output folder",
            f"the input '{path.name}' where a result of that name goes",
            "inputs that stay as they are",
            "Choose another output folder.",
        )


def _counts(names: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
    return counts
