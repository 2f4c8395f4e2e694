"""How far rankings agree: Krippendorff's alpha, Kendall's tau-b and W, Spearman's correlation.

Shapes: U units (methods), N raters (images), B resamples, T rankings, K methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

from roarline.evaluation.presence import rows_by_presence

Level = Literal["ordinal", "interval"]


def krippendorff_alpha(values_NU: np.ndarray, level: Level, weights_BN: np.ndarray | None = None) -> np.ndarray:
    """Krippendorff's alpha: 1 − observed / expected disagreement; 1 perfect, 0 as by chance, below 0 contradiction.

    The ordinal distance between two values counts the values given between them, (Σ n_g − (n_c + n_k) / 2)²: that is
    the squared difference of their places among all values pooled, so that ordinal alpha is interval alpha of those
    places. Every pair of raters counts, so closed sums over units replace the matrix of coincidences.

    Args:
        values_NU: A row a rater, NaN where a rater gave none; a unit with one value alone is left out.
        level: Of measurement.
        weights_BN: How often each rater counts in each of B resamples; None: once. The ordinal scale stays that of all
            raters, and copies of a rater are not paired with one another: they would agree for no reason.

    Returns:
        float64 [B] (or [1]); NaN where alpha is undefined: fewer than two values for every unit, or all values equal.

    Source: Krippendorff 2011, Computing Krippendorff's Alpha-Reliability; Krippendorff 2004, Content Analysis,
    chapter 11; used for saliency metrics by Tomsett et al. 2020, arXiv 1912.01451.
    """
    weights = np.ones((1, len(values_NU))) if weights_BN is None else weights_BN
    present = ~np.isnan(values_NU)
    present &= present.sum(axis=0) > 1
    scale = np.zeros(values_NU.shape)
    if present.any():
        pooled = values_NU[present]
        scale[present] = stats.rankdata(pooled) if level == "ordinal" else pooled
        scale[present] -= scale[present].mean()  # sums of squares of large numbers would lose digits
    number_BU, sum_BU, square_BU = (weights @ part for part in (present.astype(float), scale, scale**2))
    copies_BU = weights**2 @ present.astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        within_BU = (number_BU * square_BU - sum_BU**2) / (number_BU - copies_BU / number_BU)
        pairable = number_BU**2 > copies_BU
        number, copies, total, square, within = (
            np.where(pairable, part, 0.0).sum(axis=1) for part in (number_BU, copies_BU, sum_BU, square_BU, within_BU)
        )
        between = (number * square - total**2) / (number - copies / number)
        alpha = 1 - within / between
    return np.where(between > 1e-12 * square, alpha, np.nan)


def tau_b(values_TK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kendall's tau-b of every two rankings of the same methods.

    Args:
        values_TK: Higher is better in all; NaN where a ranking lacks a method, which then doesn't count in its pairs.

    Returns:
        (tau float64 [T, T], number of methods that both rank int64 [T, T]); tau is NaN where one of two rankings finds
        all shared methods equal, or they share fewer than two.

    Source: Kendall 1945, Biometrika 33.
    Differs: from scipy.stats.kendalltau in that one product does all pairs; the numbers are the same.
    """
    first, second = np.triu_indices(values_TK.shape[1], k=1)
    difference = values_TK[:, first] - values_TK[:, second]
    known = (~np.isnan(difference)).astype(np.float64)
    sign = np.where(known > 0, np.sign(np.nan_to_num(difference)), 0.0)
    untied = np.abs(sign) @ known.T
    with np.errstate(invalid="ignore", divide="ignore"):
        tau = (sign @ sign.T) / np.sqrt(untied * untied.T)
    present = (~np.isnan(values_TK)).astype(np.int64)
    return tau, present @ present.T


def kendall_w(places_TK: np.ndarray) -> float | None:
    """Kendall's coefficient of concordance of T rankings of K methods, with its correction for ties.

    Args:
        places_TK: Mean places for ties, without NaN.

    Returns:
        In [0, 1]: 1, all rankings are the same; 0, the mean places are equal. None for fewer than two rankings or
        methods, or where every ranking finds all equal.

    Source: Kendall and Babington Smith 1939, Annals of Mathematical Statistics 10; Friedman's χ² = T (K − 1) W.
    """
    rankings, methods = places_TK.shape
    if rankings < 2 or methods < 2:
        return None
    spread = ((places_TK.sum(axis=0) - rankings * (methods + 1) / 2) ** 2).sum()
    ties = sum(
        float((count**3 - count).sum()) for count in (np.unique(row, return_counts=True)[1] for row in places_TK)
    )
    largest = rankings**2 * (methods**3 - methods) / 12 - rankings * ties / 12
    return float(spread / largest) if largest > 0 else None


def spearman(values_MT: np.ndarray) -> np.ndarray:
    """Spearman's correlation of every two columns, on the rows that both have.

    Args:
        values_MT: NaN where a row has no value.

    Returns:
        float64 [T, T]; NaN where two columns share fewer than three rows, or one of them is constant there.

    Source: Spearman 1904; scipy.stats.spearmanr.
    """
    columns = values_MT.shape[1]
    found = np.full((columns, columns), np.nan)
    groups = rows_by_presence(~np.isnan(values_MT.T))
    for index, (there, one) in enumerate(groups):
        for also_there, two in groups[index:]:
            rows = there & also_there
            if rows.sum() < 3:
                continue
            left, right = (_standard_ranks(values_MT[np.ix_(rows, group)]) for group in (one, two))
            found[np.ix_(one, two)] = np.clip(left.T @ right, -1, 1)
            found[np.ix_(two, one)] = found[np.ix_(one, two)].T
    return found


def mean_known(matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of equal-shaped arrays, number by number, over those that are no NaN; NaN where none is one."""
    stacked = np.stack(matrices)
    number = (~np.isnan(stacked)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, np.nansum(stacked, axis=0) / np.maximum(number, 1), np.nan)


def _standard_ranks(values_MT: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and length 1; NaN for a constant column."""
    ranks = stats.rankdata(values_MT, axis=0)
    ranks -= ranks.mean(axis=0)
    length = np.sqrt((ranks**2).sum(axis=0))
    return np.where(length > 0, ranks, np.nan) / np.where(length > 0, length, 1.0)
