"""Functions of means in the summary: what a mean of values gives, scipy's bootstrap, groups, pairing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from roarline.evaluation.feature_summary import FeatureColumn, score_features, summarise_features
from roarline.evaluation.statistics import resample_counts
from roarline.evaluation.statistics_of_means import STATISTICS
from roarline.evaluation.summary import Column, Summary, summarise
from roarline.seeds import derive_seed

SETTINGS = {"baseline": "chance", "confidence": 0.9, "resamples": 400, "seed": 3}


def direction(metric: str) -> bool:
    return True


def column(method: str, features: Tensor, statistic: str = "mean_value", groups: Tensor | None = None) -> FeatureColumn:
    return FeatureColumn(method, "m", "", features, statistic, groups, reason="broke")


def summary(columns: list[FeatureColumn], clusters: Tensor) -> list[Summary]:
    scores = [score_features(column, clusters, resamples=400, seed=3) for column in columns]
    return summarise_features(scores, baseline="chance", higher_is_better=direction, confidence=0.9)


def test_a_mean_is_what_the_summary_of_values_makes_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    values = {name: torch.rand(30, generator=generator, dtype=torch.float64) for name in ("a", "chance")}
    clusters = torch.arange(30) // 2
    found = summary([column(name, value[:, None]) for name, value in values.items()], clusters)
    expected = summarise(
        [Column(name, "m", "", value[None]) for name, value in values.items()], clusters,
        higher_is_better=direction, **SETTINGS,  # type: ignore[arg-type]
    )  # fmt: skip
    for row, other in zip(found, expected, strict=True):
        assert (row.method, row.n, row.failed, row.rank, row.status) == (
            other.method, other.n, other.failed, other.rank, other.status
        )  # fmt: skip
        assert row.value == pytest.approx(other.value)
        assert row.interval == pytest.approx(other.interval)
        assert row.difference_interval == pytest.approx(other.difference_interval)


def test_best_threshold_has_the_interval_of_scipys_bootstrap() -> None:
    features = np.random.default_rng(0).integers(0, 2, (25, 4)).astype(float)
    (found,) = summary([column("a", torch.from_numpy(features), "best_threshold")], torch.arange(25))
    draws = stats.bootstrap(
        tuple(features.T), lambda *columns, axis: np.stack([c.mean(axis=axis) for c in columns]).max(axis=0),
        paired=True, vectorized=True, n_resamples=400, confidence_level=0.9, method="percentile",
        rng=np.random.default_rng(derive_seed(3, "images")),
    )  # fmt: skip
    assert found.value == pytest.approx(features.mean(axis=0).max())
    assert found.interval == pytest.approx((draws.confidence_interval.low, draws.confidence_interval.high))


def test_groups_count_alike_whatever_their_size() -> None:
    features = torch.tensor([[1.0], [1.0], [1.0], [0.0], [torch.nan]], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 7, 9])
    (found,) = summary([column("a", features, groups=groups)], torch.arange(5))
    assert found.value == 0.5
    assert (found.n, found.failed) == (4, 1)


def test_resampled_groups_by_plain_loops() -> None:
    generator = np.random.default_rng(1)
    values, groups = generator.random(20), generator.integers(0, 3, 20)
    clusters = np.arange(20) // 2
    (found,) = summary(
        [column("a", torch.from_numpy(values)[:, None], groups=torch.from_numpy(groups))], torch.from_numpy(clusters)
    )
    draws = []
    for counts in resample_counts(10, 400, derive_seed(3, "images")):
        for drawn in counts.numpy():
            weights = drawn[clusters]
            means = [
                np.average(values[groups == group], weights=weights[groups == group])
                for group in range(3)
                if weights[groups == group].any()
            ]
            draws.append(np.mean(means))
    assert found.interval == pytest.approx(tuple(np.quantile(draws, [0.05, 0.95])))


def test_failures_and_single_images_have_a_stated_outcome() -> None:
    nothing = torch.full((3, 2), torch.nan, dtype=torch.float64)
    (found,) = summary([column("a", nothing, "best_threshold")], torch.arange(3))
    assert (found.value, found.interval, found.rank, found.n, found.failed) == (None, None, None, 0, 3)
    assert found.status == "all 3 rows failed: broke"
    (alone,) = summary([column("a", torch.ones(2, 1, dtype=torch.float64))], torch.zeros(2, dtype=torch.int64))
    assert (alone.value, alone.interval) == (1.0, None)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_take_any_leading_dimensions(name: str) -> None:
    width = {"mean_value": 1, "standard_deviation": 2}.get(name, 12)
    features = torch.rand(3, 5, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = STATISTICS[name](features)
    assert found.shape == (3, 5)
    torch.testing.assert_close(STATISTICS[name](features[1, 2]), found[1, 2])
