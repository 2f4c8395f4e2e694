"""Ranks of images from which pixels are gone already.

Shapes: B rows, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor


def removed_first(ranks_BHW: Tensor, removed_BHW: Tensor) -> Tensor:
    """Put the pixels that are gone before all others; the order within both groups stays.

    Removing the k first of these ranks, k at least as many as are gone, leaves removed what was removed.

    Args:
        ranks_BHW: int [B, H, W], each row a permutation of 0 … H · W - 1, 0 the most relevant pixel.
        removed_BHW: bool [B, H, W], on the same device.

    Returns:
        [B, H, W] of the ranks' dtype, each row a permutation again.

    Source: Madsen et al. 2022, arXiv 2110.08412, section 4: what was masked before stays masked.
    """
    places_BP = ranks_BHW.flatten(1).long()
    gone_BP = torch.zeros_like(places_BP).scatter_(1, places_BP, removed_BHW.flatten(1).long())
    gone_before_BP = gone_BP.cumsum(1)
    kept_before_BP = (1 - gone_BP).cumsum(1)
    new_BP = torch.where(gone_BP.bool(), gone_before_BP, gone_before_BP[:, -1:] + kept_before_BP) - 1
    return new_BP.gather(1, places_BP).to(ranks_BHW.dtype).reshape(ranks_BHW.shape)
