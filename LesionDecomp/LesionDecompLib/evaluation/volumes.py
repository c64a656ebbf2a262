"""How well lesions are found in whole CT: ``python -m LesionDecompLib.evaluation.volumes --data DIR``.

DIR holds ``covid3d_medseg`` (CT with lesion masks on every slice) and ``covid_ct_md`` (a normal chest). Everything
runs as for a user: own lung mask, the bundle's own threshold, lesions below the usual minimum volume left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..atomic import write_text
from ..errors import LesionDecompError
from ..image_io import read_mask, read_volume
from ..overview import draw_overview
from ..pipeline import Segmenter


@dataclass(frozen=True)
class LesionScore:
    """How one case's lesions compare with the reference.

    :param dice: at the bundle's threshold; NaN without a reference. :param best_dice, best_threshold: over thresholds
        from 0.05 to 0.95. :param involvement_percent: of our lungs. :param reference_percent: reference lesion over
        our lungs.
    """

    case: str
    dice: float
    best_dice: float
    best_threshold: float
    involvement_percent: float
    reference_percent: float
    seconds: float


def find_cases(data: Path) -> dict[str, tuple[Path, Path | None]]:
    """CT and lesion mask (None: a normal chest) of each case below ``data``."""
    cases: dict[str, tuple[Path, Path | None]] = {}
    for mask in sorted((data / "covid3d_medseg").glob("*_lesion.nii.gz")):
        name = mask.name.removesuffix("_lesion.nii.gz")
        cases[name] = (mask.with_name(f"{name}_ct.nii.gz"), mask)
    normal = data / "covid_ct_md" / "normal001_ct.nii.gz"
    if normal.is_file():
        cases["normal001"] = (normal, None)
    return cases


def evaluate_case(name: str, ct: Path, mask: Path | None, segmenter: Segmenter, picture: Path | None) -> LesionScore:
    """Run the main job on one case and compare."""
    volume, _ = read_volume(ct)
    result = segmenter.run(volume)
    if picture is not None:
        draw_overview(volume, result, name).save(picture)
    lung_voxels = np.count_nonzero(result.lungs)
    seconds = sum(result.timings_s.values())
    involvement = 100.0 * np.count_nonzero(result.lesions) / lung_voxels
    if mask is None:
        return LesionScore(name, np.nan, np.nan, np.nan, involvement, 0.0, seconds)
    truth = read_mask(mask, volume) != 0
    thresholds = np.arange(1, 20) / 20
    scores = [dice(result.heat >= threshold, truth) for threshold in thresholds]
    best = int(np.argmax(scores))
    return LesionScore(
        name,
        dice(result.lesions != 0, truth),
        scores[best],
        float(thresholds[best]),
        involvement,
        100.0 * np.count_nonzero(truth) / lung_voxels,
        seconds,
    )


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two boolean arrays; NaN where both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else float("nan")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of scores; write it as JSON and draw overviews where asked."""
    parser = argparse.ArgumentParser(prog="python -m LesionDecompLib.evaluation.volumes", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--model", default=None, metavar="NAME|DIR", help="lesion bundle (default: the shipped one)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="write the scores here too")
    parser.add_argument("--pictures", type=Path, default=None, metavar="DIR", help="draw overviews into this folder")
    args = parser.parse_args(argv)
    try:
        scores = _evaluate(args)
    except LesionDecompError as error:
        print(error, file=sys.stderr)
        return 1
    if args.json is not None:
        write_text(args.json, json.dumps({"scores": [asdict(score) for score in scores]}, indent=2) + "\n")
    return 0


def _evaluate(args: argparse.Namespace) -> list[LesionScore]:
    cases = find_cases(args.data)
    if not cases:
        raise LesionDecompError("Evaluating lesions", "no case", "covid3d_medseg/NAME_ct.nii.gz and NAME_lesion.nii.gz")
    segmenter = Segmenter(args.model, device="cpu")
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    print("case        Dice   best Dice at threshold   involvement %   reference %   seconds")
    scores = []
    for name, (ct, mask) in cases.items():
        picture = None if args.pictures is None else args.pictures / f"{name}.png"
        score = evaluate_case(name, ct, mask, segmenter, picture)
        scores.append(score)
        print(
            f"{name:10s} {score.dice:5.3f}   {score.best_dice:9.3f} at {score.best_threshold:9.2f}   "
            f"{score.involvement_percent:13.2f}   {score.reference_percent:11.2f}   {score.seconds:7.1f}",
            flush=True,
        )
    return scores


if __name__ == "__main__":
    raise SystemExit(main())
