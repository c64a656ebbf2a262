"""How long one step of the threshold slider takes: labelmap and segment written into their nodes, figures reported.

    python Testing/tools/slider_benchmark.py [--slices 150 600] [--segmentation]

The heat is that of the sample CT, as its shipped model finds it, resampled to 512×512 voxels a slice: as many lesions
and as much lung as a real scan has. What is timed is what the panel does while the slider is dragged, and once it
rests; what the screen takes to draw comes on top.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
THRESHOLDS = (0.4, 0.41, 0.42, 0.45, 0.5, 0.3, 0.2, 0.15, 0.6, 0.35, 0.9, 0.25)
LIMIT_MS = {150: 50.0, 600: 150.0}  # what the panel promises, milliseconds by number of slices


def sample_heat() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, heat and lungs of the sample CT, segmented once and kept in the temporary folder."""
    from LesionDecompLib.io.readers import read_volume
    from LesionDecompLib.pipeline import Segmenter

    volume, _ = read_volume(ROOT / "LesionDecomp" / "Resources" / "SampleData" / "chest_ct_tumor.nrrd")
    result = Segmenter(device="cpu").run(volume)
    return volume.array, result.heat, result.lungs


def enlarged(array: np.ndarray, slices: int) -> np.ndarray:
    """An array resampled (nearest voxel) to ``(slices, 512, 512)``."""
    indices = [np.arange(n) * size // n for n, size in zip((slices, 512, 512), array.shape, strict=True)]
    return np.ascontiguousarray(array[np.ix_(*indices)])


def slider_timings(
    scene, hu: np.ndarray, heat: np.ndarray, lungs: np.ndarray, with_segmentation: bool = False
) -> dict[str, float]:
    """Time the slider on one result.

    :param scene: of the running (headless) Slicer.
    :param hu, heat, lungs: ``(k, j, i)`` int16, float32, uint8.
    :return: milliseconds: ``prepare`` once for a result; ``drag`` median, ``drag_worst`` of the steps while dragging;
        ``drag_cpu`` median of the processor's time alone, for a busy machine; ``rest`` median of what follows when the
        slider rests, table included; and ``lesion_share`` of the lungs.
    """
    import slicer
    from LesionDecompLib.ct.grid import AxialView
    from LesionDecompLib.measurement.statistics import lesion_statistics
    from LesionDecompLib.segmentation.lesions import lesion_labelmap
    from LesionDecompMrml.live_result import LiveResult
    from LesionDecompMrml.result_nodes import write_result

    spacing = np.diag([0.7, 0.7, 300.0 / len(hu), 1.0])
    voxel_ml = float(np.prod(np.diag(spacing)[:3])) / 1000.0
    lesions = lesion_labelmap(heat, lungs, THRESHOLDS[0], 0.1, voxel_ml)
    view = AxialView.of(hu.shape, spacing)
    rows = lesion_statistics(*(view.to_axial(array) for array in (hu, lungs, lesions, heat)), voxel_ml)
    ct = slicer.util.addVolumeFromArray(hu, spacing, "CT")
    result = _Result(heat, lungs, lesions, rows)
    nodes = write_result(ct, result, with_segmentation=with_segmentation)
    began = time.perf_counter()
    live = LiveResult.of(nodes)
    prepare = time.perf_counter() - began
    drag, drag_cpu, rest = [], [], []
    for threshold in THRESHOLDS:
        began, began_cpu = time.perf_counter(), time.process_time()
        live.update(threshold, 0.1, with_statistics=False, settled=False)
        drag.append(1000 * (time.perf_counter() - began))
        drag_cpu.append(1000 * (time.process_time() - began_cpu))
        began = time.perf_counter()
        live.update(threshold, 0.1)
        rest.append(1000 * (time.perf_counter() - began))
    scene.Clear(False)
    return {
        "prepare": round(1000 * prepare, 1),
        "drag": round(statistics.median(drag), 1),
        "drag_cpu": round(statistics.median(drag_cpu), 1),
        "drag_worst": round(max(drag), 1),
        "rest": round(statistics.median(rest), 1),
        "lesion_share": round(float((lesions != 0).sum() / (lungs != 0).sum()), 4),
    }


class _Result:
    """What ``write_result`` reads of a result."""

    threshold, min_volume_ml, has_healthy = THRESHOLDS[0], 0.1, False

    def __init__(self, heat, lungs, lesions, rows) -> None:
        self._arrays, self.statistics = {"heat": heat, "lungs": lungs, "lesions": lesions}, rows
        self.box = tuple(slice(0, size) for size in heat.shape)

    def boxed(self, name: str) -> np.ndarray:
        return self._arrays[name]


def main() -> int:
    """Print one line of JSON for each size; exit status 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[150, 600], help="of 512×512 voxels")
    parser.add_argument("--segmentation", action="store_true", help="with a segmentation that is seen")
    parser.add_argument("--case", type=Path, help="an .npz with hu, heat and lungs instead of the sample")
    arguments = parser.parse_args()
    sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "LesionDecomp")]
    from headless_slicer import boot

    hu, heat, lungs = (
        sample_heat() if arguments.case is None else [np.load(arguments.case)[n] for n in ("hu", "heat", "lungs")]
    )
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        scene = boot(folder).scene
        for slices in arguments.slices:
            arrays = (enlarged(array, slices) for array in (hu, heat, lungs))
            timings = slider_timings(scene, *arrays, with_segmentation=arguments.segmentation)
            limit = LIMIT_MS.get(slices)
            kept &= limit is None or timings["drag"] <= limit
            print(json.dumps({"slices": slices, "limit": limit, "segmentation": arguments.segmentation, **timings}))
        scene.Clear(False)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
