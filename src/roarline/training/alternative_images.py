"""What stands in for masked pixels in Real-Time Saliency: the image blurred, or coloured noise.

Shapes: B images, C channels, H × W px; images are normalised.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from roarline.imaging.smoothing import gaussian_blur

Compat = Literal["corrected", "original"]

_BLUR_SIGMA_PX, _BLUR_RADIUS_PX = 10.0, 40
_NOISE = 0.11
_COLOUR = 0.33


def alternative_images(images_BCHW: Tensor, generator: torch.Generator, compat: Compat = "corrected") -> Tensor:
    """Each image's blurred copy or, half of the time, noise around one random colour.

    Args:
        images_BCHW: Normalised; unchanged.
        generator: On the CPU, so that every device draws the same.
        compat: ``corrected``: each image has a draw of its own, the blur mirrors the image at its border, and the
            noise has mean 0 and standard deviation 0.11. ``original``: one draw decides for the whole batch, the blur
            runs into zeros, and the noise has mean 0.11 and standard deviation 1.

    Returns:
        [B, C, H, W], without a gradient.

    Source: NN-Explainer ``generate_alternative_image``; Dabkowski and Gal 2017, arXiv 1705.07857, section 3.
    Differs: see ``compat``; the original hands 0.11 to ``normal_`` as its first argument, which is the mean.
    """
    count, channels = images_BCHW.shape[:2]
    draws = torch.rand(count, generator=generator)
    if compat == "original":
        draws = draws[:1].expand(count)
    blurred = (draws < 0.5).to(images_BCHW.device)[:, None, None, None]
    noise = torch.randn(images_BCHW.shape, generator=generator)
    colours = (2 * torch.rand((count, channels, 1, 1), generator=generator) - 1) * _COLOUR
    coloured = (noise * _NOISE if compat == "corrected" else noise + _NOISE) + colours
    return torch.where(blurred, blurred_images(images_BCHW.detach(), compat), coloured.to(images_BCHW))


def blurred_images(images_BCHW: Tensor, compat: Compat = "corrected") -> Tensor:
    """The image, blurred with σ = 10 px.

    Args:
        images_BCHW: Normalised.
        compat: As ``alternative_images`` takes it.
    """
    padding: Literal["reflect", "zero"] = "reflect" if compat == "corrected" else "zero"
    return gaussian_blur(images_BCHW, _BLUR_SIGMA_PX, padding, radius_px=_BLUR_RADIUS_PX)
