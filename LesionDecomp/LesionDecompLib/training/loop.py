"""The training loop: resumable to the bit, logged, cancellable. What is trained is a :class:`Task`.

The random numbers of step ``s`` come from a generator seeded with ``(seed, s)`` alone, and a checkpoint holds weights,
averages, optimizers and the step: a run that is killed and resumed gives the weights of an unbroken one.
"""

from __future__ import annotations

import copy
import csv
import io
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..errors import Cancelled, ConfigError, InputError, OutputError
from ..io.atomic import write_bytes
from ..models.torch_file import load_torch_file
from ..progress import Cancel, Progress
from . import ranks
from .data.ahead import made_ahead
from .watch import Watch

CHECKPOINT_NAME = "checkpoint.pt"
LOG_NAME = "log.csv"
STAGE = "Training"
LOG = logging.getLogger(__name__)


class Task(Protocol):
    """Something to train.

    ``modules`` and ``optimizers`` are what a checkpoint keeps; ``averaged`` names the module whose weights are
    averaged, and the loop hands the average over as ``teacher``; ``batch`` draws a step's data, in another thread while
    the step before is computed; ``step`` makes one update and returns what to log.
    """

    modules: dict[str, nn.Module]
    optimizers: dict[str, torch.optim.Optimizer]
    averaged: str
    teacher: nn.Module | None

    def batch(self, rng: np.random.Generator) -> Any:
        """A step's data, from random numbers alone: nothing in it may depend on the steps before."""
        ...

    def step(self, number: int, rng: np.random.Generator, batch: Any = None) -> dict[str, float]:
        """One update; ``number`` counts from 0, ``rng`` is where ``batch`` left it (without: the step draws one)."""
        ...


class WeightAverage:
    """Exponential moving average of a network's weights, and of what its norms have seen; counts are copied.

    ``decay`` 0 keeps the last weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, number: int) -> None:
        """Follow ``network`` after update ``number``; early on faster, so that the first weights are forgotten."""
        decay = min(self.decay, (1 + number) / (10 + number)) if self.decay > 0 else 0.0
        means, values = [], []
        for mean, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                means.append(mean)
                values.append(value)
            else:
                mean.copy_(value)
        torch._foreach_lerp_(means, values, 1 - decay)


def cosine(number: int, steps: int, first: float, last: float, warm_up: int = 100) -> float:
    """Learning rate at update ``number``: linear warm-up, then half a cosine from ``first`` to ``last``."""
    if number < warm_up:
        return first * (number + 1) / warm_up
    progress = (number - warm_up) / max(1, steps - warm_up)
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * min(1.0, progress)))


def as_numbers(terms: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """The values of a step's terms, in one copy: the processor waits for a GPU once."""
    return dict(
        zip(terms, torch.stack([value.detach().float() for value in terms.values()]).cpu().tolist(), strict=True)
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all of an optimizer's parameters the learning rate ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def train(
    task: Task,
    folder: str | Path,
    *,
    steps: int,
    seed: int,
    ema: float = 0.998,
    resume: bool = False,
    checkpoint_seconds: float = 120.0,
    log_every: int = 20,
    progress: Progress | None = None,
    cancelled: Cancel | None = None,
    on_log: Callable[[nn.Module], object] | None = None,
    watch: Watch | None = None,
    ahead: bool = True,
) -> nn.Module:
    """Train until ``steps`` updates are done and return the averaged network in evaluation mode.

    With ``watch`` it ends where that decides so, and the network has the best weights that were seen.

    Writes ``checkpoint.pt`` (atomically, every ``checkpoint_seconds`` and at the end) and ``log.csv`` into ``folder``.
    On several ranks (:mod:`.ranks`) rank 0 alone writes and shows progress.

    :param ema: decay of the averaged weights at each update.
    :param resume: resume from the checkpoint in ``folder`` if there is one; otherwise one that is there is refused.
    :param log_every: updates whose mean makes a row of the log.
    :param progress: called with ``("training", updates done, steps)``.
    :param cancelled: asked before each update.
    :param watch: looks at the averaged network along the steps.
    :param on_log: called with the averaged network after ``log.csv`` was written, at most every ten seconds.
    :param ahead: draw the data of the next step in another thread; the weights are the same either way.
    :raises Cancelled: ``cancelled`` returned True; the checkpoint is written first.
    :raises LesionDecompError: a checkpoint in the way, or a loss that is NaN or infinite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    average = WeightAverage(task.modules[task.averaged], ema)
    task.teacher = average.network
    start, pending = _restore(task, average, watch, folder, seed, steps) if resume else (0, {})
    if not resume:
        check_is_new(folder)
    log = _Log(folder / LOG_NAME, start, pending)
    writes = ranks.rank() == 0
    device = next(average.network.parameters()).device
    saved = shown = began = time.monotonic()

    def drawn(number: int) -> tuple[np.random.Generator, Any]:
        rng = np.random.default_rng([seed, number])
        return rng, task.batch(rng)

    done = start
    over = watch is not None and watch.is_over(start)
    numbers = range(start, start if over else steps)
    with closing(made_ahead(drawn, numbers) if ahead else (drawn(number) for number in numbers)) as batches:
        for number in numbers:
            if ranks.any_rank(cancelled is not None and cancelled(), device):
                if writes:
                    _save(task, average, watch, folder, number, seed, log.values)
                raise Cancelled(STAGE)
            values = task.step(number, *next(batches))
            average.update(task.modules[task.averaged], number)
            broken = [key for key, value in values.items() if not math.isfinite(value)]
            if broken:
                found = f"{broken[0]} = {values[broken[0]]} at step {number}"
                raise ConfigError(STAGE, found, "finite losses", "Start a new run with a lower learning rate.")
            done = number + 1
            looks = watch is not None and watch.is_due(done, steps)
            if watch is not None and looks:
                values |= watch.look(done, average.network) if writes else {}
                over = ranks.any_rank(writes and watch.is_over(done), device)
            if writes:
                log.add(values)
            if writes and (done % log_every == 0 or looks or done == steps):
                log.write(done, time.monotonic() - began)
                if on_log is not None and time.monotonic() - shown > 10:
                    on_log(average.network)
                    shown = time.monotonic()
            if progress is not None and writes:
                progress("training", done, steps)
            if over:
                break
            if writes and time.monotonic() - saved > checkpoint_seconds:
                _save(task, average, watch, folder, done, seed, log.values)
                saved = time.monotonic()
    if writes:
        _save(task, average, watch, folder, done, seed, log.values)
        if watch is not None and watch.weights:
            average.network.load_state_dict(watch.weights)
    return average.network


def check_is_new(folder: Path) -> None:
    """Refuse the folder of another run.

    :raises LesionDecompError: there is a checkpoint.
    """
    if (folder / CHECKPOINT_NAME).exists():
        raise OutputError(
            STAGE, f"a checkpoint in '{folder.name}'", "an empty folder", "Resume it or choose another folder."
        )


def _save(
    task: Task,
    average: WeightAverage,
    watch: Watch | None,
    folder: Path,
    step: int,
    seed: int,
    pending: dict[str, list[float]],
) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "step": step,
            "seed": seed,
            "modules": {name: module.state_dict() for name, module in task.modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in task.optimizers.items()},
            "average": average.network.state_dict(),
            "log": pending,  # of the steps since the log's last row, or that of a resumed run would lack them
            "watch": {} if watch is None else watch.state(),
        },
        buffer,
    )
    write_bytes(folder / CHECKPOINT_NAME, buffer.getbuffer(), "Writing the checkpoint")
    LOG.info("Checkpoint written after %d steps", step)


def _restore(
    task: Task, average: WeightAverage, watch: Watch | None, folder: Path, seed: int, steps: int
) -> tuple[int, dict[str, list[float]]]:
    file = folder / CHECKPOINT_NAME
    if not file.exists():
        return 0, {}
    try:
        state = load_torch_file(file)
        for name, module in task.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in task.optimizers.items():
            _check_optimizer(optimizer, state["optimizers"][name])
            optimizer.load_state_dict(state["optimizers"][name])
        average.network.load_state_dict(state["average"])
        if watch is not None and state.get("watch"):
            _restore_watch(watch, state["watch"], average.network)
        step, saved_seed = int(state["step"]), int(state["seed"])
        if not 0 <= step <= steps:
            raise ValueError(f"step {step} of {steps}")
        pending = {str(key): [float(value) for value in values] for key, values in state.get("log", {}).items()}
    except Exception as error:  # torch raises half a dozen kinds here; all mean the same to the user
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        advice = "Train with the configuration it was made with, or choose another folder."
        raise InputError(
            STAGE, f"a checkpoint that does not fit ({reason})", "a checkpoint of this run", advice
        ) from error
    if saved_seed != seed:
        raise InputError(STAGE, f"a checkpoint with seed {saved_seed}", f"seed {seed}")
    return step, pending


def _restore_watch(watch: Watch, state: dict[str, Any], network: nn.Module) -> None:
    watch.restore(state)
    wanted = {key: value.shape for key, value in network.state_dict().items()}
    if watch.weights and {key: value.shape for key, value in watch.weights.items()} != wanted:
        raise ValueError("best weights of another network")


def _check_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    # load_state_dict takes any settings and any state; what doesn't fit would end a later step.
    current = optimizer.state_dict()["param_groups"]
    shapes = {
        number: parameter.shape
        for group, own in zip(current, optimizer.param_groups, strict=True)
        for number, parameter in zip(group["params"], own["params"], strict=True)
    }
    for group, before in zip(saved["param_groups"], current, strict=True):
        if group["params"] != before["params"] or any(
            type(group[key]) is not type(value) for key, value in before.items() if key in group
        ):
            raise ValueError("settings of another optimizer")
    for number, state in saved["state"].items():
        for value in state.values():
            if not isinstance(value, torch.Tensor) or value.shape not in ((), shapes[number]):
                raise ValueError("an optimizer's state of another shape")


def log_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a run's ``log.csv``: a step and metrics in each.

    :raises LesionDecompError: unreadable, or without steps and numbers.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for row in rows:
            for text in filter(None, row.values()):
                float(text)
            if not 0 <= int(row["step"]) < 2**53:
                raise ValueError(f"step {row['step']}")
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        reason = str(error)[:100]
        raise InputError(
            STAGE, f"a {LOG_NAME} that cannot be read ({reason})", "the one this run wrote", "Remove it, then resume."
        ) from error
    return rows


class _Log:
    """``log.csv``: one row of means for every ``log_every`` steps; rows beyond a resumed step are dropped."""

    def __init__(self, path: Path, start: int, pending: dict[str, list[float]]) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        self.values = pending  # since the last row
        if start and path.exists():
            self.rows = [row for row in log_rows(path) if int(row["step"]) <= start]
        self.seconds_before = float(self.rows[-1].get("seconds") or 0) if self.rows else 0.0

    def add(self, values: dict[str, float]) -> None:
        for key, value in values.items():
            self.values.setdefault(key, []).append(float(value))

    def write(self, step: int, seconds: float) -> None:
        row = {"step": str(step), "seconds": f"{self.seconds_before + seconds:.1f}"}
        row |= {key: f"{np.mean(values):.6g}" for key, values in self.values.items()}
        self.rows.append(row)
        self.values = {}
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_bytes(self.path, text.getvalue().encode(), "Writing the training log")


def steps_within(task: Task, hours: float, warm_up: int = 3, timed: int = 12) -> int:
    """How many updates fit into ``hours``, from the time of a few: the same number on all ranks.

    ``task`` is trained by them: throw it away.

    :raises LesionDecompError: no positive number of hours.
    """
    if not 0 < hours < 10_000:
        raise ConfigError(STAGE, f"{hours:g} hours", "a positive number of hours")
    for number in range(warm_up):
        task.step(number, np.random.default_rng(number))
    began = time.monotonic()
    for number in range(timed):
        task.step(number, np.random.default_rng(number))
    seconds = ranks.total(torch.tensor((time.monotonic() - began) / timed)) / ranks.world_size()
    # Every rank has the same sum; a tenth is left for checkpoints, pictures and slower hours.
    return max(1, int(0.9 * 3600 * hours / float(seconds)))


def limit_threads(threads: int | None) -> None:
    """Give torch ``threads`` CPU threads (None: leave as it is); more than the machine has are not taken."""
    if threads:
        torch.set_num_threads(max(1, min(threads, os.cpu_count() or 1)))
