"""Gaussian and median blur."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Padding = Literal["reflect", "symmetric", "replicate", "zero"]

_TRUNCATE = 4.0
_MEDIAN_VALUES = 2**21


def gaussian_blur(
    images: Tensor, sigma_px: float, padding: Padding = "reflect", *, radius_px: int | None = None
) -> Tensor:
    """Blur the last two dimensions with a Gaussian, cut off at 4 σ or as told.

    Each axis is one matrix product with the banded matrix of kernel and border together, so that a wide kernel costs no
    more than a narrow one and the border needs no padded copy.

    Args:
        images: [..., H, W], floating point.
        sigma_px: Standard deviation, in px; 0 gives a copy.
        padding: What lies outside: the image mirrored about its border pixel (``reflect``) or about its edge
            (``symmetric``, which alone keeps the mean), the border pixel repeated, or 0.
        radius_px: Where the kernel ends, for parity with other code; default: 4 σ, rounded.

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
    radius = math.floor(_TRUNCATE * sigma_px + 0.5) if radius_px is None else radius_px
    rows, columns = (
        _blur_matrix_on(images.device, images.dtype, length, sigma_px, radius, padding) for length in (height, width)
    )
    return torch.matmul(rows, torch.matmul(images, columns.T))


def median_blur(images: Tensor, side_px: int) -> Tensor:
    """Median of a square window around each pixel of the last two dimensions; the border pixel is repeated.

    Args:
        images: [..., H, W].
        side_px: Of the window, odd.

    Returns:
        [..., H, W].

    Raises:
        ValueError: The side is even or below 1.
    """
    if side_px < 1 or side_px % 2 == 0:
        raise ValueError(f"side_px is {side_px}, expected an odd number of 1 or more")
    height, width = images.shape[-2:]
    planes = images.reshape(-1, 1, height, width)
    padded = functional.pad(planes, (side_px // 2,) * 4, mode="replicate")[:, 0]
    rows_at_once = max(1, _MEDIAN_VALUES // (side_px**2 * width))
    medians = torch.empty_like(planes[:, 0])
    for plane, source in zip(medians, padded, strict=True):  # all windows of a large image would be gigabytes
        windows = source.unfold(0, side_px, 1).unfold(1, side_px, 1)
        for start in range(0, height, rows_at_once):
            rows = windows[start : start + rows_at_once]
            plane[start : start + rows_at_once] = rows.flatten(2).median(dim=2).values
    return medians.reshape(images.shape)


@lru_cache(maxsize=32)
def _blur_matrix_on(
    device: torch.device, dtype: torch.dtype, length: int, sigma_px: float, radius: int, padding: Padding
) -> Tensor:
    """Kept, since a GPU's host would wait for the copy at every batch; made so that gradients may pass by it."""
    with torch.inference_mode(mode=False):
        return _blur_matrix(length, sigma_px, radius, padding).to(device=device, dtype=dtype)


def _blur_matrix(length: int, sigma_px: float, radius: int, padding: Padding) -> Tensor:
    """float64 [length, length]: row i holds the weights with which output i sees each input."""
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
    elif padding == "symmetric":
        source = source.remainder(2 * length)
        source = torch.where(source >= length, 2 * length - 1 - source, source)
    else:
        period = 2 * (length - 1)
        source = source.remainder(period)
        source = torch.where(source >= length, period - source, source)
    return torch.zeros(length, length, dtype=torch.float64).scatter_add_(1, source, weights.contiguous())
