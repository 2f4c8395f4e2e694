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
