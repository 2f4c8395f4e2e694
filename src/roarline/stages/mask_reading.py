"""How a method's maps are read as masks."""

from __future__ import annotations

import torch
from torch import Tensor


def as_masks(maps_BHW: Tensor, reading: str) -> Tensor:
    """Maps as masks in [0, 1].

    Args:
        maps_BHW: Finite.
        reading: ``min_max``: from lowest to highest value, a constant map to 1: it calls all pixels as relevant as any;
            ``none``: as they are.

    Returns:
        [B, H, W]; NaN all over a map that is to be taken as it is and leaves [0, 1].
    """
    low, high = maps_BHW.amin(dim=(1, 2), keepdim=True), maps_BHW.amax(dim=(1, 2), keepdim=True)
    if reading == "none":
        return torch.where((low >= 0) & (high <= 1), maps_BHW, torch.nan)
    doubled = maps_BHW.double()  # the span of float32 maps may be more than float32 holds
    span = (high.double() - low.double()).where(high > low, 1.0)
    return torch.where(high > low, (doubled - low) / span, 1.0)
