"""Numbers from curves: what remains of a classifier's score as pixels go.

Shapes: S points of a curve; … any leading dimensions, e.g. rows.
"""

from __future__ import annotations

import torch
from torch import Tensor


def area_under_curve(fractions_S: Tensor, scores: Tensor) -> Tensor:
    """Area under each curve by the trapezoid rule, divided by the range of the fractions: the mean height.

    Args:
        fractions_S: [S] rising, S at least 2; need not begin at 0 or end at 1.
        scores: [..., S].

    Returns:
        float64 [...], in the scores' unit; on equal steps it is what RISE's code computes, (Σ - half of both ends) /
        (S - 1).

    Raises:
        ValueError: Lengths differ, there are fewer than two points, or fractions don't rise.

    Source: Petsiuk et al. 2018, arXiv 1806.07421; Samek et al. 2017, arXiv 1509.06321.
    """
    if scores.shape[-1] != len(fractions_S) or len(fractions_S) < 2:
        raise ValueError(f"{len(fractions_S)} fractions and {scores.shape[-1]} scores, expected as many, at least 2")
    fractions = fractions_S.to(device=scores.device, dtype=torch.float64)
    if bool((fractions.diff() <= 0).any()):
        raise ValueError("fractions must rise from one point to the next")
    return torch.trapezoid(scores.to(torch.float64), fractions) / (fractions[-1] - fractions[0])


def symmetric_relevance_gain(fractions_S: Tensor, lerf_scores: Tensor, morf_scores: Tensor) -> Tensor:
    """LeRF area minus MoRF area: higher where the ranking tells relevant from irrelevant pixels at both ends.

    Args:
        fractions_S: [S] rising.
        lerf_scores: [..., S], least relevant pixels removed first.
        morf_scores: [..., S], most relevant pixels removed first.

    Returns:
        float64 [...].

    Source: Blücher et al. 2024, arXiv 2401.06654.
    """
    return area_under_curve(fractions_S, lerf_scores) - area_under_curve(fractions_S, morf_scores)


def relative_deviation(before: Tensor, after: Tensor) -> Tensor:
    """How far the probability moved, up or down, in percent of what it was.

    Args:
        before: [...] in [0, 1], of the whole image.
        after: Broadcastable to the same shape, with pixels removed.

    Returns:
        float64 100 · \\|before - after\\| / before; infinite or NaN where ``before`` is 0.

    Source: saurabheights/ROAR ``pixel_perturbation_analysis.perform_perturbation_analysis``.
    """
    before, after = before.to(torch.float64), after.to(torch.float64)
    return 100 * (before - after).abs() / before


def mean_height(scores: Tensor) -> Tensor:
    """Mean over the points of each curve, whatever their distance.

    Args:
        scores: [..., S].

    Returns:
        float64 [...], in the scores' unit.

    Source: ROAD as pytorch-grad-cam reports it: the mean over removed fractions 0.1 … 0.9.
    """
    return scores.to(torch.float64).mean(dim=-1)


def road_combined(lerf_scores: Tensor, morf_scores: Tensor) -> Tensor:
    """Half of LeRF minus MoRF, mean over the points.

    Args:
        lerf_scores: [..., S], least relevant pixels removed first, at the same removed fractions as MoRF.
        morf_scores: [..., S], most relevant pixels removed first.

    Returns:
        float64 [...].

    Source: pytorch-grad-cam ``ROADCombined``, after Rong et al. 2022, arXiv 2202.00449.
    """
    return (mean_height(lerf_scores) - mean_height(morf_scores)) / 2


def area_over_curve(fractions_S: Tensor, scores: Tensor, before: Tensor) -> Tensor:
    """1 minus the area under the score relative to the untouched image: high where the score falls early.

    Args:
        fractions_S: [S] rising, of the regions that are removed.
        scores: [..., S].
        before: [...], of the untouched image, above 0.

    Returns:
        float64 [...], at most 1 for scores of 0 or more; below 0 where removal raises the score; infinite or NaN where
        ``before`` is 0.

    Source: Rieger & Hansen 2020, arXiv 2003.08747, equation 3.
    Differs: divided by the number of regions, so that images with different numbers of them count alike.
    """
    return 1 - area_under_curve(fractions_S, scores.to(torch.float64) / before.to(torch.float64)[..., None])


def mean_drop(fractions_S: Tensor, scores: Tensor, before: Tensor) -> Tensor:
    """Area over the MoRF perturbation curve (AOPC): mean of the drops after 0, 1, … L removals.

    Args:
        fractions_S: [S] removed at each point. Where 0 is not among them, the untouched image, whose drop is 0, counts
            as one point more, as in the equation.
        scores: [..., S].
        before: [...], of the untouched image.

    Returns:
        float64 [...], in the scores' unit; higher where the score falls more.

    Source: Samek et al. 2017, arXiv 1509.06321, equation 12.
    """
    drops = before.to(torch.float64)[..., None] - scores.to(torch.float64)
    points = scores.shape[-1] + int(bool((fractions_S != 0).all()))
    return drops.sum(dim=-1) / points
