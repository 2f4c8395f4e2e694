"""How much more a method's removal costs than random removal, as a share of all that removal can cost.

Shapes: S removed fractions, rising from 0 to 1; R repeats, M test images, B resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from roarline.evaluation.statistics import (
    add_repeat_draws,
    bootstrap_means,
    mean_of,
    percentile_interval,
    rank_values,
)
from roarline.evaluation.summary import Summary
from roarline.seeds import derive_seed

NO_AREA = "random removal never leaves more than removing everything does: there is no area to compare with"


@dataclass(frozen=True)
class AreaTerms:
    """Areas image by image and repeat by repeat, float64 [R, M] each.

    Attributes:
        gained: Between the curve of random removal and the method's; negative where the method's lies above.
        possible: Between the curve of random removal and what is left where everything is removed.
    """

    gained: Tensor
    possible: Tensor


def area_terms(fractions_S: Sequence[float], scores_SRM: Tensor, random_SRM: Tensor) -> AreaTerms:
    """Both areas by the trapezoid rule.

    Args:
        fractions_S: Rising, from 0 to 1.
        scores_SRM: How right the prediction of each image is; both curves have their ends in common: nothing removed,
            and everything.
        random_SRM: Of random removal.

    Source: Madsen et al. 2022, arXiv 2110.08412, equation of RACU: Σ ½ Δx (Δy_i + Δy_i+1) over the same sum of Δz, with
        Δy = b − p and Δz = b − b_I, b the random baseline's performance, p the method's, b_I that at 100 %.
    """
    fractions = torch.tensor(list(fractions_S), dtype=torch.float64)
    scores, random = scores_SRM.double(), random_SRM.double()
    return AreaTerms(
        torch.trapezoid(random - scores, fractions, dim=0), torch.trapezoid(random - random[-1:], fractions, dim=0)
    )


def relative_area(terms: AreaTerms) -> float | None:
    """Gained area over possible area, both means over images and repeats: 0 for random removal, higher is better.

    1 where the method's removal of however little costs all that there is to lose; None where random removal never
    leaves more than removing everything does.

    Source: Madsen et al. 2022, arXiv 2110.08412, RACU.
    Differs: a ratio of means over repeats, where the paper takes the mean of each repeat's ratio, which a repeat with
        little to lose would govern.
    """
    possible = float(terms.possible.mean())
    return float(terms.gained.mean()) / possible if possible > 0 else None


def summarise_areas(
    metric: str, terms: Mapping[str, AreaTerms], *, baseline: str, confidence: float, resamples: int, seed: int
) -> list[Summary]:
    """A row of the summary for each method.

    The interval comes from resampling images (all methods see the same resamples) and from what other repeats would
    have changed, for which the ratio is linearised: a repeat's part is (gained − ratio · possible) / mean possible. The
    difference to random is the value itself, since random's is 0.

    Args:
        terms: Method to its areas, over the same M images.
        baseline: Name of the random baseline.
        confidence: In (0, 1).
        resamples: B.
        seed: Of all draws.
    """
    values = {method: relative_area(areas) for method, areas in terms.items()}
    ranks = dict(zip(terms, rank_values(list(values.values()), higher_is_better=True), strict=True))
    rows = []
    for method, areas in terms.items():
        value, interval = values[method], None
        images = areas.gained.shape[1]
        if value is not None and images > 1:
            columns_M2 = torch.stack([areas.gained.mean(0), areas.possible.mean(0)], dim=1)
            means_B2 = bootstrap_means(columns_M2, torch.arange(images), resamples, derive_seed(seed, "images"))
            draws_B = torch.where(means_B2[:, 1] > 0, means_B2[:, 0] / means_B2[:, 1], torch.nan)
            parts_R = mean_of((areas.gained - value * areas.possible).T) / float(areas.possible.mean())
            interval = percentile_interval(
                add_repeat_draws(draws_B, parts_R, derive_seed(seed, "repeats", metric, method)), confidence
            )
        rows.append(
            Summary(
                method=method,
                metric=metric,
                setting="",
                value=value,
                interval=interval,
                n=areas.gained.numel(),
                failed=0,
                difference=None if method == baseline else value,
                difference_interval=None if method == baseline else interval,
                rank=ranks[method],
                status="ok" if value is not None else NO_AREA,
            )
        )
    return rows
