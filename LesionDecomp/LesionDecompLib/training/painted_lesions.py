"""Lesions painted into normal slices, so that the healthy version of a diseased slice is known.

They need no label beyond "this slice is normal": a painted slice shows G1 exactly what to restore and the lesion
decoder exactly how far a lesion reaches, which image-level labels alone leave open. The idea follows the label-free
training of Yao et al., "Label-Free Segmentation of COVID-19 Lesions in Lung CT" (IEEE TMI 2021).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from .draws import SliceDraws
from .smooth_fields import interpolated


def paint_lesions(x: torch.Tensor, draws: SliceDraws) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint ground-glass and consolidation into normal slices.

    Each slice gets one to six irregular patches, drawn to the lungs' edge more often than not; opacity, sharpness and
    texture vary from faint ground-glass to solid consolidation.

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
    layers = interpolated(layers.to(x.device), (x.shape[2], x.shape[3]), "bilinear", align_corners=False)
    opacity, gray, extent = layers.split(1, dim=1)
    # Vessels stay visible in ground-glass: tissue brighter than the lesion is not darkened.
    painted = torch.addcmul(x, opacity, torch.maximum(gray, x) - x)
    inside = x > -1
    return torch.where(inside, painted.clamp(-1 + 1 / 127.5, 1.0), -1.0), torch.where(inside, extent, 0.0)


class _Patches:
    """The lesions of one slice.

    :param lung: ``(h, w)`` bool.
    :param share: of lung around each pixel, see :func:`_rim`.

    ``extent``: how much of each patch a pixel holds, in [0, 1]; ``texture``: its gray above healthy lung; both
    ``(k, h, w)``. ``density``: opacity of each patch, ``(k, 1, 1)``.
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
            shape, field = _outline((height, width), rng)
            delta, density, rough = lesion_kind(rng)
            texture = _field((height, width), rng, rng.uniform(1.0, 2.5))
            shapes.append((row, column, *shape))
            ragged.append(field)
            textures.append(delta + rough * texture)
            densities.append(density)
        self.density = torch.tensor(densities).view(-1, 1, 1)
        self.extent = _extent((height, width), shapes, ragged)
        self.texture = torch.stack(textures) if textures else self.extent

    def __len__(self) -> int:
        return len(self.density)


def lesion_kind(rng: np.random.Generator) -> tuple[float, float, float]:
    """Gray above healthy lung, opacity and roughness of ground-glass, dense ground-glass or consolidation."""
    draw = rng.random()
    if draw < 0.4:
        return rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.0), rng.uniform(0.02, 0.15)
    if draw < 0.75:
        return rng.uniform(0.45, 0.9), rng.uniform(0.7, 1.0), rng.uniform(0.05, 0.3)
    return rng.uniform(0.8, 1.3), rng.uniform(0.85, 1.0), rng.uniform(0.02, 0.3)


def _rim(lung: torch.Tensor) -> torch.Tensor:
    # Share of lung in the neighborhood of nine by nine: about 1/2 at the edge, 1 in the middle.
    rows, columns = (_neighborhood(side) for side in lung.shape[2:])
    return (rows @ lung @ columns) * lung


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _neighborhood(side: int, reach: int = 4) -> torch.Tensor:
    place = torch.arange(side)
    return ((place[:, None] - place).abs() <= reach).float() / (2 * reach + 1)


def _outline(size: tuple[int, int], rng: np.random.Generator) -> tuple[tuple[float, ...], torch.Tensor]:
    """Angle, half axes and width of the border of a patch (pixels), and the field that makes the border irregular."""
    angle = rng.uniform(0, np.pi)
    scale = min(size) / 144
    # Sizes spread over orders of magnitude, as lesions do.
    long = np.exp(rng.uniform(np.log(3.0), np.log(34.0))) * scale
    short = max(2.0 * scale, long * rng.uniform(0.35, 1.0))
    ragged = _field(size, rng, max(1.5, short * rng.uniform(0.15, 0.6))) * rng.uniform(0.1, 0.45)
    edge = rng.uniform(0.5, 4.0) * scale / short
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
