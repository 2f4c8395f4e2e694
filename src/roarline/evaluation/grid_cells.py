"""Grids of images of different classes: which images go together, and which pixels are a cell's.

Shapes: N candidate images, G grids of n × n cells.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def draw_grids(labels_NK: np.ndarray, targets_N: np.ndarray, side: int, count: int, seeds: list[int]) -> np.ndarray:
    """Draw grids in which each cell's class is in no other cell.

    Args:
        labels_NK: bool, all classes that each candidate has.
        targets_N: int64, the class that each candidate stands for.
        side: n.
        count: G.
        seeds: [G], one a grid.

    Returns:
        int64 [≤ G, n · n], candidates of each grid; fewer grids where candidates' classes don't suffice.
    """
    grids = []
    for seed in seeds[:count]:
        chosen: list[int] = []
        for candidate in np.random.default_rng(seed).permutation(len(targets_N)).tolist():
            apart = all(
                not labels_NK[other, targets_N[candidate]] and not labels_NK[candidate, targets_N[other]]
                for other in chosen
            )
            if apart:
                chosen.append(candidate)
            if len(chosen) == side**2:
                grids.append(chosen)
                break
    return np.array(grids, dtype=np.int64).reshape(-1, side**2)


def cell_mask(size: tuple[int, int], side: int, cell: int) -> Tensor:
    """bool [n · H, n · W], the pixels of one cell, counted row by row; ``size`` is (H, W) of a cell in px."""
    height, width = size
    row, column = divmod(cell, side)
    mask = torch.zeros(side * height, side * width, dtype=torch.bool)
    mask[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
    return mask
