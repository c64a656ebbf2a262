"""``python -m fuzz``: mutated inputs for all loaders, and a table of how it went."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

from dicom_files import series_files

from .campaign import GOOD, run_inputs

NAMES = (
    "bundle",
    "checkpoint",
    "slices",
    "settings",
    "statistics",
    "dicom",
    "enhanced",
    "seg",
    "rtstruct",
    "zip",
    "nii",
    "nii.gz",
    "nrrd",
    "nhdr",
    "mha",
    "mhd",
)

SHARES = {"bundle": 0.5, "checkpoint": 0.5}  # of the inputs; a network is made for each of these


def main() -> int:
    """Run; 1 where an input was neither loaded nor refused."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=12_000, help="of all targets together (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--first", type=int, default=0, help="number of the first input, to repeat one")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"), help="folder for inputs that fail")
    args = parser.parse_args()
    shares = {name: SHARES.get(name, 1.0) for name in args.targets}
    print(f"{args.inputs} inputs for {len(args.targets)} targets, seed {args.seed}", flush=True)
    print(f"{'target':12s} {'inputs':>7s} {'loaded':>7s} {'refused':>8s} {'other':>6s} {'slowest':>8s} {'memory':>9s}")
    failed = 0
    for name in args.targets:
        began, each = time.monotonic(), math.ceil(args.inputs * shares[name] / sum(shares.values()))
        tally = run_inputs(name, args.seed, each, args.keep.resolve(), series(), first=args.first)
        other = sum(count for outcome, count in tally.outcomes.items() if outcome not in GOOD)
        failed += other
        print(
            f"{name:12s} {tally.outcomes.total():7d} {tally.outcomes['loaded']:7d} {tally.outcomes['refused']:8d} "
            f"{other:6d} {tally.slowest_s:6.2f} s +{tally.peak_mib - tally.first_mib:4d} MiB"
            f"   ({time.monotonic() - began:.0f} s)",
            flush=True,
        )
        for finding in tally.findings:
            print(f"    {finding}", flush=True)
    print("All were loaded or refused." if not failed else f"{failed} were neither loaded nor refused.")
    return 1 if failed else 0


def series() -> Path:
    """A folder with ``series``: a few slices of a real DICOM series."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-seeds-"))
    (folder / "series").mkdir()
    for path in series_files()[30:34]:
        shutil.copyfile(path, folder / "series" / path.name)
    return folder


if __name__ == "__main__":
    sys.exit(main())
