"""How much of a map's relevance lies on the object, and how many of its highest pixels do.

Larger values are more relevant. Shapes: B rows, H × W px.
"""

from __future__ import annotations

import torch
from torch import Tensor

from roarline.imaging.ranking import removal_count


def positive_shares(maps_BHW: Tensor) -> Tensor:
    """Each pixel's share of its map's positive relevance.

    Args:
        maps_BHW: Finite; negative values count as 0.

    Returns:
        float64 [B, H, W] that add up to 1 in each row; a map without positive values is read as uniform, which says
        nothing of any pixel, as the map does.
    """
    positive = maps_BHW.double().clamp_min(0)
    positive = positive / positive.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    total = positive.sum(dim=(1, 2), keepdim=True)
    uniform = 1.0 / (maps_BHW.shape[1] * maps_BHW.shape[2])
    return torch.where(total > 0, positive / total.where(total > 0, 1.0), uniform)


def relevance_mass(maps_BHW: Tensor, masks_BHW: Tensor, valid_BHW: Tensor | None = None) -> Tensor:
    """The share of the positive relevance that lies on the object.

    Args:
        maps_BHW: Finite.
        masks_BHW: bool, pixels of the target's objects.
        valid_BHW: bool, pixels that count; the others (a void border) count neither as object nor as background.

    Returns:
        float64 [B] in [0, 1]; for a uniform map the object's share of the area; NaN where the mask is empty.

    Source: Arras et al. 2022, arXiv 2003.07258 (relevance mass accuracy); Pillai and Pirsiavash 2021 call it content
    heatmap.
    """
    valid = torch.ones_like(masks_BHW) if valid_BHW is None else valid_BHW
    shares = positive_shares(maps_BHW.masked_fill(~valid, 0)) * valid
    total = shares.sum(dim=(1, 2))
    inside = (shares * (masks_BHW & valid)).sum(dim=(1, 2))
    return torch.where((masks_BHW & valid).any(dim=2).any(dim=1), inside / total, torch.nan)


def relevance_rank(maps_BHW: Tensor, masks_BHW: Tensor, valid_BHW: Tensor | None = None) -> Tensor:
    """The share of the object's k pixels that are among the k highest of the map.

    Args:
        maps_BHW: Finite, signed.
        masks_BHW, valid_BHW: As in ``relevance_mass``.

    Returns:
        float64 [B] in [0, 1]; where pixels at the k-th value tie, the average over all ways to choose among them; NaN
        where the mask is empty.

    Source: Arras et al. 2022, arXiv 2003.07258.
    """
    valid = torch.ones_like(masks_BHW) if valid_BHW is None else valid_BHW
    counts = (masks_BHW & valid).sum(dim=(1, 2))
    return _highest_inside(maps_BHW, masks_BHW & valid, valid, counts) / counts.where(counts > 0, torch.nan)


def topk_intersection(
    maps_BHW: Tensor, masks_BHW: Tensor, valid_BHW: Tensor | None = None, *, fraction: float = 0.02
) -> Tensor:
    """The share of the map's highest pixels that lie on the object.

    Args:
        maps_BHW: Finite, signed.
        masks_BHW, valid_BHW: As in ``relevance_mass``.
        fraction: The highest pixels as a fraction of all of them, at least one; 0.02 is the published 1,000 px of
            224 × 224.

    Returns:
        float64 [B] in [0, 1], ties as in ``relevance_rank``; an object smaller than that can't reach 1; NaN where the
        mask is empty.

    Source: Theiner et al. 2021, arXiv 2104.14995.
    """
    valid = torch.ones_like(masks_BHW) if valid_BHW is None else valid_BHW
    inside = masks_BHW & valid
    k = max(1, removal_count(fraction, maps_BHW.shape[1] * maps_BHW.shape[2]))
    counts = valid.sum(dim=(1, 2)).clamp_max(k)
    share = _highest_inside(maps_BHW, inside, valid, counts) / counts
    return torch.where(inside.any(dim=2).any(dim=1), share, torch.nan)


def _highest_inside(maps_BHW: Tensor, inside_BHW: Tensor, valid_BHW: Tensor, counts_B: Tensor) -> Tensor:
    """How many of each row's ``counts`` highest valid pixels lie inside, ties shared: float64 [B]."""
    values = maps_BHW.double().masked_fill(~valid_BHW, -torch.inf).flatten(1)
    last = (counts_B - 1).clamp_min(0)[:, None]
    at = values.sort(dim=1, descending=True).values.gather(1, last)
    above, equal, inside = values > at, values == at, inside_BHW.flatten(1)
    open_places = counts_B - above.sum(dim=1)
    return (above & inside).sum(dim=1) + open_places * (equal & inside).sum(dim=1).double() / equal.sum(dim=1)
