"""From features to rows of the summary: a function of means, with the intervals that resampled means give it.

Shapes: M rows, F features, N images (clusters), G groups, B resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from roarline.evaluation.statistics import (
    bootstrap_means,
    mean_of,
    percentile_interval,
    rank_values,
    resample_counts,
)
from roarline.evaluation.statistics_of_means import STATISTICS
from roarline.evaluation.summary import Summary
from roarline.seeds import derive_seed


@dataclass(frozen=True)
class FeatureColumn:
    """One method's features of one metric in one setting.

    Attributes:
        features: float [M, F]; NaN in all of a row that failed.
        statistic: Name of the function of means.
        groups: int64 [M], or None. With groups, rows are averaged within each and then the groups, all alike.
        reason: Why rows failed; the most frequent reason.
    """

    method: str
    metric: str
    setting: str
    features: Tensor
    statistic: str
    groups: Tensor | None = None
    reason: str | None = None


@dataclass(frozen=True)
class FeatureScore:
    """What a column comes to; its features need not be kept.

    Attributes:
        value: Of all rows; None where no row has features, or the function of their mean is undefined.
        n: Rows with features.
        failed: Rows without.
        draws: float64 [B], the scores of resamples of the images; None where there is one image only.
        reason: Why rows failed; the most frequent reason.
    """

    method: str
    metric: str
    setting: str
    value: float | None
    n: int
    failed: int
    draws: Tensor | None
    reason: str | None = None


def score_features(column: FeatureColumn, cluster_M: Tensor, *, resamples: int, seed: int) -> FeatureScore:
    """Score a column, and the same resamples of the images as for every column over the same rows.

    Args:
        cluster_M: int64 [M], the image of each row.
        resamples: B.
        seed: Of all draws.
    """
    alone = len(cluster_M) == 0 or int(cluster_M.max()) == 0
    failed = int(torch.isnan(column.features).any(dim=1).sum())
    return FeatureScore(
        column.method,
        column.metric,
        column.setting,
        _value(column),
        len(column.features) - failed,
        failed,
        None if alone else _draws(column, cluster_M, resamples, derive_seed(seed, "images")),
        column.reason,
    )


def summarise_features(
    scores: Sequence[FeatureScore],
    *,
    baseline: str | None,
    higher_is_better: Callable[[str], bool | None],
    confidence: float,
) -> list[Summary]:
    """Summarise scores of the same rows, as ``summary.summarise`` does columns with one value a row.

    All saw the same resamples of the images, so that the difference of two methods is paired: it is the difference of
    their scores in each resample.

    Args:
        scores: Of ``score_features``.
        baseline: Name of the method that the others are compared with, or None.
        higher_is_better: Of a metric.
        confidence: In (0, 1).

    Returns:
        A row for each score, in their order.
    """
    against = {(one.metric, one.setting): one for one in scores if one.method == baseline}
    rows = []
    for one, rank in zip(scores, _ranks(scores, higher_is_better), strict=True):
        other = against.get((one.metric, one.setting))
        difference, difference_interval = None, None
        if other is not None and other is not one and one.value is not None and other.value is not None:
            difference = one.value - other.value
            if one.draws is not None and other.draws is not None:
                difference_interval = percentile_interval(one.draws - other.draws, confidence)
        rows.append(
            Summary(
                one.method,
                one.metric,
                one.setting,
                one.value,
                None if one.draws is None or one.value is None else percentile_interval(one.draws, confidence),
                one.n,
                one.failed,
                difference,
                difference_interval,
                rank,
                "ok" if one.value is not None else f"all {one.failed} rows failed: {one.reason}",
            )
        )
    return rows


def _value(column: FeatureColumn) -> float | None:
    statistic = STATISTICS[column.statistic]
    if column.groups is None:
        score = statistic(mean_of(column.features))
    else:
        present = ~torch.isnan(column.features).any(dim=1)
        groups = [column.features[present & (column.groups == group)] for group in torch.unique(column.groups)]
        means = [group.double().mean(dim=0) for group in groups if len(group)]
        score = statistic(torch.stack(means).mean(dim=0)) if means else torch.tensor(torch.nan)
    value = float(score)
    return None if np.isnan(value) else value


def _draws(column: FeatureColumn, cluster_M: Tensor, resamples: int, seed: int) -> Tensor:
    """float64 [B], the score of every resample; NaN where it has no row."""
    if column.groups is None:
        return STATISTICS[column.statistic](bootstrap_means(column.features, cluster_M, resamples, seed))
    return STATISTICS[column.statistic](_means_over_groups(column, column.groups, cluster_M, resamples, seed))


def _means_over_groups(column: FeatureColumn, groups_M: Tensor, cluster_M: Tensor, resamples: int, seed: int) -> Tensor:
    """float64 [B, F]: a group that a resample has no row of is left out of that resample."""
    present = ~torch.isnan(column.features).any(dim=1)
    rows, width = cluster_M[present].numpy(), column.features.shape[1]
    known, group = np.unique(groups_M[present].numpy(), return_inverse=True)
    shape = (int(cluster_M.max()) + 1, len(known))
    numbers = sparse.csr_array((np.ones(len(rows)), (rows, group)), shape=shape)
    values = column.features[present].double().numpy()
    sums = [sparse.csr_array((values[:, feature], (rows, group)), shape=shape) for feature in range(width)]
    found = []
    for counts in resample_counts(shape[0], resamples, seed):
        drawn = counts.numpy()
        number = drawn @ numbers
        there = number > 0
        means = [np.where(there, (drawn @ total) / np.where(there, number, 1), 0.0) for total in sums]
        with np.errstate(invalid="ignore"):
            found.append(np.stack([mean.sum(axis=1) / there.sum(axis=1) for mean in means], axis=1))
    return torch.from_numpy(np.concatenate(found))


def _ranks(scores: Sequence[FeatureScore], higher_is_better: Callable[[str], bool | None]) -> list[int | None]:
    ranks: list[int | None] = [None] * len(scores)
    for metric, setting in dict.fromkeys((one.metric, one.setting) for one in scores):
        places = [place for place, one in enumerate(scores) if (one.metric, one.setting) == (metric, setting)]
        found = rank_values([scores[place].value for place in places], higher_is_better=higher_is_better(metric))
        for place, rank in zip(places, found, strict=True):
            ranks[place] = rank
    return ranks
