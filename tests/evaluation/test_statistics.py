"""Bootstrap means, intervals and ranks: against scipy, against theory, and in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roarline.evaluation import statistics
from roarline.evaluation.statistics import (
    add_repeat_draws,
    bootstrap_means,
    mean_of,
    percentile_interval,
    rank_values,
    resample_counts,
)


def each_its_own(rows: int) -> torch.Tensor:
    return torch.arange(rows)


@pytest.mark.parametrize("batch", [2**22, 70])  # all resamples at once, or one a batch
def test_interval_is_scipys(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_BATCH_NUMBERS", batch)
    values = np.random.default_rng(1).gamma(2.0, size=60)
    draws = bootstrap_means(torch.from_numpy(values)[:, None], each_its_own(60), 999, seed=7)[:, 0]
    # paired=True makes scipy draw indices, as we do, and not permute each sample by itself.
    theirs = stats.bootstrap(
        (values, values), lambda a, b, axis: a.mean(axis=axis), paired=True, vectorized=True, n_resamples=999,
        confidence_level=0.95, method="percentile", rng=np.random.default_rng(7),
    )  # fmt: skip
    np.testing.assert_allclose(np.sort(draws), np.sort(theirs.bootstrap_distribution), rtol=1e-12)
    np.testing.assert_allclose(percentile_interval(draws, 0.95), tuple(theirs.confidence_interval), rtol=1e-12)


def test_interval_of_clusters_is_scipys_for_a_ratio_of_sums() -> None:
    """Rows of one image are drawn together: the mean is the ratio of the drawn images' sums and row counts."""
    generator = np.random.default_rng(2)
    sizes = generator.integers(1, 5, size=40)
    cluster = np.repeat(np.arange(40), sizes)
    values = generator.normal(size=len(cluster))
    draws = bootstrap_means(torch.from_numpy(values)[:, None], torch.from_numpy(cluster), 500, seed=3)[:, 0]
    sums = np.bincount(cluster, weights=values)
    theirs = stats.bootstrap(
        (sums, sizes.astype(float)), lambda s, n, axis: s.sum(axis=axis) / n.sum(axis=axis), paired=True,
        vectorized=True, n_resamples=500, method="percentile", rng=np.random.default_rng(3),
    )  # fmt: skip
    np.testing.assert_allclose(np.sort(draws), np.sort(theirs.bootstrap_distribution), rtol=1e-9, atol=1e-12)


def test_clusters_widen_the_interval_where_their_rows_agree() -> None:
    """Five equal rows an image say no more than one: the interval is that of the images, √5 wider than of free rows."""
    images = torch.from_numpy(np.random.default_rng(0).normal(size=100))
    rows = images.repeat_interleave(5)[:, None]
    together = bootstrap_means(rows, torch.arange(100).repeat_interleave(5), 4000, seed=0)[:, 0].std()
    alone = bootstrap_means(images[:, None], each_its_own(100), 4000, seed=0)[:, 0].std()
    apart = bootstrap_means(rows, each_its_own(500), 4000, seed=0)[:, 0].std()
    assert together.item() == pytest.approx(alone.item(), rel=1e-9)
    # Standard deviations of 4,000 draws have a relative error of 1 / √8000 = 1.1 %; their ratio 1.6 %, here 5 σ.
    assert (together / apart).item() == pytest.approx(math.sqrt(5), rel=0.08)


def test_standard_error_is_the_analytic_one() -> None:
    values = torch.from_numpy(np.random.default_rng(5).normal(size=200))
    draws = bootstrap_means(values[:, None], each_its_own(200), 8000, seed=0)[:, 0]
    analytic = values.std(correction=0) / math.sqrt(200)  # of the empirical distribution, hence divided by N
    assert draws.std().item() == pytest.approx(analytic.item(), rel=5 / math.sqrt(2 * 8000))
    assert draws.mean().item() == pytest.approx(values.mean().item(), abs=5 * analytic.item() / math.sqrt(8000))


@given(st.floats(-1e3, 1e3), st.integers(2, 30), st.integers(0, 2**32))
def test_constant_values_have_an_interval_of_no_width(value: float, rows: int, seed: int) -> None:
    values = torch.full((rows, 1), value, dtype=torch.float64)
    assert percentile_interval(bootstrap_means(values, each_its_own(rows), 100, seed)[:, 0], 0.95) == (value, value)
    assert mean_of(values).item() == value


def test_missing_values_count_neither_in_sum_nor_in_number() -> None:
    values = torch.rand(30, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[::3] = torch.nan
    present = values[~values.isnan()]
    assert mean_of(values).item() == pytest.approx(present.mean().item(), abs=1e-15)
    draws = bootstrap_means(values, each_its_own(30), 300, seed=1)
    for counts, draw in zip(torch.cat(list(resample_counts(30, 300, 1))), draws[:, 0], strict=True):
        weights = counts[~values[:, 0].isnan()]
        assert draw.item() == pytest.approx(((weights * present).sum() / weights.sum()).item(), abs=1e-12)


def test_columns_are_independent_of_one_another() -> None:
    """Same resamples for all, whatever else stands in the table and whichever rows are missing there."""
    values = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values[2, 1] = torch.nan
    together = bootstrap_means(values, each_its_own(20), 200, seed=9)
    for column in range(3):
        alone = bootstrap_means(values[:, column : column + 1], each_its_own(20), 200, seed=9)
        torch.testing.assert_close(together[:, column : column + 1], alone, rtol=1e-12, atol=0)


def test_a_column_without_any_value_has_no_interval() -> None:
    values = torch.full((5, 1), torch.nan, dtype=torch.float64)
    assert percentile_interval(bootstrap_means(values, each_its_own(5), 100, 0)[:, 0], 0.95) is None
    assert torch.isnan(mean_of(values)).all()


def test_differences_of_columns_are_paired() -> None:
    """A difference that is the same on every image is known exactly, though either mean alone is uncertain."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(80, 1)))
    draws = bootstrap_means(torch.cat([values, values + 0.25, values - values + 0.25], dim=1), each_its_own(80), 500, 0)
    low, high = percentile_interval(draws[:, 1] - draws[:, 0], 0.95) or (0, 0)
    assert high - low < 1e-12
    assert percentile_interval(draws[:, 2], 0.95) == (0.25, 0.25)
    wide = percentile_interval(draws[:, 0], 0.95) or (0, 0)
    assert wide[1] - wide[0] > 0.2


def test_coverage_of_images_alone() -> None:
    """400 samples of 80 gamma variables: the 95 % percentile interval holds the true mean about as often as it says.

    For N = 80 theory puts its coverage within 1.5 % of the nominal one (skewness 1.41, error of order skewness² / N),
    and the share of 400 tries has σ = 1.1 %; the bounds are 1.5 % + 4 σ.
    """
    generator = np.random.default_rng(11)
    held = 0
    for seed in range(400):
        values = torch.from_numpy(generator.gamma(2.0, size=(80, 1)))
        low, high = percentile_interval(bootstrap_means(values, each_its_own(80), 400, seed)[:, 0], 0.95) or (0, 0)
        held += low <= 2.0 <= high
    assert abs(held / 400 - 0.95) < 0.015 + 4 * math.sqrt(0.95 * 0.05 / 400)


@pytest.mark.parametrize("repeats", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_coverage_of_images_and_repeats(repeats: int, spread: float) -> None:
    """Networks whose accuracy varies by ``spread``, all on the same images, which differ in difficulty.

    Where repeats dominate, Student's t makes the interval exact; where they do not vary, what little they seem to vary
    is added once too often and the interval is too wide. So the coverage is at least 95 %, less 1 % for ends that are
    quantiles of 300 draws, less 4 σ of the share of 300 tries.
    """
    generator = np.random.default_rng(5)
    held, tries, images = 0, 300, 150
    for seed in range(tries):
        difficulty = generator.normal(0, 0.3, size=images)
        skill = generator.normal(0, spread, size=repeats)
        values = torch.from_numpy(0.6 + skill[:, None] + difficulty + generator.normal(0, 0.3, size=(repeats, images)))
        draws = bootstrap_means(values.mean(dim=0)[:, None], each_its_own(images), 300, seed)[:, 0]
        low, high = percentile_interval(add_repeat_draws(draws, values.mean(dim=1), seed), 0.95) or (0, 0)
        held += low <= 0.6 <= high
    assert held / tries > 0.95 - 0.01 - 4 * math.sqrt(0.95 * 0.05 / tries)


def test_resampling_three_repeats_would_hold_the_truth_too_seldom() -> None:
    """Why repeats are not resampled: all draws from three lie between the smallest and the largest, and all three lie
    on one side of the median in 1/4 of cases; so even the full range of draws holds it in 3/4 of cases only."""
    generator = np.random.default_rng(0)
    means = generator.normal(size=(2000, 3))
    inside = ((means.min(axis=1) < 0) & (means.max(axis=1) > 0)).mean()
    assert inside == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 2000))
    held = 0
    for seed, row in enumerate(means):
        draws = add_repeat_draws(torch.full((400,), row.mean()), torch.from_numpy(row), seed)
        low, high = percentile_interval(draws, 0.95) or (0, 0)
        held += low <= 0 <= high
    # The interval's ends are quantiles of 400 draws of t(2): they vary, which costs about 1 % of coverage.
    assert held / 2000 == pytest.approx(0.95, abs=0.01 + 4 * math.sqrt(0.95 * 0.05 / 2000))


def test_repeats_that_agree_and_a_single_repeat_add_nothing() -> None:
    draws = torch.rand(100, dtype=torch.float64)
    assert torch.equal(add_repeat_draws(draws, torch.tensor([0.3]), 0), draws)
    assert torch.equal(add_repeat_draws(draws, torch.tensor([0.1, 0.1, 0.1]), 0), draws)
    assert not torch.equal(add_repeat_draws(draws, torch.tensor([0.1, 0.2, 0.1]), 0), draws)


def test_same_seed_same_draws() -> None:
    values = torch.rand(10, 2)
    one, two, other = (bootstrap_means(values, each_its_own(10), 50, seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_ranks_follow_the_direction_and_ties_share_the_better_place() -> None:
    values = [0.3, None, 0.1, 0.3, 0.9]
    assert rank_values(values, higher_is_better=True) == [2, None, 4, 2, 1]
    assert rank_values(values, higher_is_better=False) == [2, None, 1, 2, 4]
    assert rank_values(values, higher_is_better=None) == [None] * 5
    assert rank_values([None], higher_is_better=True) == [None]
    assert rank_values([], higher_is_better=True) == []
