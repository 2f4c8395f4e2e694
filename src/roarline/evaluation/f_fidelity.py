"""F-Fidelity: how a network that knows images with gaps takes gaps in what a map calls relevant, and in the rest.

Shapes: B rows, each an (image, target) pair; C channels, H × W px, P = H · W pixels, K classes; S explanation sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from roarline.imaging.ranking import rank_pixels, removal_count

Score = Literal["decision", "probability"]


@dataclass(frozen=True)
class Gap:
    """What is taken away for one explanation size.

    Attributes:
        size: Pixels of the explanation, the most relevant ones.
        plus: How many of them go for FFid+; ``minus``: how many of the others for FFid−.
    """

    size: int
    plus: int
    minus: int


def gaps(sizes: Sequence[float], pixels: int, *, alpha_plus: float, alpha_minus: float, beta: float) -> list[Gap]:
    """How many pixels go: a share α of the part, and never more than β of the image.

    Args:
        sizes: In (0, 1): shares of the pixels that count as the explanation.
        pixels: H · W.
        alpha_plus, alpha_minus: In (0, 1].
        beta: In (0, 1]: what fine-tuning took away at most.

    Raises:
        ValueError: Less than one pixel would go.

    Source: Zheng et al. 2024, arXiv 2410.02970, section 3: min(α⁺ · s, β · d) elements of the s in the explanation,
        min(α⁻ · (d − s), β · d) of the d − s others.
    Differs: the published code removes each element of a part on its own with probability min(α, β · d / s); here
        exactly the expected number goes, rounded down, so that β is never exceeded.
    """
    most, found = removal_count(beta, pixels), []
    for share in sizes:
        size = removal_count(share, pixels)
        plus = min(removal_count(alpha_plus, size), most)
        minus = min(removal_count(alpha_minus, pixels - size), most)
        if min(plus, minus) < 1:
            raise ValueError(
                f"explanation size {share:g} of {pixels} pixels with beta {beta:g}: less than one pixel would be taken "
                "away; raise beta, alpha or the size"
            )
        found.append(Gap(size, plus, minus))
    return found


def random_part(order_BP: Tensor, inside_BP: Tensor, count: int) -> Tensor:
    """The first ``count`` pixels of a random order that lie inside a part.

    Args:
        order_BP: int64 [B, P], each row a permutation of the pixels.
        inside_BP: bool [B, P], of each pixel.

    Returns:
        bool [B, P], True at exactly ``count`` pixels of each row, where the part has as many.
    """
    listed = inside_BP.gather(1, order_BP)
    chosen = listed & (listed.cumsum(1) <= count)
    return torch.zeros_like(chosen).scatter_(1, order_BP, chosen)


def f_fidelity(
    outputs_of: Callable[[Tensor], Tensor],
    images_BCHW: Tensor,
    ranks_BHW: Tensor,
    fill: Tensor,
    parts: Sequence[Gap],
    seeds: Sequence[Sequence[int]],
) -> Tensor:
    """FFid+ and FFid− of some rows: what random gaps within the explanation, and outside of it, take from a score.

    Args:
        outputs_of: Images [B, C, H, W] to the score of each row's target [B], e.g. ``target_scores``.
        ranks_BHW: int [B, H, W] of ``rank_pixels``, 0 the most relevant pixel.
        fill: What stands in the gaps, broadcastable to the images.
        parts: S, of ``gaps``.
        seeds: [samples][B]: of the random order of the pixels, the same for every size.

    Returns:
        float64 [2, B, S]: score of the whole image minus the mean score over samples, with gaps in the explanation
        (high where it is faithful) and in the rest (low where it is faithful).

    Source: Zheng et al. 2024, arXiv 2410.02970, definition of FFid+ and FFid−: E[f(x) − f(χ(x))] for the fine-tuned f.
    """
    rows, _, height, width = images_BCHW.shape
    ranks_BP = ranks_BHW.flatten(1)
    kept_B = outputs_of(images_BCHW).double()
    sums = torch.zeros((2, rows, len(parts)), dtype=torch.float64, device=images_BCHW.device)
    flat = torch.zeros((rows, height, width), device=images_BCHW.device)
    for sample in seeds:
        order_BP = rank_pixels(flat, sample).flatten(1).long()  # ties alone: an order drawn from the seeds
        for place, part in enumerate(parts):
            inside_BP = ranks_BP < part.size
            for sign, (part_BP, count) in enumerate(((inside_BP, part.plus), (~inside_BP, part.minus))):
                gone = random_part(order_BP, part_BP, count).reshape(rows, 1, height, width)
                sums[sign, :, place] += outputs_of(torch.where(gone, fill, images_BCHW)).double()
    return kept_B[None, :, None] - sums / len(seeds)


def target_scores(logits_BK: Tensor, targets_B: Tensor, score: Score, *, multi_label: bool) -> Tensor:
    """What is compared with and without gaps.

    Args:
        score: ``decision``: 1 where the network decides for the target, else 0 (several labels: a logit above 0);
            ``probability``: of the target (several labels: its sigmoid).

    Returns:
        float32 [B] in [0, 1].

    Source: Zheng et al. 2024: accuracy-based and probability-based fidelity.
    """
    of_target_B = logits_BK.float().gather(1, targets_B[:, None])[:, 0]
    if score == "decision":
        decided = of_target_B > 0 if multi_label else logits_BK.argmax(1) == targets_B
        return decided.float()
    if multi_label:
        return of_target_B.sigmoid()
    return (of_target_B - logits_BK.float().logsumexp(1)).exp()
