"""Random pixel sets of given sizes, and how their relevance goes along with what their removal costs.

Shapes: B rows, D pixel sets a row, N sets of one pass, H × W px.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from roarline.evaluation.outcomes import OUTPUT_NOT_FINITE, SAME_OUTPUT, SAME_RELEVANCE, Judged, judged

# Sums of the same numbers in another order differ by less; float32 outputs that differ by less say the same.
_SAME_SUM, _SAME_SCORE = 1e-9, 4 * torch.finfo(torch.float32).eps


def draw_pixel_sets(generator: torch.Generator, count: int, sizes: Sequence[int], height: int, width: int) -> Tensor:
    """Random orders of the pixels, and of each its first pixels: one set for each size, smaller ones within larger.

    Args:
        count: Random orders.
        sizes: Pixels of a set, each in [1, H · W].

    Returns:
        bool [count · len(sizes), H, W] on the generator's device, the sets of one order side by side. Pixels are
        compared by random 63-bit numbers, of which two agree with a probability of H² · W² / 2**64.
    """
    keys = torch.empty(count, height * width, dtype=torch.int64, device=generator.device).random_(generator=generator)
    last = torch.stack([keys.kthvalue(size, dim=1).values for size in sizes], dim=1)
    return (keys[:, None] <= last[:, :, None]).reshape(-1, height, width)


def relevance_of(masks_NHW: Tensor, map_HW: Tensor) -> Tensor:
    """Sum of a map over each set, or weighted by each perturbation: float64 [N].

    Args:
        masks_NHW: bool, or weights.
        map_HW: Signed.
    """
    return masks_NHW.flatten(1).double() @ map_HW.flatten().double()


def set_correlation(relevance_BD: Tensor, before_B: Tensor, after_BD: Tensor) -> Judged:
    """Pearson correlation, over the sets of a row, of their relevance with the drop of the score.

    Args:
        relevance_BD: float64 [B, D], sum of the map over each set.
        before_B: Score of the whole image.
        after_BD: Score without the pixels of each set.

    Returns:
        Values in [-1, 1]: 1 where relevance tells what every set costs, up to scale and offset.

    Source: Ancona et al. 2018, arXiv 1711.06104, section 3 (sensitivity-n); Bhatt et al. 2020, arXiv 2005.00631,
        definition 3 (faithfulness correlation), which is the same for one n.
    Differs: the fill stands for the baseline, 0 in the first paper, the mean in the second; with statistics of its own
        data a network's 0 is the mean.
    """
    relevance, before, after = relevance_BD.double(), before_B.double()[:, None], after_BD.double()
    drops = before - after
    x, y = (values - values.mean(dim=1, keepdim=True) for values in (relevance, drops))
    norms = x.norm(dim=1) * y.norm(dim=1)
    values = ((x * y).sum(dim=1) / norms).clamp(-1, 1)
    largest = torch.maximum(before.abs()[:, 0], after.abs().amax(dim=1))
    return judged(
        values,
        (OUTPUT_NOT_FINITE, ~torch.isfinite(drops).all(dim=1)),
        (SAME_RELEVANCE, _spread(relevance) <= _SAME_SUM * relevance.abs().amax(dim=1)),
        (SAME_OUTPUT, _spread(drops) <= _SAME_SCORE * largest),
    )


def _spread(values_BD: Tensor) -> Tensor:
    return values_BD.amax(dim=1) - values_BD.amin(dim=1)
