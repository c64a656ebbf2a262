"""``lesiondecomp models``: the installed model bundles, whether they verify, and what can be made of them."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "models",
        help="list the installed model bundles and verify them",
        description="List the installed model bundles with task, version and description, and verify their weights.",
    )
    parser.add_argument(
        "--card",
        type=Path,
        metavar="DIR",
        help="write the model card of a lesion bundle, with pictures, into this folder",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="with --card: slices with pixel masks for the pictures"
    )
    parser.add_argument(
        "--model", default=None, metavar="NAME|DIR", help="with --card: which model (default: the shipped lesion model)"
    )
    parser.add_argument(
        "--convert",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="bring bundles of format 1 (weights.pt) to format 2 (weights.safetensors) in their place: the same "
        "tensors bit for bit, a new SHA-256",
    )
    parser.add_argument(
        "--export",
        metavar="NAME|DIR",
        help="write a bundle's network, with what makes its answer the heat or lungs of a slice, as an ONNX file "
        "(needs onnx, onnxscript and onnxruntime)",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.onnx", help="with --export: the file to write")
    parser.add_argument(
        "--overwrite", action="store_true", help="with --export and --card: replace files that are there"
    )
    parser.set_defaults(run=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Print one entry for each bundle; 1 where there is none or one doesn't verify. Or write a card, or convert."""
    if args.convert is not None:
        return _convert(args.convert)
    if args.card is not None or args.data is not None:
        return _write_card(args)
    if args.export is not None or args.output is not None:
        return _export(args)
    from ..errors import LesionDecompError  # not before: --help answers at once
    from ..models.bundle import ModelBundle, bundle_paths, user_model_folder
    from . import print_line

    failed = 0
    paths = bundle_paths()
    for path in paths:
        try:
            bundle = ModelBundle.load(path)
        except LesionDecompError as error:
            failed += 1
            print_line(f"{path.name}\n  NOT USABLE   {error}")
            continue
        default = ", default" if bundle.metadata.get("default") else ""
        print_line(f"{bundle.name} {bundle.version} ({bundle.task}{default})")
        for line in textwrap.wrap(bundle.description, 100):
            print_line(f"  {line}")
        print_line(f"  verified     SHA-256 {bundle.sha256}")
        print_line(f"  threshold    {bundle.default_threshold:g}")
    if not paths:
        print_line(f"No model bundle is installed. Your own are looked for in {user_model_folder()}.")
    return 1 if failed or not paths else 0


def _write_card(args: argparse.Namespace) -> int:
    from ..errors import ModelError  # not before: --help answers at once
    from ..evaluation.model_card import write_model_card
    from ..models.bundle import find_bundle
    from ..training.data.slices import SliceSet
    from . import print_line

    if args.card is None or args.data is None:
        raise ModelError("Model card", "one of --card and --data", "both: where to write, and slices to show")
    card = write_model_card(
        find_bundle(args.model, "lesions"), SliceSet.load(args.data, "val"), args.card, overwrite=args.overwrite
    )
    print_line(f"The model card is {card}.")
    return 0


def _export(args: argparse.Namespace) -> int:
    from ..errors import OutputError  # not before: --help answers at once
    from ..models.bundle import ModelBundle, bundle_paths, find_bundle
    from ..segmentation.onnx_export import STAGE, export_onnx
    from . import print_line

    if args.export is None or args.output is None:
        args.usage_error("--export and -o go together: which model, and the file to write")
    if args.output.exists() and not args.overwrite:
        found = f"'{args.output.name}', which is there already"
        raise OutputError(STAGE, found, "a new file", remedy="overwrite", code="output_exists")
    shipped = {path.name: path for path in bundle_paths()}
    path = shipped.get(args.export, Path(args.export))
    bundle = ModelBundle.load(path) if path.is_dir() else find_bundle(args.export, "lesions")
    error = export_onnx(bundle, args.output)
    print_line(f"{args.output.name}: {bundle.name} {bundle.version}; differs from torch by {error:.1g} at most.")
    return 0


def _convert(folders: list[Path]) -> int:
    from ..models.conversion import convert_bundle  # not before: --help answers at once
    from . import print_line

    for folder in folders:
        was = "converted to format 2" if convert_bundle(folder) else "is of format 2 already"
        print_line(f"{folder.name}: {was}")
    return 0
