"""Lesions painted into normal slices, so that the healthy version of a diseased slice is known.

They need no label beyond "this slice is normal": a painted slice shows G1 exactly what to restore and the lesion
decoder exactly how far a lesion reaches, which image-level labels alone leave open. The idea follows the label-free
training of Yao et al., "Label-Free Segmentation of COVID-19 Lesions in Lung CT" (IEEE TMI 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from ..models.precision import on_device
from .draws import SliceDraws
from .smooth_fields import interpolated

# Half lengths (pixels, of a slice of 144 a side), least roundness, raggedness of the border and its largest width.
SPREAD = ((3.0, 34.0), 0.35, (0.1, 0.45), 4.0)
COMPACT = ((2.0, 16.0), 0.7, (0.02, 0.2), 1.5)


def paint_lesions(x: torch.Tensor, draws: SliceDraws) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint ground-glass, reticulation, consolidation, nodules and masses into normal slices.

    Each slice gets one to six of them, drawn to the lungs' edge more often than not; see :func:`lesion_look`.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :return: painted slices like ``x``, and how much lesion each pixel holds, ``(n, 1, h, w)`` in [0, 1].
    """
    # Patches are drawn on every other pixel and interpolated: nothing in them is finer, and it is four times faster.
    coarse = ((x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]) / 4).cpu()
    lung = coarse > -1
    rim = _rim(lung.float())
    layers = coarse.new_zeros(len(x), 3, *coarse.shape[2:])  # opacity, gray, extent
    for out, gray, inside, share, rng in zip(
        layers, coarse[:, 0], lung[:, 0], rim[:, 0], draws.generators, strict=True
    ):
        healthy = float(gray[inside].median()) if inside.any() else -1.0
        patches = _Patches(inside, share, rng)
        if len(patches) == 0:
            continue
        # The densest of the patches over a pixel gives its gray.
        opacity, densest = (patches.extent * patches.density).max(dim=0)
        levels = (healthy + patches.texture).clamp_(max=0.99)
        out[0], out[1] = opacity, levels.gather(0, densest[None])[0]
        out[2] = patches.extent.amax(dim=0)
    layers = interpolated(on_device(layers, x.device), (x.shape[2], x.shape[3]), "bilinear", align_corners=False)
    opacity, gray, extent = layers.split(1, dim=1)
    # Vessels stay visible in ground-glass: tissue brighter than the lesion is not darkened.
    painted = torch.addcmul(x, opacity, torch.maximum(gray, x) - x)
    inside = x > -1
    return torch.where(inside, painted.clamp(-1 + 1 / 127.5, 1.0), -1.0), torch.where(inside, extent, 0.0)


class _Patches:
    """The lesions of one slice.

    :param lung: ``(h, w)`` bool.
    :param share: of lung around each pixel, see :func:`_rim`.

    ``extent``: how much of each patch a pixel holds, ``density``: its opacity there, both in [0, 1]; ``texture``: its
    gray above healthy lung; each ``(k, h, w)``.
    """

    def __init__(self, lung: torch.Tensor, share: torch.Tensor, rng: np.random.Generator) -> None:
        height, width = lung.shape
        places = (torch.nonzero(lung), torch.nonzero(lung & (share < 0.7)))
        shapes, ragged, textures, densities = [], [], [], []
        for _ in range(rng.integers(1, 7)):
            # To the lungs' edge more often than not.
            candidates = places[rng.random() < 0.65]
            if len(candidates) == 0:
                continue
            row, column = candidates[rng.integers(len(candidates))].tolist()
            look = lesion_look(rng)
            shape, field = _outline((height, width), look.compact, rng)
            texture, density = look.drawn((height, width), rng)
            shapes.append((row, column, *shape))
            ragged.append(field)
            textures.append(texture)
            densities.append(density)
        self.extent = _extent((height, width), shapes, ragged)
        self.texture, self.density = (torch.stack(maps) if maps else self.extent for maps in (textures, densities))

    def __len__(self) -> int:
        return len(self.density)


@dataclass(frozen=True)
class LesionLook:
    """What a painted lesion looks like.

    :param delta: gray above healthy lung, in units of the [-1, 1] range.
    :param density: opacity in [0, 1].
    :param rough: standard deviation of the grain in it.
    :param compact: a nodule or mass: rounder, sharper and mostly smaller than infiltrates.
    :param bronchi: share of the opacity that air in bronchi takes away along thin lines.
    :param net: gray that a net of thin lines adds.
    """

    delta: float
    density: float
    rough: float
    compact: bool = False
    bronchi: float = 0.0
    net: float = 0.0

    def drawn(self, size: tuple[int, int], rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Gray above healthy lung, and opacity, each ``size``."""
        texture = self.delta + self.rough * _field(size, rng, rng.uniform(1.0, 2.5))
        density = torch.full(size, self.density)
        if self.bronchi or self.net:
            lines = _field(size, rng, rng.uniform(3.0, 6.0)).abs_().mul_(-rng.uniform(4.0, 8.0)).exp_()
            texture = texture + self.net * lines
            density = density * (1 - self.bronchi * lines) if self.bronchi else density + (1 - self.density) * lines
        return texture, density


def lesion_look(rng: np.random.Generator) -> LesionLook:
    """Of ground-glass, reticulation, dense ground-glass, consolidation, a nodule or a mass."""
    draw, opaque = rng.random(), rng.uniform(0.7, 1.0)
    if draw < 0.3:
        return LesionLook(rng.uniform(0.2, 0.5), opaque, rng.uniform(0.02, 0.15))
    if draw < 0.4:
        return LesionLook(rng.uniform(0.2, 0.45), opaque - 0.5, rng.uniform(0.02, 0.15), net=rng.uniform(0.3, 0.7))
    if draw < 0.6:
        return LesionLook(rng.uniform(0.45, 0.9), opaque, rng.uniform(0.05, 0.3))
    if draw < 0.8:
        air = rng.uniform(0.3, 1.0) if rng.random() < 0.5 else 0.0
        return LesionLook(rng.uniform(0.8, 1.3), (1 + opaque) / 2, rng.uniform(0.02, 0.3), bronchi=air)
    return LesionLook(rng.uniform(0.7, 1.6), (1 + opaque) / 2, rng.uniform(0.01, 0.1), compact=True)


def _rim(lung: torch.Tensor) -> torch.Tensor:
    # Share of lung in the neighborhood of nine by nine: about 1/2 at the edge, 1 in the middle.
    rows, columns = (_neighborhood(side) for side in lung.shape[2:])
    return (rows @ lung @ columns) * lung


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _neighborhood(side: int, reach: int = 4) -> torch.Tensor:
    place = torch.arange(side)
    return ((place[:, None] - place).abs() <= reach).float() / (2 * reach + 1)


def _outline(size: tuple[int, int], compact: bool, rng: np.random.Generator) -> tuple[tuple[float, ...], torch.Tensor]:
    """Angle, half axes and width of the border of a patch (pixels), and the field that makes the border irregular."""
    angle = rng.uniform(0, np.pi)
    scale = min(size) / 144
    lengths, roundness, raggedness, blur = COMPACT if compact else SPREAD
    # Sizes spread over orders of magnitude, as lesions do.
    long = np.exp(rng.uniform(*np.log(lengths))) * scale
    short = max(2.0 * scale, long * rng.uniform(roundness, 1.0))
    ragged = _field(size, rng, max(1.5, short * rng.uniform(0.15, 0.6))) * rng.uniform(*raggedness)
    edge = rng.uniform(0.5, blur) * scale / short
    return (angle, long, short, max(edge, 0.02)), ragged


def _extent(size: tuple[int, int], shapes: list[tuple[float, ...]], ragged: list[torch.Tensor]) -> torch.Tensor:
    """Patches as turned ellipses whose borders noise fields displace, ``(k, *size)`` in [0, 1]."""
    if not shapes:
        return torch.zeros(0, *size)
    row, column, angle, long, short, edge = torch.tensor(shapes).T.reshape(6, -1, 1, 1).unbind()
    rows = torch.arange(size[0], dtype=torch.float32).view(1, -1, 1) - row
    columns = torch.arange(size[1], dtype=torch.float32).view(1, 1, -1) - column
    cos, sin = torch.cos(angle), torch.sin(angle)
    u = cos / long * columns + sin / long * rows
    v = cos / short * rows - sin / short * columns
    distance = u.square_().addcmul_(v, v).sqrt_()
    return torch.stack(ragged).sub_(distance).add_(1.0).mul_(2 / edge).sigmoid_()


def _field(size: tuple[int, int], rng: np.random.Generator, length: float) -> torch.Tensor:
    """A smooth random field ``size``, about unit variance, with a correlation length in pixels."""
    coarse = [max(2, int(np.ceil(side / length)) + 1) for side in size]
    noise = torch.from_numpy(rng.standard_normal(coarse, dtype=np.float32))
    return interpolated(noise, size, "bicubic", align_corners=True)
