"""An image cut into a grid of patches.

Shapes: B rows, H × W px, P = grid² patches, row by row.
"""

from __future__ import annotations

import torch
from torch import Tensor


def patch_index(height: int, width: int, grid: int, device: torch.device | None = None) -> Tensor:
    """Which patch each pixel lies in.

    Args:
        grid: Patches along each side, at most the shorter side; where it doesn't divide a side, patches differ by one
            pixel.

    Returns:
        int64 [H, W] in [0, grid²).

    Raises:
        ValueError: There would be patches without a pixel.
    """
    if not 1 <= grid <= min(height, width):
        raise ValueError(f"grid is {grid}, expected 1 to {min(height, width)}, the shorter side of {height}×{width} px")
    down = torch.arange(height, device=device) * grid // height
    across = torch.arange(width, device=device) * grid // width
    return down[:, None] * grid + across[None, :]


def patch_sums(maps_BHW: Tensor, grid: int) -> Tensor:
    """Sum of a map in each patch.

    Args:
        maps_BHW: [B, H, W].
        grid: See ``patch_index``.

    Returns:
        float64 [B, P].
    """
    index_P = patch_index(maps_BHW.shape[1], maps_BHW.shape[2], grid).flatten()
    order_P = index_P.argsort(stable=True).to(maps_BHW.device)
    by_patch = torch.split(maps_BHW.flatten(1)[:, order_P].double(), torch.bincount(index_P).tolist(), dim=1)
    return torch.stack([values.sum(1) for values in by_patch], dim=1)
