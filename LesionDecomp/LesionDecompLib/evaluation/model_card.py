"""A lesion model for a clinician: what it learned from, how well it does on whom, where it fails, with pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..errors import InputError
from ..io.atomic import check_writable, existing_error, write_bytes, write_text
from ..models.bundle import ModelBundle
from ..report.picture import LUNG_WINDOW, Frame, Plane, draw_panel
from ..training.data.slices import SliceSet, lung_crops
from ..training.heat_scale import MASKS, has_masks, slice_heat

CARD_NAME = "MODEL_CARD.md"
GOOD_NAME, BAD_NAME = "good.png", "bad.png"
STAGE = "Model card"
# Slices with less lesion than this have an unstable Dice.
LEAST_PIXELS = 100
PANEL = (288, 240)
COLUMNS = ("slice", "marked by a reader", "heat and outline")


def write_model_card(
    bundle: ModelBundle, data: SliceSet, folder: str | Path, count: int = 4, overwrite: bool = False
) -> Path:
    """Write ``MODEL_CARD.md``, ``good.png`` and ``bad.png`` into ``folder``.

    The pictures show, each from another scan, slices of ``data`` with a Dice near the upper and the lower tenth.

    :param data: a split with pixel masks; one that the model was not tested on keeps ``test`` unseen.
    :param overwrite: replace a card and pictures that are there.
    :return: the card.
    :raises LesionDecompError: no lesion bundle, slices without pixel masks, or files in the way.
    """
    if bundle.task != "lesions":
        raise InputError(STAGE, f"a bundle for the task '{bundle.task}'", "a lesion bundle")
    if not has_masks(data):
        raise InputError(STAGE, "slices without pixel masks", "a split with masks to compare with")
    folder = Path(folder)
    taken = [name for name in (CARD_NAME, GOOD_NAME, BAD_NAME) if (folder / name).exists()]
    if taken and not overwrite:
        raise existing_error("Writing the model card", folder, taken)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    images, masks = data.images[data.lesion], data.masks(MASKS[0])
    heat = slice_heat(bundle.network(), bundle.heat_definition, images, torch.device("cpu"))
    found = (heat >= bundle.default_threshold) & (images > 0)
    dice = 2 * (found & masks).sum((1, 2)) / np.maximum(1, found.sum((1, 2)) + masks.sum((1, 2)))
    worth = np.flatnonzero(masks.sum((1, 2)) >= LEAST_PIXELS)
    order = worth[np.argsort(dice[worth])]
    tenth = len(order) // 10
    scans = data.scans[data.lesion]
    for name, candidates in ((GOOD_NAME, order[::-1][tenth:]), (BAD_NAME, order[tenth:])):
        chosen = _of_different_scans(candidates, scans, count)
        sheet = _sheet(images[chosen], masks[chosen], heat[chosen], dice[chosen], bundle.default_threshold)
        write_bytes(folder / name, sheet, "Drawing the model card")
    card = folder / CARD_NAME
    write_text(card, card_text(bundle.metadata), "Writing the model card")
    return card


def _of_different_scans(candidates: np.ndarray, scans: np.ndarray, count: int) -> list[int]:
    first = {scan: candidate for candidate, scan in zip(candidates[::-1], scans[candidates[::-1]], strict=True)}
    return sorted(first.values(), key=list(candidates).index)[:count]


def _sheet(images: np.ndarray, masks: np.ndarray, heat: np.ndarray, dice: np.ndarray, threshold: float) -> bytes:
    size = (160, 192)
    low, high = LUNG_WINDOW
    frame = Frame(size[0] / 2 - 0.5, size[1] / 2 - 0.5, size[1] / PANEL[0], *PANEL)
    sheet = Image.new("RGB", (len(COLUMNS) * PANEL[0], 20 + len(images) * PANEL[1]), (32, 32, 32))
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        pen.text((column * PANEL[0] + 6, 4), title, fill=(235, 235, 235))
    layers = [lung_crops(layer, size, around=images) for layer in (images, masks, heat)]
    for row, (gray, mask, warm) in enumerate(zip(*layers, strict=True)):
        hu = low + gray.astype(np.float32) / 255 * (high - low)
        nothing, lungs = np.zeros_like(warm), (gray > 0).astype(np.uint8)
        for column, (shown, outlined) in enumerate(
            ((nothing, nothing > 0), (nothing, mask), (warm, (warm >= threshold) & (gray > 0)))
        ):
            panel = draw_panel(Plane(hu, shown, lungs, outlined, 1.0, 1.0), frame, threshold)
            sheet.paste(panel, (column * PANEL[0], 20 + row * PANEL[1]))
        pen.text((6, 24 + row * PANEL[1]), f"Dice {dice[row]:.2f}", fill=(235, 235, 235))
    return small_png(sheet)


def small_png(sheet: Image.Image) -> bytes:
    """A picture of at most 128 colors as a PNG file."""
    buffer = io.BytesIO()
    sheet.quantize(128).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def card_text(metadata: dict[str, Any]) -> str:
    """The card's words and metrics, all metrics from a bundle's metadata."""
    training, metrics = metadata["training"], metadata["metrics"]
    lines = [
        f"# {metadata['name']} {metadata['version']}",
        "",
        "Software for research, not a medical device.",
        "",
        f"{metadata['description']}. Heat is not a probability of disease; at the default threshold of "
        f"{metadata['default_threshold']:g} a lesion is outlined.",
        "",
        "## Training data",
        "",
        f"- Data: {training['data']}. Labels: {training['labels']}.",
    ]
    lines += [
        f"- {key.capitalize()}: {training[key]}." for key in ("license", "attribution", "history") if key in training
    ]
    lines += ["", "## Performance", ""]
    for split in ("val", "test"):
        if split in metrics:
            lines += _slice_table(split, metrics[split])
    if "whole_ct" in metrics:
        lines += _volume_table(metrics["whole_ct"])
    if "points" in metrics:
        lines += _point_lines(metrics["points"])
    if "healthy_version_val" in metrics:
        lines += _healthy_lines(metrics["healthy_version_val"])
    lines += [
        "## Where it fails",
        "",
        "Slices whose Dice lies near the upper tenth, then near the lower tenth, each of another scan:",
        "",
        f"![Good cases]({GOOD_NAME})",
        "",
        f"![Bad cases]({BAD_NAME})",
        "",
        f"- It was trained on {_diseases(training)}: whatever else brightens the lung (other pneumonia, tumor, "
        "atelectasis, edema) lights up too and is not distinguished.",
        "- Usual false alarms: vessels at the hila, dependent density at the back, motion beside the heart, partial "
        "volume at the diaphragm.",
        "- Usual misses: faint ground-glass, spots of a few millimeters, lesions that the lung mask leaves out.",
        "- Where hardly any lung is healthy the scan's gray levels cannot be aligned, and the heat shifts.",
        "",
    ]
    return "\n".join(lines)


def _diseases(training: dict[str, Any]) -> str:
    if "attribution" not in training:  # of a user's own training nobody told
        return "the lesions of its training data"
    return f"COVID-19 {'for the most part' if 'collections' in training else 'alone'}"


def _slice_table(split: str, metrics: dict[str, Any]) -> list[str]:
    lines = [
        f"Slices of `{split}`, in-lung pixels pooled, against each set of masks:",
        "",
        "| masks | average precision | best Dice | Dice at the default threshold |",
        "|---|---|---|---|",
    ]
    for name in MASKS:
        row = metrics[name]
        lines.append(
            f"| {name} | {row['average_precision']:.3f} | {row['best_dice']:.3f} | {row['dice_at_default']:.3f} |"
        )
    means = [metrics[f"mean_{key}"] for key in ("average_precision", "best_dice", "dice_at_default")]
    lines.append("| **mean** | " + " | ".join(f"**{value:.3f}**" for value in means) + " |")
    share = 100 * metrics["normal_false_positive_fraction"]
    return [*lines, "", f"Of the lung of normal slices {share:.2f} % is called lesion.", ""]


def _volume_table(metrics: dict[str, Any]) -> list[str]:
    lines = [
        "Whole CT of other scanners, through the lung network, at the default threshold. None was trained on, but "
        "rules of earlier versions that still hold (the lungs' rim, a 3 mm slab, how the default threshold is found) "
        "were chosen on them: read these numbers as optimistic.",
        "",
        "| case | Dice | % of lung called lesion | % marked by readers |",
        "|---|---|---|---|",
    ]
    for case, share in metrics["involvement_percent"].items():
        dice = metrics["dice"].get(case)
        marked = metrics["reference_percent"][case]
        shown = "–" if dice is None or marked < 0.1 else f"{dice:.3f}"
        lines.append(f"| {case} | {shown} | {share:.2f} | {marked:.2f} |")
    return [*lines, ""]


def _point_lines(metrics: dict[str, dict[str, int]]) -> list[str]:
    lesion, healthy, body = (
        f"{metrics[key]['right']} of {metrics[key]['of']}" for key in ("lesion", "healthy", "body")
    )
    return [
        "Points that a reader placed in nine hard CT of other scanners, none of whose patients was trained on: "
        f"{lesion} in disease are called lesion, {healthy} in healthy lung and {body} in other organs are not.",
        "",
    ]


def _healthy_lines(metrics: dict[str, float]) -> list[str]:
    before, after, normal = (
        f"{100 * metrics[key]:.0f} %"
        for key in (
            "lesion_slices_called_normal",
            "lesion_slices_called_normal_after_G1",
            "normal_slices_called_normal",
        )
    )
    return [
        "The healthy version G1, on `val`: a classifier of lesion and normal slices that never met G1 (area under its "
        f"curve {metrics['judge_auc']:.2f}) calls {before} of the lesion slices normal as they are, {after} after G1 "
        f"(of normal slices {normal}). G1 changes lung outside lesions by {metrics['change_outside_lesions_grey']:.0f} "
        f"of 255 gray levels on average, lesions by {metrics['change_in_lesions_grey']:.0f}.",
        "",
    ]
