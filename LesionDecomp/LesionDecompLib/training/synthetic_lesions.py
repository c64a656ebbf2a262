"""Lesions painted into normal slices, so that the healthy version of a diseased slice is known.

They need no label beyond "this slice is normal": a painted slice tells G1 exactly what to restore and the lesion
decoder exactly how far a lesion reaches, which image-level labels alone leave open. The idea follows the label-free
training of Yao et al., "Label-Free Segmentation of COVID-19 Lesions in Lung CT" (IEEE TMI 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from .slice_draws import SliceDraws


def paint_lesions(x: torch.Tensor, draws: SliceDraws) -> tuple[torch.Tensor, torch.Tensor]:
    """Paint ground-glass and consolidation into normal slices.

    Each slice gets one to six irregular patches, drawn to the lungs' edge more often than not; opacity, sharpness and
    texture vary from faint ground-glass to solid consolidation.

    :param x: ``(n, 1, h, w)`` in [-1, 1], exactly -1 outside the lungs.
    :return: painted slices like ``x``, and how much lesion each pixel holds, ``(n, 1, h, w)`` in [0, 1].
    """
    # Patches are drawn on every other pixel and interpolated: nothing in them is finer, and it is four times faster.
    fine = x
    x = functional.avg_pool2d(fine, 2)
    height, width = x.shape[2:]
    lung = (x > -1).float()
    extent = torch.zeros_like(x)
    opacity = torch.zeros_like(x)
    grey = torch.zeros_like(x)
    rim = _rim(lung)
    for number, rng in enumerate(draws.generators):
        inside = x[number, 0][lung[number, 0] > 0]
        healthy = float(inside.median()) if len(inside) else -1.0
        for _ in range(rng.integers(1, 7)):
            center = _center(lung[number, 0], rim[number, 0], rng)
            if center is None:
                continue
            patch = _patch((height, width), center, rng)
            delta, density, rough = _kind(rng)
            texture = rough * _field((height, width), 1, rng, rng.uniform(1.0, 2.5))[0, 0]
            level = (healthy + delta + texture).clamp(max=0.99)
            on_top = patch * density > opacity[number, 0]
            grey[number, 0] = torch.where(on_top, level, grey[number, 0])
            opacity[number, 0] = torch.maximum(opacity[number, 0], patch * density)
            extent[number, 0] = torch.maximum(extent[number, 0], patch)
    layers = functional.interpolate(torch.cat([opacity, grey, extent], 1), fine.shape[2:], mode="bilinear")
    opacity, grey, extent = layers.split(1, dim=1)
    # Vessels stay visible in ground-glass: tissue brighter than the lesion is not darkened.
    painted = fine + opacity * (torch.maximum(grey, fine) - fine)
    inside = fine > -1
    return torch.where(inside, painted.clamp(-1 + 1 / 127.5, 1.0), -1.0), torch.where(inside, extent, 0.0)


def _kind(rng: np.random.Generator) -> tuple[float, float, float]:
    """Grey above healthy lung, opacity and roughness of ground-glass, dense ground-glass or consolidation."""
    draw = rng.random()
    if draw < 0.4:
        return rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.0), rng.uniform(0.02, 0.15)
    if draw < 0.75:
        return rng.uniform(0.45, 0.9), rng.uniform(0.7, 1.0), rng.uniform(0.05, 0.3)
    return rng.uniform(0.8, 1.3), rng.uniform(0.85, 1.0), rng.uniform(0.02, 0.3)


def _rim(lung: torch.Tensor) -> torch.Tensor:
    # Share of lung in the neighbourhood: about 1/2 at the edge, 1 in the middle.
    return functional.avg_pool2d(lung, 9, stride=1, padding=4) * lung


def _center(lung: torch.Tensor, rim: torch.Tensor, rng: np.random.Generator) -> tuple[int, int] | None:
    edge = rng.random() < 0.65
    candidates = torch.nonzero((lung > 0) & ((rim < 0.7) if edge else (rim >= 0)))
    if len(candidates) == 0:
        return None
    row, column = candidates[rng.integers(len(candidates))].tolist()
    return row, column


def _patch(size: tuple[int, int], center: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    """One irregular patch, ``size`` float in [0, 1]: a turned ellipse whose border a noise field displaces."""
    rows = torch.arange(size[0], dtype=torch.float32).view(-1, 1) - center[0]
    columns = torch.arange(size[1], dtype=torch.float32).view(1, -1) - center[1]
    angle = rng.uniform(0, np.pi)
    scale = min(size) / 144
    # Sizes spread over orders of magnitude, as lesions do.
    long = np.exp(rng.uniform(np.log(3.0), np.log(34.0))) * scale
    short = max(2.0 * scale, long * rng.uniform(0.35, 1.0))
    u = (np.cos(angle) * columns + np.sin(angle) * rows) / long
    v = (np.cos(angle) * rows - np.sin(angle) * columns) / short
    ragged = _field(size, 1, rng, max(1.5, short * rng.uniform(0.15, 0.6)))[0, 0] * rng.uniform(0.1, 0.45)
    edge = rng.uniform(0.5, 4.0) * scale / short
    return torch.sigmoid((1.0 - torch.sqrt(u * u + v * v) + ragged) / max(edge, 0.02) * 2)


def _field(size: tuple[int, int], n: int, rng: np.random.Generator, length: float) -> torch.Tensor:
    """Smooth random fields ``(n, 1, *size)``, about unit variance, with a correlation length in pixels."""
    coarse = [max(2, int(np.ceil(side / length)) + 1) for side in size]
    noise = torch.from_numpy(rng.standard_normal((n, 1, *coarse), dtype=np.float32))
    return functional.interpolate(noise, size=size, mode="bicubic", align_corners=True)
