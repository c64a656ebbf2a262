"""``lesiondecomp slices``: CT volumes and a label for each slice become a training set."""

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
        "and index.csv, as 'lesiondecomp train' reads them.",
    )
    parser.add_argument("inputs", nargs="+", type=Path, metavar="INPUT", help="NIfTI, NRRD, MetaImage or DICOM folder")
    parser.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="CSV",
        help="columns case (the input's name), slice (axial, 0 the lowest), label (lesion, normal; unsure: left out), "
        "optional split, optional patient (whose cases share a split)",
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
    from ..models.bundle import find_bundle
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
