"""Training of the decomposition: E, G1 and G2 against D, by the losses of :mod:`.losses`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch.nn import functional

from ..errors import ConfigError
from ..models.bundle import MAX_PARAMETERS
from ..models.networks import Critic, DecompositionNet
from ..models.precision import channels_last, mixed_precision, on_device
from ..segmentation.smoothing import shrink_inside
from . import losses, ranks
from .config import LesionConfig
from .data.labeled import LabeledSlices
from .data.slices import SliceSet
from .loop import as_numbers, cosine, set_rate
from .painted_lesions import paint_lesions
from .settings import as_dict

Terms = dict[str, torch.Tensor]


class Parts(NamedTuple):
    """What E, G1 and G2 give for a batch, each float32 of the shape of its slices."""

    g1: torch.Tensor  # G1(E(x)), -1 outside the lungs
    g2: torch.Tensor  # G2(E(x)), 0 outside the lungs
    gate: torch.Tensor  # logits of the heat
    heat: torch.Tensor  # in [0, 1]


@dataclass(frozen=True, eq=False)
class Batch:
    """A rank's share of a batch: lesion slices, then normal ones, then normal ones with lesions painted in.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :param lung: the same shape, bool.
    :param target: like ``x``, what G1 should give where that is known (of lesion slices it is not).
    :param extent: painted lesion in [0, 1], ``(n_painted, 1, h, w)``.
    :param taught: heat that other models gave the lesion slices, ``(n_lesion, 1, h, w)`` in [0, 1]; None without any.
    """

    x: torch.Tensor
    lung: torch.Tensor
    target: torch.Tensor
    extent: torch.Tensor
    taught: torch.Tensor | None
    n_lesion: int
    n_normal: int

    @property
    def lesion(self) -> slice:
        return slice(0, self.n_lesion)

    @property
    def normal(self) -> slice:
        return slice(self.n_lesion, self.n_lesion + self.n_normal)

    @property
    def labeled(self) -> slice:
        """Slices as scanned: lesion and normal."""
        return slice(0, self.n_lesion + self.n_normal)

    @property
    def painted(self) -> slice:
        return slice(self.n_lesion + self.n_normal, len(self.x))


class LesionTask:
    """One generator update, and the critic updates that go with it, on image labels only.

    :param data: training slices.
    :param device: where to train.
    :param taught: heat that other models gave the lesion slices of ``data``, ``(n_lesion, h, w)`` uint8, 255 for
        certain: the target of L_t in place of the averaged network's own heat.
    """

    averaged = "network"
    teacher: torch.nn.Module | None = None

    def __init__(
        self, config: LesionConfig, data: SliceSet, device: torch.device, taught: np.ndarray | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        network = DecompositionNet(**as_dict(config.network))
        if (count := sum(parameter.numel() for parameter in network.parameters())) > MAX_PARAMETERS:
            expected = f"at most {MAX_PARAMETERS / 1e6:.0f} million, as a bundle may have"
            raise ConfigError("Training", f"a network of {count / 1e6:.0f} million weights", expected)
        self.network = channels_last(network, device)
        self.modules: dict[str, torch.nn.Module] = {"network": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": _adam(self.network, config.optimizer.learning_rate, config)
        }
        if config.critic.enabled:
            self.critic = channels_last(Critic(config.critic.channels), device)
            self.modules["critic"] = self.critic
            self.optimizers["critic"] = _adam(self.critic, config.critic.learning_rate, config)
            self._critic_loss = ranks.data_parallel(_CriticLoss(self.critic, config.critic.penalty))
        # Before the image-level terms begin, or without any, the gate has no gradient.
        unused = config.schedule.identity_steps > 0 or config.weights.image == config.weights.painted == 0
        self._forward = ranks.data_parallel(self.network, unused)
        self.slices = LabeledSlices(data, config.batch.crop, config.augmentation, device, taught)

    def step(self, number: int, rng: np.random.Generator, batch: Batch | None = None) -> dict[str, float]:
        """One update of E, G1 and G2 by equation 5 with the image-level and painted terms, and of D by equation 3."""
        batch, terms = batch or self.batch(rng), Terms()
        self.network.train()
        parts = self.split(batch)
        self.backward(self.objective(number, batch, parts, rng, terms))
        self.update(number, terms)
        with torch.no_grad():
            inside = batch.lung.float()
            if self.config.network.normal_decoder:
                terms["change_G1"] = losses.difference(batch.x, parts.g1, inside, 1)
            for name, part in (("lesion", batch.lesion), ("normal", batch.normal)):
                terms[f"heat_{name}"] = losses.weighted_mean(parts.heat[part], inside[part])
                terms[f"G2_{name}"] = losses.weighted_mean(parts.g2[part], inside[part])
        return as_numbers(terms)

    def split(self, batch: Batch) -> Parts:
        """The forward pass of E, G1 and G2."""
        with mixed_precision(self.device):
            out = self._forward(batch.x)
        g2, gate = out.lesion.float() * batch.lung, out.gate.float()
        heat = torch.sigmoid(gate) if self.config.network.gated else g2.clamp(0, 1)
        return Parts(torch.where(batch.lung, out.normal.float(), -1.0), g2, gate, heat)

    def objective(
        self, number: int, batch: Batch, parts: Parts, rng: np.random.Generator, terms: Terms
    ) -> torch.Tensor:
        """L_g, equation 5 and the terms beyond it; D is updated on the way."""
        config, gate = self.config, parts.gate
        total = self._decomposition(batch, parts.g1, parts.g2, terms)
        if number >= config.schedule.identity_steps:
            image_level = self._image_level(batch, gate, parts.heat, terms)
            total = total + image_level + self._taught(number, batch, gate, terms)
            if config.batch.painted > 0 and config.weights.painted > 0:
                total = total + self._painted(batch, parts.g1, gate, terms)
            if config.critic.enabled:
                if number % config.critic.every == 0:
                    self.train_critic(batch, parts.g1.detach(), rng, terms)
                total = total + self.adversarial(number, batch, parts.g1, terms)
        terms["L_g"] = total
        return total

    def backward(self, total: torch.Tensor) -> None:
        """Gradient of L_g for E, G1 and G2."""
        self.optimizers["network"].zero_grad(set_to_none=True)
        total.backward()

    def update(self, number: int, terms: Terms) -> None:
        """Adam's step of E, G1 and G2 down the gradient, clipped."""
        config, optimizer = self.config, self.optimizers["network"]
        set_rate(optimizer, learning_rate(number, config))
        terms["gradient_norm"] = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        optimizer.step()

    def batch(self, rng: np.random.Generator) -> Batch:
        """This rank's share of a batch; all ranks draw the same from ``rng``."""
        config = self.config
        counts = config.batch.lesion, config.batch.normal, config.batch.painted
        n_lesion, n_normal, n_painted = (len(range(count)[ranks.share(count)]) for count in counts)
        targets, taught, draws = self.slices.draw(rng, *counts, nearest=config.batch.matched_normals)
        images, extent = targets, targets[:0]
        if n_painted > 0:
            last = slice(n_lesion + n_normal, None)
            painted, extent = paint_lesions(targets[last], draws.part(last))
            images = torch.cat([targets[: last.start], painted])
        if config.batch.shrink > 1:
            images, targets = shrink_inside(images, config.batch.shrink), shrink_inside(targets, config.batch.shrink)
            extent = functional.avg_pool2d(extent, config.batch.shrink) if len(extent) else extent
            taught = None if taught is None else functional.avg_pool2d(taught, config.batch.shrink)
        images = images.contiguous(memory_format=torch.channels_last)
        return Batch(images, images > -1, targets, extent, taught, n_lesion, n_normal)

    def _decomposition(self, batch: Batch, g1: torch.Tensor, g2: torch.Tensor, terms: Terms) -> torch.Tensor:
        """L_r and L_n, equations 1 and 2."""
        config = self.config
        if not config.network.normal_decoder:
            return g2.new_zeros(())
        weight = batch.lung * losses.edge_weight(batch.x) if config.weights.edge_weighting else batch.lung.float()
        normal = batch.normal
        terms["L_r"] = losses.reconstruction_loss(batch.x, g1, g2, weight, config.weights.norm_p)
        terms["L_n"] = losses.difference(batch.target[normal], g1[normal], weight[normal], config.weights.norm_p)
        return config.weights.reconstruction * terms["L_r"] + config.weights.normal * terms["L_n"]

    def _image_level(self, batch: Batch, gate: torch.Tensor, heat: torch.Tensor, terms: Terms) -> torch.Tensor:
        """L_m: the brightest heat of a slice must agree with its label; L_s: normal slices stay cold."""
        config = self.config
        total = gate.new_zeros(())
        if config.weights.image > 0:
            part = batch.labeled
            labels = gate.new_zeros(batch.n_lesion + batch.n_normal)
            labels[batch.lesion] = 1.0
            scores = losses.slice_logits(gate[part], batch.lung[part], config.weights.top_fraction)
            terms["L_m"] = losses.label_loss(scores, labels)
            total = total + config.weights.image * terms["L_m"]
        if config.weights.sparse > 0:
            terms["L_s"] = losses.weighted_mean(heat[batch.normal], batch.lung[batch.normal].float())
            total = total + config.weights.sparse * terms["L_s"]
        return total

    def _taught(self, number: int, batch: Batch, gate: torch.Tensor, terms: Terms) -> torch.Tensor:
        """L_t: heat that other models, or the averaged network itself, give the lesion slices is the target."""
        config, part = self.config, batch.lesion
        if config.self_training.weight == 0 or (
            batch.taught is None and (number < config.self_training.start or self.teacher is None)
        ):
            return gate.new_zeros(())
        target, known = batch.taught, batch.lung[part]
        if target is None:
            heat = self.teachers_heat(batch.x[part])
            target = (heat >= config.self_training.positive).float()
            known = known & ((heat >= config.self_training.positive) | (heat <= config.self_training.negative))
        each = functional.binary_cross_entropy_with_logits(gate[part], target, reduction="none")
        terms["L_t"] = losses.weighted_mean(each, known.float())
        return config.self_training.weight * terms["L_t"]

    @torch.no_grad()
    def teachers_heat(self, x: torch.Tensor) -> torch.Tensor:
        """The averaged network's heat, both ways round averaged."""
        teacher = cast(DecompositionNet, self.teacher)  # the loop hands it over before the first step
        with mixed_precision(self.device):
            heat = torch.sigmoid(teacher.gate(x).float())
            return (heat + torch.sigmoid(teacher.gate(x.flip(3)).float()).flip(3)) / 2

    def _painted(self, batch: Batch, g1: torch.Tensor, gate: torch.Tensor, terms: Terms) -> torch.Tensor:
        """L_p: heat finds the painted lesion, G1 restores the slice that was painted over."""
        part = batch.painted
        inside, logits = batch.lung[part].float(), gate[part]
        each = functional.binary_cross_entropy_with_logits(logits, batch.extent, reduction="none")
        overlap = losses.overlap_loss(torch.sigmoid(logits), batch.extent, inside)
        terms["L_p_heat"] = total = losses.weighted_mean(each, inside) + overlap
        if self.config.network.normal_decoder:
            terms["L_p_normal"] = losses.difference(batch.target[part], g1[part], inside, self.config.weights.norm_p)
            total = total + terms["L_p_normal"]
        return self.config.weights.painted * total

    def adversarial(self, number: int, batch: Batch, g1: torch.Tensor, terms: Terms) -> torch.Tensor:
        """L_a, equation 4, under α1."""
        self.critic.requires_grad_(False)
        with mixed_precision(self.device):
            terms["L_a"] = losses.adversarial_loss(self.critic, g1[batch.labeled])
        self.critic.requires_grad_(True)
        return adversarial_weight(number, self.config) * terms["L_a"]

    def train_critic(self, batch: Batch, g1: torch.Tensor, rng: np.random.Generator, terms: Terms) -> None:
        """Updates of D by equation 3."""
        config, optimizer = self.config, self.optimizers["critic"]
        known = slice(batch.n_lesion, None)
        real = batch.target[known]  # normal slices, those that were painted on as they were before
        # Each real slice with the healthy version of a lesion slice: the same pairs on any number of ranks.
        counts = (batch.n_normal, len(batch.x) - batch.n_lesion - batch.n_normal)
        partners = torch.cat([g1[self._spread(count, batch.n_lesion)] for count in counts])
        for _ in range(config.critic.steps):
            mix = [
                rng.random((count, 1, 1, 1), dtype=np.float32)[ranks.share(count)]
                for count in (config.batch.normal, config.batch.painted)
            ]
            place = on_device(torch.from_numpy(np.concatenate(mix)), self.device)
            with mixed_precision(self.device):
                loss, distance = self._critic_loss(real, g1[batch.labeled], partners, place)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            terms["L_c"], terms["wasserstein"] = loss.detach(), distance

    def _spread(self, count: int, length: int) -> torch.Tensor:
        """``count`` numbers below ``length``, evenly spread."""
        return torch.arange(count, device=self.device) * length // max(count, 1)


def learning_rate(number: int, config: LesionConfig) -> float:
    """Of E, G1 and G2 at update ``number``: held while they learn to copy, then falling; each warms up."""
    copying, first = config.schedule.identity_steps, config.optimizer.learning_rate
    if number < copying:
        return cosine(number, copying, first, first)
    return cosine(number - copying, config.steps - copying, first, config.optimizer.final_learning_rate)


def adversarial_weight(number: int, config: LesionConfig) -> float:
    """α1 at update ``number``: rising while D, new to what G1 gives, has nothing to add yet; another one at the end."""
    schedule = config.schedule
    if number >= config.steps - schedule.late_steps:
        return config.weights.late_adversarial
    risen = min(1.0, (number + 1 - schedule.identity_steps) / max(1, schedule.rise_steps))
    return config.weights.adversarial * risen


class _CriticLoss(torch.nn.Module):
    """Equation 3 as a module, so that ranks can average its gradient."""

    def __init__(self, critic: Critic, penalty: float) -> None:
        super().__init__()
        self.critic, self.penalty = critic, penalty

    def forward(
        self, real: torch.Tensor, fake: torch.Tensor, partners: torch.Tensor, mix: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return losses.critic_loss(self.critic, real, fake, partners, mix, self.penalty)


def _adam(module: torch.nn.Module, rate: float, config: LesionConfig) -> torch.optim.Adam:
    first, second = config.optimizer.betas
    return torch.optim.Adam(module.parameters(), lr=rate, betas=(first, second), fused=True)
