"""How well lesions are found in whole CT, and how well their volumes agree with readers'.

Everything runs as for a user: own lung mask, the bundle's own threshold, lesions below the usual minimum volume left
out.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError, LesionDecompError
from ..io.atomic import write_bytes
from ..io.masks import read_labels
from ..io.readers import read_volume
from ..pipeline import Segmenter
from ..progress import Progress
from ..report.overview import draw_overview

STAGE = "Evaluation"
CT_SUFFIX, LESION_SUFFIX = "_ct.nii.gz", "_lesion.nii.gz"
BLAND_ALTMAN_NAME = "bland_altman.png"
LEAST_PERCENT = 0.1  # of lung: with less lesion a Dice means nothing


@dataclass(frozen=True)
class LesionScore:
    """How one case's lesions compare with the reference; NaN where there is no reference.

    :param dice: at the bundle's threshold.
    :param best_dice, best_threshold: over thresholds from 0.05 to 0.95.
    :param lesion_ml, reference_ml: volumes by the file's spacing.
    :param involvement_percent: of our lungs.
    :param reference_percent: reference lesion over our lungs.
    """

    case: str
    dice: float
    best_dice: float
    best_threshold: float
    lesion_ml: float
    reference_ml: float
    involvement_percent: float
    reference_percent: float
    seconds: float


def find_cases(data: Path) -> dict[str, tuple[Path, Path | None]]:
    """CT and lesion mask (None: a chest without lesions) of each case in ``data`` and the folders below it.

    ``NAME_ct.nii.gz`` with ``NAME_lesion.nii.gz`` beside it is a case; without, only where NAME begins with "normal".

    :raises LesionDecompError: two cases of one name, as in different subfolders.
    """
    cases: dict[str, tuple[Path, Path | None]] = {}
    for ct in sorted(data.rglob(f"*{CT_SUFFIX}")):
        name = ct.name.removesuffix(CT_SUFFIX)
        mask = ct.with_name(f"{name}{LESION_SUFFIX}")
        if mask.is_file() or name.startswith("normal"):
            if name in cases:
                raise InputError(STAGE, f"two cases named '{name}'", "a name of its own for each case")
            cases[name] = (ct, mask if mask.is_file() else None)
    return cases


def without_mask(data: Path) -> list[str]:
    """Names of the CT in ``data`` and below that are no case: without lesion mask, and not called normal."""
    names = {ct.name.removesuffix(CT_SUFFIX) for ct in data.rglob(f"*{CT_SUFFIX}")}
    return sorted(names - set(find_cases(data)))


@contextmanager
def naming(case: str) -> Iterator[None]:
    """Say of which case an error is."""
    try:
        yield
    except LesionDecompError as error:
        stage = f"{error.stage} of '{case}'"
        raise type(error)(stage, error.found, error.expected, error.advice, error.remedy, error.code) from error


def evaluate_case(name: str, ct: Path, mask: Path | None, segmenter: Segmenter, picture: Path | None) -> LesionScore:
    """Run the main job on one case and compare; draw its overview into ``picture``."""
    volume, _ = read_volume(ct)
    result = segmenter.run(volume)
    if picture is not None:
        draw_overview(volume, result, name).save(picture)
    voxel_ml = volume.voxel_volume_ml
    lung_voxels = np.count_nonzero(result.lungs)
    found = np.count_nonzero(result.lesions)
    seconds = sum(result.timings_s.values())
    involvement = 100.0 * found / lung_voxels
    if mask is None:
        nothing = (np.nan,) * 3
        return LesionScore(name, *nothing, found * voxel_ml, 0.0, involvement, 0.0, seconds)
    truth = read_labels(mask, volume, "Reading the lesion mask").array != 0
    best_dice = best_threshold = float("nan")
    if truth.any():
        thresholds = np.arange(1, 20) / 20
        scores = [dice(result.heat >= threshold, truth) for threshold in thresholds]
        best_dice, best_threshold = max(scores), float(thresholds[int(np.argmax(scores))])
    return LesionScore(
        name,
        dice(result.lesions != 0, truth),
        best_dice,
        best_threshold,
        found * voxel_ml,
        np.count_nonzero(truth) * voxel_ml,
        involvement,
        100.0 * np.count_nonzero(truth) / lung_voxels,
        seconds,
    )


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice of two boolean arrays; NaN where both are empty."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return float(2 * np.count_nonzero(a & b) / total) if total else float("nan")


def agreement(measured: np.ndarray, reference: np.ndarray) -> dict[str, float | int | None]:
    """Bland and Altman's metrics (Lancet 1986): the differences' mean, sd and 95 % limits of agreement, mean ± 1.96 sd.

    :param measured, reference: ``(n,)``, in one unit, which is the metrics' unit too.
    """
    differences = np.asarray(measured, dtype=float) - np.asarray(reference, dtype=float)
    if not len(differences):
        return {"cases": 0, "bias": None, "sd": None, "lower_limit": None, "upper_limit": None}
    bias = float(differences.mean())
    if len(differences) < 2:
        return {"cases": 1, "bias": round(bias, 3), "sd": None, "lower_limit": None, "upper_limit": None}
    sd = float(differences.std(ddof=1))
    return {
        "cases": len(differences),
        "bias": round(bias, 3),
        "sd": round(sd, 3),
        "lower_limit": round(bias - 1.96 * sd, 3),
        "upper_limit": round(bias + 1.96 * sd, 3),
    }


def evaluate_volumes(
    data: Path, segmenter: Segmenter, pictures: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """All cases below ``data``: the contents of ``results.json``. Overviews and a Bland-Altman plot go to ``pictures``.

    :raises LesionDecompError: no case, or one that cannot be read or segmented.
    """
    cases = find_cases(data)
    if not cases:
        raise InputError(STAGE, f"no case in '{data.name}'", "NAME_ct.nii.gz and NAME_lesion.nii.gz")
    pictures.mkdir(parents=True, exist_ok=True)
    scores = []
    for number, (name, (ct, mask)) in enumerate(cases.items()):
        if progress is not None:
            progress("cases", number, len(cases))
        with naming(name):
            scores.append(evaluate_case(name, ct, mask, segmenter, pictures / f"{name}.png"))
    # Also those in which the reader found nothing: what is measured there counts.
    referenced = [score for score in scores if cases[score.case][1] is not None]
    judged = [score.dice for score in referenced if score.reference_percent >= LEAST_PERCENT]
    results: dict[str, Any] = {
        "version": __version__,
        "data": data.resolve().name,
        "bundle": {"name": segmenter.lesion_bundle.name, "sha256": segmenter.lesion_bundle.sha256},
        "mean_dice": round(float(np.mean(judged)), 4) if judged else None,
        "mean_dice_cases": len(judged),
        "lesion_volume_ml": agreement(
            np.array([score.lesion_ml for score in referenced]), np.array([score.reference_ml for score in referenced])
        ),
        "involvement_percent_points": agreement(
            np.array([score.involvement_percent for score in referenced]),
            np.array([score.reference_percent for score in referenced]),
        ),
        "cases": [_plain(score) for score in scores],
    }
    if referenced:
        _draw_agreement(referenced, results["involvement_percent_points"], pictures / BLAND_ALTMAN_NAME)
    return results


def _plain(score: LesionScore) -> dict[str, Any]:
    values = asdict(score)
    return {
        key: None if isinstance(value, float) and np.isnan(value) else round(value, 4) if key != "case" else value
        for key, value in values.items()
    }


def _draw_agreement(scores: list[LesionScore], metrics: dict[str, Any], picture: Path) -> None:
    from matplotlib.figure import Figure  # an extra, slow to import

    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axes = figure.subplots()
    for score in scores:
        middle = (score.involvement_percent + score.reference_percent) / 2
        difference = score.involvement_percent - score.reference_percent
        axes.plot(middle, difference, "o", color="tab:blue")
        axes.annotate(score.case, (middle, difference), textcoords="offset points", xytext=(6, 4), fontsize=8)
    for key, style in (("bias", "-"), ("lower_limit", "--"), ("upper_limit", "--")):
        if metrics[key] is not None:
            label = f"{key.replace('_', ' ')} {metrics[key]:+.2f}"
            axes.axhline(metrics[key], color="0.4", linestyle=style, linewidth=1, label=label)
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set(
        title="Lesion involvement: this method less the readers",
        xlabel="mean of both, % of lung",
        ylabel="difference, percentage points",
    )
    axes.legend(fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(picture, buffer.getvalue(), STAGE)
