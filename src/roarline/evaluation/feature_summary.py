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
        features: float64 [M, F]; NaN in all of a row that failed.
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


def summarise_features(
    columns: Sequence[FeatureColumn],
    *,
    baseline: str | None,
    higher_is_better: Callable[[str], bool | None],
    confidence: float,
    draws: Sequence[Tensor | None],
) -> list[Summary]:
    """Summarise columns over the same rows, as ``summary.summarise`` does those with one value a row.

    All columns see the same resamples of the images, so that the difference of two methods is paired: it is the
    difference of their scores in each resample.

    Args:
        columns: All over the same M rows.
        baseline: Name of the method that the others are compared with, or None.
        higher_is_better: Of a metric.
        confidence: In (0, 1).
        draws: Of ``feature_draws``.

    Returns:
        A row for each column, in their order.
    """
    values = [feature_score(column) for column in columns]
    against = {(c.metric, c.setting): place for place, c in enumerate(columns) if c.method == baseline}
    ranks = _ranks(columns, values, higher_is_better)
    rows = []
    for place, column in enumerate(columns):
        failed = int(torch.isnan(column.features).any(dim=1).sum())
        n, value, own = len(column.features) - failed, values[place], draws[place]
        other = against.get((column.metric, column.setting))
        difference, difference_interval = None, None
        if other is not None and other != place and value is not None and values[other] is not None:
            difference = value - float(values[other] or 0.0)
            others = draws[other]
            if own is not None and others is not None:
                difference_interval = percentile_interval(own - others, confidence)
        rows.append(
            Summary(
                column.method,
                column.metric,
                column.setting,
                value,
                None if own is None or value is None else percentile_interval(own, confidence),
                n,
                failed,
                difference,
                difference_interval,
                ranks[place],
                "ok" if value is not None else f"all {failed} rows failed: {column.reason}",
            )
        )
    return rows


def feature_draws(
    columns: Sequence[FeatureColumn], cluster_M: Tensor, *, resamples: int, seed: int
) -> list[Tensor | None]:
    """float64 [B] for each column: the scores of the same resamples of the images; None where there is one image only.

    Args:
        columns: All over the same M rows.
        cluster_M: int64 [M], the image of each row.
        resamples: B.
        seed: Of all draws.
    """
    draws_seed = derive_seed(seed, "images")
    alone = len(cluster_M) == 0 or int(cluster_M.max()) == 0
    return [None if alone else _draws(column, cluster_M, resamples, draws_seed) for column in columns]


def feature_score(column: FeatureColumn) -> float | None:
    """Of all rows; None where no row has features, or the function of their mean is undefined."""
    statistic = STATISTICS[column.statistic]
    if column.groups is None:
        score = statistic(mean_of(column.features))
    else:
        present = ~torch.isnan(column.features).any(dim=1)
        groups = [column.features[present & (column.groups == group)] for group in torch.unique(column.groups)]
        means = [group.mean(dim=0) for group in groups if len(group)]
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
    values = column.features[present].numpy()
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


def _ranks(
    columns: Sequence[FeatureColumn],
    values: Sequence[float | None],
    higher_is_better: Callable[[str], bool | None],
) -> list[int | None]:
    ranks: list[int | None] = [None] * len(columns)
    for metric, setting in dict.fromkeys((column.metric, column.setting) for column in columns):
        places = [place for place, c in enumerate(columns) if (c.metric, c.setting) == (metric, setting)]
        found = rank_values([values[place] for place in places], higher_is_better=higher_is_better(metric))
        for place, rank in zip(places, found, strict=True):
            ranks[place] = rank
    return ranks
