"""Perturbation pyramid: an image from its strongest perturbation to itself, and masks that choose a level per pixel.

Shapes: B images, N masks, L levels, C channels, H × W px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from roarline.imaging.smoothing import Padding, gaussian_blur

Perturbation = Literal["blur", "fade"]


def perturbation_levels(
    images_BCHW: Tensor,
    levels: int = 8,
    perturbation: Perturbation = "blur",
    *,
    max_sigma_px: float = 20.0,
    padding: Padding = "zero",
) -> Tensor:
    """The levels of each image, from the strongest perturbation to the image itself.

    Args:
        images_BCHW: Normalised images.
        levels: L, 2 or more.
        perturbation: ``blur``: level l under a Gaussian of σ = max_sigma_px (1 - l / (L - 1)); ``fade``: the image
            times l / (L - 1).
        max_sigma_px: σ of the strongest blur; kernels end at ceil(4 σ).
        padding: What the blur sees outside; 0 is the mean colour in normalised space.

    Returns:
        [B, L, C, H, W].

    Source: Fong et al. 2019, arXiv 1910.08485, section 3.3; TorchRay's Perturbation.
    """
    strengths = [1 - level / (levels - 1) for level in range(levels)]
    if perturbation == "fade":
        return torch.stack([images_BCHW * (1 - strength) for strength in strengths], dim=1)
    sigmas = [max_sigma_px * strength for strength in strengths]
    blurred = [
        gaussian_blur(images_BCHW, sigma, padding, radius_px=math.ceil(4 * sigma)) if sigma else images_BCHW
        for sigma in sigmas
    ]
    return torch.stack(blurred, dim=1)


@dataclass(frozen=True)
class Pyramid:
    """Pyramids of several images, laid out for looking up a level and its step to the next with one read.

    Attributes:
        table: [B · H · W · (L - 1), 2 C]: a level's colour, and what the next level adds to it.
        size: (H, W).
        levels: L.
    """

    table: Tensor
    size: tuple[int, int]
    levels: int

    @classmethod
    def of(cls, levels_BLCHW: Tensor) -> Pyramid:
        """Lay out the levels of ``perturbation_levels``."""
        _, levels, channels, height, width = levels_BLCHW.shape
        places = levels_BLCHW.permute(0, 3, 4, 1, 2)  # B, H, W, L, C
        pairs = torch.cat([places[..., :-1, :], places[..., 1:, :] - places[..., :-1, :]], dim=-1)
        return cls(pairs.reshape(-1, 2 * channels), (height, width), levels)

    def __call__(self, masks_NHW: Tensor, image_of_N: Tensor, *, flip: bool = False) -> Tensor:
        """Perturb images: mask 1 keeps a pixel, 0 gives it the strongest perturbation, linear between levels.

        Args:
            masks_NHW: In [0, 1]; differentiable.
            image_of_N: int64, which image each mask is for.
            flip: Mirror the results left to right.

        Returns:
            [N, C, H, W], channels-last in memory.
        """
        if flip:
            masks_NHW = masks_NHW.flip(-1)
        perturbed: Tensor = _Lookup.apply(masks_NHW, image_of_N, self, flip)  # type: ignore[no-untyped-call]
        return perturbed


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks_NHW: Tensor, image_of_N: Tensor, pyramid: Pyramid, flip: bool) -> Tensor:
        steps, (height, width) = pyramid.levels - 1, pyramid.size
        position = masks_NHW * steps
        level = position.floor().clamp_(0, steps - 1)
        pixels = torch.arange(height * width, device=masks_NHW.device).view(height, width) * steps
        first = (pixels.flip(1) if flip else pixels) + image_of_N[:, None, None] * (height * width * steps)
        pairs = functional.embedding(first.add_(level.long()), pyramid.table)  # N, H, W, 2 C
        colour, difference = pairs.chunk(2, dim=-1)
        ctx.save_for_backward(difference)
        ctx.steps = steps
        return torch.addcmul(colour, difference, (position - level)[..., None]).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (difference,) = ctx.saved_tensors
        products = difference * gradients[0].permute(0, 2, 3, 1)
        return products.sum(dim=-1).mul_(ctx.steps), None, None, None
