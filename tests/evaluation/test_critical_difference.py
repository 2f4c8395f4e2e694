"""Places, Friedman, Nemenyi and bars: against scipy, Demšar's table and worked example, and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from roarline.evaluation.critical_difference import (
    bars,
    friedman,
    nemenyi_distance,
    nemenyi_quantile,
    places_by_image,
)

# Demšar 2006, table 6: AUC of C4.5 and three variants (cf; m; cf and m) on 14 data sets.
_DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsars_worked_example() -> None:
    """Mean ranks 3.143, 2.000, 2.893, 1.964; Nemenyi's critical difference 2.569 · √(4 · 5 / (6 · 14)) = 1.25."""
    places = places_by_image(_DEMSAR, higher_is_better=True)
    # The paper prints three decimals; equal values share a mean rank, as in its table.
    assert places.mean(axis=0) == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=6e-4)
    assert nemenyi_distance(4, 14, 0.95) == pytest.approx(1.25, abs=5e-3)
    found = friedman(places)
    assert found is not None
    # 9.28 in the paper, which leaves out the correction for ties: four equal values once, two equal values three times.
    ties = (4**3 - 4) + 3 * (2**3 - 2)
    assert found[0] * (1 - ties / (14 * (4**3 - 4))) == pytest.approx(9.28, abs=5e-3)
    assert found[0] == pytest.approx(stats.friedmanchisquare(*_DEMSAR.T).statistic, rel=1e-9)


@pytest.mark.parametrize(
    ("methods", "at_95", "at_90"),
    [(2, 1.960, 1.645), (3, 2.343, 2.052), (4, 2.569, 2.291), (5, 2.728, 2.459), (10, 3.164, 2.920)],
)
def test_quantiles_are_demsars_table_5(methods: int, at_95: float, at_90: float) -> None:
    assert nemenyi_quantile(methods, 0.95) == pytest.approx(at_95, abs=1e-3)  # printed with three decimals
    assert nemenyi_quantile(methods, 0.90) == pytest.approx(at_90, abs=1e-3)


def test_direction_turns_places_round_and_ties_share_the_mean() -> None:
    values = np.array([[0.1, 0.5, 0.5, 0.9]])
    assert places_by_image(values, higher_is_better=False).tolist() == [[1, 2.5, 2.5, 4]]
    assert places_by_image(values, higher_is_better=True).tolist() == [[4, 2.5, 2.5, 1]]


def test_friedman_needs_three_methods_and_two_images() -> None:
    assert friedman(np.array([[1.0, 2.0]] * 5)) is None
    assert friedman(np.array([[1.0, 2.0, 3.0]])) is None
    assert friedman(np.full((5, 3), 2.0)) == (0.0, 1.0)
    assert nemenyi_distance(1, 10, 0.95) is None
    assert nemenyi_distance(3, 1, 0.95) is None


def _apart(methods: int, *pairs: tuple[int, int]) -> np.ndarray:
    table = np.zeros((methods, methods), dtype=bool)
    for one, two in pairs:
        table[one, two] = table[two, one] = True
    return table


def test_bars_join_neighbours_of_which_no_two_are_told_apart() -> None:
    assert bars([0, 1, 2, 3], _apart(4)) == [(0, 1, 2, 3)]
    assert bars([0, 1, 2, 3], _apart(4, (0, 3))) == [(0, 1, 2), (1, 2, 3)]
    assert bars([2, 0, 1], _apart(3, (0, 1), (0, 2), (1, 2))) == []
    # Ends that are not told apart don't hide a difference between them.
    assert bars([0, 1, 2], _apart(3, (0, 1))) == [(1, 2)]
    assert bars([], _apart(0)) == []


@given(st.integers(2, 7), st.data())
def test_bars_are_valid_maximal_and_complete(methods: int, data: st.DataObject) -> None:
    pairs = [(i, j) for i in range(methods) for j in range(i)]
    apart = _apart(methods, *data.draw(st.lists(st.sampled_from(pairs), max_size=len(pairs))))
    order = data.draw(st.permutations(range(methods)))
    found = bars(order, apart)
    for bar in found:
        assert not apart[np.ix_(bar, bar)].any()
        assert not any(set(bar) < set(other) for other in found)
    for one, two in pairwise(order):
        assert apart[one, two] != any(one in bar and two in bar for bar in found)
