"""A training set of lung-masked slices from CT volumes and a label for each slice."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from ...ct.checks import check_chest_ct
from ...ct.volume import Volume
from ...errors import InputError
from ...io.atomic import staged_folder, write_text
from ...io.readers import case_name, read_volume
from ...models.bundle import ModelBundle
from ...models.records import SliceInput
from ...progress import Cancel, Progress, check_cancel
from ...segmentation.lesions import lung_box
from ...segmentation.lungs.segment import segment_lungs
from ...segmentation.slices import LungSlices
from .input import slice_input
from .labels import STAGE, SliceLabel, read_slice_labels, split_cases
from .slices import LABELS

__all__ = ["export_slices", "read_slice_labels", "split_cases"]

BATCH = 8
COLUMNS = ("file", "label", "split", "scan", "slice")


def export_slices(
    inputs: Sequence[str | Path | Volume],
    labels: dict[str, list[SliceLabel]],
    folder: str | Path,
    lung_bundle: ModelBundle,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> dict[str, int]:
    """Write a training set as :class:`LesionDecompLib.training.data.slices.SliceSet` reads it, whole or not at all.

    :param inputs: CT files, DICOM folders or volumes; each one's name (file name less its ending) is its ``case``.
    :param labels: from :func:`read_slice_labels`. Cases without a split in there are dealt out by :func:`split_cases`.
    :return: number of slices of each label, and ``without lung``: labeled slices that hold none and are left out.
    :raises LesionDecompError: a case without labels or the other way round, a slice number too high, unusable CT.
    :raises Cancelled: ``cancelled`` returned True.
    """
    cases = _cases(inputs, labels)
    network = lung_bundle.network(device)
    dealt = split_cases(list(cases), seed)
    rows: list[dict[str, str | int]] = []
    without_lung = 0
    with staged_folder(folder, overwrite, stage=STAGE, last="index.csv") as staging:
        for label in LABELS:
            (staging / label).mkdir()
        if progress is not None:
            progress("slices", 0, len(cases))
        for number, (case, source) in enumerate(cases.items()):
            check_cancel(cancelled, STAGE)
            volume = source if isinstance(source, Volume) else read_volume(source)[0]
            check_chest_ct(volume)
            view = volume.view
            _check_indices(labels[case], case, view.shape[0])
            lungs, _ = segment_lungs(volume, network, lung_bundle, device, BATCH, None, cancelled)
            box = lung_box(view.to_axial(lungs))
            slices = LungSlices.of(volume, lungs, box, SliceInput.of({"input": slice_input()}), device)
            for item, image in _images(slices, labels[case]):
                if image is None:
                    without_lung += 1
                    continue
                name = f"{item.label}/{case}_{item.index:04d}.png"
                _write_png(staging / name, image)
                split = item.split or dealt[case]
                rows.append({"file": name, "label": item.label, "split": split, "scan": case, "slice": item.index})
            if progress is not None:
                progress("slices", number + 1, len(cases))
        _check_splits(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(staging / "index.csv", text.getvalue())
    counts = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    return counts | {"without lung": without_lung}


def _cases(
    inputs: Sequence[str | Path | Volume], labels: dict[str, list[SliceLabel]]
) -> dict[str, str | Path | Volume]:
    """The inputs by the names of their cases, all of which have labels, and no others."""
    cases = {item.name if isinstance(item, Volume) else case_name(item): item for item in inputs}
    if len(cases) < len(inputs):
        raise InputError(STAGE, "two inputs of the same name", "a name of its own for each case")
    for missing, where in ((sorted(set(cases) - set(labels)), "labels"), (sorted(set(labels) - set(cases)), "inputs")):
        if missing:
            raise InputError(STAGE, f"no {where} for case '{missing[0]}'", "the same cases in both")
    return cases


def _check_indices(labels: list[SliceLabel], case: str, slices: int) -> None:
    beyond = [item.index for item in labels if item.index >= slices]
    if beyond:
        found = f"a label for slice {beyond[0]} of '{case}'"
        raise InputError(STAGE, found, f"slices 0 to {slices - 1}")


def _images(slices: LungSlices, labels: list[SliceLabel]) -> Iterator[tuple[SliceLabel, np.ndarray | None]]:
    """Each label with its slice, ``(size, size)`` uint8, 0 outside the lungs; None where it holds no lung."""
    for item in labels:
        if item.index not in slices.filled:
            yield item, None
            continue
        x, _ = slices.to_input([item.index])
        square = slices.field.whole(x)[0, 0].cpu().numpy()
        image = np.round((square + 1) * 127.5).astype(np.uint8)
        yield item, image if image.any() else None


def _check_splits(rows: list[dict[str, str | int]]) -> None:
    splits: dict[str, set[str | int]] = {}
    for row in rows:
        splits.setdefault(str(row["scan"]), set()).add(row["split"])
    for scan, found in splits.items():
        if len(found) > 1:
            text = f"case '{scan}' in the splits {', '.join(sorted(map(str, found)))}"
            raise InputError(STAGE, text, "each case in one split: its slices resemble each other")


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)
