"""A training set that grows with every reviewed CT: its seen slices and their labels join those that are there."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...ct.outside import with_air_outside
from ...ct.volume import Volume
from ...errors import InputError
from ...io.atomic import write_bytes, write_text
from ...io.folder_lock import sole_writer
from ...models.records import SliceInput
from ...segmentation.lesions import lung_box
from ...segmentation.slices import LungSlices
from .export import COLUMNS, INDEX, labeled_images, png_bytes
from .input import slice_input
from .labels import SliceLabel
from .slices import LABELS, read_index

STAGE = "Adding to the training set"
TRAIN, VAL = "train", "val"
VAL_SHARE = 0.1  # of the patients
Rows = list[dict[str, str]]


@dataclass(frozen=True)
class GrownSet:
    """What a training set holds after a case has joined it.

    :param case: name of the case that joined.
    :param split: that it joined.
    :param lesion, normal: slices of the case.
    :param without_lung: seen slices that hold no lung and are left out.
    :param cases: in the set.
    :param missing: what the set still lacks before it can be trained on: (split, label) each.
    """

    case: str
    split: str
    lesion: int
    normal: int
    without_lung: int
    cases: int
    missing: tuple[tuple[str, str], ...]

    def text(self) -> str:
        """For people: what joined, and whether it is enough."""
        joined = f"{self.lesion} lesion and {self.normal} normal slices joined '{self.split}' ({self.cases} cases)"
        if not self.missing:
            return f"{joined}. The set can be trained on."
        lacks = ", ".join(f"{label} slices for '{split}'" for split, label in self.missing)
        return f"{joined}. Still needed, from other CTs: {lacks}."


def add_reviewed_case(
    folder: str | Path,
    volume: Volume,
    lungs: np.ndarray,
    labels: Mapping[int, str],
    identity: str,
    patient: str = "",
    device: torch.device | str = "cpu",
) -> GrownSet:
    """Write the seen slices of a reviewed CT into a training set, new or old; a case that is there is replaced.

    A patient stays in the split that they are in. A new one trains, or, where ``train`` has both labels and ``val``
    lacks one that this case has, or holds fewer than a tenth of the patients, validates.

    :param lungs: ``(k, j, i)`` on the CT's grid, lung where not 0.
    :param labels: of the slices that a reader has seen: ``"lesion"`` or ``"normal"`` by axial index.
    :param identity: the CT's SHA-256, which names the case.
    :param patient: whose CT it is, in a word that names nobody; empty where each CT is of a patient of its own.
    :raises LesionDecompError: no slice that was seen holds lung, or the folder holds something else.
    """
    folder = Path(folder)
    case = f"ct-{identity[:12]}"
    if not labels:
        raise InputError(STAGE, "no slice that was marked as seen", "slices that a reader has seen", code="none_seen")
    volume, _ = with_air_outside(volume)
    box = lung_box(volume.view.to_axial(lungs))
    slices = LungSlices.of(volume, lungs, box, SliceInput.of({"input": slice_input()}), device)
    items = [SliceLabel(index, label, "") for index, label in sorted(labels.items())]
    images = {item: image for item, image in labeled_images(slices, items) if image is not None}
    if not images:
        raise InputError(STAGE, "seen slices without lung", "seen slices that hold lung", code="none_seen")
    folder.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, stage=STAGE):
        held = read_index(folder) if (folder / INDEX).is_file() else []
        others = [row for row in held if row["scan"] != case]
        patient = patient or case
        split = _split(held, others, case, patient, {item.label for item in images})
        rows = [
            {
                "file": f"{item.label}/{case}_{item.index:04d}.png",
                "label": item.label,
                "split": split,
                "scan": case,
                "slice": str(item.index),
                "patient": patient,
            }
            for item in images
        ]
        for row, image in zip(rows, images.values(), strict=True):
            (folder / row["label"]).mkdir(exist_ok=True)
            write_bytes(folder / row["file"], png_bytes(image), STAGE)
        # The index comes last: until then the set is as it was.
        _write_index(folder, [*others, *rows])
        for row in held:
            if row["scan"] == case and row["file"] not in {new["file"] for new in rows}:
                (folder / row["file"]).unlink(missing_ok=True)
    whole = [*others, *rows]
    counts = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    missing = tuple(
        (part, label)
        for part in (TRAIN, VAL)
        for label in LABELS
        if not any((row["split"], row["label"]) == (part, label) for row in whole)
    )
    cases = len({row["scan"] for row in whole})
    return GrownSet(case, split, counts["lesion"], counts["normal"], len(items) - len(images), cases, missing)


def _split(held: Rows, others: Rows, case: str, patient: str, labels: set[str]) -> str:
    """The split that a case joins."""
    # The patient's other cases first: the case itself may have come without a patient before.
    for row in (*(row for row in others if _patient(row) == patient), *(row for row in held if row["scan"] == case)):
        return row["split"]
    kinds = {part: {row["label"] for row in others if row["split"] == part} for part in (TRAIN, VAL)}
    patients = {part: {_patient(row) for row in others if row["split"] == part} for part in (TRAIN, VAL)}
    if kinds[TRAIN] != set(LABELS):
        return TRAIN
    few = len(patients[VAL]) < round(VAL_SHARE * (len(patients[TRAIN] | patients[VAL]) + 1))
    return VAL if few or not labels <= kinds[VAL] else TRAIN


def _patient(row: Mapping[str, str]) -> str:
    return row.get("patient") or row["scan"]


def _write_index(folder: Path, rows: Rows) -> None:
    columns = list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / INDEX, text.getvalue(), STAGE)
