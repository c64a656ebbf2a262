"""The losses of Yang et al. (ISBI 2021), equations 1 to 5, and the image-level term on the lesion decoder.

All means are taken inside the lungs: nine tenths of a slice hold nothing, and a mean over them teaches G1 to answer
"nothing" everywhere. ``weight`` is ``(n, 1, h, w)``: 0 outside, 1 (or an edge weight) inside.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..models.networks import Critic
from .ranks import total


def weighted_mean(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean of ``value`` under ``weight``, a scalar; 0 when there is no weight."""
    sums = total(torch.stack([(value * weight).sum(), weight.sum()]))
    return sums[0] / sums[1].clamp_min(1.0)


def mean(value: torch.Tensor) -> torch.Tensor:
    """Mean of ``value`` over all ranks' slices, a scalar."""
    sums = total(torch.stack([value.sum(), value.new_full((), float(value.numel()))]))
    return sums[0] / sums[1]


def difference(a: torch.Tensor, b: torch.Tensor, weight: torch.Tensor, p: int) -> torch.Tensor:
    """mean |a - b|^p inside the lungs: the norm of equations 1 and 2, p = 1 or 2."""
    return weighted_mean((a - b).abs().pow(p) if p != 1 else (a - b).abs(), weight)


def reconstruction_loss(
    x: torch.Tensor, normal: torch.Tensor, lesion: torch.Tensor, weight: torch.Tensor, p: int
) -> torch.Tensor:
    """Equation 1: L_r = mean |x - G1(E(x)) - G2(E(x))|^p over all slices."""
    return difference(x, normal + lesion, weight, p)


def edge_weight(x: torch.Tensor) -> torch.Tensor:
    """The released code's pixel weight (1 + Sobel / 255)^2, Sobel of the slice on the 0 to 255 scale."""
    kernel = torch.tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]], device=x.device).view(1, 1, 3, 3)
    gray = functional.pad((x.float() + 1) * 127.5, (1, 1, 1, 1), mode="replicate")
    horizontal = functional.conv2d(gray, kernel)
    vertical = functional.conv2d(gray, kernel.transpose(2, 3))
    return (1 + torch.sqrt(horizontal**2 + vertical**2).clamp(0, 255) / 255) ** 2


def gradient_penalty(critic: Critic, real: torch.Tensor, fake: torch.Tensor, mix: torch.Tensor) -> torch.Tensor:
    """mean (|grad D(z)| - 1)^2 at points z between real and fake slices (Gulrajani et al., 2017, equation 3).

    With g = grad D(z), the derivative of (|g| - 1)^2 by the weights is that of v·g for the constant
    v = 2 (1 - 1/|g|) g, and v·g is how fast D rises along v: one more pass through D in place of a gradient's gradient.

    :param mix: ``(n, 1, 1, 1)`` in [0, 1], where between the two.
    """
    gradient, slopes = critic.gradient(mix * real + (1 - mix) * fake)
    norm = gradient.flatten(1).norm(dim=1)
    along = gradient * (2 - 2 / norm.clamp_min(1e-12)).view(-1, 1, 1, 1)
    rise = mean(critic.rise(along, slopes))
    return mean((norm - 1).pow(2)) + rise - rise.detach()


def critic_loss(
    critic: Critic, real: torch.Tensor, fake: torch.Tensor, partners: torch.Tensor, mix: torch.Tensor, penalty: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 3: L_c = mean D(G1(E(x))) - mean D(x) + penalty * GP; and the Wasserstein estimate.

    :param real: normal slices.
    :param fake: G1(E(x)), detached.
    :param partners: as many of ``fake`` as there are of ``real``.
    :param mix: where between them the gradient is taken.
    """
    scores = critic(torch.cat([real, fake]))
    distance = mean(scores[: len(real)]) - mean(scores[len(real) :])
    return penalty * gradient_penalty(critic, real, partners, mix) - distance, distance.detach()


def adversarial_loss(critic: nn.Module, normal: torch.Tensor) -> torch.Tensor:
    """Equation 4: L_a = -mean D(G1(E(x)))."""
    return -mean(critic(normal))


def slice_logits(gate: torch.Tensor, lung: torch.Tensor, fraction: float) -> torch.Tensor:
    """A slice's lesion logit: the mean of the largest ``fraction`` of its in-lung gate logits.

    :param gate: ``(n, 1, h, w)`` logits.
    :param lung: the same shape, bool.
    :return: ``(n,)``.
    """
    if gate.device.type != "cpu":
        return _slice_logits_at_once(gate.flatten(1), lung.flatten(1), fraction)
    scores = []
    for logits, inside in zip(gate[:, 0], lung[:, 0], strict=True):
        values = logits[inside]
        scores.append(values.topk(max(1, int(len(values) * fraction))).values.mean() if len(values) else logits.min())
    return torch.stack(scores)


def _slice_logits_at_once(logits: torch.Tensor, lung: torch.Tensor, fraction: float) -> torch.Tensor:
    """:func:`slice_logits` of ``(n, pixels)`` for a GPU: the processor need not wait to know how many pixels count."""
    count = lung.sum(dim=1, keepdim=True)
    taken = (count * fraction).floor().clamp_min(1)
    ordered = torch.where(lung, logits, -torch.inf).sort(dim=1, descending=True).values
    counted = (torch.arange(logits.shape[1], device=logits.device) < taken) & (ordered > -torch.inf)
    mean = torch.where(counted, ordered, 0.0).sum(dim=1) / taken[:, 0]
    return torch.where(count[:, 0] > 0, mean, logits.amin(dim=1))


def overlap_loss(heat: torch.Tensor, extent: torch.Tensor, lung: torch.Tensor) -> torch.Tensor:
    """Soft Dice loss of heat against painted lesion extent, pooled over the batch."""
    heat, extent = heat * lung, extent * lung
    sums = total(torch.stack([(heat * extent).sum(), heat.sum() + extent.sum()]))
    return 1 - (2 * sums[0] + 1) / (sums[1] + 1)


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of slices' scores, each label weighing the same however many slices of each there are.

    :param logits, labels: ``(n,)`` of this rank.
    :return: a scalar, over all ranks' slices.
    """
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    sums = total(torch.stack([(each * labels).sum(), labels.sum(), (each * (1 - labels)).sum(), (1 - labels).sum()]))
    return 0.5 * (sums[0] / sums[1].clamp_min(1) + sums[2] / sums[3].clamp_min(1))
