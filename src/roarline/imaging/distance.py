"""Pixels near a mask, by Euclidean distance.

Shapes: B rows, H × W px.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def within_distance(masks_BHW: Tensor, distance_px: float) -> Tensor:
    """Pixels of a mask, and those that are less than a distance away from one.

    Distances are between the pixels' centres and compared strictly. Exact: along rows by running maxima, then over the
    few rows that are near enough.

    Args:
        masks_BHW: bool.
        distance_px: 0 or more; 0 and everything up to 1 give the mask itself.

    Returns:
        bool [B, H, W].
    """
    height, width = masks_BHW.shape[1:]
    columns = torch.arange(width, device=masks_BHW.device, dtype=torch.float32).expand_as(masks_BHW)
    far = float(2 * (height + width)) + distance_px  # from a row without a mask
    before = torch.where(masks_BHW, columns, -far).cummax(dim=2).values
    after = torch.where(masks_BHW, columns, 2 * far).flip(2).cummin(dim=2).values.flip(2)
    along = torch.minimum(columns - before, after - columns).square()
    near = masks_BHW.clone()
    squared = distance_px**2
    for step in range(min(height, math.ceil(distance_px))):
        close = along < squared - step**2
        near[:, step:] |= close[:, : height - step]
        near[:, : height - step] |= close[:, step:]
    return near
