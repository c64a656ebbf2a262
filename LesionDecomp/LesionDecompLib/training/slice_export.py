"""A training set of lung-masked slices from CT volumes and a label for each slice."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..atomic import staged_folder, write_text
from ..bundles import ModelBundle
from ..chest_ct import check_chest_ct
from ..errors import Cancelled, LesionDecompError
from ..geometry import AxialView
from ..image_io import case_name, read_volume
from ..lungs import segment_lungs
from ..preprocessing import LungSlices
from .slice_input import slice_input
from .slices import LABELS, SPLITS

STAGE = "Making the training set"
LABEL_WORDS = {"lesion": "lesion", "1": "lesion", "normal": "normal", "0": "normal"}
BATCH = 8
COLUMNS = ("file", "label", "split", "scan", "slice")


@dataclass(frozen=True)
class SliceLabel:
    """Label of one axial slice: ``index`` counts from the lowest slice, from 0; ``split`` may be empty."""

    index: int
    label: str
    split: str


def read_slice_labels(path: str | Path) -> dict[str, list[SliceLabel]]:
    """Read ``case,slice,label`` (and ``split``, if given) and sort by case.

    ``label`` is ``lesion`` or ``normal``, or 1 or 0; ``slice`` counts axial slices from the lowest, from 0.

    :raises LesionDecompError: unreadable, a missing column, a value that makes no sense, a slice labelled twice.
    """
    try:
        if not Path(path).is_file():
            raise OSError("no regular file")
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LesionDecompError(STAGE, f"labels that do not read ({error})", "a UTF-8 CSV file") from error
    labels: dict[str, list[SliceLabel]] = {}
    labelled: set[tuple[str, int]] = set()
    for number, row in enumerate(rows, start=2):
        found = f"line {number} of the labels ({', '.join(str(value)[:40] for value in list(row.values())[:6])})"
        word = LABEL_WORDS.get((row.get("label") or "").strip().lower())
        index = (row.get("slice") or "").strip()
        split = (row.get("split") or "").strip()
        if not row.get("case") or word is None or not re.fullmatch("[0-9]{1,6}", index):
            raise LesionDecompError(
                STAGE, found, "columns case, slice (from 0 at the lowest) and label (lesion, normal)"
            )
        if split and split not in SPLITS:
            raise LesionDecompError(STAGE, found, f"one of the splits {', '.join(SPLITS)}")
        if (row["case"], int(index)) in labelled:
            raise LesionDecompError(STAGE, f"{found}, labelled before", "one label for each slice")
        labelled.add((row["case"], int(index)))
        labels.setdefault(row["case"], []).append(SliceLabel(int(index), word, split))
    if not labels:
        raise LesionDecompError(STAGE, "labels without a line", "a line for each slice: case,slice,label")
    return labels


def split_cases(cases: Sequence[str], seed: int = 0) -> dict[str, str]:
    """Deal whole cases to ``train`` (eight of ten), ``val`` and ``test``, at random but repeatably."""
    order = [sorted(cases)[index] for index in np.random.default_rng(seed).permutation(len(cases))]
    tenth = max(1, round(len(order) / 10)) if len(order) >= 3 else 0
    return {
        case: "val" if position < tenth else "test" if position < 2 * tenth else "train"
        for position, case in enumerate(order)
    }


def export_slices(
    inputs: Sequence[str | Path],
    labels: dict[str, list[SliceLabel]],
    folder: str | Path,
    lung_bundle: ModelBundle,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, int]:
    """Write a training set as :class:`LesionDecompLib.training.slices.SliceSet` reads it, whole or not at all.

    :param inputs: CT volumes; each one's name (file name less its ending) is its ``case``.
    :param labels: from :func:`read_slice_labels`. Cases without a split in there are dealt out by :func:`split_cases`.
    :return: number of slices of each label, and ``without lung``: labelled slices that hold none and are left out.
    :raises LesionDecompError: a case without labels or the other way round, a slice number too high, unusable CT.
    """
    paths = {case_name(path): path for path in inputs}
    if len(paths) < len(inputs):
        raise LesionDecompError(STAGE, "two inputs of the same name", "a name of its own for each case")
    for missing, where in ((sorted(set(paths) - set(labels)), "labels"), (sorted(set(labels) - set(paths)), "inputs")):
        if missing:
            raise LesionDecompError(STAGE, f"no {where} for case '{missing[0]}'", "the same cases in both")
    network = lung_bundle.network(device)
    dealt = split_cases(list(paths), seed)
    rows: list[dict[str, str | int]] = []
    without_lung = 0
    with staged_folder(folder, overwrite, stage=STAGE, last="index.csv") as staging:
        for label in LABELS:
            (staging / label).mkdir()
        for number, (case, path) in enumerate(paths.items()):
            if cancelled is not None and cancelled():
                raise Cancelled(STAGE)
            volume, _ = read_volume(path)
            check_chest_ct(volume)
            view = AxialView.of(volume.shape, volume.ijk_to_ras)
            beyond = [item.index for item in labels[case] if item.index >= view.shape[0]]
            if beyond:
                found = f"a label for slice {beyond[0]} of '{case}'"
                raise LesionDecompError(STAGE, found, f"slices 0 to {view.shape[0] - 1}")
            lungs, _ = segment_lungs(volume, view, network, lung_bundle, device, BATCH, None, cancelled)
            slices = LungSlices.of(volume, view, lungs, slice_input(), device)
            for item, image in _images(slices, labels[case]):
                if image is None:
                    without_lung += 1
                    continue
                name = f"{item.label}/{case}_{item.index:04d}.png"
                _write_png(staging / name, image)
                split = item.split or dealt[case]
                rows.append({"file": name, "label": item.label, "split": split, "scan": case, "slice": item.index})
            if progress is not None:
                progress("slices", number + 1, len(paths))
        _check_splits(rows)
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(staging / "index.csv", text.getvalue())
    counts = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    return counts | {"without lung": without_lung}


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
            raise LesionDecompError(STAGE, text, "each case in one split: its slices resemble each other")


def _write_png(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    Image.fromarray(image).save(path)
