"""How fast the main job is on this machine, and against what: every number of one run, measured turn by turn.

Shared machines are noisy: what is compared is measured in turn, several times, reported as median and ratio.
CPU time, the sum over all threads, is reported beside the time on the clock.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ...ct.volume import Volume
from ...io.readers import read_volume, write_image
from ...measurement.live import LiveLesions
from ...models.networks import DecompositionNet
from ...models.onnx_engine import OnnxNetwork
from ...models.precision import has_fast_bf16
from ...pipeline import Segmenter, SegmentResult
from ...processes.tree import library_environment
from ...report.case import write_case
from ...threads import usable_cores
from .roofline import roofline

R231_SLICES = 2  # of 256×256 pixels, in one batch; the whole scan would take minutes
MATMUL = 2048
FIRST_SLICE = "Finding the lungs"


@dataclass
class Clock:
    """Seconds on the clock and of CPU time, one pair for each measurement."""

    wall: list[float]
    cpu: list[float]

    @classmethod
    def new(cls) -> Clock:
        """No measurement yet."""
        return cls([], [])

    def measure(self, work: Callable[[], Any]) -> Any:
        """Do the work and note how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return result

    def metrics(self, scale: float = 1.0) -> dict[str, float]:
        """Medians in seconds, times ``scale``."""
        return {
            "wall_s": round(statistics.median(self.wall) * scale, 4),
            "cpu_s": round(statistics.median(self.cpu) * scale, 4),
        }


class TimedNetwork:
    """A network whose forward passes are clocked.

    :param network: what the pipeline calls."""

    def __init__(self, network: torch.nn.Module | OnnxNetwork) -> None:
        self._network = network
        self.wall = self.cpu = 0.0
        self.calls: Counter[tuple[str, tuple[int, ...]]] = Counter()

    @property
    def plain(self) -> torch.nn.Module:
        """The network as torch has it."""
        return self._network.plain if isinstance(self._network, OnnxNetwork) else self._network

    def __call__(self, x: torch.Tensor) -> Any:
        """The network's own forward pass, clocked; so are :meth:`gate` and :meth:`normal`."""
        self.calls["", tuple(x.shape)] += 1
        return self._clocked(self._network, x)

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`LesionDecompLib.models.networks.DecompositionNet.gate`."""
        self.calls["gate", tuple(x.shape)] += 1
        return self._clocked(cast(DecompositionNet, self._network).gate, x)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`LesionDecompLib.models.networks.DecompositionNet.normal`."""
        self.calls["normal", tuple(x.shape)] += 1
        return self._clocked(cast(DecompositionNet, self._network).normal, x)

    def _clocked(self, work: Callable[[torch.Tensor], Any], x: torch.Tensor) -> Any:
        _wait(x.device)
        wall, cpu = time.perf_counter(), time.process_time()
        result = work(x)
        _wait(x.device)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return result


@dataclass(frozen=True)
class Chosen:
    """How a case is computed; see :class:`LesionDecompLib.pipeline.Segmenter`."""

    device: str = "auto"
    engine: str = "auto"
    precision: str = "auto"

    @property
    def options(self) -> tuple[str, ...]:
        """The same for the command line."""
        return ("--device", self.device, "--engine", self.engine, "--precision", self.precision)

    def segmenter(self) -> Segmenter:
        """What computes it so."""
        return Segmenter(device=self.device, engine=self.engine, precision=self.precision)


def run_benchmark(
    path: Path,
    chosen: Chosen | None = None,
    repeats: int = 3,
    progress: Callable[[str], None] | None = None,
    *,
    against_torch: bool = False,
) -> dict[str, Any]:
    """Measure one case: end to end, the networks alone, R231, a plain matrix product and the threshold slider.

    :param path: of a chest CT.
    :param chosen: how it is computed.
    :param repeats: of each measurement.
    :param against_torch: measure the same case with PyTorch in float32, too, in turn.
    :param progress: called with what is being measured.
    :return: metrics as a JSON object.
    :raises LesionDecompError: as the pipeline does.
    """
    notify = progress or (lambda text: None)
    volume, _ = read_volume(path)
    chosen = chosen or Chosen()
    segmenter = chosen.segmenter()
    notify("warming up")
    result = segmenter.run(volume)
    networks = segmenter.time_networks(TimedNetwork)
    whole, matmul, r231_clock = Clock.new(), {"float32": Clock.new(), "bfloat16": Clock.new()}, Clock.new()
    inside, stages, loads = Clock.new(), [], [load_average()]
    plain, plain_clock, heat_difference = None, Clock.new(), None
    if against_torch:
        plain = Chosen(chosen.device, "torch", "float32").segmenter()
        same_lungs = segmenter.run(volume, lung_mask=result.lungs).heat
        heat_difference = float(np.abs(same_lungs - plain.run(volume, lung_mask=result.lungs).heat).max())
        plain.run(volume)
    r231, r231_reason = _r231(segmenter.device)
    for turn in range(repeats):
        notify(f"turn {turn + 1} of {repeats}")
        for network in networks:
            network.wall = network.cpu = 0.0
            network.calls.clear()
        stages.append(whole.measure(lambda: _end_to_end(path, segmenter)))
        inside.wall.append(sum(network.wall for network in networks))
        inside.cpu.append(sum(network.cpu for network in networks))
        if plain is not None:
            plain_clock.measure(lambda: _end_to_end(path, plain))
        if r231 is not None:
            r231_clock.measure(r231)
        for name, clock in matmul.items():
            clock.measure(matrix_product(segmenter.device, getattr(torch, name)))
        loads.append(load_average())
    end, alone = whole.metrics(), inside.metrics()
    slices = int(volume.shape[volume.view.axes[0]])
    metrics: dict[str, Any] = {
        "machine": machine(segmenter),
        "case": {"size_ijk": [int(n) for n in reversed(volume.shape)], "axial_slices": slices},
        "precision": result.precision,
        "engine": result.engine,
        "repeats": repeats,
        "load_average": {"before": loads[0], "turns": loads[1:]},
        "end_to_end": end,
        "networks_alone": alone,
        "stages_s": {key: round(statistics.median(stage[key] for stage in stages), 3) for key in stages[0]},
        "over_networks": _ratios(end, alone),
        "matmul_gflops": {
            name: round(2 * MATMUL**3 / statistics.median(clock.wall) / 1e9, 1) for name, clock in matmul.items()
        },
        "threshold_update": threshold_update(volume, result, repeats),
    }
    if segmenter.device.type == "cpu":
        done = {
            task: (network.plain, network.calls, result.precision[task])
            for task, network in zip(("lungs", "lesions"), networks, strict=True)
        }
        metrics["roofline"] = roofline(done, metrics["matmul_gflops"], alone["wall_s"])
    if plain is not None:
        of_torch = plain_clock.metrics()
        metrics["torch_float32"] = {
            **of_torch,
            "case_over_it": _ratios(end, of_torch),
            "largest_heat_difference": heat_difference,
        }
    if r231 is None:
        metrics["r231"] = {"left_out": r231_reason}
    else:
        scan = r231_clock.metrics(slices / R231_SLICES)
        metrics["r231"] = {**scan, "slices_measured": R231_SLICES, "over_end_to_end": _ratios(scan, end)}
    return metrics


def threshold_update(volume: Volume, result: SegmentResult, repeats: int = 3) -> dict[str, Any]:
    """Another threshold on a finished result: lesions, labelmap and statistics; for four times the slices too."""
    view = volume.view
    stacks = [view.to_axial(a) for a in (volume.array, result.lungs, result.heat)]
    metrics = {}
    for factor in (1, 4):
        hu, lungs, heat = (np.repeat(stack, factor, axis=0) for stack in stacks)
        live = LiveLesions.of(hu, lungs, heat, volume.voxel_volume_ml / factor)
        labelmap, clock = np.zeros_like(lungs), Clock.new()

        def update(
            live: LiveLesions = live, labelmap: np.ndarray = labelmap, threshold: float = result.threshold
        ) -> None:
            lesions = live.at(threshold, result.min_volume_ml)
            lesions.paint(labelmap)
            lesions.statistics()

        for _ in range(2 * repeats + 1):
            clock.measure(update)
        metrics["×".join(str(n) for n in reversed(lungs.shape))] = clock.metrics()
    return metrics


def scaling(
    path: Path, slice_counts: Sequence[int], chosen: Chosen, progress: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Time and peak memory of ``lesiondecomp segment``, each in a process of its own, for a chest in thinner slices.

    :param slice_counts: each chest has the height of the input's.
    :return: a row for each.
    """
    volume, _ = read_volume(path)
    view = volume.view
    rows = []
    for count in slice_counts:
        if progress:
            progress(f"{count} slices")
        stack = view.to_axial(volume.array)[(np.arange(count) * view.shape[0]) // count]
        matrix = view.axial_to_ras.copy()
        matrix[:3, 2] *= view.shape[0] / count
        with tempfile.TemporaryDirectory() as folder:
            ct, out = Path(folder) / "ct.nrrd", Path(folder) / "out"
            write_image(ct, np.ascontiguousarray(stack), matrix)
            _command("segment", str(ct), "-o", str(out), *chosen.options, "--quiet")
            run = json.loads((out / "report.json").read_text("utf-8"))["run"]
        seconds = sum(run["timings_s"].values())
        rows.append(
            {
                "slices": count,
                "seconds": round(seconds, 2),
                "ms_per_slice": round(1000 * seconds / count, 1),
                "peak_memory_mib": run["peak_memory_mib"],
            }
        )
    return rows


def start_up(path: Path, chosen: Chosen, repeats: int = 3) -> dict[str, float]:
    """Seconds until ``--help`` has answered, and until ``segment`` has the first slices behind it; medians."""
    help_clock, first = Clock.new(), []
    for _ in range(repeats):
        help_clock.measure(lambda: _command("--help"))
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            process = subprocess.Popen(
                [*_program(), "segment", str(path), "-o", folder, *chosen.options],
                env=library_environment(),
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
            for line in process.stderr or ():
                if FIRST_SLICE in line:
                    first.append(time.perf_counter() - began)
                    break
            process.kill()
            process.communicate()
    return {"help_s": help_clock.metrics()["wall_s"], "first_slices_s": round(statistics.median(first), 2)}


def machine(segmenter: Segmenter) -> dict[str, Any]:
    """What it was measured on."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": segmenter.device_in_words,
        "fast_bfloat16": has_fast_bf16(segmenter.device),
        "torch": torch.__version__,
    }


def as_table(metrics: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    where, end, alone = metrics["machine"], metrics["end_to_end"], metrics["networks_alone"]
    size = "×".join(str(n) for n in metrics["case"]["size_ijk"])
    rows = [
        (f"end to end, {size}: read, lungs, heat, lesions, statistics, write", end),
        ("forward passes of the two networks in it", alone),
    ]
    if "torch_float32" in metrics:
        rows.append(("the same case with PyTorch in float32", metrics["torch_float32"]))
    if "left_out" not in metrics["r231"]:
        rows.append((f"lungmask's R231, {metrics['case']['axial_slices']} slices, network alone", metrics["r231"]))
    for name, clock in metrics["threshold_update"].items():
        rows.append((f"another threshold: lesions, labelmap, statistics, {name}", clock))
    lines = [
        f"{where['processor']}, {where['cores']} cores, {where['threads']} threads; {where['device']}; "
        f"torch {where['torch']}; medians of {metrics['repeats']} turns",
        "",
        "| | on the clock, s | CPU time, s |",
        "|---|---|---|",
        *(f"| {name} | {clock['wall_s']:.3f} | {clock['cpu_s']:.3f} |" for name, clock in rows),
        "",
        f"End to end over the networks alone: {metrics['over_networks']['wall']:.2f} on the clock, "
        f"{metrics['over_networks']['cpu']:.2f} in CPU time.",
    ]
    engines = ", ".join(f"{task} {metrics['engine'][task]} {metrics['precision'][task]}" for task in metrics["engine"])
    loads = metrics["load_average"]
    lines.append(f"Networks: {engines}. Load average of the machine: {loads['before']} before, then {loads['turns']}.")
    if "roofline" in metrics:
        line = metrics["roofline"]
        work = ", ".join(f"{task} {count:g}" for task, count in line["gflop"].items())
        lines.append(
            f"GFLOP of the networks: {work}; {line['gflops']:g} GFLOP/s; at the matrix product's rate they would take "
            f"{line['seconds_at_matrix_product']:.2f} s: {100 * line['of_roofline']:.0f} % of the roofline."
        )
    if "torch_float32" in metrics:
        against = metrics["torch_float32"]
        lines.append(
            f"End to end over PyTorch in float32: {against['case_over_it']['wall']:.2f} on the clock, "
            f"{against['case_over_it']['cpu']:.2f} in CPU time; heat in the same lungs differs by "
            f"{against['largest_heat_difference']:.1g} at most."
        )
    if "left_out" in metrics["r231"]:
        lines.append(f"R231 left out: {metrics['r231']['left_out']}")
    else:
        ratio = metrics["r231"]["over_end_to_end"]
        lines.append(
            f"R231 alone over end to end: {ratio['wall']:.1f} on the clock, {ratio['cpu']:.1f} in CPU time "
            f"({metrics['r231']['slices_measured']} slices measured each turn, random weights)."
        )
    lines.append(
        f"Matrix product of {MATMUL}×{MATMUL}: "
        + ", ".join(f"{value:g} GFLOP/s in {name}" for name, value in metrics["matmul_gflops"].items())
        + "."
    )
    for key, title in (("start_up", "Start"), ("scaling", "Slices")):
        if key in metrics:
            lines.append(f"{title}: {json.dumps(metrics[key])}")
    return "\n".join(lines) + "\n"


def _end_to_end(path: Path, segmenter: Segmenter) -> dict[str, float]:
    clock = Clock.new()
    volume, info = clock.measure(lambda: read_volume(path))
    result = clock.measure(lambda: segmenter.run(volume))
    with tempfile.TemporaryDirectory() as folder:
        clock.measure(lambda: write_case(Path(folder) / "out", volume, result, info))
    return {"reading": clock.wall[0], **result.timings_s, "writing": clock.wall[2]}


def _ratios(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: round(a[f"{name}_s"] / b[f"{name}_s"], 2) for name in ("wall", "cpu")}


def matrix_product(device: torch.device, dtype: torch.dtype) -> Callable[[], None]:
    """What multiplies two matrices of :data:`MATMUL` rows and waits for the device; done once to warm up."""
    a = torch.ones((MATMUL, MATMUL), dtype=dtype, device=device)

    def multiply() -> None:
        a @ a
        _wait(device)

    multiply()
    return multiply


def _r231(device: torch.device) -> tuple[Callable[[], None] | None, str]:
    """A forward pass of lungmask's network on R231_SLICES slices, or why not. Weights don't change its time."""
    found = importlib.util.find_spec("lungmask")
    if found is None or not found.submodule_search_locations:
        return None, "lungmask is not installed (pip install --no-deps lungmask)"
    # The network's file alone: the package would want its other dependencies.
    file = Path(found.submodule_search_locations[0]) / "resunet.py"
    spec = importlib.util.spec_from_file_location("lungmask_resunet", file)
    if spec is None or spec.loader is None or not file.is_file():
        return None, "this version of lungmask has no resunet.py"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
    network = network.eval().to(device)
    x = torch.zeros((R231_SLICES, 1, 256, 256), device=device)

    @torch.inference_mode()
    def forward() -> None:
        network(x)
        _wait(device)

    forward()
    return forward, ""


def load_average() -> float | None:
    """Processes that want to compute, mean of the last minute; None where the system does not state it (Windows)."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _program() -> list[str]:
    return [sys.executable, "-m", "LesionDecompLib"]


def _command(*arguments: str) -> None:
    subprocess.run([*_program(), *arguments], env=library_environment(), check=True, stdout=subprocess.DEVNULL)
