"""PxAP: precision and recall of all pixels of a data set together, over all thresholds.

Every row gives two histograms; ``statistics_of_means`` makes the average precision of their mean over rows, which is
that of all pixels, since it doesn't depend on the scale of the counts. Shapes: B rows, H × W px, T thresholds.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pixel_histograms(
    maps_BHW: Tensor, masks_BHW: Tensor, valid_BHW: Tensor | None = None, *, step: float = 0.01
) -> Tensor:
    """How many pixels of the object, and how many others, have a value in each bin.

    Args:
        maps_BHW: In [0, 1].
        masks_BHW: bool, pixels of the target's objects.
        valid_BHW: bool, pixels that count.
        step: Width of a bin; a value of exactly 1 has a bin of its own.

    Returns:
        float64 [B, 2, T + 2]: bins by rising value, of the object first.

    Source: Choe et al. 2020, arXiv 2001.07437; wsolevaluation ``evaluation.MaskEvaluator``.
    """
    edges = torch.from_numpy(np.append(np.arange(0, 1, step), [1.0, 2.0, 3.0])).to(maps_BHW.device)
    bins = len(edges) - 1
    valid = torch.ones_like(masks_BHW) if valid_BHW is None else valid_BHW
    place = torch.searchsorted(edges, maps_BHW.double(), right=True) - 1
    place = place.flatten(1) + bins * (~masks_BHW).flatten(1)
    counts = torch.zeros(len(maps_BHW), 2 * bins, dtype=torch.float64, device=maps_BHW.device)
    counts.scatter_add_(1, place, valid.flatten(1).double())
    return counts.reshape(-1, 2, bins)
