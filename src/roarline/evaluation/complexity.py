"""How concentrated a map is: a short answer is easier to read. Nothing here knows whether the answer is right.

Shapes: B rows, N = H · W px.
"""

from __future__ import annotations

import torch
from torch import Tensor


def entropy_complexity(maps_BHW: Tensor) -> Tensor:
    """Entropy of the magnitudes as shares of their sum, in nats.

    Returns:
        float64 [B] in [0, log N]: 0 for a single pixel, log N for a uniform map; a map of zeros is read as uniform.

    Source: Bhatt et al. 2020, arXiv 2005.00631, equation 6.
    """
    shares = _shares(maps_BHW)
    return -torch.xlogy(shares, shares).sum(dim=1)


def gini_sparseness(maps_BHW: Tensor) -> Tensor:
    """Gini index of the magnitudes.

    Returns:
        float64 [B] in [0, 1 - 1 / N]: 0 for a uniform map (and a map of zeros), 1 - 1 / N for a single pixel.

    Source: Chalasani et al. 2020, arXiv 1810.06583; Hurley and Rickard 2009.
    Differs: Quantus adds 1e-7 to every magnitude.
    """
    shares = _shares(maps_BHW).sort(dim=1).values
    count = shares.shape[1]
    weights = 2 * torch.arange(1, count + 1, device=shares.device, dtype=torch.float64) - count - 1
    return (shares * weights).sum(dim=1) / count


def effective_complexity(maps_BHW: Tensor, *, epsilon: float = 1e-5) -> Tensor:
    """How many pixels have a magnitude above ``epsilon`` of the largest one.

    Args:
        maps_BHW: Finite.
        epsilon: Share of the map's largest magnitude.

    Returns:
        float64 [B] in [0, N]; 0 for a map of zeros.

    Source: Nguyen and Martínez 2020, arXiv 2007.07584.
    Differs: there pixels are counted that change the network's output; here, as in Quantus, those that aren't nothing.
    """
    magnitudes = maps_BHW.flatten(1).double().abs()
    return (magnitudes > epsilon * magnitudes.amax(dim=1, keepdim=True)).sum(dim=1).double()


def _shares(maps_BHW: Tensor) -> Tensor:
    """float64 [B, N] that add up to 1 in each row."""
    magnitudes = maps_BHW.flatten(1).double().abs()
    magnitudes = magnitudes / magnitudes.amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    total = magnitudes.sum(dim=1, keepdim=True)
    return torch.where(total > 0, magnitudes / total.where(total > 0, 1.0), 1 / magnitudes.shape[1])
