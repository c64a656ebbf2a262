"""How well lungs are found: ``python -m LesionDecompLib.evaluation.lungs --data DIR [--model BUNDLE]``.

DIR holds the CT sets ``covid3d_medseg``, ``misc_ct`` and ``lung_ct``. What the network was trained on must be told
apart by whoever reads the table: ``--only`` picks the cases.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ct.grid import AxialView
from ..ct.volume import Volume
from ..errors import InputError, LesionDecompError
from ..io.atomic import write_text
from ..io.readers import read_mask, read_volume
from ..models.bundle import ModelBundle, find_bundle
from ..segmentation.lungs.segment import segment_lungs
from ..segmentation.lungs.sides import LEFT, RIGHT, split_right_left
from .volumes import dice

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

# Scans of one lung, whose mask does not tell the side.
KNOWN_SIDE = {"elastix_rightlung": RIGHT}


@dataclass(frozen=True)
class LungScore:
    """How one case's lungs compare with the reference.

    :param dice: of both lungs together, in 3-D.
    :param dice_right, dice_left: of each lung.
    :param extra, missing: voxels outside, and of, the reference, as a share of the reference.
    :param swapped: share of the voxels of both masks that lie in the other lung of the reference.
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


def find_cases(data: Path) -> dict[str, tuple[Path, Path]]:
    """CT and lung mask of each case with a reference below ``data``: name -> (CT, mask)."""
    cases = {}
    for folder in ("covid3d_medseg", "lung_ct"):
        for mask in sorted((data / folder).glob("*_lung.nii.gz")):
            name = mask.name.removesuffix("_lung.nii.gz")
            cases[name] = (mask.with_name(f"{name}_ct.nii.gz"), mask)
    misc = data / "misc_ct"
    cases["cip_ct64"] = (misc / "cip_ct64" / "ct-64.nrrd", misc / "cip_ct64" / "wholeLung-64.nrrd")
    cases["elastix_rightlung"] = (misc / "elastix_rightlung_ct.nii.gz", misc / "elastix_rightlung_lungmask.nii.gz")
    return {name: pair for name, pair in cases.items() if all(path.is_file() for path in pair)}


def score_lungs(
    labels: np.ndarray, reference: np.ndarray, view: AxialView, known_side: int | None = None
) -> dict[str, float]:
    """Compare lung labels with a reference mask.

    :param labels: ``(k, j, i)`` 0 / 1 right / 2 left.
    :param reference: ``(k, j, i)``, non-zero = lung.
    :param known_side: of a reference with one lung.
    :return: the figures of :class:`LungScore` that need no clock.
    """
    found, truth = view.to_axial(labels), view.to_axial(reference) != 0
    sides = truth * np.uint8(known_side) if known_side else split_right_left(truth, view.spacing)
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
    name: str, ct: Path, mask: Path, bundle: ModelBundle, network: nn.Module, device: torch.device | str = "cpu"
) -> tuple[LungScore, Volume, np.ndarray, np.ndarray]:
    """Segment one case and score it; returns the score, the volume, the labels and the reference."""
    volume, _ = read_volume(ct)
    reference = read_mask(mask, volume)
    view = volume.view
    began = time.perf_counter()
    labels, warnings = segment_lungs(volume, network, bundle, device)
    seconds = time.perf_counter() - began
    figures = score_lungs(labels, reference, view, KNOWN_SIDE.get(name))
    ml = [float(np.count_nonzero(labels == side) * volume.voxel_volume_ml) for side in (RIGHT, LEFT)]
    score = LungScore(name, **figures, right_ml=ml[0], left_ml=ml[1], seconds=seconds, warnings=tuple(warnings))
    return score, volume, labels, reference


def draw_lungs(
    volume: Volume, labels: np.ndarray, reference: np.ndarray | None = None, slices: int = 12
) -> Image.Image:
    """Axial slices in a lung window with the outlines of the right (red) and left lung (blue) and of the reference
    (green), as a Pillow image; the slices are spread over the height of the scan."""
    from PIL import Image
    from skimage.segmentation import find_boundaries

    view = volume.view
    stack, found = view.to_axial(volume.array), view.to_axial(labels)
    truth = None if reference is None else view.to_axial(reference) != 0
    width = 300
    height = round(width * stack.shape[1] * view.spacing[1] / (stack.shape[2] * view.spacing[2]))
    tiles = []
    for z in np.linspace(0.03, 0.97, slices) * (stack.shape[0] - 1):
        z = round(float(z))
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
    parser.add_argument("--model", default=None, metavar="NAME|DIR", help="lung bundle (default: the shipped one)")
    parser.add_argument("--only", default="", metavar="NAMES", help="cases, separated by commas (default: all)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the scores here too")
    parser.add_argument("--pictures", type=Path, default=None, metavar="DIR", help="draw outlines into this folder")
    args = parser.parse_args(argv)
    try:
        bundle = find_bundle(args.model, "lungs")
        scores = _evaluate(args, bundle)
        if args.json is not None:
            content = {"bundle": bundle.name, "sha256": bundle.sha256, "scores": [asdict(score) for score in scores]}
            write_text(args.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n", "Writing the scores")
    except LesionDecompError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _evaluate(args: argparse.Namespace, bundle: ModelBundle) -> list[LungScore]:
    cases = find_cases(args.data)
    names = [name.strip() for name in args.only.split(",") if name.strip()] or list(cases)
    for name in names:
        if name not in cases:
            raise InputError("Evaluating lungs", f"no case '{name}'", "one of " + ", ".join(cases))
    network = bundle.network("cpu")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    print(f"{'case':22s} {'Dice':>7s} {'right':>7s} {'left':>7s} {'extra':>6s} {'missing':>7s} {'swapped':>8s} "
          f"{'right mL':>8s} {'left mL':>8s} {'s':>5s}")  # fmt: skip
    scores = []
    for name in names:
        score, volume, labels, reference = evaluate_case(name, *cases[name], bundle, network)
        scores.append(score)
        print(f"{name:22s} {score.dice:7.4f} {score.dice_right:7.4f} {score.dice_left:7.4f} {score.extra:6.3f} "
              f"{score.missing:7.3f} {score.swapped:8.5f} {score.right_ml:8.0f} {score.left_ml:8.0f} "
              f"{score.seconds:5.1f}  {' '.join(score.warnings)}", flush=True)  # fmt: skip
        if args.pictures is not None:
            draw_lungs(volume, labels, reference).save(args.pictures / f"{name}.png")
    return scores


if __name__ == "__main__":
    raise SystemExit(main())
