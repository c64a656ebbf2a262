"""``lesiondecomp slices``: CT volumes and a label for each slice, from a table or a review, become a training set."""

from __future__ import annotations

import argparse
from pathlib import Path

from .argument_types import device


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "slices",
        help="make a training set from CT volumes and per-slice labels",
        description="Mask the lungs of CT volumes and write their labeled axial slices as a training set: PNG slices "
        "and index.csv, as 'lesiondecomp train' reads them. With --reviewed the slices that a reader marked as seen "
        "join the set in DIR, case by case.",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="NIfTI, NRRD, MetaImage or DICOM folder")
    labels = parser.add_mutually_exclusive_group(required=True)
    labels.add_argument(
        "--labels",
        type=Path,
        metavar="CSV",
        help="columns case (the input's name), slice (axial, 0 the lowest), label (lesion, normal; unsure: left out), "
        "optional split, optional patient (whose cases share a split)",
    )
    labels.add_argument(
        "--reviewed",
        type=Path,
        nargs="+",
        metavar="RESULT",
        help="finished result folders of the CTs, in their order, whose review marks slices as seen: lesion where a "
        "lesion is left, normal elsewhere; slices not seen teach nothing",
    )
    parser.add_argument(
        "--patient",
        default="",
        metavar="WORD",
        help="with --reviewed: whose CTs these are, in a word that names nobody (default: one patient for each CT)",
    )
    parser.add_argument(
        "--lung-mask-suffix",
        default="",
        metavar="S",
        help="take the lungs of NAME.nii.gz or NAME_ct.nii.gz from the file NAME with this ending, as _lung.nii.gz",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the training set")
    parser.add_argument("--seed", type=int, default=0, help="of the random split into train, val and test (default: 0)")
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace files of an earlier run")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the training set and list what is in it."""
    if args.reviewed:
        return _add_reviewed(args)
    from ..models.bundle import find_bundle  # not before: --help answers at once
    from ..models.device import choose_device
    from ..training.data.export import export_slices, read_slice_labels
    from . import print_line
    from .interrupts import interrupt_with_parent
    from .progress import Progress

    interrupt_with_parent()
    progress = Progress()
    counts = export_slices(
        args.inputs,
        read_slice_labels(args.labels),
        args.output,
        find_bundle(None, "lungs"),
        lung_mask_suffix=args.lung_mask_suffix,
        device=choose_device(args.device)[0],
        seed=args.seed,
        overwrite=args.overwrite,
        progress=progress.update,
    )
    progress.clear()
    print_line(
        f"{counts['lesion']} lesion and {counts['normal']} normal slices; "
        f"{counts['without lung']} labeled slices hold no lung and were left out."
    )
    return 0


def _add_reviewed(args: argparse.Namespace) -> int:
    """Have the reviewed CTs join the training set, one after the other."""
    import numpy as np  # not before: --help answers at once

    from ..ct.volume import Volume
    from ..errors import ConfigError
    from ..measurement.review import Review
    from ..measurement.seen_slices import labels_of_seen
    from ..models.device import choose_device
    from ..report.finished_scan import read_finished
    from ..training.data.reviewed import STAGE, add_reviewed_case
    from . import print_line

    if len(args.reviewed) != len(args.inputs):
        found = f"{len(args.inputs)} CTs and {len(args.reviewed)} result folders"
        raise ConfigError(STAGE, found, "a result folder for each CT, in their order")
    for ct, folder in zip(args.inputs, args.reviewed, strict=True):
        scan, report = read_finished(folder, ct)
        seen = Review.of_record(report["review"]).seen if report.get("review") else ()
        assert scan.hu is not None  # the CT was given
        volume = Volume.from_array(scan.hu, scan.ijk_to_ras)
        held = np.asarray(scan.view.to_axial(scan.lesions).any(axis=(1, 2)))
        labels = labels_of_seen(seen, held)
        device = choose_device(args.device)[0]
        grown = add_reviewed_case(args.output, volume, scan.lungs, labels, scan.identity, args.patient, device)
        print_line(f"{folder.name}: {grown.text()}")
    return 0
