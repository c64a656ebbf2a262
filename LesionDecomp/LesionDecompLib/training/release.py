"""From a finished training to the bundle that ships: ``python -m LesionDecompLib.training.release --help``.

Adds to the bundle of a run what only its maker knows: what it was trained on and under which license, what it scores in
whole CT, and that it is the one to be used when nobody asks for another.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch

from ..errors import InputError, LesionDecompError
from ..io.readers import read_volume
from ..models.bundle import ModelBundle, find_bundle
from ..models.networks import DecompositionNet
from ..models.runtime import BF16_HEAT_ERROR, inference_network
from ..segmentation.heat import lesion_heat
from ..segmentation.lesions import lung_box
from ..segmentation.lungs.segment import segment_lungs
from .data.slices import read_index
from .lungs.caselist import chosen, read_cases
from .lungs.collections import Collection, scans_by_collection

DERIVED = ("format_version", "weights_sha256")
NAMES = {"lungs": "lungs-unet", "lesions": "lesions-decomposition"}
PROVENANCE = {
    "lungs": {
        "changes": "downsampled by block means, cropped, clamped; lung masks made or corrected, sides distinguished"
    },
    "lesions": {
        "data": "slices released with Yang et al. (ISBI 2021): 1498 lesion slices of 161 scans, 1572 normal slices of "
        "160 scans to train on, 8-bit, 256×256, lungs only; one label for each slice, no pixel mask",
        "license": "Apache-2.0",
        "attribution": "Yang Y, Chen J, Wang R, Ma T, Wang L, Chen J, Zheng WS, Zhang T. Towards Unbiased COVID-19 "
        "Lesion Localisation and Segmentation via Weakly Supervised Learning. ISBI 2021. "
        "github.com/capepoint/WeaklyLesionLocalisation",
        "changes": "split into train, val and test by inferred scan",
    },
}


def release(
    run: Path,
    destination: Path,
    name: str | None = None,
    scores: Sequence[Path] = (),
    cases: Sequence[Path] = (),
    bfloat16: Sequence[Path] = (),
    blend: tuple[Path, float] | None = None,
    history: str = "",
) -> ModelBundle:
    """Write the bundle of a run to ``destination`` with its provenance and scores, as the default for its task.

    :param run: bundle folder that the training wrote.
    :param bfloat16: CT to measure on how far a lesion network's heat in bfloat16 differs (:func:`bfloat16_heat_error`).
    :param blend: the bundle of another run, and its share: the weights are the mean of both runs', where one began with
        the other's. It finds more of what the second run saw more of and keeps most of what the first knew (Wortsman et
        al., Robust fine-tuning of zero-shot models, CVPR 2022).
    :param cases: the table of scans that a lung network was trained on (less what its configuration leaves out); the
        ``index.csv`` of each further set that a lesion network was trained on.
    :param history: how the weights came about, for the model card.
    :param scores: files that :mod:`LesionDecompLib.evaluation.lungs` or ``lesiondecomp evaluate`` on whole CT wrote.
    :raises LesionDecompError: no valid bundle in ``run``, another network in ``blend``, or ``destination`` cannot be
        written.
    """
    trained = ModelBundle.load(run)
    metadata = {key: value for key, value in trained.metadata.items() if key not in DERIVED}
    metadata |= {
        "name": name or NAMES[trained.task],
        "training": trained.metadata["training"] | PROVENANCE[trained.task] | _origin(trained, cases),
        "metrics": trained.metadata["metrics"] | {file.stem: score_summary(file) for file in scores},
        "default": True,
    }
    if history:
        metadata["training"]["history"] = history
    network = trained.network()
    if blend is not None:
        other, share = ModelBundle.load(blend[0]), blend[1]
        network = _blended(trained, other, share)
        configuration = other.metadata["training"]["configuration"]
        metadata["training"]["blend"] = {"share": share, "configuration": configuration}
    if bfloat16 and trained.task == "lesions":
        with TemporaryDirectory() as folder:  # the weights as they are stored, and blended
            stored = ModelBundle.save(Path(folder) / "bundle", network, metadata)
            metadata[BF16_HEAT_ERROR] = float(f"{bfloat16_heat_error(stored, bfloat16):.2g}")
    return ModelBundle.save(destination, network, metadata)


def _blended(bundle: ModelBundle, other: ModelBundle, share: float) -> torch.nn.Module:
    """The network whose weights are ``1 - share`` of one bundle's and ``share`` of the other's."""
    network, weights = bundle.network(), other.network().state_dict()
    own = network.state_dict()
    if not 0 <= share <= 1 or {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
        found = f"'{other.name}' with a share of {share:g}"
        raise InputError("Release", found, f"a network like '{bundle.name}', and a share from 0 to 1")
    network.load_state_dict({key: torch.lerp(own[key].float(), weights[key].float(), share) for key in own})
    return network


def bfloat16_heat_error(bundle: ModelBundle, files: Sequence[Path]) -> float:
    """The largest difference that bfloat16 makes to the heat of any voxel of some CT, under the same lung masks.

    :param files: CT; the default lung network finds their lungs.
    """
    device, worst = torch.device("cpu"), 0.0
    lung_bundle = find_bundle(None, "lungs")
    lung_network, network = inference_network(lung_bundle, device), inference_network(bundle, device, torch.bfloat16)
    for file in files:
        volume, _ = read_volume(file)
        lungs, _ = segment_lungs(volume, lung_network, lung_bundle)
        box = lung_box(volume.view.to_axial(lungs))
        exact, rounded = (
            lesion_heat(volume, lungs, box, cast(DecompositionNet, network), bundle, device, precision=precision)[0]
            for precision in (torch.float32, torch.bfloat16)
        )
        worst = max(worst, float(np.abs(exact - rounded).max()))
    return worst


def _origin(bundle: ModelBundle, tables: Sequence[Path]) -> dict[str, Any]:
    """Data, license and attribution of each collection that a network's scans come from, beside :data:`PROVENANCE`."""
    training = bundle.metadata["training"]
    if bundle.task == "lungs":
        if len(tables) != 1:
            raise InputError("Release", "a lung network without its table of scans", "the table it was trained by")
        left_out = [name for name in str(training["configuration"]["leave_out"]).split(",") if name]
        counts = scans_by_collection(case.name for case in chosen(read_cases(tables[0]), left_out))
        named = ", ".join(f"{collection.name} ({count})" for collection, count in counts.items())
        data = f"{sum(counts.values())} CT with lung contours of {len(counts)} open collections: {named}"
        return {"data": data, **_licenses({}, counts)}
    known = PROVENANCE["lesions"]
    if not tables:
        return {}
    rows = [row for table in tables for row in read_index(table.parent) if row["split"] == "train"]
    counts = scans_by_collection({row["scan"] for row in rows})
    lesion = sum(row["label"] == "lesion" for row in rows)
    data = (
        f"{known['data']}; and {lesion} lesion and {len(rows) - lesion} normal slices of {sum(counts.values())} CT of "
        f"{len(counts)} open collections, labeled by eye"
    )
    return {"data": data, **_licenses(known, counts)}


def _licenses(known: dict[str, str], counts: dict[Collection, int]) -> dict[str, Any]:
    """Licenses and attributions: what is ``known`` of the first set, then those of the collections."""
    licenses = sorted({collection.license for collection in counts})
    named = [
        f"{text}: " + ", ".join(collection.name for collection in counts if collection.license == text)
        for text in licenses
    ]
    credits = [f"{collection.name}: {collection.attribution}" for collection in counts]
    return {
        "license": "; ".join([known["license"], *named] if known else named),
        "attribution": ". ".join([known["attribution"], *credits] if known else credits),
        "collections": [
            {"name": collection.name, "scans": count, "license": collection.license}
            | {"attribution": collection.attribution}
            for collection, count in counts.items()
        ],
    }


def score_summary(file: Path) -> dict[str, Any]:
    """What a bundle records of one file of scores: each case's Dice, and what goes with it; or of points placed by a
    reader (``{"points": {measure: [right, of]}}``) how many are right.

    :raises LesionDecompError: a file that no evaluation wrote.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
        if "points" in content:
            return {name: {"right": int(right), "of": int(of)} for name, (right, of) in content["points"].items()}
        scores = content["scores"] if "scores" in content else content["cases"]
        dice = {score["case"]: round(score["dice"], 4) for score in scores if score["dice"] is not None}
        summary: dict[str, Any] = {"dice": dice}
        if all("swapped" in score for score in scores):
            summary |= {
                "mean_dice": round(sum(dice.values()) / len(dice), 4),
                "least_dice": min(dice.values()),
                "largest_share_of_swapped_voxels": round(max(score["swapped"] for score in scores), 5),
            }
        else:
            summary["involvement_percent"] = {score["case"]: round(score["involvement_percent"], 3) for score in scores}
            summary["reference_percent"] = {score["case"]: round(score["reference_percent"], 3) for score in scores}
        return summary
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError, RecursionError) as error:
        expected = "a file written by LesionDecompLib.evaluation"
        raise InputError("Release", f"no scores in '{file.name}'", expected) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Read the arguments and write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m LesionDecompLib.training.release", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="bundle folder of the finished training")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="bundle folder to write")
    parser.add_argument("--name", default=None, metavar="NAME", help="name of the bundle (default: by task)")
    parser.add_argument("--scores", type=Path, nargs="*", default=[], metavar="FILE", help="scores of an evaluation")
    parser.add_argument(
        "--cases",
        type=Path,
        nargs="*",
        default=[],
        metavar="FILE",
        help="table of a lung network's scans, or index.csv of a lesion network's further sets",
    )
    parser.add_argument("--blend", type=Path, metavar="DIR", help="take the mean with the weights of this bundle")
    parser.add_argument("--share", type=float, metavar="S", help="with --blend: that bundle's share (default: 0.5)")
    parser.add_argument(
        "--bfloat16", type=Path, nargs="*", default=[], metavar="CT", help="CT to measure the heat in bfloat16 on"
    )
    parser.add_argument("--history", default="", metavar="TEXT", help="how the weights came about, for the model card")
    args = parser.parse_args(argv)
    if args.share is not None and args.blend is None:
        parser.error("--share is the share of the bundle that --blend names; name it, or leave --share out")
    try:
        blend = (args.blend, 0.5 if args.share is None else args.share) if args.blend else None
        bundle = release(args.run, args.output, args.name, args.scores, args.cases, args.bfloat16, blend, args.history)
    except LesionDecompError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{bundle.path}: {bundle.sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
