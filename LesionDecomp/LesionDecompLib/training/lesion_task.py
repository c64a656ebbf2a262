"""Training of the decomposition: E, G1, G2 against D, by the losses of :mod:`.losses`."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from ..networks import Critic, DecompositionNet
from ..precision import mixed_precision
from . import losses
from .augmentation import augment
from .config import LesionConfig, as_dict
from .loop import cosine, set_rate
from .slices import SliceSet, lung_crops
from .synthetic_lesions import paint_lesions


class LesionTask:
    """One generator update, and the critic updates that go with it, on image labels only.

    :param data: training slices. :param device: where to train.
    """

    averaged = "network"
    teacher: torch.nn.Module | None = None

    def __init__(self, config: LesionConfig, data: SliceSet, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.network = DecompositionNet(**as_dict(config.network)).to(device, memory_format=torch.channels_last)
        self.modules: dict[str, torch.nn.Module] = {"network": self.network}
        self.optimizers = {"network": _adam(self.network, config.learning_rate, config)}
        if config.critic:
            self.critic = Critic(config.critic_channels).to(device, memory_format=torch.channels_last)
            self.modules["critic"] = self.critic
            self.optimizers["critic"] = _adam(self.critic, config.critic_learning_rate, config)
        size = tuple(config.crop) or data.images.shape[1:]
        crops = torch.from_numpy(lung_crops(data.images, size))
        self.lesion_slices = crops[torch.from_numpy(data.lesion)]
        self.normal_slices = crops[torch.from_numpy(~data.lesion)]

    def step(self, number: int, rng: np.random.Generator) -> dict[str, float]:
        """One update of E, G1 and G2 by equation 5 with the image-level and painted terms, and of D by equation 3."""
        config = self.config
        lesion = self._sample(self.lesion_slices, config.batch_lesion, rng)
        normal = self._sample(self.normal_slices, config.batch_normal + config.batch_painted, rng)
        normal, clean = normal.split([config.batch_normal, config.batch_painted])
        painted, extent = paint_lesions(clean, rng) if len(clean) else (clean, clean)
        x = torch.cat([lesion, normal, painted])
        target = torch.cat([lesion, normal, clean])  # what G1 should give where that is known
        lung = x > -1
        weight = lung * losses.edge_weight(x) if config.edge_weighting else lung.float()

        self.network.train()
        with mixed_precision(self.device):
            out = self.network(x)
        g1 = torch.where(lung, out.normal.float(), -1.0)
        g2, gate = out.lesion.float() * lung, out.gate.float()
        heat = torch.sigmoid(gate) if config.network.gated else g2.clamp(0, 1)

        n_lesion, n_known = len(lesion), len(lesion) + len(normal)
        terms = {"L_r": losses.reconstruction_loss(x, g1, g2, weight, config.norm_p)}
        known = slice(n_lesion, n_known)
        terms["L_n"] = losses.difference(target[known], g1[known], weight[known], config.norm_p)
        total = config.alpha_reconstruction * terms["L_r"] + config.alpha_normal * terms["L_n"]
        if number >= config.identity_steps:
            total = total + self._image_level(number, x, gate, heat, lung, n_lesion, n_known, terms)
            if len(clean):
                total = total + self._painted(x, target, extent, g1, gate, lung, n_known, terms)
            if config.critic:
                real = torch.cat([normal, clean]) if len(clean) else normal
                self._train_critic(number, real, g1[:n_known].detach(), rng, terms)
                terms["L_a"] = losses.adversarial_loss(self.critic.requires_grad_(False), g1[:n_known])
                self.critic.requires_grad_(True)
                total = total + config.alpha_adversarial * terms["L_a"]
        terms["L_g"] = total
        optimizer = self.optimizers["network"]
        set_rate(optimizer, cosine(number, config.steps, config.learning_rate, config.final_learning_rate))
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        terms["gradient_norm"] = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        optimizer.step()
        with torch.no_grad():
            inside = lung.float()
            terms["change_G1"] = losses.difference(x, g1, inside, 1)
            terms["heat_lesion"] = losses.weighted_mean(heat[:n_lesion], inside[:n_lesion])
            terms["heat_normal"] = losses.weighted_mean(heat[known], inside[known])
        return {key: float(value.detach()) for key, value in terms.items()}

    def _image_level(self, number: int, x, gate, heat, lung, n_lesion: int, n_known: int, terms) -> torch.Tensor:
        """L_m: the brightest heat of a slice must say what its label says; normal slices stay cold."""
        config = self.config
        total = torch.zeros((), device=self.device)
        known = slice(n_lesion, n_known)
        if config.alpha_image > 0:
            scores = losses.slice_logits(gate[:n_known], lung[:n_known], config.top_fraction)
            labels = torch.zeros_like(scores)
            labels[:n_lesion] = 1.0
            each = functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
            # Both labels weigh the same however many slices of each there are.
            terms["L_m"] = 0.5 * (each[:n_lesion].mean() + each[n_lesion:].mean())
            total = total + config.alpha_image * terms["L_m"]
        if config.alpha_self > 0 and number >= config.self_steps and self.teacher is not None:
            part = slice(0, n_lesion)
            terms["L_t"] = self._taught(x[part], gate[part], lung[part])
            total = total + config.alpha_self * terms["L_t"]
        if config.alpha_sparse > 0:
            terms["L_s"] = losses.weighted_mean(heat[known], lung[known].float())
            total = total + config.alpha_sparse * terms["L_s"]
        return total

    def _taught(self, x: torch.Tensor, gate: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
        """L_t: the averaged network's confident heat, both ways round averaged, is the target of the next one's."""
        with torch.no_grad(), mixed_precision(self.device):
            heat = torch.sigmoid(self.teacher.gate(x).float())
            heat = (heat + torch.sigmoid(self.teacher.gate(x.flip(3)).float()).flip(3)) / 2
        positive, negative = heat >= self.config.self_positive, heat <= self.config.self_negative
        each = functional.binary_cross_entropy_with_logits(gate, positive.float(), reduction="none")
        return losses.weighted_mean(each, (lung & (positive | negative)).float())

    def _painted(self, x, target, extent, g1, gate, lung, first: int, terms) -> torch.Tensor:
        """L_p: heat finds the painted lesion, G1 restores the slice that was painted over."""
        part = slice(first, None)
        inside = lung[part].float()
        logits = gate[part]
        terms["L_p_heat"] = losses.weighted_mean(
            functional.binary_cross_entropy_with_logits(logits, extent, reduction="none"), inside
        ) + losses.overlap_loss(torch.sigmoid(logits), extent, inside)
        terms["L_p_normal"] = losses.difference(target[part], g1[part], inside, self.config.norm_p)
        return self.config.alpha_painted * (terms["L_p_heat"] + terms["L_p_normal"])

    def _train_critic(self, number: int, real, fake, rng: np.random.Generator, terms) -> None:
        config = self.config
        if number % config.critic_every:
            return
        optimizer = self.optimizers["critic"]
        for _ in range(config.critic_steps):
            mix = torch.from_numpy(rng.random((len(fake), 1, 1, 1), dtype=np.float32)).to(self.device)
            loss, distance = losses.critic_loss(self.critic, real, fake, mix, config.penalty)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            terms["L_c"], terms["wasserstein"] = loss.detach(), distance

    def _sample(self, slices: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = slices[torch.from_numpy(rng.integers(len(slices), size=count))]
        x = chosen.unsqueeze(1).to(self.device, torch.float32) / 127.5 - 1.0
        x = augment(x, self.config.augmentation, rng)
        if self.config.shrink > 1:
            lung = functional.avg_pool2d((x > -1).float(), self.config.shrink)
            grey = functional.avg_pool2d(torch.where(x > -1, x + 1, 0.0), self.config.shrink)
            x = torch.where(lung > 0.5, grey / lung.clamp_min(0.5) - 1, -1.0)
        return x.contiguous(memory_format=torch.channels_last)


def _adam(module: torch.nn.Module, rate: float, config: LesionConfig) -> torch.optim.Adam:
    return torch.optim.Adam(module.parameters(), lr=rate, betas=tuple(config.betas))
