"""From columns of per-image values to the rows of the summary: mean, interval, paired difference to random, rank.

Shapes: R repeats, M rows (an image, or an image and a target).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from roarline.evaluation.statistics import add_repeat_draws, bootstrap_means, mean_of, percentile_interval, rank_values
from roarline.seeds import derive_seed

MEAN_SETTING = "mean over fractions"


@dataclass(frozen=True)
class Column:
    """One method's values of one metric in one setting.

    Attributes:
        values: float64 [R, M]; NaN where a row failed. R is 1 where there are no repeats.
        repeats: [R] numbers of the repeats; those of equal number of two methods are paired.
        reason: Why rows failed; the most frequent reason.
        ranked: False for a reference that takes no place and has no difference to random.
    """

    method: str
    metric: str
    setting: str
    values: Tensor
    repeats: tuple[int, ...] = (0,)
    reason: str | None = None
    ranked: bool = True


@dataclass(frozen=True)
class Summary:
    """One row of the summary; numbers are None where nothing could be computed."""

    method: str
    metric: str
    setting: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    failed: int
    difference: float | None
    difference_interval: tuple[float, float] | None
    rank: int | None
    status: str


def mean_over_settings(columns: Sequence[Column]) -> Column:
    """The mean of a method's columns of one metric, image by image and repeat by repeat.

    A row that failed in one setting fails in the mean; repeats that not all settings have are left out.
    """
    shared = tuple(r for r in columns[0].repeats if all(r in column.repeats for column in columns))
    values = torch.stack([_of_repeats(column, shared) for column in columns]).mean(dim=0)
    reason = next((column.reason for column in columns if column.reason), None)
    return replace(columns[0], setting=MEAN_SETTING, values=values, repeats=shared, reason=reason)


def summarise(
    columns: Sequence[Column],
    cluster_M: Tensor,
    *,
    baseline: str | None,
    higher_is_better: Callable[[str], bool | None],
    confidence: float,
    resamples: int,
    seed: int,
) -> list[Summary]:
    """Summarise columns over the same rows.

    The value is the mean over repeats and rows. Its interval comes from resampling images (all columns see the same
    resamples; rows of one image stay together) and from what other repeats would have changed (``add_repeat_draws``).
    The difference to the baseline is the mean of differences row by row and repeat by repeat, where both have values;
    its interval comes from the same two sources, applied to the differences. One cluster alone has no interval.

    Args:
        columns: All over the same M rows.
        cluster_M: int64 [M], the image of each row.
        baseline: Name of the method that the others are compared with, or None.
        higher_is_better: Of a metric.
        confidence: In (0, 1).
        resamples: B.
        seed: Of all draws.

    Returns:
        A row for each column, in their order.
    """
    against = {(c.metric, c.setting): c for c in columns if c.method == baseline and c.ranked}
    differences = [_difference(column, against.get((column.metric, column.setting))) for column in columns]
    every = [*columns, *(column for column in differences if column is not None)]
    values_MK = torch.stack([column.values.mean(dim=0) for column in every], dim=1)
    draws = bootstrap_means(values_MK, cluster_M, resamples, derive_seed(seed, "images"))
    means = dict(zip(map(id, every), mean_of(values_MK).tolist(), strict=True))
    intervals = {
        id(column): None if int(cluster_M.max()) == 0 else _interval(column, draws[:, place], confidence, seed)
        for place, column in enumerate(every)
    }
    ranks = _ranks(columns, means, higher_is_better)
    rows = []
    for column, difference, rank in zip(columns, differences, ranks, strict=True):
        failed = int(torch.isnan(column.values).sum())
        n = column.values.numel() - failed
        status = "ok" if n else f"all {failed} rows failed: {column.reason}"
        rows.append(
            Summary(
                column.method,
                column.metric,
                column.setting,
                means[id(column)] if n else None,
                intervals[id(column)],
                n,
                failed,
                None if difference is None else means[id(difference)],
                None if difference is None else intervals[id(difference)],
                rank,
                status,
            )
        )
    return rows


def _difference(column: Column, baseline: Column | None) -> Column | None:
    """Row-by-row differences to the baseline, or None where there is nothing to compare."""
    if baseline is None or baseline.method == column.method or not column.ranked:
        return None
    shared = tuple(repeat for repeat in column.repeats if repeat in baseline.repeats)
    values = _of_repeats(column, shared) - _of_repeats(baseline, shared)
    return None if bool(torch.isnan(values).all()) else replace(column, values=values, repeats=shared)


def _of_repeats(column: Column, repeats: Sequence[int]) -> Tensor:
    return column.values[[column.repeats.index(repeat) for repeat in repeats]]


def _interval(column: Column, draws_B: Tensor, confidence: float, seed: int) -> tuple[float, float] | None:
    own = derive_seed(seed, "repeats", column.metric, column.setting, column.method)
    return percentile_interval(add_repeat_draws(draws_B, mean_of(column.values.T), own), confidence)


def _ranks(
    columns: Sequence[Column], means: dict[int, float], higher_is_better: Callable[[str], bool | None]
) -> list[int | None]:
    ranks: dict[int, int | None] = {}
    for metric, setting in dict.fromkeys((column.metric, column.setting) for column in columns):
        group = [c for c in columns if (c.metric, c.setting) == (metric, setting) and c.ranked]
        values = [None if torch.isnan(c.values).all() else means[id(c)] for c in group]
        found = rank_values(values, higher_is_better=higher_is_better(metric))
        ranks |= dict(zip(map(id, group), found, strict=True))
    return [ranks.get(id(column)) for column in columns]
