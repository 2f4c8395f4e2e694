"""Area of extremal masks: how far one is from being 0 or 1 with the asked share of ones, and how to make it exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

Ties = Literal["share", "sort"]

_HALVINGS = 24
_PLATEAU = 0.01
_TINY = 1e-12


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


def with_area(masks_NHW: Tensor, areas: Sequence[float]) -> Tensor:
    """Stretch and compress the values of each mask, so that its area is what was asked.

    What the constraint leaves open is how the area of a mask is read that is not 0 or 1 everywhere. Both usual readings
    are met: the share of the image above 1/2, and the mean. The value at the level that the area's highest pixels lie
    above becomes 1/2, 0 and 1 stay, in between values are changed linearly; then the side of the level on which the
    mask strays further from 0 and 1 is made steeper, until what is missing above is as much as is too much below.

    Args:
        masks_NHW: In [0, 1].
        areas: [N], each in (0, 1).

    Returns:
        [N, H, W] in [0, 1], in the same order: no value that was above another is below it. Where more than 1 % of an
        image has the very value at the level, no level can separate it: those pixels get the one value that makes the
        mean right, e.g. the area itself where a mask is the same everywhere.
    """
    values_NP = masks_NHW.flatten(1)
    pixels = values_NP.shape[1]
    zeros = [int(pixels * (1 - area)) for area in areas]
    ones = pixels - torch.tensor(zeros, device=values_NP.device)[:, None]
    below, above = (
        _values_at_rank(values_NP, [min(max(rank, 0), pixels - 1) for rank in ranks])
        for ranks in ([count - 1 for count in zeros], zeros)
    )
    level = (below + above) / 2
    level_is_a_value = values_NP == level
    tied = level_is_a_value.sum(dim=1, keepdim=True)
    missing = ones - (values_NP > level).sum(dim=1, keepdim=True)
    middle = torch.where(tied > _PLATEAU * pixels, (missing / tied.clamp(min=1)).to(values_NP), 0.5)
    lower = _Side((level - values_NP).clamp(min=0), (values_NP < level).sum(dim=1, keepdim=True), middle)
    upper = _Side((values_NP - level).clamp(min=0), (values_NP > level).sum(dim=1, keepdim=True), 1 - middle)
    too_much, too_little = lower.strays(level), upper.strays(1 - level)
    above_strays = too_little > too_much
    steeper = lower.instead(upper, above_strays)
    width = steeper.width_for(torch.minimum(too_much, too_little), torch.where(above_strays, 1 - level, level))
    result = (
        middle
        - lower.moved(torch.where(above_strays, level, width))
        + upper.moved(torch.where(above_strays, width, 1 - level))
    )
    return result.view_as(masks_NHW)


@dataclass(frozen=True)
class _Side:
    """A mask's pixels to one side of its level.

    Attributes:
        distance_NP: From the level; 0 for pixels of the other side.
        count: [N, 1]: pixels of this side.
        height: [N, 1]: from the level's new value to 0, or 1.
    """

    distance_NP: Tensor
    count: Tensor
    height: Tensor

    def instead(self, other: _Side, where: Tensor) -> _Side:
        """The other side in some rows."""
        return _Side(
            torch.where(where, other.distance_NP, self.distance_NP),
            torch.where(where, other.count, self.count),
            torch.where(where, other.height, self.height),
        )

    def moved(self, width: Tensor) -> Tensor:
        """[N, P]: new distance from the level's new value, if 0, or 1, is reached at this distance from the level."""
        return (self.distance_NP * (1 / width.clamp(min=_TINY))).clamp_(max=1).mul_(self.height)

    def strays(self, width: Tensor) -> Tensor:
        """[N, 1]: how far the pixels then are from 0, or 1, summed; more for larger widths."""
        return self.height * self.count - self.moved(width).sum(dim=1, keepdim=True)

    def width_for(self, target: Tensor, widest: Tensor) -> Tensor:
        """[N, 1]: the width with which they stray by as much."""
        low, high = torch.zeros_like(widest), widest
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            too_wide = self.strays(middle) > target
            low, high = torch.where(too_wide, low, middle), torch.where(too_wide, middle, high)
        return high


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
