"""A training set of lung-masked slices from CT volumes and a label for each slice."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ...ct.checks import LEAST_SLICES, check_chest_ct
from ...ct.outside import with_air_outside
from ...ct.volume import Volume
from ...errors import InputError
from ...io.atomic import existing_error, staged_folder, write_text
from ...io.masks import read_mask
from ...io.readers import case_name, read_volume
from ...models.bundle import ModelBundle
from ...models.records import SliceInput
from ...progress import Cancel, Progress, check_cancel
from ...segmentation.lesions import lung_box
from ...segmentation.lungs.given import lungs_from_mask
from ...segmentation.lungs.segment import segment_lungs
from ...segmentation.slices import LungSlices
from .input import slice_input
from .labels import STAGE, SliceLabel, patient_of, read_slice_labels, split_cases
from .slices import LABELS

__all__ = ["export_slices", "read_slice_labels", "split_cases"]

BATCH = 8
INDEX = "index.csv"
COLUMNS = ("file", "label", "split", "scan", "slice", "patient")
CT_ENDING = "_ct"  # of a CT's name; what belongs to it has the same name with another ending


def export_slices(
    inputs: Sequence[str | Path | Volume],
    labels: dict[str, list[SliceLabel]],
    folder: str | Path,
    lung_bundle: ModelBundle,
    *,
    lung_mask_suffix: str = "",
    device: torch.device | str = "cpu",
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
) -> dict[str, int]:
    """Write a training set as :class:`LesionDecompLib.training.data.slices.SliceSet` reads it, whole or not at all.

    :param inputs: CT files, DICOM folders or volumes; each one's name (file name less its ending, and less ``_ct`` if
        the labels have it so) is its ``case``.
    :param labels: from :func:`read_slice_labels`. Cases without a split in there are dealt out by :func:`split_cases`.
    :param lung_mask_suffix: read each CT file's lungs from the file of its name with this in place of its ending (and
        of ``_ct``): ``a_ct.nii.gz`` has ``a_lung.nii.gz`` for ``_lung.nii.gz``. A scan of a few slices will do then.
        Empty: segment them.
    :return: number of slices of each label, and ``without lung``: labeled slices that hold none and are left out.
    :raises LesionDecompError: a case without labels or the other way round, a slice number too high, unusable CT, no
        lung mask.
    :raises Cancelled: ``cancelled`` returned True.
    """
    cases = _cases(inputs, labels)
    dealt = split_cases(labels, seed)
    # Before the first lung is looked for: that takes its time.
    _check_splits(
        {(patient_of(case, labels[case]), item.split or dealt[case]) for case in cases for item in labels[case]}
    )
    earlier = [name for name in (*LABELS, INDEX) if (Path(folder) / name).exists()]
    if earlier and not overwrite:
        raise existing_error(STAGE, Path(folder), earlier)
    segmented = _Segmented(lung_bundle, device, cancelled)
    rows: list[dict[str, str | int]] = []
    without_lung = 0
    with staged_folder(folder, overwrite, stage=STAGE, last=INDEX) as staging:
        for label in LABELS:
            (staging / label).mkdir()
        if progress is not None:
            progress("slices", 0, len(cases))
        for number, (case, source) in enumerate(cases.items()):
            check_cancel(cancelled, STAGE)
            if not labels[case]:
                continue
            volume, _ = with_air_outside(source if isinstance(source, Volume) else read_volume(source)[0])
            check_chest_ct(volume, least_slices=1 if lung_mask_suffix else LEAST_SLICES)
            view = volume.view
            _check_indices(labels[case], case, view.shape[0])
            lungs = _lungs_of_mask(source, volume, lung_mask_suffix) if lung_mask_suffix else segmented.lungs(volume)
            if not lungs.any():
                without_lung += len(labels[case])
                continue
            box = lung_box(view.to_axial(lungs))
            slices = LungSlices.of(volume, lungs, box, SliceInput.of({"input": slice_input()}), device)
            for item, image in labeled_images(slices, labels[case]):
                if image is None:
                    without_lung += 1
                    continue
                name = f"{item.label}/{case}_{item.index:04d}.png"
                (staging / name).write_bytes(png_bytes(image))
                split = item.split or dealt[case]
                values = (name, item.label, split, case, item.index, patient_of(case, labels[case]))
                rows.append(dict(zip(COLUMNS, values, strict=True)))
            if progress is not None:
                progress("slices", number + 1, len(cases))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(staging / INDEX, text.getvalue())
    counts = {label: sum(row["label"] == label for row in rows) for label in LABELS}
    return counts | {"without lung": without_lung}


@dataclass(frozen=True, eq=False)
class _Segmented:
    """Lungs of CTs that come without a mask."""

    bundle: ModelBundle
    device: torch.device | str
    cancelled: Cancel | None

    @cached_property
    def network(self) -> torch.nn.Module:
        return self.bundle.network(self.device)

    def lungs(self, volume: Volume) -> np.ndarray:
        """``(k, j, i)`` uint8, 1 right, 2 left."""
        return segment_lungs(volume, self.network, self.bundle, self.device, BATCH, None, self.cancelled)[0]


def _lungs_of_mask(source: str | Path | Volume, volume: Volume, suffix: str) -> np.ndarray:
    """The lungs in the file beside a CT, ``(k, j, i)`` uint8, 1 right, 2 left; all 0 where it has none."""
    if isinstance(source, Volume):
        raise InputError(STAGE, f"a volume '{source.name}' without a file", "files with lung masks beside them")
    names = [case_name(source)]
    names += [names[0].removesuffix(CT_ENDING)] if names[0].endswith(CT_ENDING) else []
    paths = [Path(source).with_name(name + suffix) for name in names]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise InputError(STAGE, f"no lung mask '{paths[-1].name}' beside the CT", "a lung mask for each CT")
    mask = read_mask(path, volume, may_be_empty=True)
    return lungs_from_mask(mask, volume)[0] if mask.any() else mask


def _cases(
    inputs: Sequence[str | Path | Volume], labels: Mapping[str, list[SliceLabel]]
) -> dict[str, str | Path | Volume]:
    """The inputs by the names of their cases, all of which have labels, and no others."""
    cases: dict[str, str | Path | Volume] = {}
    for item in inputs:
        name = item.name if isinstance(item, Volume) else case_name(item)
        if name not in labels and name.removesuffix(CT_ENDING) in labels:
            name = name.removesuffix(CT_ENDING)
        if name in cases:
            raise InputError(STAGE, f"two inputs of the name '{name}'", "a name of its own for each case")
        cases[name] = item
    for missing, where in ((sorted(set(cases) - set(labels)), "labels"), (sorted(set(labels) - set(cases)), "inputs")):
        if missing:
            raise InputError(STAGE, f"no {where} for case '{missing[0]}'", "the same cases in both")
    return cases


def _check_indices(labels: list[SliceLabel], case: str, slices: int) -> None:
    beyond = [item.index for item in labels if item.index >= slices]
    if beyond:
        found = f"a label for slice {beyond[0]} of '{case}'"
        raise InputError(STAGE, found, f"slices 0 to {slices - 1}")


def labeled_images(slices: LungSlices, labels: list[SliceLabel]) -> Iterator[tuple[SliceLabel, np.ndarray | None]]:
    """Each label with its slice, ``(size, size)`` uint8, 0 outside the lungs; None where it holds no lung."""
    for item in labels:
        if item.index not in slices.filled:
            yield item, None
            continue
        x, _ = slices.to_input([item.index])
        square = slices.field.whole(x)[0, 0].cpu().numpy()
        image = np.round((square + 1) * 127.5).astype(np.uint8)
        yield item, image if image.any() else None


def _check_splits(patients: set[tuple[str, str]]) -> None:
    """Refuse a patient in two splits; ``patients`` are pairs of a patient and a split."""
    splits: dict[str, set[str]] = {}
    for patient, split in patients:
        splits.setdefault(patient, set()).add(split)
    for patient, found in sorted(splits.items()):
        if len(found) > 1:
            text = f"'{patient}' in the splits {', '.join(sorted(found))}"
            raise InputError(STAGE, text, "each patient in one split: the slices resemble each other")


def png_bytes(image: np.ndarray) -> bytes:
    """A slice ``(h, w)`` uint8 as a PNG file's content."""
    from PIL import Image  # slow to import

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()
