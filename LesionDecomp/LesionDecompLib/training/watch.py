"""Looks at the averaged network along the steps of a training, keeps its best weights, and decides when to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Metrics = Callable[[nn.Module], dict[str, float]]
Weights = dict[str, torch.Tensor]


@dataclass(eq=False)
class Watch:
    """Metrics of the averaged network every so many steps; the weights where the chief one was highest are kept.

    :param metrics: of a network, to be logged.
    :param chief: which of them is to be high.
    :param every: steps between two looks.
    :param patience: steps within which the chief metric must have gained ``least_gain``; 0: any number.
    """

    metrics: Metrics
    chief: str
    every: int
    patience: int = 0
    least_gain: float = 0.005
    best: float = -1.0
    best_step: int = 0
    weights: Weights = field(default_factory=dict)
    gained: tuple[int, float] = (0, -1.0)  # step and height of the last gain that counted

    def look(self, step: int, network: nn.Module) -> dict[str, float]:
        """The network's metrics after ``step`` updates, to be logged."""
        metrics = self.metrics(network)
        height = metrics[self.chief]
        if height > self.best:
            self.best, self.best_step = height, step
            self.weights = {key: value.detach().cpu().clone() for key, value in network.state_dict().items()}
        if height >= self.gained[1] + self.least_gain:
            self.gained = (step, height)
        return metrics

    def is_due(self, step: int, steps: int) -> bool:
        """Whether to look after ``step`` of ``steps`` updates."""
        return step % self.every == 0 or step == steps

    def is_over(self, step: int) -> bool:
        """Whether too many steps have gone by without a gain."""
        return self.patience > 0 and step - self.gained[0] >= self.patience

    def outcome(self) -> dict[str, Any]:
        """What a bundle records of it: which of the run's weights it has, and why."""
        return {"chosen_by": self.chief, "best_step": self.best_step, self.chief: round(self.best, 4)}

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "best": self.best,
            "best_step": self.best_step,
            "weights": self.weights,
            "gained_step": self.gained[0],
            "gained": self.gained[1],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint's.

        :raises KeyError, TypeError, ValueError: what no :meth:`state` gave.
        """
        self.best, self.best_step = float(state["best"]), int(state["best_step"])
        self.weights = dict(state["weights"])
        self.gained = int(state["gained_step"]), float(state["gained"])
