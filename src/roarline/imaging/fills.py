"""What stands in place of removed pixels, in the normalised space of network inputs.

The fill ``noisy_linear`` depends on which pixels are removed: see ``imputation``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from roarline.data.channel_values import channel_values
from roarline.imaging.hashed_noise import uniform_noise
from roarline.imaging.smoothing import gaussian_blur

Fill = str | Mapping[str, Any]
"""``mean``, ``zero``, ``blur``, ``uniform_noise``, or {kind: constant, value: 1 or C numbers in [0, 1]}."""

# Standard deviation of the blur as a fraction of the image's shorter side: 22.4 px at 224, 3.2 px at 32.
BLUR_SIGMA_FRACTION = 0.1


def fill_image(
    images_BCHW: Tensor,
    kind: Fill,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    fill_mean: Sequence[float],
    seeds_B: Tensor | None = None,
) -> Tensor:
    """The fill of some images; training, validation and test images get the same one.

    Args:
        images_BCHW: [B, C, H, W], normalised: (pixel - mean) / std with pixels in [0, 1].
        kind: ``mean``: one colour, the training split's mean; ``zero``: black; a constant: its colour; ``blur``: the
            image itself under a Gaussian of σ = BLUR_SIGMA_FRACTION of its shorter side, mirrored at the border;
            ``uniform_noise``: each pixel and channel evenly distributed in [0, 1], from the row's seed.
        mean: Of the normalisation, 1 or C numbers.
        std: Of the normalisation, 1 or C numbers.
        fill_mean: Mean colour of the training split in [0, 1], 1 or C numbers; read for ``mean`` only. It is not the
            normalisation's mean where that is another data set's.
        seeds_B: int64 [B] in [0, 2**63), one a row, on the images' device; read for ``uniform_noise`` only.

    Returns:
        [1, C or 1, 1, 1] for one colour, [B, C, H, W] for the blur and the noise; of the images' dtype and device.

    Raises:
        ValueError: The kind is unknown or needs seeds, or a list has neither 1 nor C numbers.
    """
    if kind == "blur":
        return gaussian_blur(images_BCHW, BLUR_SIGMA_FRACTION * min(images_BCHW.shape[-2:]))
    if kind == "mean":
        pixels = colour(fill_mean, "fill_mean", images_BCHW)
    elif kind == "zero":
        pixels = colour([0.0], "fill", images_BCHW)
    elif kind == "uniform_noise":
        if seeds_B is None or len(seeds_B) != len(images_BCHW):
            raise ValueError(f"seeds_B: uniform_noise needs one seed for each of {len(images_BCHW)} images")
        pixels = uniform_noise(seeds_B, images_BCHW.shape[1:]).double()
    elif isinstance(kind, Mapping) and kind.get("kind") == "constant":
        pixels = colour(kind["value"], "fill", images_BCHW)
    else:
        raise ValueError(f"fill is {kind!r}, expected mean, zero, blur, uniform_noise or a constant")
    filled = (pixels - colour(mean, "mean", images_BCHW)) / colour(std, "std", images_BCHW)
    return filled.to(images_BCHW.dtype)


def colour(values: Sequence[float], name: str, images_BCHW: Tensor) -> Tensor:
    """float64 [1, 1 or C, 1, 1] of a list with 1 or C numbers, on the images' device."""
    if len(values) not in (1, images_BCHW.shape[1]):
        raise ValueError(f"{name} has {len(values)} numbers, expected 1 or {images_BCHW.shape[1]}, one a channel")
    return channel_values(values, torch.float64, images_BCHW.device)
