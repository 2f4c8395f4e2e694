"""How rough masks are: total variation, plain, isotropic, mirrored at the border, and bilateral.

Shapes: N masks, h × w mask cells, B and C images and channels, H × W px.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

VerticalWeight = Literal["square_of_mean", "mean_of_exponentials"]


def total_variation(masks_Nhw: Tensor, exponent: float = 3.0) -> Tensor:
    """Mean |vertical difference|^exponent + mean |horizontal difference|^exponent, each over its own differences.

    Args:
        masks_Nhw: 2 × 2 cells or more; differentiable.
        exponent: 1 or more.

    Returns:
        [N].

    Source: jacobgil/pytorch-explain-black-box ``tv_norm``; iGOS++ ``tv_norm``.
    """
    return sum(d.abs().pow(exponent).mean(dim=(1, 2)) for d in _differences(masks_Nhw))  # type: ignore[return-value]


def isotropic_total_variation(masks_Nhw: Tensor, exponent: float = 3.0) -> Tensor:
    """Sum over the cells of (dx² + dy²)^(exponent / 2); a difference across the border is 0.

    Args:
        masks_Nhw: Differentiable.
        exponent: 1 or more.

    Returns:
        [N].

    Source: Fong and Vedaldi 2017, arXiv 1704.03296, equation 4.
    """
    vertical, horizontal = _differences(masks_Nhw)
    squares = functional.pad(vertical, (0, 0, 0, 1)).square() + functional.pad(horizontal, (0, 1)).square()
    level = squares == 0  # where the root has no derivative; that of the smallest slope is as good as any: 0
    roots = torch.where(level, 1.0, squares).pow(exponent / 2)
    return roots.masked_fill(level, 0).sum(dim=(1, 2))


def reflected_total_variation(masks_BHW: Tensor, exponent: float = 1.0) -> Tensor:
    """Mean over images and pixels of |difference to the right|^exponent + |difference downwards|^exponent.

    Beyond the border lies the mirrored mask, so that the last column is compared with the last but one again: each
    difference at these two sides counts twice.

    Args:
        masks_BHW: 2 × 2 px or more; differentiable.
        exponent: 1 or more.

    Returns:
        0-dim: a mask's unit a pixel, to the exponent.

    Source: NN-Explainer ``TotalVariationConv`` (exponent 1) and ``RTSalTotalVariationConv`` (exponent 2).
    """
    padded = functional.pad(masks_BHW, (0, 1, 0, 1), mode="reflect")
    down, right = _differences(padded)
    return (down[..., :-1].abs().pow(exponent) + right[..., :-1, :].abs().pow(exponent)).mean()


def bilateral_total_variation(
    images_NCHW: Tensor,
    masks_Nhw: Tensor,
    exponent: float = 2.0,
    sigma: float = 0.01,
    *,
    vertical: VerticalWeight = "mean_of_exponentials",
) -> Tensor:
    """Half of the coarse mask's total variation and half of the resized mask's, which counts less at image edges.

    Args:
        images_NCHW: Normalised images whose edges excuse the mask's.
        masks_Nhw: Differentiable; resized bilinearly, corners aligned.
        exponent: 1 or more.
        sigma: An image difference d weighs exp(-d² / sigma).
        vertical: The weight of vertical differences. ``mean_of_exponentials``: as of horizontal ones, mean over the
            channels of exp(-d² / sigma); ``square_of_mean``: exp(-(mean d)² / sigma), as the original has it.

    Returns:
        [N].

    Source: Khorram et al. 2021, arXiv 2012.15783, equation 8; iGOS++ ``bilateral_tv_norm``.
    Differs: the original weighs the two axes by different formulas (``vertical="square_of_mean"``).
    """
    down, right = _differences(images_NCHW)
    if vertical == "square_of_mean":
        weight_down = torch.exp(-down.mean(dim=1).square() / sigma)
    else:
        weight_down = torch.exp(-down.square() / sigma).mean(dim=1)
    weight_right = torch.exp(-right.square() / sigma).mean(dim=1)
    mask_down, mask_right = _differences(resize_mask(masks_Nhw, tuple(images_NCHW.shape[2:])))
    fine = (weight_down * mask_down.abs().pow(exponent)).mean(dim=(1, 2)) + (
        weight_right * mask_right.abs().pow(exponent)
    ).mean(dim=(1, 2))
    return 0.5 * (total_variation(masks_Nhw, exponent) + fine)


def resize_mask(masks_Nhw: Tensor, size: tuple[int, ...]) -> Tensor:
    """[N, H, W], bilinear, corner cells' centres on corner pixels' centres."""
    return functional.interpolate(masks_Nhw[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]


def _differences(values: Tensor) -> tuple[Tensor, Tensor]:
    """Downwards and to the right, along the last two dimensions."""
    return values[..., 1:, :] - values[..., :-1, :], values[..., :, 1:] - values[..., :, :-1]
