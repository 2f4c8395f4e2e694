"""What stands in place of removed pixels, in the normalised space of network inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from roarline.imaging.smoothing import gaussian_blur

Fill = Literal["mean", "zero", "blur"]

# Standard deviation of the blur as a fraction of the image's shorter side: 22.4 px at 224, 3.2 px at 32.
BLUR_SIGMA_FRACTION = 0.1


def fill_image(
    images_BCHW: Tensor, kind: Fill, mean: Sequence[float], std: Sequence[float], *, fill_mean: Sequence[float]
) -> Tensor:
    """The fill of some images; training, validation and test images get the same one.

    Args:
        images_BCHW: [B, C, H, W], normalised: (pixel - mean) / std with pixels in [0, 1].
        kind: ``mean``: one colour, the training split's mean; ``zero``: black; ``blur``: the image itself under a
            Gaussian of σ = BLUR_SIGMA_FRACTION of its shorter side, mirrored at the border.
        mean: Of the normalisation, 1 or C numbers.
        std: Of the normalisation, 1 or C numbers.
        fill_mean: Mean colour of the training split in [0, 1], 1 or C numbers; read for ``mean`` only. It is not the
            normalisation's mean where that is another data set's.

    Returns:
        [1, C or 1, 1, 1] for one colour, [B, C, H, W] for the blur; of the images' dtype and device.

    Raises:
        ValueError: The kind is unknown, or a list has neither 1 nor C numbers.
    """
    if kind == "blur":
        return gaussian_blur(images_BCHW, BLUR_SIGMA_FRACTION * min(images_BCHW.shape[-2:]))
    if kind == "mean":
        colour = _colour(fill_mean, "fill_mean", images_BCHW)
    elif kind == "zero":
        colour = _colour([0.0], "fill", images_BCHW)
    else:
        raise ValueError(f"fill is {kind!r}, expected mean, zero or blur")
    filled = (colour - _colour(mean, "mean", images_BCHW)) / _colour(std, "std", images_BCHW)
    return filled.to(images_BCHW.dtype)


def _colour(values: Sequence[float], name: str, images_BCHW: Tensor) -> Tensor:
    if len(values) not in (1, images_BCHW.shape[1]):
        raise ValueError(f"{name} has {len(values)} numbers, expected 1 or {images_BCHW.shape[1]}, one a channel")
    return torch.tensor(list(values), dtype=torch.float64).reshape(1, -1, 1, 1).to(images_BCHW.device)
