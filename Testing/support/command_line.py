"""What tests of the command line share: running it, a small real CT, and networks small enough to run at once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from LesionDecompLib.__main__ import main
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_volume, write_image
from LesionDecompLib.models import bundle as bundles
from LesionDecompLib.models.bundle import ModelBundle
from LesionDecompLib.models.networks import DecompositionNet, UNet
from repository import CHEST

LIBRARY_HOME = Path(bundles.__file__).resolve().parents[2]
CROP = np.s_[30:42]  # slices of the chest through the middle of both lungs


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


def run_here(capsys, *arguments: object) -> Outcome:
    """Run the command line in this process."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)


def run_apart(folder: Path, home: Path, *arguments: object) -> Outcome:
    """Run the command line as a process of its own, in ``folder``, with ``home`` as the user's home."""
    command = [sys.executable, "-m", "LesionDecompLib", *(str(argument) for argument in arguments)]
    done = subprocess.run(
        command, cwd=folder, env=process_environment(home), capture_output=True, encoding="utf-8", timeout=300
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def process_environment(home: Path) -> dict[str, str]:
    """Environment of such a process."""
    paths = [str(LIBRARY_HOME), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": os.pathsep.join(paths), "PYTHONUTF8": "1"}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


def small_models(folder: Path) -> Path:
    """Write two bundles with small untrained networks, the defaults of their tasks."""
    torch.manual_seed(7)
    lesion_net = DecompositionNet(channels=4, levels=3, gated=True)
    lung_net = UNet(1, 3, channels=4, levels=3)
    for task, network, size, spacing in (("lesions", lesion_net, 64, 6.0), ("lungs", lung_net, 64, 8.0)):
        metadata = {
            "name": f"untrained-{task}",
            "version": "0.0.1",
            "task": task,
            "description": f"Untrained small network for tests of {task}.",
            "architecture": "decomposition" if task == "lesions" else "unet",
            "architecture_arguments": {"channels": 4, "levels": 3, "gated": True}
            if task == "lesions"
            else {"in_channels": 1, "out_channels": 3, "channels": 4, "levels": 3},
            "input": {"size": [size, size], "spacing_mm": spacing, "hu_window": [-1300, -150], "mean": 0.0, "std": 1.0},
            "default_threshold": 0.4,
            "heat": {"source": "gate", "flip": False, "smoothing_px": 0.0},
            "training": {},
            "metrics": {},
            "git_revision": "none",
            "default": True,
        }
        ModelBundle.save(folder / f"untrained-{task}", network, metadata)
    return folder


def small_ct(folder: Path) -> tuple[Path, Path, Volume]:
    """Write twelve slices of a real CT of 4 mm voxels and its lung mask: files, and the volume."""
    ct, _ = read_volume(CHEST / "ct.nrrd")
    mask, _ = read_volume(CHEST / "lungs.nrrd")
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * CROP.start
    volume = Volume.from_array(ct.array[CROP], matrix, "chest")
    write_image(folder / "chest.nrrd", volume.array, volume)
    write_image(folder / "lungs.nrrd", (mask.array[CROP] > 0).astype(np.uint8), volume)
    return folder / "chest.nrrd", folder / "lungs.nrrd", volume


def lungs_in_boxes(volume: Volume, *args: object, **kwargs: object) -> tuple[np.ndarray, list[str]]:
    """The air in two boxes of :func:`small_ct` stands in for what a trained lung network finds."""
    view, labels = volume.view, np.zeros(volume.shape, np.uint8)
    stack = view.to_axial(labels)
    stack[:, 16:48, 8:32] = 1
    stack[:, 16:48, 32:56] = 2
    stack *= view.to_axial(volume.array) < -600
    return labels, []


def names(folder: Path) -> list[str]:
    """What lies in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder under ``folder`` with its content's hash, hidden and temporary ones included."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }
