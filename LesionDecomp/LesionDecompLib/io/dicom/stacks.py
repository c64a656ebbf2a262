"""DICOM images sorted into stacks: slices that can make one volume.

A series mostly is one stack. But series hold scouts and odd images, slices acquired twice, several breath holds or
time points between each other's slices, or reformats beside the originals; and anonymizers give every image a series of
its own, or several series one UID. So a stack is what has one series UID, patient, study, size, orientation and pixel
spacing, and nothing that distinguishes slices of the same place.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import LesionDecompError
from .header import DicomSlice
from .pixels import PixelReader

MIN_SLICES = 3
SAME_PLACE_MM = 1e-3
COMPETING = 0.75  # of the slice distance: slices nearer than that to another group's cannot belong to the same volume
COMPETING_SHARE = 0.25  # of a group's slices; a few overlap where one scan goes on where another ended
# Fields that distinguish volumes whose slices lie between each other's, and what they are called.
DISTINGUISHING = {
    "series_number": "series number {}",
    "description": "'{}'",
    "kernel": "kernel {}",
    "acquisition": "acquisition {}",
    "time_point": "time point {}",
    "time_point_number": "time point {}",
    "phase": "cardiac phase {} %",
    "acquired_at": "acquired at {}",
}
# Those that may differ within a volume, too: they distinguish slices in the same places only.
OF_SAME_PLACES = {"kvp": "{} kV", "thickness": "{} mm thick", "image_type": "image type {}"}


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices that can make one volume, at least ``MIN_SLICES``.

    :param items: sorted along the normal.
    :param part: what distinguishes it from others of its series, e.g. ``"acquisition 2"``; may be empty.
    :param copies: files left out because they hold the same slice once more.
    """

    items: list[DicomSlice]
    part: str = ""
    copies: list[Path] = field(default_factory=list)

    @property
    def first(self) -> DicomSlice:
        """The slice whose header speaks for all."""
        return self.items[0]

    @property
    def uid(self) -> str:
        """The series UID; of a series put together from several, that of the first slice."""
        return self.first.tags["series_uid"]

    @cached_property
    def places(self) -> np.ndarray:
        """``(n,)`` where the slices lie along their normal, mm."""
        return places_of(self.items)

    @property
    def extent(self) -> float:
        """From the first slice to the last, mm."""
        return float(np.ptp(self.places))

    @property
    def distance(self) -> float:
        """Between slices, mm: the usual one, of places that differ."""
        gaps = np.diff(self.places)
        gaps = gaps[gaps > SAME_PLACE_MM]
        return float(np.median(gaps)) if gaps.size else 0.0


@dataclass(frozen=True, eq=False)
class SortedImages:
    """What :func:`sort_images` makes of a folder's images.

    :param stacks: in the order of their first files.
    :param odd: images that fit no stack of their series, with the series UID.
    :param rest: why images are in no stack -> how many.
    :param gathered: UID of each series that was put together from images with series UIDs of their own.
    """

    stacks: list[Stack]
    odd: dict[str, list[DicomSlice]]
    rest: Counter[str]
    gathered: set[str]


def sort_images(images: list[DicomSlice], stage: str) -> SortedImages:
    """Sort the images of a folder into stacks.

    :raises LesionDecompError: pixels that must be compared are damaged.
    """
    reader = PixelReader(stage)
    by_series, gathered = _by_series(images)
    stacks: list[Stack] = []
    odd: dict[str, list[DicomSlice]] = defaultdict(list)
    rest: Counter[str] = Counter()
    for uid, items, owner in _by_owner(by_series):
        usable = [item for item in items if item.is_ct and item.is_placed and not item.is_localizer]
        layouts = _groups(usable, lambda a, b: a.fits(b))
        volumes = [layout for layout in layouts if len(layout) >= MIN_SLICES]
        if not volumes:
            rest[f"image of a series that is not a CT volume ({_kind(items)})"] += len(items)
            continue
        rest["localizer or unplaced image"] += len(items) - len(usable)
        odd[uid] += [item for layout in layouts if len(layout) < MIN_SLICES for item in layout]
        for layout in volumes:
            found, single = _split(layout, reader, owner)
            stacks += found
            odd[uid] += single
    return SortedImages(stacks, odd, rest, gathered)


def places_of(items: list[DicomSlice]) -> np.ndarray:
    """``(n,)`` where slices of one orientation lie along its normal, mm."""
    orientation = np.array(items[0].numbers("orientation"))
    normal = np.cross(orientation[:3], orientation[3:])
    length = float(np.linalg.norm(normal))
    positions = np.array([item.numbers("position") for item in items])
    return positions @ (normal / length if length > 0 else np.array([0.0, 0.0, 1.0]))


def _by_series(images: list[DicomSlice]) -> tuple[dict[str, list[DicomSlice]], set[str]]:
    """Images by series UID; those whose UIDs set each image apart are put together by what else they state."""
    by_series: dict[str, list[DicomSlice]] = defaultdict(list)
    for item in images:
        by_series[item.tags["series_uid"]].append(item)
    alone: dict[tuple[str, ...], list[DicomSlice]] = defaultdict(list)
    for items in by_series.values():
        if len(items) < MIN_SLICES and not (len(items) == 1 and items[0].frames > 1):
            for item in items:
                if item.is_ct and item.is_placed and not item.is_localizer:
                    keys = ("study_uid", "series_number", "description", "kernel", "patient")
                    alone[tuple(item.tags[key] for key in keys)].append(item)
    gathered = set()
    for items in alone.values():
        if len(items) >= MIN_SLICES and len({item.tags["series_uid"] for item in items}) > 1:
            uid = items[0].tags["series_uid"]
            moved = {id(item) for item in items}
            for own in {item.tags["series_uid"] for item in items}:
                by_series[own] = [item for item in by_series[own] if id(item) not in moved]
            by_series[uid] = [*by_series[uid], *items]
            gathered.add(uid)
    return {uid: items for uid, items in by_series.items() if items}, gathered


def _by_owner(by_series: dict[str, list[DicomSlice]]) -> Iterator[tuple[str, list[DicomSlice], str]]:
    """The images of each series UID by patient and study, with words for which of several, without their names."""
    for uid, items in by_series.items():
        for of_patient, patient in _apart(items, "patient"):
            for of_study, study in _apart(of_patient, "study_uid"):
                yield uid, of_study, ", ".join(text for text in (patient, study) if text)


def _apart(items: list[DicomSlice], name: str) -> list[tuple[list[DicomSlice], str]]:
    """Images by patient or study; all together where no more than one is stated."""
    groups: dict[str, list[DicomSlice]] = defaultdict(list)
    for item in items:
        groups[item.tags[name]].append(item)
    is_of_each = name == "study_uid" and len(groups) == len(items)  # as anonymizers give each image one
    if len(groups.keys() - {""}) < 2 or is_of_each:
        return [(items, "")]
    return [(group, f"{name.split('_')[0]} {n}") for n, group in enumerate(groups.values(), start=1)]


def _kind(items: list[DicomSlice]) -> str:
    if any(item.is_localizer for item in items):
        return "localizer"
    return items[0].tags["modality"][:16] or "modality not given"


def _groups(items: Iterable[DicomSlice], same: Callable[[DicomSlice, DicomSlice], bool]) -> list[list[DicomSlice]]:
    groups: list[list[DicomSlice]] = []
    for item in items:
        group = next((group for group in groups if same(group[0], item)), None)
        if group is None:
            groups.append([item])
        else:
            group.append(item)
    return groups


def _split(layout: list[DicomSlice], reader: PixelReader, text: str) -> tuple[list[Stack], list[DicomSlice]]:
    """The stacks in slices of one layout, and single slices between them.

    :param text: what distinguishes them from other slices with their series UID.
    """
    places = places_of(layout)
    order = np.argsort(places, kind="stable")
    items, copies = _without_copies([layout[n] for n in order], places[order], reader)
    stacks, single = [], []
    for part, shown in _parts(items, text):
        if len(part) >= MIN_SLICES:
            stacks.append(Stack(part, shown, copies))
        else:
            single += part
    return stacks, single


def _without_copies(
    items: list[DicomSlice], places: np.ndarray, reader: PixelReader
) -> tuple[list[DicomSlice], list[Path]]:
    """Leave out slices at another's position with its pixels, whatever their UIDs.

    :param items: sorted by their places.
    """
    usual = Counter(item.tags["acquisition"] for item in items)
    kept: list[DicomSlice] = []
    copies: list[Path] = []
    for group in np.split(np.arange(len(items)), np.flatnonzero(np.diff(places) > SAME_PLACE_MM) + 1):
        here = [items[n] for n in group]
        if len(here) == 1:
            kept += here
            continue
        here.sort(key=lambda item: -usual[item.tags["acquisition"]])  # of a twin, the one that goes with the others
        seen = set()
        for item in here:
            picture = _picture(item, reader)
            if picture in seen:
                copies.append(item.path)
            else:
                kept.append(item)
            seen.add(picture)
    return kept, copies


def _picture(item: DicomSlice, reader: PixelReader) -> tuple[object, ...]:
    """What is the same for two images that show the same: position, rescaling and pixels."""
    try:
        pixels = hashlib.sha256(np.ascontiguousarray(reader.stored(item))).hexdigest()
    except LesionDecompError:  # reported when the image is read, if ever
        pixels = f"{item.path}#{item.frame}"
    position = tuple(np.round(item.numbers("position"), 3))
    return position, item.numbers("slope"), item.numbers("intercept"), pixels


def _parts(items: list[DicomSlice], text: str = "") -> list[tuple[list[DicomSlice], str]]:
    """Split slices wherever a field distinguishes some that compete for the same places."""
    for name, words in {**DISTINGUISHING, **OF_SAME_PLACES}.items():
        groups: dict[object, list[DicomSlice]] = defaultdict(list)
        for item in items:
            groups[item.numbers(name) or item.tags[name]].append(item)
        nearest = COMPETING if name in DISTINGUISHING else 0.0
        if len(groups) > 1 and _compete([places_of(group) for group in groups.values()], nearest):
            parts = []
            for group in groups.values():
                value = group[0].tags[name].replace("\\", " ")[:40]
                shown = words.format(value) if value else f"without {name.replace('_', ' ')}"
                parts += _parts(group, f"{text}, {shown}" if text else shown)
            return parts
    return [(items, text)]


def _compete(groups: list[np.ndarray], nearest: float) -> bool:
    """Whether groups of slices lie between or upon each other; one that goes on where another ends does not.

    :param groups: places of each, sorted.
    :param nearest: share of a group's slice distance that slices of the same volume are apart at least.
    """
    several = sorted((group for group in groups if len(group) > 1), key=lambda group: float(group[0]))
    for n, a in enumerate(several):
        for b in several[n + 1 :]:
            if b[0] > a[-1] + SAME_PLACE_MM:
                break
            small, large = sorted((a, b), key=len)
            if np.mean(_too_near(small, large, nearest)) > COMPETING_SHARE:
                return True
    alone = [group for group in groups if len(group) == 1]
    if not several or not alone:
        return False
    return bool(_too_near(np.concatenate(alone), max(several, key=len), nearest).any())


def _too_near(some: np.ndarray, others: np.ndarray, nearest: float) -> np.ndarray:
    step = float(np.median(np.diff(others)))
    return _distances(some, others) < max(nearest * step, SAME_PLACE_MM)


def _distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """From each of some places to the nearest of others, which are sorted."""
    right = np.clip(np.searchsorted(others, some), 1, len(others) - 1)
    return np.minimum(np.abs(some - others[right - 1]), np.abs(some - others[right]))
