"""How fast training is on this machine: the parts of a step, and its arithmetic against a plain matrix product.

Steps of the training loop itself are clocked, on a real training set; matrix products are measured between them, so
that both meet the same load. Roofline: the time that a step's products and convolutions would take at the rate of
those matrix products, each in the precision it is computed in.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ...models.device import choose_device
from ...models.precision import has_fast_bf16
from ...report.memory import high_water_mark_mib
from ...training.config import PRESETS, LesionConfig
from ...training.data.slices import SliceSet
from ...training.lesion_task import LesionTask
from ...training.loop import train
from .job import MATMUL, matrix_product

TURNS = 6  # of matrix products between the steps
STEPS = {"paper-large": 2, "paper-full": 2}  # their steps are half a minute long on a CPU
OTHER_STEPS = 40
# Methods of the task, each a part of the step; what one does inside another counts for the inner one alone.
PARTS = {
    "batch": "drawing and augmenting slices",
    "split": "forward",
    "teachers_heat": "forward of the averaged network",
    "objective": "losses",
    "train_critic": "critic: losses, penalty, update",
    "adversarial": "critic's opinion of G1",
    "backward": "backward",
    "update": "Adam",
}
DATA = PARTS["batch"]
REST = "averaging of weights, logging"
BETWEEN = "between steps"

Pair = tuple[float, float]  # on the clock, and of CPU time


class PartsClock:
    """Seconds of the parts of a piece of work, on the clock and of CPU time (the sum over all threads).

    :param device: whose work is waited for before the clock is read.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, Pair] = defaultdict(lambda: (0.0, 0.0))
        self._device, self._open = device, [REST]
        self._last = (time.perf_counter(), time.process_time())

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time spent inside, but for parts that begin inside, is that of ``name``."""
        self.note()
        self._open.append(name)
        try:
            yield
        finally:
            self.note()
            self._open.pop()

    def clocked(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """``work``, as a part."""

        @wraps(work)
        def in_time(*arguments: Any) -> Any:
            with self.part(name):
                return work(*arguments)

        return in_time

    def note(self) -> None:
        """Add the time since the last change of parts to the present one."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = (time.perf_counter(), time.process_time())
        wall, cpu = self.seconds[self._open[-1]]
        self.seconds[self._open[-1]] = (wall + now[0] - self._last[0], cpu + now[1] - self._last[1])
        self._last = now


class OperationCount(TorchDispatchMode):
    """A context that counts the floating-point operations of products and convolutions, backward passes included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            precision = next(value.dtype for value in args if isinstance(value, torch.Tensor))
            self.flops[_name(precision)] += count(*args, **(kwargs or {}), out_val=out)
        return out


def run_training_benchmark(
    data: str | Path,
    presets: Sequence[str] = ("default", "paper"),
    steps: int | None = None,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Clock steps of the training loop.

    :param data: a training set; its ``train`` slices are used.
    :param presets: of lesion training; each runs its whole schedule, shortened to the steps that are measured.
    :param steps: of each preset; None: 40, of the large ones 2.
    :param progress: called with what is being measured.
    :return: metrics as a JSON object.
    :raises LesionDecompError: an unusable training set or device.
    """
    where, in_words = choose_device(device)
    slices = SliceSet.load(data, "train")
    machine = {
        "device": in_words,
        "threads": torch.get_num_threads(),
        "fast_bfloat16": has_fast_bf16(where),
        "torch": torch.__version__,
    }
    runs = {}
    for name in presets:
        config = PRESETS[name].lasting(steps or STEPS.get(name, OTHER_STEPS))
        if progress is not None:
            progress(f"{name}: {config.steps} steps")
        runs[name] = measure(config, slices, where)
    return {"machine": machine, "slices": len(slices.images), "matrix_product": MATMUL, "presets": runs}


def measure(config: LesionConfig, slices: SliceSet, device: torch.device) -> dict[str, Any]:
    """Clock the steps of a run, after one of each kind to warm up, whose operations are counted.

    The run goes through its steps twice: as training does, drawing the next slices meanwhile, for the steps a second;
    and with one thing after the other, for the time of each part.

    :return: metrics as a JSON object: seconds, operations and rates of the mean step.
    """
    _forget_peak_memory()
    task = LesionTask(config, slices, device)
    flops = _flops_a_step(task)
    together = _seconds_a_step(task)
    seconds, products = _clock_run(task)
    parts = {name: _over(pair, config.steps) for name, pair in seconds.items()}
    step = (sum(pair[0] for pair in parts.values()), sum(pair[1] for pair in parts.values()))
    ideal = [sum(count * products[name][i] / (2 * MATMUL**3) for name, count in flops.items()) for i in (0, 1)]
    peak = high_water_mark_mib()  # elsewhere it cannot be counted anew for each preset
    return {
        "steps": config.steps,
        "slices_a_step": config.batch.lesion + config.batch.normal + config.batch.painted,
        "steps_per_s": round(1 / together, 3),
        "step_s": _both(step, 4),
        "parts": {
            name: {"s": _both(pair, 5), "share": _both((pair[0] / step[0], pair[1] / step[1]), 4)}
            for name, pair in sorted(parts.items(), key=lambda item: -item[1][1])
        },
        "gflop_a_step": {name: round(count / 1e9, 3) for name, count in flops.items()},
        "gflops": _both(_rate(sum(flops.values()), step), 1),
        "matrix_product_gflops": {name: _both(_rate(2 * MATMUL**3, pair), 1) for name, pair in products.items()},
        "of_roofline": _both((ideal[0] / step[0], ideal[1] / step[1]), 3),
        "peak_memory_mib": None if peak is None else round(peak),
    }


def as_table(metrics: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    where = metrics["machine"]
    lines = [f"{where['device']}; {where['threads']} threads; torch {where['torch']}; {metrics['slices']} slices", ""]
    for name, run in metrics["presets"].items():
        flop = " and ".join(f"{value:g} in {precision}" for precision, value in run["gflop_a_step"].items())
        rates = ", ".join(f"{rate['cpu']:g} in {precision}" for precision, rate in run["matrix_product_gflops"].items())
        memory = run["peak_memory_mib"]
        lines += [
            f"| {name}: mean of {run['steps']} steps | on the clock, s | CPU time, s | share of CPU time |",
            "|---|---|---|---|",
            *(
                f"| {part} | {row['s']['wall']:.4f} | {row['s']['cpu']:.4f} | {100 * row['share']['cpu']:.1f} % |"
                for part, row in run["parts"].items()
            ),
            f"| step | {run['step_s']['wall']:.4f} | {run['step_s']['cpu']:.4f} | |",
            "",
            f"{run['steps_per_s']:g} steps a second of {run['slices_a_step']} slices each, the next drawn meanwhile; "
            f"{flop} GFLOP a step: "
            f"{run['gflops']['wall']:g} GFLOP/s on the clock, {run['gflops']['cpu']:g} in CPU time; "
            f"matrix product of {metrics['matrix_product']}×{metrics['matrix_product']}: {rates}; "
            f"{100 * run['of_roofline']['wall']:.0f} % of the roofline on the clock, "
            f"{100 * run['of_roofline']['cpu']:.0f} % in CPU time; "
            f"peak memory {'not known here' if memory is None else f'{memory:.0f} MiB'}.",
            "",
        ]
    return "\n".join(lines)


def _flops_a_step(task: LesionTask) -> dict[str, float]:
    """Operations of the mean step by precision, from a step of each kind; these warm up, too."""
    config, kinds = task.config, defaultdict(list)
    for number in range(config.steps):
        taught = config.self_training.weight > 0 and number >= config.self_training.start
        kinds[number < config.schedule.identity_steps, number % config.critic.every == 0, taught].append(number)
    task.teacher = deepcopy(task.network).eval() if config.self_training.weight > 0 else None
    mean: dict[str, float] = defaultdict(float)
    for numbers in kinds.values():
        with OperationCount() as count:
            task.step(numbers[0], np.random.default_rng([config.seed, numbers[0]]))
        for name, flops in count.flops.items():
            mean[name] += flops * len(numbers) / config.steps
    return dict(mean)


def _seconds_a_step(task: LesionTask) -> float:
    """Train; seconds on the clock of the mean step, the first left out: its slices nobody could draw ahead."""
    config, ends = task.config, []

    def ended(stage: str, done: int, steps: int) -> None:
        if task.device.type == "cuda":
            torch.cuda.synchronize(task.device)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        train(task, folder, steps=config.steps, seed=config.seed, ema=config.ema, progress=ended)
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def _clock_run(task: LesionTask) -> tuple[dict[str, Pair], dict[str, Pair]]:
    """Train; seconds of the parts of all steps, and of a matrix product in each precision (medians)."""
    config = task.config
    clock = PartsClock(task.device)
    for method, part in PARTS.items():
        setattr(task, method, clock.clocked(part, getattr(task, method)))
    multiply = {_name(dtype): matrix_product(task.device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    turns: dict[str, list[Pair]] = {name: [] for name in multiply}
    seconds: dict[str, Pair] = {}

    def between(stage: str, done: int, steps: int) -> None:
        clock.note()
        if done == steps:  # the last checkpoint belongs to no step
            seconds.update(clock.seconds)
        if done % math.ceil(steps / TURNS) == 0 or done == steps:
            with clock.part(BETWEEN):
                for name, product in multiply.items():
                    turn = PartsClock(task.device)
                    turn.clocked(name, product)()
                    turns[name].append(turn.seconds[name])

    clock.note()
    clock.seconds.clear()
    with tempfile.TemporaryDirectory() as folder:
        train(task, folder, steps=config.steps, seed=config.seed, ema=config.ema, progress=between, ahead=False)
    seconds.pop(BETWEEN, None)
    medians = {
        name: (statistics.median(turn[0] for turn in pairs), statistics.median(turn[1] for turn in pairs))
        for name, pairs in turns.items()
    }
    return seconds, medians


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _over(pair: Pair, count: int) -> Pair:
    return pair[0] / count, pair[1] / count


def _rate(operations: float, seconds: Pair) -> Pair:
    # In 10⁹ a second.
    return operations / seconds[0] / 1e9, operations / seconds[1] / 1e9


def _both(pair: Pair, digits: int) -> dict[str, float]:
    return {"wall": round(pair[0], digits), "cpu": round(pair[1], digits)}


def _forget_peak_memory() -> None:
    """Begin counting this process's peak memory anew, where the system can (Linux)."""
    with suppress(OSError):  # elsewhere there is no peak to report
        Path("/proc/self/clear_refs").write_text("5")
