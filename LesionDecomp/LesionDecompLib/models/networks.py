"""The networks: encoder E, generator G1, lesion decoder G2, critic D, and the lung U-Net.

The decomposition is that of Yang et al., "Towards Unbiased COVID-19 Lesion Localisation and Segmentation via Weakly
Supervised Learning" (ISBI 2021): E with G1 is a U-Net giving the normal version of a slice, E with G2 a U-Net giving
its lesion part. Slices are ``(n, 1, h, w)`` float in [-1, 1], sides a multiple of ``2 ** (levels - 1)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError
from .classifier import SliceClassifier

NORMS = ("batch", "group", "none")
LEAK = 0.2  # slope of the critic's leaky ReLU below 0


class Decomposition(NamedTuple):
    """What a slice is split into; each ``(n, 1, h, w)``."""

    normal: torch.Tensor  # G1(E(x)), in (-1, 1)
    lesion: torch.Tensor  # G2(E(x)); gated: P * R in (0, 2); otherwise in (-1, 1)
    gate: torch.Tensor  # logits of the lesion heat P; without gate the lesion part itself


def channel_plan(channels: int, levels: int, widest: int = 1024) -> list[int]:
    """Channels of each level: doubled from level to level, at most ``widest``."""
    return [min(channels * 2**level, widest) for level in range(levels)]


class DoubleConvolution(nn.Sequential):
    """Two 3×3 convolutions, each followed by a norm (or nothing) and ReLU."""

    def __init__(self, n_in: int, n_out: int, norm: str) -> None:
        if norm not in NORMS:
            raise ConfigError("Network", f"norm {norm!r}", f"one of {', '.join(NORMS)}")
        layers: list[nn.Module] = []
        for source in (n_in, n_out):
            layers.append(nn.Conv2d(source, n_out, 3, padding=1, bias=norm == "none"))
            if norm == "batch":
                layers.append(nn.BatchNorm2d(n_out))
            elif norm == "group":
                layers.append(nn.GroupNorm(min(8, n_out), n_out))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class Encoder(nn.Module):
    """E: the contracting half of the U-Net; returns the features of every level, finest first."""

    def __init__(self, in_channels: int, plan: Sequence[int], norm: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        self.downs = nn.ModuleList()
        for level, width in enumerate(plan):
            self.blocks.append(DoubleConvolution(in_channels if level == 0 else plan[level - 1], width, norm))
            if level < len(plan) - 1:
                self.downs.append(nn.Conv2d(width, width, 3, stride=2, padding=1))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for level, block in enumerate(self.blocks):
            x = block(x)
            features.append(x)
            if level < len(self.downs):
                x = self.downs[level](x)
        return features


class UpConvolution(nn.ConvTranspose2d):
    """A 2×2 transposed convolution of stride 2, with a cheaper backward pass on CPUs.

    Its patches do not overlap: it is one matrix product, each position's channels with those of its four pixels.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, 2, stride=2)

    def forward(self, x: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        """``(n, n_in, h, w)`` to ``(n, n_out, 2 h, 2 w)``."""
        # Without gradient, and on GPUs, the convolution itself is as fast or faster.
        if x.device.type != "cpu" or not (self.training and torch.is_grad_enabled()) or self.bias is None:
            return super().forward(x, output_size)
        n, _, height, width = x.shape
        pixels = x.permute(0, 2, 3, 1).reshape(-1, self.in_channels)
        weight = self.weight.permute(0, 2, 3, 1).reshape(self.in_channels, -1)  # columns: row, column, channel
        out = torch.addmm(self.bias.repeat(4), pixels, weight).view(n, height, width, 2, 2, self.out_channels)
        out = out.permute(0, 1, 3, 2, 4, 5).reshape(n, 2 * height, 2 * width, self.out_channels)
        return out.permute(0, 3, 1, 2)


class DecoderTrunk(nn.Module):
    """The expanding half without its last layer: 2×2 transposed convolutions, skips joined by concatenation."""

    def __init__(self, plan: Sequence[int], norm: str) -> None:
        super().__init__()
        self.ups = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for coarse, fine in zip(reversed(plan[1:]), reversed(plan[:-1]), strict=True):
            self.ups.append(UpConvolution(coarse, fine))
            self.blocks.append(DoubleConvolution(2 * fine, fine, norm))

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        x = features[-1]
        for up, block, skip in zip(self.ups, self.blocks, reversed(features[:-1]), strict=True):
            x = block(torch.cat([skip, up(x)], dim=1))
        return x


class UNet(nn.Module):
    """A plain 2-D U-Net, used for the lungs.

    :param in_channels, out_channels: image channels in, logits out.
    :param channels: channels of the first level; doubled from level to level up to ``widest``.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        channels: int = 16,
        levels: int = 5,
        widest: int = 1024,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        plan = channel_plan(channels, levels, widest)
        self.encoder = Encoder(in_channels, plan, norm)
        self.trunk = DecoderTrunk(plan, norm)
        self.head = nn.Conv2d(plan[0], out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, in_channels, h, w)`` to logits ``(n, out_channels, h, w)``."""
        return self.head(self.trunk(self.encoder(x)))


class DecompositionNet(nn.Module):
    """E, G1 and G2 of the paper's Figure 1.

    :param channels: channels of the first level (paper: 64), doubled from level to level up to ``widest``.
    :param levels: levels of the U-Net (paper: 5).
    :param norm: ``"batch"`` (on a CPU twice as fast as ``"group"`` to train, and independent of how much of the field
        lies outside the lung), ``"group"``, or ``"none"`` as in the released code.
    :param gated: G2 gives ``P * R``: P in (0, 1) is the lesion heat, R in (0, 2) the gray the lesion adds. Otherwise
        G2 ends in a tanh, as in the paper.
    :param shared: G1 and G2 share all decoder layers but the last, as in the released code; the paper draws two.
    :param normal_decoder: False leaves G1 out: a localizer that gives heat alone (a teacher of other networks).
    :param lesion_decoder: False leaves G2 out (the paper's ablation "without lesion decoder").
    :param stem: each block of ``stem`` × ``stem`` pixels becomes one position with as many channels, and back at the
        end: nothing is lost, and with 2 a step costs a quarter. 1 is the paper's network. Sides of a slice must be
        multiples of ``stem * 2 ** (levels - 1)``.
    """

    def __init__(
        self,
        channels: int = 64,
        levels: int = 5,
        widest: int = 1024,
        norm: str = "batch",
        gated: bool = False,
        shared: bool = False,
        lesion_decoder: bool = True,
        stem: int = 1,
        normal_decoder: bool = True,
    ) -> None:
        super().__init__()
        if not normal_decoder and (shared or not lesion_decoder):
            raise ConfigError("Network", "no normal decoder", "a lesion decoder of its own then")
        plan = channel_plan(channels, levels, widest)
        self.gated, self.shared, self.stem = gated, shared, stem
        self.encoder = Encoder(stem**2, plan, norm)
        if normal_decoder:
            self.normal_trunk = DecoderTrunk(plan, norm)
            self.normal_head = nn.Conv2d(plan[0], stem**2, 1)
        self.has_normal_decoder = normal_decoder
        if lesion_decoder:
            if not shared:
                self.lesion_trunk = DecoderTrunk(plan, norm)
            self.lesion_head = nn.Conv2d(plan[0], (2 if gated else 1) * stem**2, 1)
        self.has_lesion_decoder = lesion_decoder

    def forward(self, x: torch.Tensor) -> Decomposition:
        """Split slices ``(n, 1, h, w)`` in [-1, 1] into their normal version (without G1: themselves) and lesion."""
        features = self._encode(x)
        if not self.has_normal_decoder:
            return Decomposition(x, *self._lesion(features, None))
        normal_features = self.normal_trunk(features)
        normal = torch.tanh(self._head(self.normal_head, normal_features))
        if not self.has_lesion_decoder:
            return Decomposition(normal, torch.zeros_like(normal), torch.full_like(normal, -20.0))
        lesion, gate = self._lesion(features, normal_features)
        return Decomposition(normal, lesion, gate)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        """G1(E(x)) alone, ``(n, 1, h, w)`` in (-1, 1).

        :raises LesionDecompError: the network has no normal decoder.
        """
        if not self.has_normal_decoder:
            raise ConfigError("Network", "a network without normal decoder", "one that gives a normal version")
        return torch.tanh(self._head(self.normal_head, self.normal_trunk(self._encode(x))))

    def gate(self, x: torch.Tensor) -> torch.Tensor:
        """The lesion decoder alone: logits of P (gated) or G2(E(x)), ``(n, 1, h, w)``; G1 is not computed."""
        features = self._encode(x)
        head = self._lesion_head(features, self.normal_trunk(features) if self.shared else None)
        return head.float().chunk(2, dim=1)[0] if self.gated else torch.tanh(head)

    def _encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        return self.encoder(functional.pixel_unshuffle(x, self.stem) if self.stem > 1 else x)

    def _head(self, head: nn.Module, features: torch.Tensor) -> torch.Tensor:
        return functional.pixel_shuffle(head(features), self.stem) if self.stem > 1 else head(features)

    def _lesion_head(self, features: list[torch.Tensor], normal_features: torch.Tensor | None) -> torch.Tensor:
        shared = normal_features if self.shared else None
        return self._head(self.lesion_head, self.lesion_trunk(features) if shared is None else shared)

    def _lesion(
        self, features: list[torch.Tensor], normal_features: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        head = self._lesion_head(features, normal_features)
        if not self.gated:
            lesion = torch.tanh(head)
            return lesion, lesion
        gate, gray = head.float().chunk(2, dim=1)
        return torch.sigmoid(gate) * (1.0 + torch.tanh(gray)), gate


class Critic(nn.Module):
    """D: seven convolutions, three feature maps pooled globally and concatenated into one linear layer.

    Strides, widths (64, 128, 256, 512, then three of 512) and the layers that are pooled (1, 4 and 7) follow the
    released code; its batch norm is left out, since the gradient penalty of WGAN-GP needs each score to depend on its
    own slice alone (Gulrajani et al., 2017, section 4).

    :param channels: channels of the first layer (paper: 64).
    """

    POOLED = (0, 3, 6)

    def __init__(self, channels: int = 64, in_channels: int = 1) -> None:
        super().__init__()
        widths = [channels, 2 * channels, 4 * channels, 8 * channels] + [8 * channels] * 3
        strides = [2, 2, 2, 2, 1, 1, 1]
        sources = [in_channels, *widths[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1)
            for n_in, n_out, stride in zip(sources, widths, strides, strict=True)
        )
        self.score = nn.Linear(sum(widths[layer] for layer in self.POOLED), 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, in_channels, h, w)`` to one score for each slice, ``(n,)``; high means normal."""
        return self._scores(x)

    def gradient(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Gradient of each slice's score with respect to the slice, without a graph.

        :return: ``(n, in_channels, h, w)``, and the slopes of the leaky ReLUs of each layer, for :meth:`rise`.
        """
        slopes: list[torch.Tensor] = []
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self._scores(x, slopes).sum(), x)
        return gradient, slopes

    def rise(self, direction: torch.Tensor, slopes: Sequence[torch.Tensor]) -> torch.Tensor:
        """How fast the scores rise along ``direction``: its product with the gradient, as a function of the weights.

        Between the kinks of its leaky ReLUs the critic is linear: this is its pass through the layers without biases,
        with the ``slopes`` it had where the gradient was taken.

        :param direction: ``(n, in_channels, h, w)``.
        :return: ``(n,)``.
        """
        x, pooled = direction, []
        for layer, slope in enumerate(slopes):
            x = self._convolved(x, layer, biased=False) * slope
            if layer in self.POOLED:
                pooled.append(x.mean(dim=(2, 3), dtype=torch.float32))
        return (torch.cat(pooled, dim=1) * self.score.weight).sum(dim=1)

    def _scores(self, x: torch.Tensor, slopes: list[torch.Tensor] | None = None) -> torch.Tensor:
        pooled = []
        for layer in range(len(self.convolutions)):
            x = functional.leaky_relu(self._convolved(x, layer), LEAK)
            if slopes is not None:
                slopes.append((x.detach() > 0).to(x.dtype).mul_(1 - LEAK).add_(LEAK))
            if layer in self.POOLED:
                # In float32 from here on, whatever the convolutions are computed in: scores differ by little.
                pooled.append(x.mean(dim=(2, 3), dtype=torch.float32))
        return (torch.cat(pooled, dim=1) * self.score.weight).sum(dim=1) + self.score.bias

    def _convolved(self, x: torch.Tensor, layer: int, *, biased: bool = True) -> torch.Tensor:
        convolution = cast(nn.Conv2d, self.convolutions[layer])
        bias = convolution.bias if biased else None
        return functional.conv2d(x, convolution.weight, bias, convolution.stride, convolution.padding)


ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
    "decomposition": DecompositionNet,
    "resnet18": SliceClassifier,
}
