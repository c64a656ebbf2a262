"""What is fuzzed: each loader of the product with a good input, a way to spoil it, and what loading it must give."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from LesionDecompLib.errors import LesionDecompError
from LesionDecompLib.evaluation.baselines.config import ClassifierConfig, VaGanConfig
from LesionDecompLib.io.masks import read_mask
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.measurement.statistics import CSV_HEADER, read_statistics_csv
from LesionDecompLib.models.bundle import METADATA_NAME, ModelBundle
from LesionDecompLib.models.networks import DecompositionNet
from LesionDecompLib.models.weights import WEIGHTS_NAME, WEIGHTS_NAMES
from LesionDecompLib.training import loop
from LesionDecompLib.training.config import PRESETS, load_config
from LesionDecompLib.training.data.export import read_slice_labels
from LesionDecompLib.training.data.slices import SliceSet
from LesionDecompLib.training.lungs.task import LungConfig
from LesionDecompLib.training.record import record_run
from LesionDecompLib.training.settings import as_dict
from LesionDecompLib.training.warm_start import start_from
from PIL import Image

from .dicom_targets import dicom_targets
from .mutations import json_bytes, mutated, mutated_json, mutated_safetensors, mutated_text, mutated_zip

Rng = np.random.Generator
# Rows, columns, bits, samples, frames, position, orientation, pixel spacing, modality, slope, intercept, pixels,
# thickness, sign, transfer syntax.
ELEMENTS = (
    *((0x28, element) for element in (0x10, 0x11, 0x100, 0x2, 0x8, 0x30, 0x1053, 0x1052, 0x103)),
    *((0x20, 0x32), (0x20, 0x37), (0x8, 0x60), (0x7FE0, 0x10), (0x18, 0x50), (0x2, 0x10)),
)
ARGUMENTS = {"channels": 2, "levels": 2, "stem": 1, "gated": True}
ENDINGS = ("nii", "nii.gz", "nrrd", "nhdr", "mha", "mhd")


@dataclass(frozen=True)
class Target:
    """One loader.

    :param spoil: writes a mutated input into an empty folder.
    :param load: loads it, and checks what came of it.
    """

    spoil: Callable[[Path, Rng], None]
    load: Callable[[Path], object]


def targets(seeds: Path) -> dict[str, Target]:
    """All targets by name; their good inputs are made in, or taken from, ``seeds``."""
    made = {"bundle": _bundle(seeds), "checkpoint": _checkpoint(seeds), "slices": _slices(seeds)}
    made |= {"settings": _settings(), "statistics": _statistics(), "dicom": _dicom(seeds)}
    made |= {name: Target(*both) for name, both in dicom_targets(seeds).items()}
    return made | {ending: _image(seeds, ending) for ending in ENDINGS}


def _bundle(seeds: Path) -> Target:
    torch.manual_seed(0)
    metadata = {
        "name": "tiny",
        "version": "1.0",
        "task": "lesions",
        "description": "untrained",
        "architecture": "decomposition",
        "architecture_arguments": ARGUMENTS,
        "input": {"size": [64, 64], "spacing_mm": 2.0, "hu_window": [-1300, -150], "mean": 0.5, "std": 0.5},
        "default_threshold": 0.4,
        "heat": {"source": "gate", "smoothing_px": 2.0, "raw": [0.0, 0.5, 1.0], "scaled": [0.0, 0.4, 1.0]},
        "training": {},
        "metrics": {},
        "git_revision": "none",
    }
    network = DecompositionNet(**ARGUMENTS)
    good = ModelBundle.save(seeds / "bundle", network, metadata)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    weights = {1: buffer.getvalue(), 2: (good.path / WEIGHTS_NAME).read_bytes()}

    def spoil(folder: Path, rng: Rng) -> None:
        kind = int(rng.integers(1, 3))
        data = weights[kind]
        reported = {**good.metadata, "format_version": kind, "weights_sha256": hashlib.sha256(data).hexdigest()}
        if rng.random() < 0.5:
            if rng.random() < 0.3:
                data = mutated(data, 2000, rng)
            else:
                data = mutated_zip(data, rng) if kind == 1 else mutated_safetensors(data, rng)
            reported["weights_sha256"] = hashlib.sha256(data).hexdigest()
        else:
            reported = mutated_json(reported, rng)
        text = json_bytes(reported)
        (folder / METADATA_NAME).write_bytes(mutated(text, len(text), rng) if rng.random() < 0.2 else text)
        (folder / WEIGHTS_NAMES[kind]).write_bytes(data)

    def load(folder: Path) -> None:
        network = ModelBundle.load(folder, "lesions").network()
        if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
            raise AssertionError("a network with weights that are no numbers")

    return Target(spoil, load)


class _TinyTask:
    """As little of a training as a checkpoint can hold."""

    averaged = "network"
    teacher = None

    def __init__(self) -> None:
        torch.manual_seed(0)
        network = DecompositionNet(**ARGUMENTS)
        self.modules = {"network": network}
        self.optimizers = {"network": torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.9))}

    def batch(self, rng: Rng) -> None:
        """The step makes its own."""

    def step(self, number: int, rng: Rng, batch: None = None) -> dict[str, float]:
        """One update."""
        loss = self.modules["network"](torch.rand(1, 1, 8, 8)).gate.square().mean()
        self.optimizers["network"].zero_grad()
        loss.backward()
        self.optimizers["network"].step()
        return {"loss": float(loss.detach())}


def _checkpoint(seeds: Path) -> Target:
    folder = seeds / "run"
    loop.train(_TinyTask(), folder, steps=4, seed=3, log_every=1)
    checkpoint = (folder / loop.CHECKPOINT_NAME).read_bytes()
    log = (folder / loop.LOG_NAME).read_text("utf-8")

    def spoil(folder: Path, rng: Rng) -> None:
        data, text = checkpoint, log.encode()
        if rng.random() < 0.7:
            data = mutated_zip(data, rng) if rng.random() < 0.8 else mutated(data, 4000, rng)
        else:
            text = mutated_text(log, rng)
        (folder / loop.CHECKPOINT_NAME).write_bytes(data)
        (folder / loop.LOG_NAME).write_bytes(text)

    def load(folder: Path) -> None:
        start_from(DecompositionNet(**ARGUMENTS), folder)
        loop.train(_TinyTask(), folder, steps=5, seed=3, resume=True, log_every=1)

    return Target(spoil, load)


def _slices(seeds: Path) -> Target:
    rng = np.random.default_rng(0)
    rows, pictures = [], {}
    for number in range(4):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32), np.uint8)).save(stream, "PNG")
        pictures[f"{number}.png"] = stream.getvalue()
        label = ("lesion", "normal")[number % 2]
        rows.append({"file": f"{number}.png", "label": label, "split": "train", "scan": f"s{number // 2}"})
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    labels = "case,slice,label,split\n" + "".join(f"chest,{k},{k % 2},train\n" for k in range(6))

    def spoil(folder: Path, rng: Rng) -> None:
        kind = int(rng.integers(0, 3))
        victim = f"{int(rng.integers(0, 4))}.png"
        for name, data in pictures.items():
            (folder / name).write_bytes(mutated(data, 60, rng) if kind == 0 and name == victim else data)
        (folder / "index.csv").write_bytes(
            mutated_text(text.getvalue(), rng) if kind == 1 else text.getvalue().encode()
        )
        (folder / "labels.csv").write_bytes(mutated_text(labels, rng) if kind == 2 else labels.encode())

    def load(folder: Path) -> None:
        read_slice_labels(folder / "labels.csv")
        data = SliceSet.load(folder, "train")
        if data.images.dtype != np.uint8 or data.images.ndim != 3 or len(data.images) != len(data.lesion):
            raise AssertionError(f"slices of shape {data.images.shape}")

    return Target(spoil, load)


def _settings() -> Target:
    bases = (PRESETS["default"], PRESETS["paper"], LungConfig(), ClassifierConfig(), VaGanConfig())
    toml = "steps = 100\nseed = 1\nlearning_rate = 1e-3\n[augmentation]\nrotation = 15.0\nflip = 0.5\n"
    lesion = "crop = [160, 192]\nbetas = [0.9, 0.99]\n" + toml + "[network]\nnorm = 'batch'\nlevels = 5\n"
    lungs = "steps = 50\nwindow = [-1000, 200]\nleave_out = 'a,b'\nsize = 256\n"
    texts = (lesion, lesion, lungs, toml, toml)

    def spoil(folder: Path, rng: Rng) -> None:
        kind, file = int(rng.integers(0, len(bases))), int(rng.integers(0, 3))
        base = bases[kind]
        record = {"task": "lesions", "version": "1", "hours": 1.0, **as_dict(base)}
        (folder / "kind").write_text(str(kind))
        (folder / "config.json").write_bytes(json_bytes(mutated_json(record, rng) if file == 0 else record))
        (folder / "settings.toml").write_bytes(mutated_text(texts[kind], rng) if file == 1 else texts[kind].encode())
        line = mutated_text("learning_rate=0.002", rng).decode("utf-8", "replace") if file == 2 else "seed=3"
        (folder / "line.json").write_bytes(json_bytes(line))

    def load(folder: Path) -> None:
        base = bases[int((folder / "kind").read_text())]
        load_config(base, folder / "settings.toml")
        load_config(base, None, [json.loads((folder / "line.json").read_text())])
        record_run(folder, "lesions", base, True, 2.0, lambda hours: base, torch.device("cpu"))

    return Target(spoil, load)


def _statistics() -> Target:
    rows = [CSV_HEADER, *([name, *["1.5"] * (len(CSV_HEADER) - 2), ""] for name in ("both", "right", "left"))]
    text = "".join(",".join(f'"{cell}"' if "," in cell else cell for cell in row) + "\n" for row in rows)

    def spoil(folder: Path, rng: Rng) -> None:
        (folder / "statistics.csv").write_bytes(mutated_text(text, rng))

    return Target(spoil, lambda folder: read_statistics_csv(folder / "statistics.csv"))


def _image(seeds: Path, ending: str) -> Target:
    rng = np.random.default_rng(20)
    image = sitk.GetImageFromArray(rng.integers(-1000, 400, (6, 40, 40), np.int16))
    image.SetSpacing((1, 2, 3))
    image.SetMetaData("scanner", "none")  # in a NRRD header a line of its own kind
    folder = seeds / ending
    folder.mkdir(parents=True)
    sitk.WriteImage(image, str(folder / f"ct.{ending}"), ending in ("nrrd", "mha"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    header = f"ct.{ending}"

    def spoil(folder: Path, rng: Rng) -> None:
        for name, data in files.items():
            if name == header:
                data = _spoiled_image(data, ending, rng)
            elif rng.random() < 0.1:
                data = mutated(data, len(data), rng)
            (folder / name).write_bytes(data)

    def load(folder: Path) -> None:
        volume, _ = read_volume(folder / header)
        if volume.array.ndim != 3 or not np.isfinite(volume.ijk_to_ras).all() or not (volume.spacing > 0).all():
            raise AssertionError(f"a volume of shape {volume.shape}")
        with suppress(LesionDecompError):  # few of them are masks
            read_mask(folder / header, volume)

    return Target(spoil, load)


def _spoiled_image(data: bytes, ending: str, rng: Rng) -> bytes:
    if ending == "nii.gz":
        return (
            gzip.compress(mutated(gzip.decompress(data), 400, rng), 1) if rng.random() < 0.8 else mutated(data, 99, rng)
        )
    if ending == "nii" or rng.random() < 0.4:
        return mutated(data, 400, rng)
    end = data.find(b"\n\n") + 2 if ending in ("nrrd", "nhdr") else data.find(b"ElementDataFile")
    end = max(end, 0) or len(data)
    return mutated_text(data[:end].decode("latin-1"), rng) + data[end:]


def _dicom(seeds: Path) -> Target:
    # Four slices of the real series, where it is there; else of an artificial one.
    files = {path.name: path.read_bytes() for path in sorted((seeds / "series").glob("*.dcm"))} or _made_series(seeds)

    def spoil(folder: Path, rng: Rng) -> None:
        victims = rng.random(len(files)) < 0.4
        for (name, data), is_victim in zip(files.items(), victims, strict=True):
            if is_victim and rng.random() < 0.1:
                continue
            if is_victim:
                data = _spoiled_element(data, rng) if rng.random() < 0.4 else mutated(data, 1270, rng)
            (folder / name).write_bytes(data)
        if rng.random() < 0.1:
            (folder / "copy.dcm").write_bytes(next(iter(files.values())))

    def load(folder: Path) -> None:
        volume, _ = read_volume(folder)
        if volume.array.ndim != 3 or not (volume.spacing > 0).all():
            raise AssertionError(f"a volume of shape {volume.shape}")

    return Target(spoil, load)


def _spoiled_element(data: bytes, rng: Rng) -> bytes:
    """A DICOM file with the length or the text of one element of its image groups replaced."""
    group, element = ELEMENTS[int(rng.integers(0, len(ELEMENTS)))]
    at = data.find(group.to_bytes(2, "little") + element.to_bytes(2, "little"), 132)
    if at < 0:
        return mutated(data, 1270, rng)
    changed = bytearray(data)
    offset = int(rng.integers(4, 16))
    words = (b"\xff\xff", b"\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x70", b"9999", b"-1\\0", b"nan ", rng.bytes(4))
    word = words[int(rng.integers(0, len(words)))]
    changed[at + offset : at + offset + len(word)] = word
    return bytes(changed)


def _made_series(seeds: Path) -> dict[str, bytes]:
    folder = seeds / "made series"
    folder.mkdir()
    rng = np.random.default_rng(5)
    for number in range(4):
        image = sitk.GetImageFromArray(rng.integers(-1000, 400, (1, 32, 32), np.int16))
        for key, value in (
            ("0008|0060", "CT"),
            ("0008|0016", "1.2.840.10008.5.1.4.1.1.2"),
            ("0008|0018", f"1.2.3.{number}"),
            ("0020|000e", "1.2.3"),
            ("0020|0032", f"0\\0\\{3 * number}"),
            ("0020|0037", "1\\0\\0\\0\\1\\0"),
        ):
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(image)
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.dcm"))}
