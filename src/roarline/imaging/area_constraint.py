"""How far a mask is from being 0 or 1 everywhere with a given share of ones: the area constraint of extremal masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Ties = Literal["share", "sort"]


def area_penalty(
    masks_NP: Tensor, areas: Sequence[float], ties: Ties = "share", order_NP: Tensor | None = None
) -> Tensor:
    """Mean squared difference of the sorted mask and a step from 0 to 1 that leaves the asked share of ones.

    Nothing need be sorted: all that counts is which values lie above the one at the step.

    Args:
        masks_NP: In [0, 1], a mask a row; differentiable.
        areas: [N], each in [0, 1]: share of ones; the first floor(P (1 - area)) values shall be 0.
        ties: What values equal to the one at the step are compared with. ``share``: all with the same mean of 0 and 1;
            ``sort``: some with 0, the rest with 1, as torch's sort happens to leave them. Only gradients differ.
        order_NP: What says which values shall be 1, the highest; default: the masks themselves.

    Returns:
        [N].

    Source: Fong et al. 2019, arXiv 1910.08485, equation 4.
    """
    zeros = [int(masks_NP.shape[1] * (1 - area)) for area in areas]
    penalties: Tensor = _AreaPenalty.apply(masks_NP, zeros, ties, masks_NP if order_NP is None else order_NP)  # type: ignore[no-untyped-call]
    return penalties


class _AreaPenalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, masks_NP: Tensor, zeros: Sequence[int], ties: Ties, order_NP: Tensor) -> Tensor:
        reference = _reference(order_NP, zeros, ties)
        difference = masks_NP - reference
        ctx.save_for_backward(difference)
        # A shared reference r stands for zeros and ones in the ratio 1 - r to r: their squares differ by r (1 - r).
        return difference.square().mean(dim=1) + (reference * (1 - reference)).mean(dim=1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (difference,) = ctx.saved_tensors
        return difference * (2 * gradients[0] / difference.shape[1])[:, None], None, None, None


def _reference(masks_NP: Tensor, zeros: Sequence[int], ties: Ties) -> Tensor:
    """What each value is compared with: 0, 1, or at the step in between."""
    pixels = masks_NP.shape[1]
    counts = torch.tensor(list(zeros), device=masks_NP.device)[:, None]
    if ties == "sort":
        steps = (torch.arange(pixels, device=masks_NP.device) >= counts).to(masks_NP)
        return torch.empty_like(masks_NP).scatter_(1, masks_NP.sort(dim=1).indices, steps)
    step = _values_at_rank(masks_NP, [min(count, pixels - 1) for count in zeros])
    above, at_step = masks_NP > step, masks_NP == step
    ones_at_step = pixels - counts - above.sum(dim=1, keepdim=True)
    shares = (ones_at_step / at_step.sum(dim=1, keepdim=True)).to(masks_NP)
    return torch.where(at_step, shares, above.to(masks_NP))


def _values_at_rank(values_NP: Tensor, ranks: Sequence[int]) -> Tensor:
    """[N, 1]: of each row the value that has so many before it once sorted."""
    if values_NP.device.type == "cpu":  # numpy's selection is vectorised: a tenth of the time of torch.kthvalue
        rows = [np.partition(row, rank)[rank] for row, rank in zip(values_NP.numpy(), ranks, strict=True)]
        return torch.from_numpy(np.array(rows))[:, None]
    found = values_NP.new_empty(len(values_NP), 1)
    for rank in set(ranks):
        rows_of_rank = [row for row, other in enumerate(ranks) if other == rank]
        found[rows_of_rank, 0] = values_NP[rows_of_rank].kthvalue(rank + 1, dim=1).values
    return found
