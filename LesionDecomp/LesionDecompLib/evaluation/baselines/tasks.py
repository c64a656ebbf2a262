"""Training of the baselines, on image labels alone, through the same loop as the decomposition."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ...models.classifier import LESION, SliceClassifier
from ...models.networks import Critic, UNet
from ...models.precision import channels_last, mixed_precision
from ...segmentation.smoothing import shrink_inside
from ...training import losses
from ...training.data.labeled import LabeledSlices
from ...training.data.slices import SliceSet
from ...training.loop import cosine, set_rate
from .config import BaselineConfig, BiomarkerConfig, ClassifierConfig, CriticConfig, VaGanConfig


class BaselineTask:
    """Slices, the network and its optimizer; the step is the subclasses'.

    :param data: training slices.
    :param device: where to train.
    """

    averaged = "network"
    teacher: nn.Module | None = None

    def __init__(self, config: BaselineConfig, network: nn.Module, data: SliceSet, device: torch.device) -> None:
        self.config, self.device = config, device
        self.network = channels_last(network, device)
        self.modules: dict[str, nn.Module] = {"network": self.network}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(
                network.parameters(),
                config.learning_rate,
                betas=(config.betas[0], config.betas[1]),
                weight_decay=getattr(config, "weight_decay", 0.0),
            )
        }
        self.slices = LabeledSlices(data, config.crop, config.augmentation, device)

    def batch(self, rng: np.random.Generator) -> None:
        """Nothing ahead of a step: some draw several times in one."""

    def lesion(self, rng: np.random.Generator) -> torch.Tensor:
        """Lesion slices ``(n, 1, h, w)`` in [-1, 1]."""
        return self._shrunk(self.slices.draw_lesion(self.config.batch_lesion, rng))

    def both(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Lesion slices, and normal ones that match them where the configuration asks for it."""
        counts, nearest = (
            (self.config.batch_lesion, self.config.batch_normal),
            getattr(self.config, "matched_normals", 0),
        )
        x = self._shrunk(self.slices.draw(rng, *counts, nearest=nearest)[0])
        return x[: counts[0]], x[counts[0] :]

    def _shrunk(self, x: torch.Tensor) -> torch.Tensor:
        x = shrink_inside(x, self.config.shrink) if self.config.shrink > 1 else x
        return x.contiguous(memory_format=torch.channels_last)

    def update(self, number: int, loss: torch.Tensor) -> torch.Tensor:
        """Step the network down ``loss``; the norm of its gradient."""
        optimizer = self.optimizers["network"]
        set_rate(
            optimizer, cosine(number, self.config.steps, self.config.learning_rate, self.config.final_learning_rate)
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
        optimizer.step()
        return norm

    def infer(self, x: torch.Tensor) -> torch.Tensor:
        """The network's output, float32, in the precision the device trains fastest in."""
        with mixed_precision(self.device):
            return self.network(x).float()


class ClassifierTask(BaselineTask):
    """Cross-entropy of lesion and normal slices."""

    def __init__(self, config: ClassifierConfig, data: SliceSet, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        super().__init__(config, SliceClassifier(config.width), data, device)

    def step(self, number: int, rng: np.random.Generator, batch: None = None) -> dict[str, float]:
        """One update; returns what to log."""
        lesion, normal = self.both(rng)
        labels = torch.tensor([LESION] * len(lesion) + [1 - LESION] * len(normal), device=self.device)
        self.network.train()
        logits = self.infer(torch.cat([lesion, normal]))
        loss = functional.cross_entropy(logits, labels)
        right = (logits.argmax(dim=1) == labels).float().mean()
        norm = self.update(number, loss)
        return {"loss": float(loss.detach()), "accuracy": float(right), "gradient_norm": float(norm)}


class CriticTask(BaselineTask):
    """What the methods with a Wasserstein critic share: the critic of the decomposition, and its update."""

    config: CriticConfig

    def __init__(self, config: CriticConfig, data: SliceSet, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        super().__init__(config, UNet(**unet_arguments(config)), data, device)
        self.critic = channels_last(Critic(config.critic_channels), device)
        self.modules["critic"] = self.critic
        self.optimizers["critic"] = torch.optim.Adam(
            self.critic.parameters(), config.critic_learning_rate, betas=(config.betas[0], config.betas[1])
        )

    def train_critic(self, real: torch.Tensor, fake: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """One update of D by WGAN-GP; the Wasserstein estimate."""
        mix = torch.from_numpy(rng.random((len(real), 1, 1, 1), dtype=np.float32)).to(self.device)
        partners = fake[torch.arange(len(real), device=fake.device) % len(fake)]
        loss, distance = losses.critic_loss(self.critic, real, fake, partners, mix, self.config.penalty)
        self.optimizers["critic"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["critic"].step()
        return distance

    def opinion(self, fake: torch.Tensor) -> torch.Tensor:
        """-mean D(fake), with a gradient for what made ``fake`` alone."""
        self.critic.requires_grad_(False)
        loss = losses.adversarial_loss(self.critic, fake)
        self.critic.requires_grad_(True)
        return loss


class VaGanTask(CriticTask):
    """VA-GAN: x + M(x) of a lesion slice must look normal, M(x) small (Baumgartner et al., 2018, equations 2 to 4)."""

    config: VaGanConfig

    def step(self, number: int, rng: np.random.Generator, batch: None = None) -> dict[str, float]:
        """The critic's updates, then one of M; returns what to log."""
        config = self.config
        often = number < config.often_first or number % config.often_every == 0
        self.network.train()
        for _ in range(config.critic_steps_often if often else config.critic_steps):
            x, normal = self.both(rng)
            with torch.no_grad():
                healed = self.healed(x, self.infer(x))
            distance = self.train_critic(normal, healed, rng)
        x = self.lesion(rng)
        change = self.infer(x) * (x > -1)
        adversarial = self.opinion(self.healed(x, change))
        # The mean over the whole slice, as the weight of 100 was chosen for.
        size = losses.mean(change.abs())
        norm = self.update(number, config.alpha_adversarial * adversarial + config.alpha_map * size)
        return {
            "L_a": float(adversarial.detach()),
            "mean_map": float(size.detach()),
            "wasserstein": float(distance),
            "gradient_norm": float(norm),
        }

    @staticmethod
    def healed(x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """x + M(x) inside the lungs, -1 outside."""
        return torch.where(x > -1, x + change, -1.0)


class BiomarkerTask(CriticTask):
    """BL: G(x) must look normal to a critic and to a classifier, and stay near x (Zhang et al., 2019)."""

    config: BiomarkerConfig

    def __init__(self, config: BiomarkerConfig, data: SliceSet, device: torch.device) -> None:
        super().__init__(config, data, device)
        self.classifier = channels_last(Critic(config.critic_channels), device)
        self.modules["classifier"] = self.classifier
        self.optimizers["classifier"] = torch.optim.Adam(self.classifier.parameters(), config.learning_rate)

    def step(self, number: int, rng: np.random.Generator, batch: None = None) -> dict[str, float]:
        """One update of the critic, of the classifier, of G; returns what to log."""
        config = self.config
        lesion, normal = self.both(rng)
        x = torch.cat([lesion, normal])
        inside = x > -1
        self.network.train()
        healed = torch.where(inside, torch.tanh(self.infer(x)), -1.0)
        distance = self.train_critic(normal, healed.detach(), rng)
        is_normal = (torch.arange(len(x), device=self.device) >= len(lesion)).float()
        right = losses.label_loss(self.classifier(x), is_normal)
        self.optimizers["classifier"].zero_grad(set_to_none=True)
        right.backward()
        self.optimizers["classifier"].step()

        adversarial = self.opinion(healed)
        self.classifier.requires_grad_(False)
        scores = self.classifier(healed[: len(lesion)])
        judged = functional.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))
        self.classifier.requires_grad_(True)
        same = losses.difference(x, healed, inside.float(), 1)
        total = config.alpha_adversarial * adversarial + config.alpha_class * judged + config.alpha_same * same
        norm = self.update(number, total)
        return {
            "L_a": float(adversarial.detach()),
            "L_classifier": float(right.detach()),
            "L_judged": float(judged.detach()),
            "L_same": float(same.detach()),
            "wasserstein": float(distance),
            "gradient_norm": float(norm),
        }


def unet_arguments(config: CriticConfig) -> dict[str, Any]:
    """Arguments of the U-Net a configuration asks for."""
    return {
        "in_channels": 1,
        "out_channels": 1,
        "channels": config.channels,
        "levels": 5,
        "widest": config.widest,
        "norm": config.norm,
    }


TASKS = {"classifier": ClassifierTask, "va-gan": VaGanTask, "biomarker": BiomarkerTask}
