"""Removal of ranked pixels: the one operation behind ROAR, KAR, MoRF, LeRF, insertion and deletion.

Shapes: B rows, C channels, H × W px.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Order = Literal["most_relevant_first", "least_relevant_first"]
Compat = Literal["corrected", "original"]


def removal_mask(
    ranks_BHW: Tensor,
    counts: int | Tensor,
    order: Order = "most_relevant_first",
    *,
    compat: Compat = "corrected",
) -> Tensor:
    """Which pixels go.

    Args:
        ranks_BHW: int [B, H, W] of ``rank_pixels``; rank 0 is the most relevant pixel.
        counts: How many pixels go, in [0, H · W]: one number, or int [B] for each row its own.
        order: From which end of the ranking.
        compat: ``original`` repeats the slice ``[-0:]`` of the original ROAR code: a count of 0 with most relevant
            first removes every pixel.

    Returns:
        bool [B, H, W], True where removed: exactly ``counts`` pixels a row.
    """
    pixels = ranks_BHW.shape[-2] * ranks_BHW.shape[-1]
    if isinstance(counts, int):  # no tensor, which on a GPU would have to be waited for
        if order == "least_relevant_first":
            return ranks_BHW >= pixels - counts
        return ranks_BHW < (pixels if compat == "original" and counts == 0 else counts)
    counts_B11 = torch.as_tensor(counts, dtype=ranks_BHW.dtype, device=ranks_BHW.device).reshape(-1, 1, 1)
    if order == "least_relevant_first":
        return ranks_BHW >= pixels - counts_B11
    if compat == "original":
        counts_B11 = torch.where(counts_B11 == 0, pixels, counts_B11)
    return ranks_BHW < counts_B11


def remove(
    images_BCHW: Tensor,
    ranks_BHW: Tensor,
    counts: int | Tensor,
    fill: Tensor,
    *,
    order: Order = "most_relevant_first",
    compat: Compat = "corrected",
) -> Tensor:
    """Replace the removed pixels, in all channels, by the fill.

    Args:
        images_BCHW: [B, C, H, W], or [1, C, H, W] where one image is altered in B ways.
        ranks_BHW: int [B, H, W] of ``rank_pixels``, or [1, H, W].
        counts: How many pixels go; one number, or int [B].
        fill: Broadcastable to the images, in their space, e.g. of ``fill_image``.
        order: From which end of the ranking.
        compat: See ``removal_mask``.

    Returns:
        [B, C, H, W], a new tensor of the images' dtype and memory format.

    Source: Hooker et al. 2019, arXiv 1806.10758, section 3; saurabheights/ROAR ``roar_core.remove``.
    Differs: a count of 0 removes nothing (``compat="original"`` removes everything).
    """
    return replace(images_BCHW, removal_mask(ranks_BHW, counts, order, compat=compat), fill)


def replace(images_BCHW: Tensor, mask_BHW: Tensor, fill: Tensor) -> Tensor:
    """Replace pixels, in all channels, by the fill.

    Args:
        images_BCHW: [B, C, H, W], or [1, C, H, W] where one image is altered in B ways.
        mask_BHW: bool [B, H, W], True where replaced, or [1, H, W].
        fill: Broadcastable to the images, in their space.

    Returns:
        [B, C, H, W], a new tensor of the images' dtype and memory format.
    """
    mask, fill = mask_BHW[:, None], fill.to(images_BCHW.dtype)
    if images_BCHW.is_contiguous() or not images_BCHW.is_contiguous(memory_format=torch.channels_last):
        return torch.where(mask, fill, images_BCHW)
    # Over channels-last images one call would step through the mask three numbers at a time; this takes half as long.
    shape = (max(len(mask), len(images_BCHW)), *images_BCHW.shape[1:])
    fill, like = fill.expand(shape), images_BCHW
    removed = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
    for channel in range(shape[1]):
        one = slice(channel, channel + 1)
        torch.where(mask, fill[:, one], images_BCHW[:, one], out=removed[:, one])
    return removed
