"""Paired tests: against scipy, against plain arithmetic, and in simulation; Holm's correction by its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roarline.evaluation import paired_tests
from roarline.evaluation.paired_tests import all_pairs, compare_draws, compare_pairs, holm, signed_rank


def compare(values: np.ndarray, clusters: np.ndarray | None = None, *, by_image: bool = True) -> paired_tests.MeanTests:
    """values [K, M] or [K, R, M]."""
    rows = values if values.ndim == 3 else values[:, None]
    cluster = np.arange(rows.shape[2]) if clusters is None else clusters
    return compare_pairs(rows, cluster, confidence=0.95, by_image=by_image)


def test_mean_test_of_one_row_an_image_is_scipys_paired_t() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    found = compare(values)
    for index, (one, two) in enumerate(zip(*all_pairs(3), strict=True)):
        theirs = stats.ttest_rel(values[one], values[two])
        assert found.p[index] == pytest.approx(theirs.pvalue, rel=1e-9)
        interval = theirs.confidence_interval(0.95)
        assert (found.low[index], found.high[index]) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.images.tolist() == [40, 40, 40]


@pytest.mark.parametrize("numbers", [2**23, 50])  # all pairs at once, or few at a time
def test_signed_rank_is_scipys(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_tests, "_BATCH_NUMBERS", numbers)
    generator = np.random.default_rng(1)
    many = generator.normal(size=(4, 80)) + np.arange(4)[:, None] * 0.2
    found = compare(many)
    few = compare(many[:, :20])
    for index, (one, two) in enumerate(zip(*all_pairs(4), strict=True)):
        theirs = stats.wilcoxon(many[one], many[two], zero_method="pratt", method="asymptotic")
        assert found.p_wilcoxon[index] == pytest.approx(theirs.pvalue, rel=1e-9)
        exact = stats.wilcoxon(many[one, :20], many[two, :20], method="exact")
        assert few.p_wilcoxon[index] == pytest.approx(exact.pvalue, rel=1e-9)


def test_signed_rank_of_binary_values_is_the_sign_test_without_ties() -> None:
    """Hits and misses: all differences that are not zero have one rank, so that the test counts their signs.

    Pratt's normal statistic is then (a − b) / √(a + b), McNemar's without correction.
    """
    differences = np.array([[1.0] * 30 + [-1.0] * 12 + [0.0] * 58])
    p, direction = signed_rank(differences)
    assert p[0] == pytest.approx(stats.chi2.sf((30 - 12) ** 2 / 42, 1), rel=1e-9)
    assert direction[0] == 1


def test_equal_methods_have_p_one_and_a_constant_difference_p_zero() -> None:
    values = np.random.default_rng(0).random((1, 30)).repeat(3, axis=0)
    values[2] += 0.25
    found = compare(values)
    assert (found.p[0], found.p_wilcoxon[0], found.difference[0], found.low[0], found.high[0]) == (1, 1, 0, 0, 0)
    assert found.p[1] == 0
    assert found.difference[1] == pytest.approx(-0.25)
    assert found.low[1] == pytest.approx(-0.25)
    assert found.direction.tolist() == [0, -1, -1]


def test_rows_of_one_image_are_one_draw() -> None:
    """Each row five times over says no more: the same test as of single rows, where free rows would claim √5 more."""
    values = np.random.default_rng(2).normal(size=(2, 50))
    single, five = compare(values), compare(values.repeat(5, axis=1), np.arange(50).repeat(5))
    for name in ("images", "difference", "low", "high", "p", "p_wilcoxon"):
        assert getattr(five, name) == pytest.approx(getattr(single, name), rel=1e-9)
    free = compare(values.repeat(5, axis=1))
    assert (single.high - single.low)[0] / (free.high - free.low)[0] == pytest.approx(
        math.sqrt(5 * 249 / (5 * 49)) * stats.t.ppf(0.975, 49) / stats.t.ppf(0.975, 249), rel=1e-9
    )


def test_the_order_of_rows_changes_nothing() -> None:
    generator = np.random.default_rng(3)
    values, clusters = generator.normal(size=(3, 60)), generator.integers(0, 20, 60)
    clusters = np.unique(clusters, return_inverse=True)[1]
    order = generator.permutation(60)
    one, two = compare(values, clusters), compare(values[:, order], clusters[order])
    assert two.p == pytest.approx(one.p, rel=1e-9)
    assert two.p_wilcoxon == pytest.approx(one.p_wilcoxon, rel=1e-9)


def test_pairs_rest_on_the_images_that_both_have() -> None:
    values = np.random.default_rng(4).normal(size=(3, 60))
    values[0, :25] = np.nan
    values[2] = np.nan
    found = compare(values)
    expected = compare(values[:2, 25:])
    assert found.images.tolist() == [35, 0, 0]
    assert found.p[0] == pytest.approx(expected.p[0])
    assert found.p_wilcoxon[0] == pytest.approx(expected.p_wilcoxon[0])
    assert np.isnan(found.p[1:]).all()
    assert np.isnan(found.difference[1:]).all()


def test_one_image_alone_says_nothing() -> None:
    found = compare(np.array([[0.1], [0.4]]))
    assert np.isnan(found.p[0])
    assert np.isnan(found.low[0])


@pytest.mark.parametrize("spread", [0.0, 0.1])
def test_equal_methods_of_few_repeats_are_called_different_in_five_per_cent(spread: float) -> None:
    """Two methods of one true accuracy, three networks each; networks differ by luck, images by difficulty.

    Where repeats agree, the variance of their means counts the images' noise twice, so that errors are rarer than 5 %.
    Tests over images alone would err far more often (asserted, lest this test could not fail).
    """
    generator = np.random.default_rng(5)
    wrong, naive, tries = 0, 0, 400
    for _ in range(tries):
        difficulty = generator.normal(0, 0.3, size=200)
        skill = generator.normal(0, spread, size=(2, 3, 1))
        values = 0.6 + skill + difficulty + generator.normal(0, 0.3, size=(2, 3, 200))
        wrong += compare(values, by_image=False).p[0] < 0.05
        naive += compare(values.mean(axis=1), by_image=False).p[0] < 0.05
    # 4 σ of the share of 400 tries; Satterthwaite's degrees of freedom err by about a per cent for so few repeats.
    assert wrong / tries < 0.05 + 0.01 + 4 * math.sqrt(0.05 * 0.95 / tries)
    if spread:
        assert naive / tries > 0.3


def test_equal_methods_of_means_over_images_are_called_different_in_five_per_cent() -> None:
    one, two = np.random.default_rng(6).gamma(2.0, size=(2, 1500, 60))
    p, _direction = signed_rank(one - two)
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 1500))


def test_scores_of_resamples_are_tested_with_their_spread() -> None:
    """Draws that are exactly normal quantiles: the p-value is that of the difference over its standard deviation."""
    spread = stats.norm.ppf((np.arange(2000) + 0.5) / 2000)
    draws = np.stack([0.7 + 0.02 * spread, np.full(2000, 0.6)])
    found = compare_draws(np.array([0.7, 0.6]), draws, confidence=0.95)
    error = 0.02 * spread.std(ddof=1)
    assert found.p[0] == pytest.approx(2 * stats.norm.sf(0.1 / error), rel=1e-9)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.959963984540054 * error, rel=1e-9)
    draws[0, :3] = np.nan  # resamples without a row
    assert compare_draws(np.array([0.7, 0.6]), draws, confidence=0.95).p[0] == pytest.approx(
        2 * stats.norm.sf(0.1 / (0.02 * spread[3:].std(ddof=1))), rel=1e-9
    )
    assert np.isnan(compare_draws(np.array([0.7, 0.6]), np.empty((2, 0)), confidence=0.95).p[0])


def test_holm_by_hand() -> None:
    """Four tests: 0.01 · 4, 0.02 · 3, 0.03 · 2 (raised to the one before), 0.04 · 1 (raised)."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]).shape == (0,)


def test_holm_leaves_missing_tests_out_of_the_count() -> None:
    found = holm([0.01, math.nan, 0.02])
    assert np.isnan(found[1])
    assert found[[0, 2]] == pytest.approx([0.02, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.001, 0.2))
def test_holm_rejects_as_its_steps_do(p: list[float], level: float) -> None:
    """By definition: go through the sorted p-values while each is at most level / (tests left)."""
    adjusted = holm(p)
    rejected = set()
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > level:
            break
        rejected.add(int(index))
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
    assert (adjusted >= np.array(p) - 1e-15).all()
    assert (adjusted <= 1).all()
