"""Paired tests between all pairs of methods on one metric, and Holm's correction for testing so many.

Shapes: K methods, P pairs, R repeats, M rows, N images (clusters), B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from roarline.evaluation.presence import rows_by_presence

_BATCH_NUMBERS = 2**20
_EXACT_IMAGES = 50


@dataclass(frozen=True)
class MeanTests:
    """What the means of P paired differences say; all float64 [P], NaN where there is nothing to test.

    Attributes:
        images: Images on which both methods of a pair have values.
        difference: Mean of the first method minus mean of the second.
        low, high: Ends of the interval of the difference.
        p: Two-sided, of the hypothesis that the difference is zero. Not corrected for the number of tests.
        p_wilcoxon: Of the signed-rank test over images; NaN where it wasn't asked for.
        direction: Of that test, see ``signed_rank``; else the sign of the difference.
    """

    images: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    p_wilcoxon: np.ndarray
    direction: np.ndarray


def all_pairs(methods: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second index of every pair, int64 [P] each, in lexicographic order."""
    return np.triu_indices(methods, k=1)


def compare_pairs(values_KRM: np.ndarray, cluster_M: np.ndarray, *, confidence: float, by_image: bool) -> MeanTests:
    """Test all pairs of methods, each on the rows where both have values in every repeat.

    The mean difference is tested with Student's t. Its variance has two sources: which images were drawn (rows of one
    image are one draw) and, with R > 1, which repeats were; degrees of freedom after Satterthwaite.

    Args:
        values_KRM: float64; NaN where a row failed.
        cluster_M: int64 [M] in [0, N): the image of each row.
        confidence: Of the intervals, e.g. 0.95.
        by_image: Whether to run Wilcoxon's test on each image's mean difference as well.

    Returns:
        A test for each pair of ``all_pairs(K)``.

    Source: ratio estimator over clusters, Cochran 1977, Sampling Techniques, section 6.3; Satterthwaite 1946,
    Biometrics Bulletin 2; Demšar 2006, JMLR 7, section 3.1.3, for the signed-rank test.
    """
    first, second = all_pairs(len(values_KRM))
    clusters = int(cluster_M.max()) + 1 if len(cluster_M) else 0
    step = max(1, _BATCH_NUMBERS // max(1, values_KRM[0].size if len(values_KRM) else 1))
    found = [
        _compare(
            values_KRM[first[start : start + step]] - values_KRM[second[start : start + step]],
            cluster_M, clusters, confidence, by_image,
        )
        for start in range(0, len(first), step)
    ]  # fmt: skip
    empty = np.empty(0)
    names = ("images", "difference", "low", "high", "p", "p_wilcoxon", "direction")
    return MeanTests(*(np.concatenate([getattr(part, name) for part in found] or [empty]) for name in names))


def compare_draws(values_K: np.ndarray, draws_KB: np.ndarray, *, confidence: float) -> MeanTests:
    """Test all pairs of methods whose scores are no means over images, from scores of the same resamples.

    The standard error is the spread of the paired differences over the resamples; the test is normal. Draws alone
    could give no p-value below 1 / B, too coarse to survive a correction for many tests.

    Args:
        values_K: float64, the scores.
        draws_KB: float64, the scores of B resamples of the images, the same for all methods; NaN draws are left out.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 12.1.
    """
    first, second = all_pairs(len(values_K))
    difference = values_K[first] - values_K[second]
    step = max(1, _BATCH_NUMBERS // max(1, draws_KB.shape[1]))
    errors = [np.empty(0)]
    for start in range(0, len(first), step):
        drawn = draws_KB[first[start : start + step]] - draws_KB[second[start : start + step]]
        errors.append(_spread(drawn))
    error = np.concatenate(errors)
    half = error * stats.norm.ppf((1 + confidence) / 2)
    nothing = np.full(len(first), np.nan)
    p = _p_value(difference, error, np.full(len(first), np.inf))
    return MeanTests(nothing, difference, difference - half, difference + half, p, nothing, np.sign(difference))


def signed_rank(differences_PN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilcoxon's signed-rank test, two-sided, of each row.

    Zeros are ranked and then dropped (Pratt), ties share their mean rank. Up to 50 differences without ties and zeros
    the distribution is exact, else normal. A row of zeros has p = 1.

    Args:
        differences_PN: NaN where an image has no difference.

    Returns:
        (p float64 [P], direction float64 [P]): 1 where positive differences weigh more, -1 where negative ones do, 0
        where neither. NaN for a row without a number.

    Source: Wilcoxon 1945; Pratt 1959, JASA 54; scipy.stats.wilcoxon.
    """
    p, direction = np.full((2, len(differences_PN)), np.nan)
    for kept, rows in rows_by_presence(~np.isnan(differences_PN)):
        if kept.any():
            p[rows], direction[rows] = _signed_rank(differences_PN[rows][:, kept])
    return p, direction


def _signed_rank(values_PN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rows without NaN."""
    p, direction = np.ones(len(values_PN)), np.zeros(len(values_PN))
    images = values_PN.shape[1]
    nothing = (values_PN == 0).all(axis=1)
    exact = ~nothing & (images <= _EXACT_IMAGES)
    if exact.any():
        sizes = np.sort(np.abs(values_PN), axis=1)
        exact &= (sizes[:, 0] > 0) & (np.diff(sizes, axis=1) > 0).all(axis=1)
    if exact.any():
        below, above = (
            stats.wilcoxon(values_PN[exact], axis=1, method="exact", alternative=side) for side in ("less", "greater")
        )
        p[exact] = np.minimum(2 * np.minimum(below.pvalue, above.pvalue), 1.0)
        direction[exact] = np.sign(above.statistic - images * (images + 1) / 4)
    normal = ~nothing & ~exact
    if normal.any():
        test = stats.wilcoxon(
            values_PN[normal], axis=1, method="asymptotic", zero_method="pratt", alternative="greater"
        )
        p[normal] = 2 * stats.norm.sf(np.abs(test.zstatistic))
        direction[normal] = np.sign(test.zstatistic)
    return p, direction


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values: the family-wise error stays at the level, whatever the dependence.

    Sorted p-values are multiplied by the number of tests that are left, and made to rise; NaN stays and counts as no
    test.

    Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    values = np.asarray(p, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    left = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * left), 1.0)
    return adjusted


def _compare(
    differences_PRM: np.ndarray, cluster_M: np.ndarray, clusters: int, confidence: float, by_image: bool
) -> MeanTests:
    rows_PM = differences_PRM.mean(axis=1)
    present_PM = ~np.isnan(rows_PM)
    sums_PN = _by_cluster(np.where(present_PM, rows_PM, 0.0), cluster_M, clusters)
    counts_PN = _by_cluster(present_PM.astype(np.float64), cluster_M, clusters)
    rows_P, images_P = counts_PN.sum(axis=1), (counts_PN > 0).sum(axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_P = sums_PN.sum(axis=1) / rows_P
        residuals = sums_PN - mean_P[:, None] * counts_PN
        variance_P = (residuals**2).sum(axis=1) * images_P / (images_P - 1) / rows_P**2
        freedom_P = images_P - 1
        repeats = differences_PRM.shape[1]
        if repeats > 1:
            repeat_means_PR = np.where(present_PM[:, None], differences_PRM, 0.0).sum(axis=2) / rows_P[:, None]
            drawn_P = repeat_means_PR.var(axis=1, ddof=1) / repeats
            total_P = variance_P + drawn_P
            freedom_P = total_P**2 / (variance_P**2 / freedom_P + drawn_P**2 / (repeats - 1))
            variance_P = total_P
        error_P = np.sqrt(variance_P)
        error_P[error_P <= 1e-12 * np.abs(mean_P)] = 0.0  # differences that are all alike, but for rounding
        half_P = error_P * stats.t.ppf((1 + confidence) / 2, np.where(error_P > 0, freedom_P, 1.0))
        images_PN = sums_PN / counts_PN
    nothing = np.full(len(mean_P), np.nan)
    p_wilcoxon, direction = signed_rank(images_PN) if by_image else (nothing, np.sign(mean_P))
    p = _p_value(mean_P, error_P, freedom_P)
    return MeanTests(images_P, mean_P, mean_P - half_P, mean_P + half_P, p, p_wilcoxon, direction)


def _by_cluster(rows_PM: np.ndarray, cluster_M: np.ndarray, clusters: int) -> np.ndarray:
    """float64 [P, N]: sums of each cluster's rows."""
    if clusters == len(cluster_M) and np.array_equal(cluster_M, np.arange(clusters)):
        return rows_PM
    order = np.argsort(cluster_M, kind="stable")
    starts = np.searchsorted(cluster_M[order], np.arange(clusters))
    return np.add.reduceat(rows_PM[:, order], starts, axis=1) if clusters else rows_PM[:, :0]


def _p_value(difference: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Two-sided; where there is no spread, 1 for equal scores and 0 for others; NaN where the spread is unknown."""
    certain = error == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stats.t.sf(np.abs(difference) / np.where(certain, 1.0, error), np.where(certain, 1.0, freedom))
    return np.where(certain, np.where(difference == 0, 1.0, 0.0), np.where(np.isnan(error), np.nan, p))


def _spread(drawn_PB: np.ndarray) -> np.ndarray:
    """float64 [P]: standard deviation over the draws that are numbers; NaN for fewer than two."""
    present = ~np.isnan(drawn_PB)
    number = present.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, drawn_PB, 0.0).sum(axis=1) / number
        squares = np.where(present, (drawn_PB - mean[:, None]) ** 2, 0.0).sum(axis=1)
        return np.where(number > 1, np.sqrt(squares / (number - 1)), np.nan)
