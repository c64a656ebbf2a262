"""For the researcher: from CT volumes with a label for each slice to a trained, measured and applied model.

    python Examples/train_from_labels.py --labels labels.csv -o study CT1.nii.gz CT2.nrrd ... --hours 8

``labels.csv`` has the columns ``case,slice,label`` (axial slices from 0 at the lowest; ``lesion`` or ``normal``) and
perhaps ``split`` (``train``, ``val`` or ``test``). No lesion is outlined by anybody: labels of slices are all there is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.definitions import measurement
from LesionDecompLib.models.bundle import find_bundle
from LesionDecompLib.models.device import choose_device
from LesionDecompLib.pipeline import Segmenter
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.export import export_slices, read_slice_labels
from LesionDecompLib.training.run import train_lesions


def main(arguments: list[str] | None = None) -> None:
    """Make the training set, train, segment the first CT with the new model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=None, help="train for about so long (default: 3000 steps)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    args = parser.parse_args(arguments)
    device, in_words = choose_device("auto")
    print(f"On {in_words}.")

    # 1. Lungs are found, everything around them is blanked, each labeled slice becomes an 8-bit picture.
    slices = args.output / "slices"
    lung_bundle = find_bundle(None, "lungs")
    counts = export_slices(args.inputs, read_slice_labels(args.labels), slices, lung_bundle, device=device)
    print(f"{counts['lesion']} lesion and {counts['normal']} normal slices in {slices}")

    # 2. Train. `run/curves.png` and `run/examples.png` show how it goes; `resume=True` goes on after an interruption.
    config = load_config(PRESETS["default"], overrides=args.settings)
    bundle = train_lesions(slices, args.output / "run", config, name="my-lesions", device=device, hours=args.hours)
    if bundle is None:  # under torchrun the first process alone goes on
        return
    print(f"The bundle is in {bundle.path}; Slicer and `lesiondecomp segment --model` take it from there.")

    # 3. Use it.
    volume, _ = read_volume(args.inputs[0])
    result = Segmenter(bundle, lung_bundle, device=str(device)).run(volume)
    for key in ("lesion_volume_ml", "involvement_percent", "lesion_count"):
        described = measurement(key)
        print(f"{described.header}: {described.text(result.statistics[0].values[key])}")


if __name__ == "__main__":
    main()
