"""From a finished lung training to the bundle that ships: ``python -m LesionDecompLib.training.lung_bundle --help``.

Adds to the bundle of a run what only its maker knows: what it was trained on and under which licence, what it scores,
and that it is the one to be used when nobody asks for another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bundles import ModelBundle

DERIVED = ("format_version", "weights_sha256")
LCTSC = {
    "data": "LCTSC (Lung CT Segmentation Challenge 2017), 7 patients of its test set, 1.95 mm pixels, 3 mm slices",
    "license": "Creative Commons Attribution 3.0 Unported",
    "attribution": "Yang J, Sharp G, Veeraraghavan H, van Elmpt W, Dekker A, Lustberg T, Gooding M. Data from Lung CT "
    "Segmentation Challenge. The Cancer Imaging Archive, 2017. doi:10.7937/K9/TCIA.2017.3r3fvz08",
    "changes": "cropped, resampled, lung contours of both sides merged; right and left told apart anew",
}


def shipped_lung_bundle(run: Path, destination: Path, name: str, metrics: dict[str, Any]) -> ModelBundle:
    """Write the bundle of ``run`` to ``destination`` with its provenance and scores, as the default lung bundle.

    :param run: bundle folder that the training wrote. :param metrics: named scores, as JSON takes them.
    :raises LesionDecompError: no valid lung bundle in ``run``, or ``destination`` cannot be written.
    """
    trained = ModelBundle.load(run, "lungs")
    metadata = {
        key: value for key, value in trained.metadata.items() if key not in ("format_version", "weights_sha256")
    }
    metadata |= {
        "name": name,
        "training": trained.metadata["training"] | LCTSC,
        "metrics": metrics,
        "default": True,
    }
    return ModelBundle.save(destination, trained.network(), metadata)


def score_summary(files: Sequence[Path]) -> dict[str, Any]:
    """Scores written by :mod:`LesionDecompLib.evaluation.lungs`, by file: each case's Dice and their mean and least."""
    summary = {}
    for file in files:
        scores = json.loads(Path(file).read_text("utf-8"))["scores"]
        dice = {score["case"]: round(score["dice"], 4) for score in scores}
        summary[Path(file).stem] = {
            "dice": dice,
            "mean_dice": round(sum(dice.values()) / len(dice), 4),
            "least_dice": min(dice.values()),
            "largest_share_of_swapped_voxels": round(max(score["swapped"] for score in scores), 5),
        }
    return summary


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments and write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m LesionDecompLib.training.lung_bundle", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="bundle folder of the finished training")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--name", default="lungs-unet", metavar="NAME")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], metavar="FILE", help="scores of evaluation.lungs")
    args = parser.parse_args(argv)
    bundle = shipped_lung_bundle(args.run, args.output, args.name, score_summary(args.scores))
    print(f"{bundle.path}: {bundle.sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
