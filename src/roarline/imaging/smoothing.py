"""Gaussian blur."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["reflect", "replicate", "zero"]

_TRUNCATE = 4.0


def gaussian_blur(images: Tensor, sigma_px: float, padding: Padding = "reflect") -> Tensor:
    """Blur the last two dimensions with a Gaussian, cut off at 4 σ.

    Each axis is one matrix product with the banded matrix of kernel and border together, so that a wide kernel costs no
    more than a narrow one and the border needs no padded copy.

    Args:
        images: [..., H, W], floating point.
        sigma_px: Standard deviation, in px; 0 gives a copy.
        padding: What lies outside: the image mirrored about its border pixel, the border pixel repeated, or 0.

    Returns:
        [..., H, W].

    Raises:
        ValueError: sigma_px is negative or not finite.
    """
    if not (math.isfinite(sigma_px) and sigma_px >= 0):
        raise ValueError(f"sigma_px is {sigma_px!r}, expected a finite number of 0 or more")
    if sigma_px == 0:
        return images.clone()
    height, width = images.shape[-2:]
    rows = _blur_matrix(height, sigma_px, padding).to(device=images.device, dtype=images.dtype)
    columns = _blur_matrix(width, sigma_px, padding).to(device=images.device, dtype=images.dtype)
    return torch.matmul(rows, torch.matmul(images, columns.T))


def _blur_matrix(length: int, sigma_px: float, padding: Padding) -> Tensor:
    """float64 [length, length]: row i holds the weights with which output i sees each input."""
    radius = math.floor(_TRUNCATE * sigma_px + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    source = torch.arange(length)[:, None] + torch.arange(-radius, radius + 1)[None, :]
    weights = kernel.expand(length, -1)
    if padding == "zero":
        weights = weights * ((source >= 0) & (source < length))
        source = source.clamp(0, length - 1)
    elif padding == "replicate" or length == 1:
        source = source.clamp(0, length - 1)
    else:
        period = 2 * (length - 1)
        source = source.remainder(period)
        source = torch.where(source >= length, period - source, source)
    return torch.zeros(length, length, dtype=torch.float64).scatter_add_(1, source, weights.contiguous())
