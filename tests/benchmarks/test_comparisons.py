"""The benchmark of comparisons tests what scipy tests."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.comparisons import compare, measure, random_scores
from benchmarks.harness import Options


def test_both_ways_give_the_same_p_values() -> None:
    values = random_scores(2, 3, 60)
    rows = compare(values, 100)["pairwise_tests"]
    assert len(rows) == 2 * 3
    for row in rows:
        metric, one, two = (int(row[name][-1]) for name in ("metric", "first", "second"))  # type: ignore[index]
        ranks = stats.wilcoxon(values[metric, one], values[metric, two], method="asymptotic")
        assert row["p_wilcoxon"] == pytest.approx(ranks.pvalue)  # type: ignore[index]
        assert row["p_mean"] == pytest.approx(stats.ttest_rel(values[metric, one], values[metric, two]).pvalue)  # type: ignore[index]


def test_a_quick_run_gives_a_ratio() -> None:
    (measurement,) = measure(Options(quick=True, threads=1))
    assert measurement.efficiency > 0
