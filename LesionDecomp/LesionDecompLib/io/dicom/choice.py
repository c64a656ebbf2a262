"""Which of a folder's stacks is read: the one that was asked for, or by a rule the best for lungs, which is reported.

The rule: a chest, axial, original, as high as the others; of these the thinnest slices, then the most, then the softer
kernel, then the lowest series number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection

import numpy as np

from ...ct.oddity import Oddity
from ...errors import InputError, LesionDecompError
from .body_part import shown_by
from .header import DicomSlice
from .kernels import sharpness
from .stacks import Stack

AXIAL_DEGREES = 35.0  # of the slices' normal off the patient's axis; gantries tilt up to 30
HIGH_ENOUGH = 0.6  # of the highest stack among those as good
SHOWN = 6  # series that a message lists
UID_END = 24  # characters
HASHED = "uid-sha256:"  # how reports hold a UID that was asked for
UID = re.compile(r"\d+(\.\d+)+")
DERIVED = ("DERIVED", "SECONDARY", "REFORMATTED", "MPR", "MIP", "MINIP", "PROJECTION", "VRT", "CSAPARALLEL")


def choose(stacks: list[Stack], asked: str | None, stage: str) -> tuple[Stack, list[str]]:
    """The stack to read, with a warning that names it and the others where a rule has chosen.

    :param stacks: at least one.
    :param asked: series UID (or the end of one), series number, or a part of what describes the series; None: none.
    :raises LesionDecompError: no series is what was asked for, or stacks of several patients.
    """
    among = stacks if asked is None else [stack for stack in stacks if stack in _asked_for(stacks, asked)]
    if not among:
        raise InputError(
            stage,
            f"no CT series '{asked}' among {listed(sorted(stacks, key=_number))}",
            "the UID, the number or a part of the description of one of them",
            remedy="series",
            code="series_not_found",
        )
    patients = {stack.first.tags["patient"] for stack in among} - {""}
    if len(patients) > 1 and len({stack.first.tags["study_uid"] for stack in among}) > 1:
        raise InputError(
            stage,
            f"CT series of {len(patients)} patients ({listed(among)})",
            "one patient's",
            "Choose one of the series, or put each patient into a folder.",
            remedy="series",
            code="several_patients",
        )
    if len(among) == 1:
        return among[0], []
    ranked = _ranked(among)
    text = f"Read {described(ranked[0], stacks)}, one of {len(among)} CT volumes"
    text += " that could be meant" if asked is not None else " in the folder"
    text += f"; the other{'s are' if len(ranked) > 2 else ' is'} {listed(ranked[1:], stacks)}."
    return ranked[0], [Oddity(text, "series_chosen", len(among), 1)]


def matches(item: DicomSlice, asked: str) -> bool:
    """Whether a series, by the header of one of its images, may be the one that was asked for."""
    return any(found(item, asked.strip()) for found in (_has_uid, _has_number, _has_text))


def recorded(asked: str | None) -> str | None:
    """What a report holds of the series that was asked for: UIDs identify patients, and are hashed.

    It can be asked for in turn.
    """
    if asked is None or not UID.fullmatch(asked.strip()):
        return asked
    return HASHED + hashlib.sha256(asked.strip().encode()).hexdigest()


def listed(stacks: list[Stack], among: list[Stack] | None = None) -> str:
    """Stacks in words that distinguish them, the first few."""
    shown = [described(stack, stacks if among is None else among) for stack in stacks[:SHOWN]]
    return "; ".join(shown) + (f"; and {len(stacks) - SHOWN} more" if len(stacks) > SHOWN else "")


def described(stack: Stack, among: Collection[Stack]) -> str:
    """A stack in words: description, series number, slices, and as much more as distinguishes it from others."""
    text, details = _base(stack)
    others = [other for other in among if other is not stack and _base(other) == (text, details)]
    for feature in (_part, _kernel, _uid_end):
        if not others:
            break
        mine = feature(stack)
        if mine and any(feature(other) != mine for other in others):
            details.append(mine)
            others = [other for other in others if feature(other) == mine]
    if stack.part and _part(stack) not in details:
        details.append(stack.part)
    return f"{text} ({', '.join(details)})"


def plane(stack: Stack) -> str:
    """The plane of a stack's slices: axial, coronal, sagittal or oblique."""
    orientation = np.array(stack.first.numbers("orientation"))
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    length = float(np.linalg.norm(normal))
    axis = int(np.argmax(normal))
    if length == 0 or normal[axis] < np.cos(np.radians(AXIAL_DEGREES)) * length:
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def _asked_for(stacks: list[Stack], asked: str) -> list[Stack]:
    wanted = asked.strip()
    ways: tuple[Callable[[Stack], bool], ...] = (
        lambda stack: wanted == stack.uid,
        lambda stack: any(_has_uid(item, wanted) for item in stack.items),
        lambda stack: _has_number(stack.first, wanted),
        lambda stack: wanted.casefold() == stack.first.tags["description"].casefold(),
        lambda stack: _has_text(stack.first, wanted) or wanted.casefold() in stack.part.casefold(),
    )
    if not wanted:
        return []
    return next((found for found in ([s for s in stacks if way(s)] for way in ways) if found), [])


def _has_uid(item: DicomSlice, wanted: str) -> bool:
    """Whether the series UID is this, or ends with it at a point."""
    uid = item.tags["series_uid"]
    if wanted.startswith(HASHED):
        parts = uid.split(".")
        ends = (".".join(parts[n:]) for n in range(len(parts)))
        return any(hashlib.sha256(end.encode()).hexdigest() == wanted.removeprefix(HASHED) for end in ends)
    return bool(UID.fullmatch(wanted)) and (uid == wanted or uid.endswith(f".{wanted}"))


def _has_number(item: DicomSlice, wanted: str) -> bool:
    return wanted.isdecimal() and item.numbers("series_number") == (float(wanted),)


def _has_text(item: DicomSlice, wanted: str) -> bool:
    """Whether description or kernel hold the text; a number is one that stands by itself."""
    texts = (item.tags["description"].casefold(), item.tags["kernel"].casefold())
    if wanted.isdecimal():
        return wanted in texts
    return bool(wanted) and any(wanted.casefold() in text for text in texts)


def _number(stack: Stack) -> float:
    return stack.first.number("series_number", float("inf"))


def _ranked(stacks: list[Stack]) -> list[Stack]:
    kinds = {id(stack): _kind(stack) for stack in stacks}
    highest: dict[tuple[int, bool, bool], float] = {}
    for stack in stacks:
        kind = kinds[id(stack)]
        highest[kind] = max(highest.get(kind, 0.0), stack.extent)

    def rank(stack: Stack) -> tuple[object, ...]:
        kind, first = kinds[id(stack)], stack.first
        return (
            *kind,
            stack.extent < HIGH_ENOUGH * highest[kind],
            round(max(first.number("thickness"), stack.distance), 1),
            -len(stack.items),
            sharpness(first.tags["kernel"]),
            _number(stack),
            first.number("acquisition", float("inf")),
            stack.uid,
            str(first.path),
        )

    return sorted(stacks, key=rank)


def _kind(stack: Stack) -> tuple[int, bool, bool]:
    image_type = stack.first.tags["image_type"].upper().split("\\")
    is_derived = any(word.strip() in DERIVED for word in image_type)
    return int(shown_by(stack.first)), plane(stack) != "axial", is_derived


def _base(stack: Stack) -> tuple[str, list[str]]:
    first = stack.first
    description = " ".join(first.tags["description"].split())[:64]
    number, thickness = first.numbers("series_number"), first.numbers("thickness")
    details = [f"series {number[0]:g}"] if number else []
    slices = f"{len(stack.items)} slices"
    details.append(slices + (f" of {thickness[0]:g} mm" if thickness else ""))
    details += [plane(stack)] if plane(stack) != "axial" else []
    return (f"'{description}'" if description else "a series without description"), details


def _part(stack: Stack) -> str:
    return stack.part


def _kernel(stack: Stack) -> str:
    kernel = stack.first.tags["kernel"]
    return f"kernel {kernel[:16]}" if kernel else ""


def _uid_end(stack: Stack) -> str:
    """The end of the series UID, by which it can be asked for."""
    parts = stack.uid.split(".")
    end = ".".join(parts[-2:])
    return f"UID …{end if len(end) <= UID_END else parts[-1]}" if stack.uid else ""


def no_ct(images: list[DicomSlice], stage: str, expected: str, least: int) -> LesionDecompError:
    """Why a folder's images make no CT volume."""
    modalities: dict[str, int] = {}
    for item in images:
        name = item.tags["modality"][:16] or ("CT" if item.is_ct else "not given")
        modalities[name] = modalities.get(name, 0) + 1
    ct = [item for item in images if item.is_ct]
    if not ct:
        common = sorted(modalities.items(), key=lambda pair: -pair[1])[:3]
        found = ", ".join(f"{name} ({count} images)" for name, count in common)
        return InputError(stage, f"images of modality {found}", expected, code="not_ct")
    if all(item.is_localizer for item in ct):
        return InputError(stage, f"only localizers ({len(ct)} images)", expected, code="only_localizers")
    if any(item.size[2] > 1 for item in ct):
        frames = max(item.size[2] for item in ct)
        found = f"{frames} frames in one DICOM file that does not describe them"
        return InputError(stage, found, "an enhanced CT, or one slice in each file", code="frames_not_described")
    if not any(item.is_placed for item in ct):
        found = f"{len(ct)} CT images without a position in the patient"
        return InputError(stage, found, expected, code="no_positions")
    count = len([item for item in ct if not item.is_localizer])
    word = "slice" if count == 1 else "slices"
    return InputError(stage, f"{count} CT {word}", f"{expected} of at least {least} slices", code="too_few_slices")
