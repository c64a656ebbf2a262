"""Changes to a CT of which one knows what they should do to the outcome, and how far the outcome follows.

Run as a program it measures every change on every CT it is given and writes what the table of
``Documentation/metamorphic.md`` is made of::

    python Testing/tools/metamorphic.py CT [CT ...] -o measured.csv
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "LesionDecomp"))

from LesionDecompLib.ct.grid import AxialView, resampling_matrix
from LesionDecompLib.ct.volume import Volume
from LesionDecompLib.io.readers import read_volume
from LesionDecompLib.pipeline import Segmenter, SegmentResult

AIR_HU = -1000


@dataclass(frozen=True, eq=False)
class Change:
    """A changed CT and the way back.

    :param volumes: the changed CT; two where a scan was split.
    :param back: brings outputs of each (labels or heat) to the original's axial grid ``(z, y, x)``.
    :param seen: where the changed CT still shows the original; statements are about there.
    """

    volumes: tuple[Volume, ...]
    back: Callable[[list[np.ndarray]], np.ndarray]
    seen: tuple[slice, slice, slice] = (slice(None), slice(None), slice(None))


def axial(volume: Volume) -> Volume:
    """The same CT stored as axial slices, which makes the changes below easy to write."""
    view = AxialView.of(volume.shape, volume.ijk_to_ras)
    return Volume.from_array(np.ascontiguousarray(view.to_axial(volume.array)), view.axial_to_ras, volume.name)


def mirrored(ct: Volume, result: SegmentResult) -> Change:
    """The patient's right and left exchanged, as in a mirror."""
    return Change((_like(ct, ct.array[:, :, ::-1]),), lambda out: out[0][:, :, ::-1])


def permuted(ct: Volume, result: SegmentResult) -> Change:
    """The same voxels stored as sagittal slices from the left, from superior to inferior."""
    matrix = ct.ijk_to_ras.copy()
    for axis in (0, 2):
        matrix[:3, 3] += matrix[:3, axis] * (ct.shape[2 - axis] - 1)
        matrix[:3, axis] *= -1
    matrix[:3, :3] = matrix[:3, [1, 2, 0]]
    array = np.ascontiguousarray(ct.array[::-1, :, ::-1].transpose(2, 0, 1))
    return Change((Volume.from_array(array, matrix),), lambda out: out[0].transpose(1, 2, 0)[::-1, :, ::-1])


def cropped(ct: Volume, result: SegmentResult, margin_mm: float = 20.0) -> Change:
    """The lungs and 20 mm around them, as far as there is that much."""
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    box = []
    for axis in range(3):
        held = np.flatnonzero(result.lungs.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = int(np.ceil(margin_mm / view.spacing[axis]))
        box.append(slice(max(0, held[0] - margin), min(ct.shape[axis], held[-1] + 1 + margin)))
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :3] @ [box[2].start, box[1].start, box[0].start]
    return Change((Volume.from_array(ct.array[tuple(box)], matrix),), lambda out: _into(ct, out[0], box))


def padded(ct: Volume, result: SegmentResult, mm: float = 40.0, hu: int = AIR_HU) -> Change:
    """40 mm of air on all six sides."""
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    width = [int(np.ceil(mm / spacing)) for spacing in view.spacing]
    array = np.pad(ct.array, [(n, n) for n in width], constant_values=hu)
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] -= matrix[:3, :3] @ width[::-1]
    inner = tuple(slice(n, n + size) for n, size in zip(width, ct.shape, strict=True))
    return Change((Volume.from_array(array, matrix),), lambda out: out[0][inner])


def padded_as_scanners_do(ct: Volume, result: SegmentResult) -> Change:
    """40 mm of the value -2048 on all six sides, as scanners fill what they did not measure."""
    return padded(ct, result, hu=-2048)


def finer_slices(ct: Volume, result: SegmentResult) -> Change:
    """Twice as many slices at half the distance, linearly interpolated."""
    return _resampled(ct, (2, 1, 1))


def finer_pixels(ct: Volume, result: SegmentResult) -> Change:
    """Pixels of half the size, linearly interpolated."""
    return _resampled(ct, (1, 2, 2))


def thicker_slices(ct: Volume, result: SegmentResult) -> Change:
    """Half as many slices, each the mean of two."""
    return _resampled(ct, (0.5, 1, 1))


def coarser_pixels(ct: Volume, result: SegmentResult) -> Change:
    """Pixels of twice the size, each the mean of four."""
    return _resampled(ct, (1, 0.5, 0.5))


def on_a_table(ct: Volume, result: SegmentResult) -> Change:
    """A scanner's table below the patient: 20 mm of foam (-850 HU) in 3 mm of carbon fiber (0 HU), in every slice."""
    view = AxialView.of(ct.shape, ct.ijk_to_ras)
    body = (ct.array > -300).any(axis=0).sum(axis=1) > ct.shape[2] // 6
    below = np.flatnonzero(body)[-1] + 1
    shell, core = (max(1, round(mm / view.spacing[1])) for mm in (3.0, 20.0))
    room = below + 2 * shell + core + 2
    array = np.pad(ct.array, ((0, 0), (0, max(0, room - ct.shape[1])), (0, 0)), constant_values=AIR_HU)
    wide = slice(ct.shape[2] // 8, -(ct.shape[2] // 8))
    for start, depth, hu in ((below, shell, 0), (below + shell, core, -850), (below + shell + core, shell, 0)):
        # What is there already (a real table, clothes) stays where it is denser.
        part = array[:, start : start + depth, wide]
        np.maximum(part, hu, out=part)
    rows = ct.shape[1]
    return Change((Volume.from_array(array, ct.ijk_to_ras),), lambda out: out[0][:, :rows])


def brighter(ct: Volume, result: SegmentResult) -> Change:
    """20 HU more in every voxel."""
    return Change((_like(ct, ct.array + ct.array.dtype.type(20)),), lambda out: out[0])


def darker(ct: Volume, result: SegmentResult) -> Change:
    """20 HU less in every voxel."""
    return Change((_like(ct, ct.array - ct.array.dtype.type(20)),), lambda out: out[0])


def split(ct: Volume, result: SegmentResult) -> Change:
    """The scan cut into a lower and an upper half of the lungs, which are segmented each for itself."""
    held = np.flatnonzero(result.lungs.any(axis=(1, 2)))
    middle = int(held[0] + held[-1] + 1) // 2
    matrix = ct.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * middle
    halves = Volume.from_array(ct.array[:middle], ct.ijk_to_ras), Volume.from_array(ct.array[middle:], matrix)
    return Change(halves, np.concatenate)


CHANGES: dict[str, Callable[[Volume, SegmentResult], Change]] = {
    "permuted": permuted,
    "mirrored": mirrored,
    "cropped": cropped,
    "padded": padded,
    "padded with -2048": padded_as_scanners_do,
    "finer slices": finer_slices,
    "finer pixels": finer_pixels,
    "thicker slices": thicker_slices,
    "coarser pixels": coarser_pixels,
    "on a table": on_a_table,
    "+20 HU": brighter,
    "-20 HU": darker,
    "split in two": split,
}


@dataclass(frozen=True)
class Effect:
    """What a change did; volumes are those of the changed CT's own statistics.

    :param lung_percent: change of the volume of both lungs, % of it.
    :param lung_dice: overlap of the lungs, both together.
    :param sides_percent: lung voxels in both that changed side.
    :param lesion_ml, lesion_changed_ml: lesion volume before and after.
    :param lesion_points: change of the lesions' share of the lungs, percentage points.
    :param lesion_beyond_ml: lesion of the changed CT where the original has no lung.
    :param lesion_dice: overlap of the lesions; NaN where there is none in either.
    :param heat_mean: mean absolute difference of heat where both have lung.
    :param heat_p99: 99th percentile of it.
    :param heat_level: mean heat over the lungs, changed less original.
    """

    lung_percent: float
    lung_dice: float
    sides_percent: float
    lesion_ml: float
    lesion_changed_ml: float
    lesion_points: float
    lesion_beyond_ml: float
    lesion_dice: float
    heat_mean: float
    heat_p99: float
    heat_level: float


def effect(ct: Volume, result: SegmentResult, name: str, segmenter: Segmenter) -> Effect:
    """Change a CT (stored as axial slices) and report what that did to ``result``."""
    change = CHANGES[name](ct, result)
    outcomes = [segmenter.run(volume) for volume in change.volumes]
    lungs, lesions, heat = (
        np.ascontiguousarray(change.back([getattr(outcome, kind) for outcome in outcomes]))
        for kind in ("lungs", "lesions", "heat")
    )
    if name == "mirrored":
        lungs = np.where(lungs == 0, 0, 3 - lungs)
    before, after = (
        [sum(o.statistics[0].values[key] for o in some) for key in ("lung_volume_ml", "lesion_volume_ml")]
        for some in ([result], outcomes)
    )
    both = (lungs != 0) & (result.lungs != 0)
    off = np.abs(heat[both] - result.heat[both])
    levels = [
        sum(o.statistics[0].values[k] * o.statistics[0].values["lung_volume_ml"] for o in some) / volume
        for some, volume, k in (([result], before[0], "lung_heat_mean"), (outcomes, after[0], "lung_heat_mean"))
    ]
    return Effect(
        lung_percent=100 * (after[0] / before[0] - 1),
        lung_dice=_dice(lungs != 0, result.lungs != 0),
        sides_percent=100 * float(np.count_nonzero(lungs[both] != result.lungs[both])) / np.count_nonzero(both),
        lesion_ml=before[1],
        lesion_changed_ml=after[1],
        lesion_points=100 * (after[1] / after[0] - before[1] / before[0]),
        lesion_beyond_ml=np.count_nonzero((lesions != 0) & (result.lungs == 0)) * ct.voxel_volume_ml,
        lesion_dice=_dice(lesions != 0, result.lesions != 0),
        heat_mean=float(off.mean()),
        heat_p99=float(np.percentile(off, 99)),
        heat_level=levels[1] - levels[0],
    )


def _like(ct: Volume, array: np.ndarray) -> Volume:
    return Volume.from_array(np.ascontiguousarray(array), ct.ijk_to_ras, ct.name)


def _into(ct: Volume, part: np.ndarray, box: list[slice]) -> np.ndarray:
    whole = np.zeros(ct.shape, part.dtype)
    whole[tuple(box)] = part
    return whole


def _resampled(ct: Volume, factors: tuple[float, float, float]) -> Change:
    """Resample along (z, y, x) around the middle of the volume; outputs come back by nearest neighbor or mean."""
    array = ct.array.astype(np.float32)
    matrix = ct.ijk_to_ras.copy()
    sizes = []
    for axis, factor in enumerate(factors):
        size = int(ct.shape[axis] * factor)
        sizes.append(size)
        # The outermost edges stay where they are (but for a last odd slice), as a scanner's reconstruction keeps them.
        first = (1 / factor - 1) / 2
        center = first + (size - 1) / 2 / factor
        array = _along(axis, array, resampling_matrix(ct.shape[axis], 1.0, size, 1 / factor, center))
        step = matrix[:3, 2 - axis].copy()
        matrix[:3, 3] += step * first
        matrix[:3, 2 - axis] = step / factor
    volume = Volume.from_array(np.rint(array).astype(np.int16), matrix, ct.name)

    def back(outputs: list[np.ndarray]) -> np.ndarray:
        out = outputs[0]
        for axis, factor in enumerate(factors):
            index = np.minimum(((np.arange(ct.shape[axis]) + 0.5) * factor).astype(int), sizes[axis] - 1)
            out = np.take(out, index, axis=axis)
        return out

    return Change((volume,), back)


def _along(axis: int, array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, array, axes=(1, axis)), 0, axis)


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    whole = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / whole if whole else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", nargs="+", type=Path, metavar="CT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="CSV")
    parser.add_argument("--changes", nargs="+", choices=CHANGES, default=list(CHANGES))
    args = parser.parse_args()
    segmenter = Segmenter(device="cpu")
    with args.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["ct", "change", *Effect.__annotations__])
        writer.writeheader()
        for path in args.inputs:
            ct = axial(read_volume(path)[0])
            result = segmenter.run(ct)
            for name in args.changes:
                row = asdict(effect(ct, result, name, segmenter))
                writer.writerow({"ct": ct.name, "change": name, **{k: f"{v:.4g}" for k, v in row.items()}})
                file.flush()


if __name__ == "__main__":
    main()
