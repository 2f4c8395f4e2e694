"""Ranks of regions, superpixels or patches, by the mean relevance of their pixels.

Shapes: B rows, H × W px, F regions of the row that has most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.imaging.ranking import Ties, rank_pixels


@dataclass(frozen=True)
class RegionRanks:
    """Which region each pixel goes with.

    Attributes:
        ranks_BHW: int32 [B, H, W], the rank of the pixel's region; 0 is the most relevant region.
        regions_B: int64 [B], how many regions a row has.
    """

    ranks_BHW: Tensor
    regions_B: Tensor


def rank_regions(
    maps_BHW: Tensor, labels_BHW: Tensor, regions: int, seeds: Sequence[int] | None, ties: Ties = "random"
) -> RegionRanks:
    """Rank the regions of each map by their mean value.

    Args:
        maps_BHW: [B, H, W], finite, signed.
        labels_BHW: int64 [B, H, W] in [0, regions), without a gap in any row, or [1, H, W].
        regions: Of the row that has most.
        seeds: See ``rank_pixels``.
        ties: See ``rank_pixels``; ``index``: the region with the larger label counts as the more relevant.

    Source: Rieger & Hansen 2020, arXiv 2003.08747 (superpixels); Samek et al. 2017, arXiv 1509.06321 (patches).
    Differs: Samek et al. take the sum; of patches of one size that is the same order, and those that the border cuts
    don't count as irrelevant for being small.
    """
    index = labels_BHW.flatten(1).expand(len(maps_BHW), -1)
    values = maps_BHW.flatten(1).double()
    empty = values.new_zeros(len(maps_BHW), regions)
    sums, pixels = empty.scatter_add(1, index, values), empty.scatter_add(1, index, torch.ones_like(values))
    # Regions that only other rows have come last, and no pixel has their rank.
    lowest = torch.finfo(torch.float32).min
    means = torch.where(pixels > 0, sums / pixels.clamp(min=1), lowest)
    ranks = rank_pixels(means[:, None, :], seeds, ties)[:, 0]
    return RegionRanks(ranks.gather(1, index).reshape(maps_BHW.shape), (pixels > 0).sum(dim=1))
