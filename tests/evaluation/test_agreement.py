"""Agreement: Krippendorff's worked examples, scipy's coefficients, and what mathematics says of extremes."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roarline.evaluation.agreement import kendall_w, krippendorff_alpha, mean_known, spearman, tau_b

_ = math.nan
# Krippendorff 2011, Computing Krippendorff's Alpha-Reliability, section C: four observers, twelve units.
_KRIPPENDORFF = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)


def test_krippendorffs_worked_example() -> None:
    """Printed there, with three decimals: 0.815 for ordinal, 0.849 for interval data."""
    assert krippendorff_alpha(_KRIPPENDORFF, "ordinal") == pytest.approx([0.815], abs=5e-4)
    assert krippendorff_alpha(_KRIPPENDORFF, "interval") == pytest.approx([0.849], abs=5e-4)


def by_coincidences(values: np.ndarray, level: str) -> float:
    """Alpha by its definition: a matrix of coincidences and a matrix of distances, in plain loops."""
    units = [column[~np.isnan(column)] for column in values.T]
    units = [unit for unit in units if len(unit) > 1]
    kinds = sorted({value for unit in units for value in unit})
    table = np.zeros((len(kinds), len(kinds)))
    for unit in units:
        for i, one in enumerate(unit):
            for j, two in enumerate(unit):
                if i != j:
                    table[kinds.index(one), kinds.index(two)] += 1 / (len(unit) - 1)
    totals = table.sum(axis=1)
    distance = np.zeros_like(table)
    for c, k in combinations(range(len(kinds)), 2):
        between = totals[c : k + 1].sum() - (totals[c] + totals[k]) / 2
        size = between if level == "ordinal" else kinds[k] - kinds[c]
        distance[c, k] = distance[k, c] = size**2
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    return float(1 - (table * distance).sum() / (expected * distance).sum())


@pytest.mark.parametrize("level", ["ordinal", "interval"])
def test_alpha_by_its_definition(level: str) -> None:
    generator = np.random.default_rng(0)
    for _seed in range(20):
        values = generator.integers(1, 6, (5, 7)).astype(float) + np.arange(7) // 2
        values[generator.random((5, 7)) < 0.2] = np.nan
        assert krippendorff_alpha(values, level)[0] == pytest.approx(by_coincidences(values, level), rel=1e-9)  # type: ignore[arg-type]


def test_alpha_of_equal_contrary_and_random_rankings() -> None:
    same = np.tile(np.arange(1.0, 6.0), (30, 1))
    assert krippendorff_alpha(same, "ordinal")[0] == pytest.approx(1)
    # Two raters of opposite mind, by hand: mean squares of pairs within a unit, and of all pairs of the six values.
    contrary = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    observed, expected = (4 + 0 + 4) / 3, 2 * 6 * 4 / (6 * 5)
    assert krippendorff_alpha(contrary, "interval")[0] == pytest.approx(1 - observed / expected)
    generator = np.random.default_rng(1)
    shuffled = np.stack([generator.permutation(20) for _ in range(400)]).astype(float)
    # Of N independent rankings α estimates 0; its spread is below 1 / √(N · U).
    assert abs(krippendorff_alpha(shuffled, "ordinal")[0]) < 5 / math.sqrt(400 * 20)


def test_alpha_is_undefined_without_pairs_or_variation() -> None:
    assert np.isnan(krippendorff_alpha(np.full((4, 3), 7.0), "ordinal")[0])
    assert np.isnan(krippendorff_alpha(np.array([[1.0, 2.0, 3.0]]), "interval")[0])
    assert np.isnan(krippendorff_alpha(np.full((2, 2), np.nan), "interval")[0])


@given(st.integers(0, 2**32), st.floats(0.1, 10), st.floats(-1e6, 1e6))
def test_ordinal_alpha_knows_order_only_and_interval_alpha_no_unit(seed: int, factor: float, shift: float) -> None:
    values = np.random.default_rng(seed).integers(0, 6, (4, 6)).astype(float)
    values[0, 0], values[1, 1] = 0.0, 5.0
    assert krippendorff_alpha(np.exp(values), "ordinal") == pytest.approx(krippendorff_alpha(values, "ordinal"))
    # Sums of squares of numbers near 1e6 keep about 16 − 6 digits of a spread of 0.1.
    assert krippendorff_alpha(values * factor + shift, "interval") == pytest.approx(
        krippendorff_alpha(values, "interval"), abs=1e-6
    )


def test_weights_count_raters_and_never_pair_copies() -> None:
    values = np.random.default_rng(2).integers(1, 6, (6, 8)).astype(float)
    ones = krippendorff_alpha(values, "interval", np.ones((1, 6)))
    assert ones == pytest.approx(krippendorff_alpha(values, "interval"))
    without = krippendorff_alpha(values, "interval", np.array([[1.0, 1, 1, 0, 1, 0]]))
    assert without == pytest.approx(krippendorff_alpha(values[[0, 1, 2, 4]], "interval"))
    generator = np.random.default_rng(3)
    noise = np.stack([generator.permutation(6) for _ in range(10)]).astype(float)
    weights = generator.multinomial(10, [0.1] * 10, size=4000).astype(float)
    # Paired with one another, copies would lift the mean by about 1 / N = 0.1.
    drawn = krippendorff_alpha(noise, "interval", weights)
    assert drawn.mean() == pytest.approx(krippendorff_alpha(noise, "interval")[0], abs=0.03)


def test_tau_b_is_scipys_with_ties_and_missing_methods() -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 6, (5, 12)).astype(float)
    values[generator.random((5, 12)) < 0.2] = np.nan
    tau, shared = tau_b(values)
    for one in range(5):
        for two in range(5):
            both = ~np.isnan(values[one]) & ~np.isnan(values[two])
            assert shared[one, two] == both.sum()
            theirs = stats.kendalltau(values[one, both], values[two, both]).statistic
            assert tau[one, two] == pytest.approx(theirs, abs=1e-12, nan_ok=True)


def test_tau_b_of_a_constant_ranking_is_undefined() -> None:
    tau, _shared = tau_b(np.array([[1.0, 2.0, 3.0], [5.0, 5.0, 5.0], [3.0, 2.0, 1.0]]))
    assert tau[0, 2] == -1
    assert np.isnan(tau[0, 1])


def test_kendall_w_is_friedmans_chi_square_scaled() -> None:
    values = np.random.default_rng(0).integers(0, 5, (7, 6)).astype(float)
    places = stats.rankdata(values, axis=1)
    chi2 = stats.friedmanchisquare(*values.T).statistic
    assert kendall_w(places) == pytest.approx(chi2 / (7 * 5))


def test_kendall_w_of_equal_and_contrary_rankings() -> None:
    assert kendall_w(np.array([[1.0, 2, 3], [1, 2, 3]])) == pytest.approx(1)
    assert kendall_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == pytest.approx(0)
    assert kendall_w(np.array([[1.0, 2, 3]])) is None
    assert kendall_w(np.full((3, 3), 2.0)) is None


def test_spearman_is_scipys_on_shared_rows() -> None:
    generator = np.random.default_rng(0)
    values = generator.integers(0, 9, (30, 5)).astype(float)
    values[:4, 1] = np.nan
    values[6:9, 3] = np.nan
    values[:, 4] = 2.0
    found = spearman(values)
    for one, two in combinations(range(4), 2):
        both = ~np.isnan(values[:, one]) & ~np.isnan(values[:, two])
        theirs = stats.spearmanr(values[both, one], values[both, two]).statistic
        assert found[one, two] == found[two, one] == pytest.approx(theirs, abs=1e-12)
    assert np.isnan(found[4]).all()
    assert np.isnan(spearman(np.array([[1.0, 2.0], [2.0, 1.0]]))[0, 1])  # two rows are too few


def test_means_leave_out_what_is_missing() -> None:
    found = mean_known([np.array([1.0, math.nan, math.nan]), np.array([3.0, 4.0, math.nan])])
    assert found[:2].tolist() == [2, 4]
    assert np.isnan(found[2])
