"""How well lungs are found: ``python -m LesionDecompLib.evaluation.lungs --data DIR [--model BUNDLE]``.

DIR holds the CT sets ``covid3d_medseg``, ``misc_ct``, ``lung_ct`` and ``lung_ct_more``, or what the table given as
``--cases`` names (:mod:`LesionDecompLib.training.lungs.caselist`). What the network was trained on must be named
apart by whoever reads the metrics: ``--only`` picks the cases, by name, patient, tag or fold.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ct.grid import AxialView
from ..ct.volume import Volume
from ..errors import InputError, LesionDecompError
from ..io.atomic import write_text
from ..io.masks import read_mask
from ..io.readers import read_volume
from ..models.bundle import ModelBundle, find_bundle
from ..segmentation.lungs.segment import segment_lungs
from ..segmentation.lungs.sides import LEFT, RIGHT, split_right_left
from ..training.lungs.caselist import LungCase, read_cases
from .volumes import dice

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

# Scans of one lung, whose mask does not state the side.
KNOWN_SIDE = {"elastix_rightlung": RIGHT}
SETS = ("covid3d_medseg", "lung_ct", "lung_ct_more")


@dataclass(frozen=True)
class Reference:
    """A scan and its lungs.

    :param case: name, patient, fold and tags.
    """

    case: LungCase
    ct: Path
    mask: Path


@dataclass(frozen=True)
class LungScore:
    """How one case's lungs compare with the reference.

    :param dice: of both lungs together, in 3-D.
    :param dice_right, dice_left: of each lung.
    :param extra, missing: voxels outside, and of, the reference, as a share of the reference.
        Where there is no lung: the voxels found, as a share of the scan, and 0.
    :param swapped: share of the voxels of both masks that lie in the other lung of the reference.
    :param refused: the refusal where no lungs were found at all.
    :param tags: of the case's row in the table of cases.
    """

    case: str
    dice: float
    dice_right: float
    dice_left: float
    extra: float
    missing: float
    swapped: float
    right_ml: float
    left_ml: float
    seconds: float
    warnings: tuple[str, ...]
    refused: str = ""
    tags: tuple[str, ...] = ()


def find_cases(data: Path) -> list[Reference]:
    """CT and lung mask of each case with a reference below ``data``; a case of ``lung_ct`` has the tag ``lung_ct``."""
    found = []
    for folder in SETS:
        for mask in sorted((data / folder).glob("*_lung.nii.gz")):
            name = mask.name.removesuffix("_lung.nii.gz")
            found.append(Reference(LungCase(name, name, tags=(folder,)), mask.with_name(f"{name}_ct.nii.gz"), mask))
    misc = data / "misc_ct"
    ct64 = (misc / "cip_ct64" / "ct-64.nrrd", misc / "cip_ct64" / "wholeLung-64.nrrd")
    right_lung = (misc / "elastix_rightlung_ct.nii.gz", misc / "elastix_rightlung_lungmask.nii.gz")
    for name, pair in (("cip_ct64", ct64), ("elastix_rightlung", right_lung)):
        found.append(Reference(LungCase(name, name, tags=("misc_ct",)), *pair))
    return [item for item in found if item.ct.is_file() and item.mask.is_file()]


def cases_of_table(data: Path, table: Path) -> list[Reference]:
    """CT and lung mask of each row of a table of cases.

    :raises LesionDecompError: a table that cannot be read.
    """
    return [
        Reference(case, data / f"{case.name}_ct.nii.gz", data / f"{case.name}_lung.nii.gz")
        for case in read_cases(table)
    ]


def score_lungs(
    labels: np.ndarray, reference: np.ndarray, view: AxialView, known_side: int | None = None
) -> dict[str, float]:
    """Compare lung labels with a reference mask.

    :param labels: ``(k, j, i)`` 0 / 1 right / 2 left.
    :param reference: ``(k, j, i)``, non-zero = lung; one with label 2 names the sides. Where it is all 0 Dice
        is 1 if no lung was found and 0 otherwise.
    :param known_side: of a reference with one lung.
    :return: the metrics of :class:`LungScore` that need no clock.
    """
    found, given = view.to_axial(labels), view.to_axial(reference)
    truth = given != 0
    if not truth.any():
        nothing = float(not found.any())
        metrics = {"dice": nothing, "dice_right": nothing, "dice_left": nothing}
        return metrics | {"extra": float(np.mean(found != 0)), "missing": 0.0, "swapped": 0.0}
    if known_side:
        sides = truth * np.uint8(known_side)
    else:
        sides = given if (given == LEFT).any() else split_right_left(truth, view.spacing)
    both = (found > 0) & truth
    return {
        "dice": dice(found > 0, truth),
        "dice_right": dice(found == RIGHT, sides == RIGHT),
        "dice_left": dice(found == LEFT, sides == LEFT),
        "extra": float(np.count_nonzero((found > 0) & ~truth) / np.count_nonzero(truth)),
        "missing": float(np.count_nonzero(truth & (found == 0)) / np.count_nonzero(truth)),
        "swapped": float(np.count_nonzero(both & (found != sides)) / max(1, int(np.count_nonzero(both)))),
    }


def evaluate_case(
    item: Reference, bundle: ModelBundle, network: nn.Module, device: torch.device | str = "cpu"
) -> tuple[LungScore, Volume, np.ndarray, np.ndarray]:
    """Segment one case and score it; returns the score, the volume, the labels and the reference.

    Lungs that are not found at all are scored as none.
    """
    volume, _ = read_volume(item.ct)
    reference = read_mask(item.mask, volume, may_be_empty=True)
    began, refused, warnings = time.perf_counter(), "", list[str]()
    try:
        labels, warnings = segment_lungs(volume, network, bundle, device)
    except InputError as error:
        labels, refused = np.zeros(volume.shape, dtype=np.uint8), str(error)
    seconds = time.perf_counter() - began
    name, tags = item.case.name, item.case.tags
    one_right = "sides" in tags and reference.any() and not (reference == LEFT).any()
    metrics: dict[str, Any] = score_lungs(labels, reference, volume.view, RIGHT if one_right else KNOWN_SIDE.get(name))
    ml = [float(np.count_nonzero(labels == side) * volume.voxel_volume_ml) for side in (RIGHT, LEFT)]
    score = LungScore(name, **metrics, right_ml=ml[0], left_ml=ml[1], seconds=seconds, warnings=tuple(warnings))
    return replace(score, refused=refused, tags=tags), volume, labels, reference


def scores_content(bundle: ModelBundle, scores: Sequence[LungScore]) -> dict[str, Any]:
    """The file of scores: the model, each case, and each tag's means. What is no number (Dice of a lung that is neither
    there nor found) is None."""
    records = [{key: None if value != value else value for key, value in asdict(score).items()} for score in scores]
    return {"bundle": bundle.name, "sha256": bundle.sha256, "scores": records, "by_tag": means_by_tag(scores)}


def means_by_tag(scores: Sequence[LungScore]) -> dict[str, dict[str, float]]:
    """Number of cases, mean and least Dice, and the largest share of swapped voxels of each tag's cases."""
    by_tag: dict[str, list[LungScore]] = {}
    for score in scores:
        for tag in score.tags:
            by_tag.setdefault(tag, []).append(score)
    return {
        tag: {
            "cases": len(some),
            "mean_dice": round(float(np.mean([score.dice for score in some])), 4),
            "least_dice": round(min(score.dice for score in some), 4),
            "largest_swapped": round(max(score.swapped for score in some), 5),
        }
        for tag, some in sorted(by_tag.items())
    }


def draw_lungs(volume: Volume, labels: np.ndarray, reference: np.ndarray | None = None, slices: int = 8) -> Image.Image:
    """Axial slices in a lung window with the outlines of the right (red) and left lung (blue) and of the reference
    (green), as a Pillow image; the slices are spread over the height of the lungs, or of the scan where it has none."""
    from PIL import Image  # slow to import
    from skimage.segmentation import find_boundaries

    view = volume.view
    stack, found = view.to_axial(volume.array), view.to_axial(labels)
    truth = None if reference is None else view.to_axial(reference) != 0
    width = 300
    height = round(width * stack.shape[1] * view.spacing[1] / (stack.shape[2] * view.spacing[2]))
    tiles = []
    held = np.flatnonzero(np.any(found if truth is None else (found != 0) | truth, axis=(1, 2)))
    low, high = (held[0], held[-1]) if len(held) else (0, stack.shape[0] - 1)
    for share in np.linspace(0.06, 0.94, slices):
        z = round(float(low + share * (high - low)))
        gray = np.clip((stack[z].astype(np.float32) + 1250.0) / 1500.0, 0, 1) * 255
        tile = np.array(Image.fromarray(gray.astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR))
        tile = np.repeat(tile[..., None], 3, axis=2)
        outlines = [] if truth is None else [(truth[z].astype(np.uint8), (0, 220, 0))]
        sides = ((RIGHT, (255, 60, 60)), (LEFT, (60, 160, 255)))
        outlines += [((found[z] == side).astype(np.uint8), color) for side, color in sides]
        for region, color in outlines:
            fine = np.array(Image.fromarray(region * 255).resize((width, height), Image.Resampling.BILINEAR)) > 127
            tile[find_boundaries(fine, mode="inner")] = color
        tiles.append(tile)
    columns = 4
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    return Image.fromarray(np.concatenate([row for row in rows if row.shape[1] == columns * width], axis=0))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of scores; write it as JSON and draw pictures where asked."""
    parser = argparse.ArgumentParser(prog="python -m LesionDecompLib.evaluation.lungs", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--cases", type=Path, default=None, metavar="FILE", help="table of the cases below DIR")
    parser.add_argument("--model", default=None, metavar="NAME|DIR", help="lung bundle (default: the shipped one)")
    parser.add_argument(
        "--only",
        default="",
        metavar="NAMES",
        help="cases, patients, tags or fold:N, separated by commas (default: all)",
    )
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the scores here too")
    parser.add_argument("--pictures", type=Path, default=None, metavar="DIR", help="draw outlines into this folder")
    args = parser.parse_args(argv)
    try:
        bundle = find_bundle(args.model, "lungs")
        scores = _evaluate(args, bundle)
        content = scores_content(bundle, scores)
        for tag, metrics in content["by_tag"].items():
            print(tag, *(f"{key} {value:g}" for key, value in metrics.items()))
        if args.json is not None:
            write_text(args.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n", "Writing the scores")
    except LesionDecompError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def chosen_cases(cases: Sequence[Reference], only: str) -> list[Reference]:
    """The cases that one of the names, separated by commas, means; all without a name.

    :raises LesionDecompError: a name that means none.
    """
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if not any(item.case.is_called(name) for item in cases):
            known = ", ".join(item.case.name for item in cases)
            raise InputError("Evaluating lungs", f"no case '{name}'", f"one of {known}")
    return [item for item in cases if not names or any(item.case.is_called(name) for name in names)]


def _evaluate(args: argparse.Namespace, bundle: ModelBundle) -> list[LungScore]:
    cases = find_cases(args.data) if args.cases is None else cases_of_table(args.data, args.cases)
    network = bundle.network("cpu")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    print(f"{'case':22s} {'Dice':>7s} {'right':>7s} {'left':>7s} {'extra':>6s} {'missing':>7s} {'swapped':>8s} "
          f"{'right mL':>8s} {'left mL':>8s} {'s':>5s}")  # fmt: skip
    scores = []
    for item in chosen_cases(cases, args.only):
        score, volume, labels, reference = evaluate_case(item, bundle, network)
        scores.append(score)
        name = Path(score.case).name
        print(f"{name:22s} {score.dice:7.4f} {score.dice_right:7.4f} {score.dice_left:7.4f} {score.extra:6.3f} "
              f"{score.missing:7.3f} {score.swapped:8.5f} {score.right_ml:8.0f} {score.left_ml:8.0f} "
              f"{score.seconds:5.1f}  {score.refused or ' '.join(score.warnings)}", flush=True)  # fmt: skip
        if args.pictures is not None:
            draw_lungs(volume, labels, reference).save(args.pictures / f"{name}.png")
    return scores


if __name__ == "__main__":
    raise SystemExit(main())
