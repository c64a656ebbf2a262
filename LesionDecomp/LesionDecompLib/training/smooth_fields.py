"""Smooth fields from a few coarse values: interpolation as products with small matrices, many times as fast."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional


def interpolated(coarse: torch.Tensor, size: tuple[int, int], mode: str, align_corners: bool) -> torch.Tensor:
    """What :func:`torch.nn.functional.interpolate` gives, but for rounding.

    :param coarse: ``(..., h, w)`` float32.
    :param mode: ``"bilinear"`` or ``"bicubic"``.
    :return: ``(..., *size)``.
    """
    rows = _matrix(coarse.shape[-2], size[0], mode, align_corners, str(coarse.device))
    columns = _matrix(coarse.shape[-1], size[1], mode, align_corners, str(coarse.device))
    return rows @ coarse @ columns.T


@lru_cache(maxsize=512)
@torch.inference_mode(False)
def _matrix(n_in: int, n_out: int, mode: str, align_corners: bool, device: str) -> torch.Tensor:
    # Both modes treat rows and columns one after the other, and leave an axis alone that keeps its length.
    unit = torch.eye(n_in)[None, None]
    return functional.interpolate(unit, size=(n_out, n_in), mode=mode, align_corners=align_corners)[0, 0].to(device)
