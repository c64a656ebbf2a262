"""Lesion heat of a CT from an ONNX file, with ONNX Runtime and numpy alone: no torch, nothing of LesionDecomp.

    lesiondecomp models --export lesions-decomposition -o lesions.onnx
    lesiondecomp segment CT.nrrd -o results
    python onnx_heat.py lesions.onnx CT.nrrd results/lungs.nrrd heat.npy

The file's own metadata state how slices enter the network. What is left out here: a window for each lung, averaging of
noisy slices, smoothing across slices (heat.smoothing_mm), and the way back to the CT's grid; see segmentation/slices.py
and segmentation/heat.py for these.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

BATCH = 8
TYPES = {"short": "i2", "int16": "i2", "unsigned char": "u1", "uint8": "u1", "uchar": "u1", "float": "f4"}


def read_nrrd(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxels ``(z, y, x)`` and spacing (z, y, x) in mm of an axial NRRD, raw or packed by gzip."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    vectors = [np.array(v.strip("()").split(","), float) for v in fields["space directions"].split()]
    if any(np.argmax(np.abs(v)) != axis for axis, v in enumerate(vectors)) or vectors[0][0] < 0 or vectors[1][1] < 0:
        raise SystemExit(f"{path.name}: only axial slices, stored from right to left and from front to back")
    if fields["encoding"].startswith("gz"):
        data = gzip.decompress(data)
    size = [int(n) for n in fields["sizes"].split()]
    order = "<" if fields.get("endian", "little") == "little" else ">"
    voxels = np.frombuffer(data, order + TYPES[fields["type"]]).reshape(size[::-1])
    return voxels, tuple(float(np.linalg.norm(vector)) for vector in vectors[::-1])


def to_pixels(length: int, step_mm: float, middle: float, size: int, pixel_mm: float) -> np.ndarray:
    """Matrix ``(size, length)`` of linear interpolation from a CT's rows or columns to the network's pixels."""
    places = middle + (np.arange(size) - (size - 1) / 2) * pixel_mm / step_mm
    distance = np.abs(places[:, None] - np.arange(length)[None, :]) / max(pixel_mm / step_mm, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6) * (weights.sum(axis=1, keepdims=True) > 0)


def eroded(mask: np.ndarray, steps: int, axes: tuple[int, ...]) -> np.ndarray:
    """A mask less what has something else within some steps along the axes; beyond the borders it goes on."""
    for axis in axes:
        padded = np.pad(mask, [(steps, steps) if n == axis else (0, 0) for n in range(3)], mode="edge")
        parts = np.lib.stride_tricks.sliding_window_view(padded, 2 * steps + 1, axis=axis)
        mask = parts.all(axis=-1)
    return mask


def network_input(ct: np.ndarray, lungs: np.ndarray, spacing: tuple[float, ...], image: dict) -> np.ndarray:
    """Slices as the network wants them, ``(z, 1, size, size)`` float32 in [-1, 1], exactly -1 outside the lungs."""
    low, high = image["hu_window"]
    counts, edges = np.histogram(ct[(lungs > 0) & (ct < -600)], bins=np.arange(-1000, -595, 5))
    shift = np.clip(
        edges[np.argmax(np.convolve(counts, np.hanning(11), "same"))] + 2.5 - image["lung_mode_hu"], -80, 80
    )
    inner = eroded(lungs > 0, int(np.ceil(image["rim_slab_mm"] / spacing[0] - 1e-6)), (0,))
    gray = np.clip((ct - (low + shift)) / (high - low), 0, 1) * inner
    matrices = []
    for axis in (1, 2):
        held = np.flatnonzero((lungs > 0).any(axis=(0, 3 - axis)))
        middle, size = (held[0] + held[-1]) / 2, image["size"][0]
        matrices.append(to_pixels(ct.shape[axis], spacing[axis], middle, size, image["spacing_mm"]))
    rows, columns = matrices
    gray, share = (rows @ stack.astype(np.float32) @ columns.T for stack in (gray, inner))
    inside = eroded(share > 0.5, image["rim_pixels"], (1, 2))
    x = np.where(inside, np.clip(2 * gray / np.maximum(share, 0.5) - 1, -1 + 1 / 127.5, 1), -1)
    return x[:, None].astype(np.float32)


def main(network: str, ct: str, lungs: str, output: str) -> None:
    """Write the heat of all slices as an array ``(z, 256, 256)``, and print how much of each is hot."""
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    bundle = json.loads(session.get_modelmeta().custom_metadata_map["bundle"])
    hu, spacing = read_nrrd(Path(ct))
    mask, _ = read_nrrd(Path(lungs))
    x = network_input(hu, mask, spacing, bundle["input"])
    heat = np.concatenate([session.run(["heat"], {"x": x[n : n + BATCH]})[0] for n in range(0, len(x), BATCH)])[:, 0]
    np.save(output, heat)
    hot = heat >= bundle["default_threshold"]
    for z in np.flatnonzero(hot.any(axis=(1, 2))):
        print(f"slice {z}: {hot[z].sum() * bundle['input']['spacing_mm'] ** 2 / 100:.1f} cm² above the threshold")


if __name__ == "__main__":
    main(*sys.argv[1:])
