"""Means with bootstrap intervals, paired differences, ranks.

Every number of the summary is a mean over test images, of one value an image or of one for each retrained network.
All columns of a table (methods, metrics, settings) see the same resamples of the images, so that the difference of two
columns is paired. Shapes: N images (clusters), M rows, K columns, R repeats, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

_BATCH_NUMBERS, _FEWEST_RESAMPLES = 2**19, 16


def resample_counts(clusters: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each cluster is drawn in each resample: clusters draws with replacement.

    The draws are those of ``scipy.stats.bootstrap(…, paired=True, rng=numpy.random.default_rng(seed))``.

    Yields:
        float64 [b, clusters], whole numbers, in batches that together have ``resamples`` rows.
    """
    generator = np.random.default_rng(seed)
    step = max(_FEWEST_RESAMPLES, _BATCH_NUMBERS // max(1, clusters))  # fewer would read the sums for each of them
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(0, clusters, size=(rows, clusters))
        drawn += np.arange(rows)[:, None] * clusters
        counts = np.bincount(drawn.ravel(), minlength=rows * clusters)
        yield torch.from_numpy(counts.reshape(rows, clusters)).double()


def bootstrap_means(values_MK: Tensor, cluster_M: Tensor, resamples: int, seed: int) -> Tensor:
    """Means of whole resamples of clusters, for many columns at once.

    Args:
        values_MK: [M, K]; NaN where a row has no value: it counts neither in the sum nor in the number.
        cluster_M: int64 [M] in [0, N): which image a row is of. Rows of one image are drawn together, since their
            values depend on one another.
        resamples: B.
        seed: Of the draws.

    Returns:
        float64 [B, K]; NaN where a resample has no row with a value.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapters 6 and 13.
    Differs: one product with the matrix of counts does all columns, where ``scipy.stats.bootstrap`` would gather each;
    the numbers are the same, which a test checks.
    """
    clusters = int(cluster_M.max()) + 1 if len(cluster_M) else 0
    shift_K = torch.empty(values_MK.shape[1], dtype=torch.float64)
    sums_NK = torch.zeros(clusters, values_MK.shape[1], dtype=torch.float64)
    for columns, deviations, shift in _deviations(values_MK):
        sums_NK[:, columns].index_add_(0, cluster_M, deviations)
        shift_K[columns] = shift
    patterns, pattern_K = torch.unique(~torch.isnan(values_MK), dim=1, return_inverse=True)
    numbers_NP = torch.zeros(clusters, patterns.shape[1], dtype=torch.float64)
    numbers_NP.index_add_(0, cluster_M, patterns.double())
    means = []
    for counts in resample_counts(clusters, resamples, seed):
        means.append((counts @ sums_NK) / (counts @ numbers_NP)[:, pattern_K] + shift_K)
    return torch.cat(means)


def mean_of(values_MK: Tensor) -> Tensor:
    """Mean of each column's values that are not NaN: float64 [K]; NaN where there is none."""
    means = [
        deviations.sum(dim=0) / (~torch.isnan(values_MK[:, columns])).sum(dim=0) + shift
        for columns, deviations, shift in _deviations(values_MK)
    ]
    return torch.cat(means) if means else torch.empty(0, dtype=torch.float64)


def add_repeat_draws(means_B: Tensor, repeat_means_R: Tensor, seed: int) -> Tensor:
    """Add to bootstrap draws what another set of repeats would have changed.

    Three to five repeats are too few to be resampled: the smallest and the largest of three enclose the true mean in
    75 % of cases only. Instead the error of their mean is drawn from Student's t with R - 1 degrees of freedom, times
    s / √R: a parametric bootstrap that is exact for normal repeats, also for two of them.

    Args:
        means_B: [B] means over the repeats, of resampled images.
        repeat_means_R: [R] mean of each repeat over all images. With R = 1 nothing can be said of other repeats, and
            the draws are returned as they are.
        seed: Of the draws.

    Returns:
        float64 [B].

    Source: Student 1908, Biometrika 6; for tables in which images and repeats cross, Owen 2007, The Pigeonhole
    Bootstrap, Annals of Applied Statistics 1.
    """
    repeats = len(repeat_means_R)
    if repeats < 2:
        return means_B.double()
    means = repeat_means_R.double()
    error = float((means - means[0]).std(correction=1)) / math.sqrt(repeats)
    draws = np.random.default_rng(seed).standard_t(repeats - 1, size=len(means_B))
    return means_B.double() + error * torch.from_numpy(draws)


def percentile_interval(draws_B: Tensor, confidence: float) -> tuple[float, float] | None:
    """The percentile interval of bootstrap draws; NaN draws are left out.

    Args:
        draws_B: [B].
        confidence: In (0, 1), e.g. 0.95.

    Returns:
        (low, high), or None where no draw is a number.
    """
    draws = draws_B.numpy()
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return None
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def rank_values(values: Sequence[float | None], *, higher_is_better: bool | None) -> list[int | None]:
    """Places of some values, 1 the best; equal values share the better place.

    Args:
        values: None where there is no value.
        higher_is_better: None: the metric has no direction, and nothing is ranked.

    Returns:
        A place for each value, None where it can't be ranked.
    """
    if higher_is_better is None:
        return [None] * len(values)
    known = [value for value in values if value is not None]
    places = stats.rankdata([-value if higher_is_better else value for value in known], method="min")
    following = iter(int(place) for place in places)
    return [None if value is None else next(following) for value in values]


def _deviations(values_MK: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some columns at a time: float64 [M, k] differences to each column's first value, 0 for NaN; those values [k]."""
    step = max(1, _BATCH_NUMBERS // max(1, len(values_MK)))
    for start in range(0, values_MK.shape[1], step):
        columns = slice(start, start + step)
        values = values_MK[:, columns].double()
        present = ~torch.isnan(values)
        shift = _first_present(values, present)  # constant columns stay exactly constant
        yield columns, torch.where(present, values - shift, 0.0), shift


def _first_present(values_MK: Tensor, present_MK: Tensor) -> Tensor:
    """[K]: each column's first value that is not NaN; NaN where there is none."""
    if not len(values_MK):
        return torch.full((values_MK.shape[1],), torch.nan, dtype=torch.float64)
    first = present_MK.int().argmax(dim=0)
    return values_MK[first, torch.arange(values_MK.shape[1])]
