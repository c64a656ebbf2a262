"""A lung model for a clinician: whose scans it learned from, how well it does on whom, with pictures of both ends.

``python -m LesionDecompLib.evaluation.lung_card BUNDLE --scores FILE --pictures DIR`` writes the card into the bundle's
folder, from the bundle's own metrics; scores and pictures are those that :mod:`.lungs` wrote, for the pictures' choice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..errors import InputError, LesionDecompError
from ..io.atomic import write_bytes, write_text
from ..models.bundle import ModelBundle
from .model_card import BAD_NAME, CARD_NAME, GOOD_NAME, STAGE, small_png

SHOWN = 2  # scans in each picture
WIDTH = 1200
GROUPS = {
    "patients_left_out": "Patients it did not learn from, of other collections",
    "covid3d_medseg": "COVID-19, another source, approximate HU",
}
POINTS = {
    "parenchyma": "lung, healthy or diseased, in the mask",
    "in_lung": "those in lesions, in the mask",
    "not_lung": "other organs, out of the mask",
}


def write_lung_card(bundle: ModelBundle, scores: Path, pictures: Path) -> Path:
    """Write ``MODEL_CARD.md``, ``good.png`` and ``bad.png`` into the bundle's folder.

    :param scores: of scans that may be shown, a file of :mod:`.lungs`.
    :param pictures: its folder of pictures, ``NAME.png`` for each scan.
    :return: the card.
    :raises LesionDecompError: no lung bundle, or files that are missing or not what they should be.
    """
    if bundle.task != "lungs":
        raise InputError(STAGE, f"a bundle for the task '{bundle.task}'", "a lung bundle")
    try:
        dice = {Path(row["case"]).name: float(row["dice"]) for row in json.loads(scores.read_text("utf-8"))["scores"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(STAGE, f"no scores in '{scores.name}'", "a file of the lungs' evaluation") from error
    order = sorted((name for name, value in dice.items() if value < 1), key=lambda name: -dice[name])
    for name, shown in ((GOOD_NAME, order[:SHOWN]), (BAD_NAME, order[-SHOWN:])):
        write_bytes(bundle.path / name, _sheet([pictures / f"{case}.png" for case in shown]), "Drawing the model card")
    card = bundle.path / CARD_NAME
    write_text(card, lung_card_text(bundle.metadata), "Writing the model card")
    return card


def _sheet(files: Sequence[Path]) -> bytes:
    try:
        parts = [Image.open(file).convert("RGB") for file in files]
    except OSError as error:
        raise InputError(STAGE, f"no picture among '{files[0].name}' …", "those of the lungs' evaluation") from error
    parts = [part.resize((WIDTH, round(part.height * WIDTH / part.width)), Image.Resampling.LANCZOS) for part in parts]
    sheet = Image.new("RGB", (WIDTH, sum(part.height for part in parts)))
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return small_png(sheet)


def lung_card_text(metadata: dict[str, Any]) -> str:
    """The card's words and metrics, all metrics from a bundle's metadata."""
    training, metrics = metadata["training"], metadata["metrics"]
    lines = [
        f"# {metadata['name']} {metadata['version']}",
        "",
        "Software for research, not a medical device.",
        "",
        f"{metadata['description']}. Lung is what lies inside the pleura, disease included: consolidation, tumors and "
        "ground glass are lung; pleural effusion, hilar vessels outside the lung and the main airways are not.",
        "",
        "## Training data",
        "",
        f"{training['data']}. Changes: {training['changes']}.",
        "",
        "| collection | scans | license | attribution |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['scans']} | {row['license']} | {row['attribution']} |"
        for row in training["collections"]
    ]
    lines += ["", _weights(training), "", "## Performance", ""]
    for key, title in GROUPS.items():
        if key in metrics:
            lines += _dice_table(title, metrics[key])
    if "points" in metrics:
        lines += _points_table(metrics["points"])
    return "\n".join([*lines, *_failures()])


def _weights(training: dict[str, Any]) -> str:
    steps, blend = training["configuration"]["steps"], training.get("blend")
    if blend is None:
        return f"Weights: a training of {steps:,} steps."
    share, second = round(100 * blend["share"]), blend["configuration"]["steps"]
    return (
        f"Weights: the mean of a training of {steps:,} steps ({100 - share} %) and of a second one of {second:,} steps "
        f"that began with its weights ({share} %). The share was chosen by the scans of the first table below."
    )


def _dice_table(title: str, metrics: dict[str, Any]) -> list[str]:
    lines = [f"{title}:", "", "| scan | Dice of both lungs |", "|---|---|"]
    lines += [f"| {Path(case).name} | {dice:.3f} |" for case, dice in metrics["dice"].items()]
    lines.append(f"| **mean** | **{metrics['mean_dice']:.3f}** |")
    swapped = 100 * metrics["largest_share_of_swapped_voxels"]
    return [*lines, "", f"Right and left are exchanged in {swapped:.2f} % of the voxels at most.", ""]


def _points_table(metrics: dict[str, dict[str, int]]) -> list[str]:
    lines = [
        "Points that a reader placed in nine hard CT of other scanners (tumors at pleura and hilum, metastases, "
        "pneumonia, sharp kernel, abdomen), of patients that it did not learn from:",
        "",
        "| points | right |",
        "|---|---|",
    ]
    for key, title in POINTS.items():
        right, of = metrics[key]["right"], metrics[key]["of"]
        lines.append(f"| {title} | {right} of {of}, {100 * right / of:.1f} % |")
    return [*lines, ""]


def _failures() -> list[str]:
    return [
        "## Where it fails",
        "",
        "The best and the worst of the patients left out (red: right lung, blue: left lung, green: reference):",
        "",
        f"![Good cases]({GOOD_NAME})",
        "",
        f"![Bad cases]({BAD_NAME})",
        "",
        "- Part of a tumor or consolidation that is broad at the pleura or the mediastinum may be left out; a warning "
        "reports large ones.",
        "- The border between a collapsed lobe and an effusion, and that of a hilar mass, is a guess, as it is for "
        "readers.",
        "- A lung without any air is left out, with a warning.",
        "",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments and write the card."""
    parser = argparse.ArgumentParser(prog="python -m LesionDecompLib.evaluation.lung_card", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE")
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR")
    args = parser.parse_args(argv)
    try:
        card = write_lung_card(ModelBundle.load(args.bundle, "lungs"), args.scores, args.pictures)
    except LesionDecompError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The model card is {card}.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
