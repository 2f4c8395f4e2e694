"""Pointing games: does the map's highest pixel, or a pixel drawn from the map, lie on the object?

Larger values are more relevant. Shapes: B rows, H × W px, S draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from roarline.evaluation.relevance import positive_shares
from roarline.imaging.distance import within_distance

PUBLISHED_TOLERANCE_PX = 15.0


def pointing_hits(
    maps_BHW: Tensor,
    masks_BHW: Tensor,
    *,
    tolerance_px: float = PUBLISHED_TOLERANCE_PX,
    ties: Literal["shared", "first"] = "shared",
) -> Tensor:
    """Does the highest pixel lie on the object, or less than ``tolerance_px`` away from it?

    Args:
        maps_BHW: Finite.
        masks_BHW: bool, pixels of the target's objects.
        tolerance_px: Compared strictly, in px of the maps; published values are 15 px of the original picture.
        ties: ``shared``: the share of the highest pixels that hit, as a random choice among them hits on average, so
            that a constant map has the area's share and no corner is favoured; ``first``: the topmost, then leftmost of
            them, as published.

    Returns:
        float64 [B] in [0, 1]; NaN where the mask is empty: there is nothing to hit.

    Source: Zhang et al. 2018, arXiv 1608.00507; TorchRay ``benchmark.pointing_game``.
    """
    near = within_distance(masks_BHW, tolerance_px).flatten(1)
    maps = maps_BHW.flatten(1)
    if ties == "first":
        hit = near.gather(1, maps.argmax(dim=1, keepdim=True))[:, 0].double()
    else:
        highest = maps == maps.amax(dim=1, keepdim=True)
        hit = (highest & near).sum(dim=1).double() / highest.sum(dim=1)
    return _with_objects(hit, masks_BHW)


def stochastic_pointing_hits(
    maps_BHW: Tensor,
    masks_BHW: Tensor,
    *,
    seeds: Sequence[int],
    draws: int = 100,
    tolerance_px: float = PUBLISHED_TOLERANCE_PX,
) -> Tensor:
    """The share of pixels that lie on the object or near it, of pixels drawn with the map as their distribution.

    Args:
        maps_BHW: Negative values count as 0; a map without positive values is read as uniform.
        masks_BHW: bool.
        seeds: One a row; draws are made on the CPU, so that all devices agree on them.
        draws: With replacement.
        tolerance_px: As in ``pointing_hits``.

    Returns:
        float64 [B] in [0, 1]; NaN where the mask is empty.

    Source: Pillai and Pirsiavash 2021, Explainable Models with Consistent Interpretations.
    Differs: every row has draws of its own seed; the published code draws from numpy's unseeded generator.
    """
    uniform = torch.stack(
        [torch.rand(draws, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    )
    drawn = drawn_pixels(maps_BHW, uniform.to(maps_BHW.device))
    return drawn_hits(drawn, masks_BHW, tolerance_px=tolerance_px)


def drawn_pixels(maps_BHW: Tensor, uniform_BS: Tensor) -> Tensor:
    """int64 [B, S]: pixel numbers, row by row, that uniform numbers in [0, 1) fall on in each map's distribution."""
    shares = positive_shares(maps_BHW).flatten(1)
    upper = shares.cumsum(dim=1)
    drawn = torch.searchsorted(upper, uniform_BS * upper[:, -1:], right=True)
    return drawn.clamp_max(shares.shape[1] - 1)


def drawn_hits(pixels_BS: Tensor, masks_BHW: Tensor, *, tolerance_px: float = PUBLISHED_TOLERANCE_PX) -> Tensor:
    """The share of some pixels of each row that lie on its object or near it: float64 [B]; NaN without an object."""
    near = within_distance(masks_BHW, tolerance_px).flatten(1)
    return _with_objects(near.gather(1, pixels_BS).double().mean(dim=1), masks_BHW)


def _with_objects(values_B: Tensor, masks_BHW: Tensor) -> Tensor:
    return torch.where(masks_BHW.flatten(1).any(dim=1), values_B, torch.nan)
