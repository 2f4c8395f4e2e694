"""Rank stability: what equal, reversed and incomplete rankings give."""

from __future__ import annotations

import pytest
from scipy import stats

from roarline.evaluation.rank_stability import Point, stability

_BASE = {"a": 0.9, "b": 0.5, "c": 0.1}


def test_a_point_that_only_shifts_scores_agrees_perfectly() -> None:
    points = [Point("fill", "zero", {name: value - 5 for name, value in _BASE.items()})]
    placed, (found,) = stability(_BASE, points, higher_is_better=True)
    assert (found.factor, found.points, found.methods) == ("fill", 1, 3)
    assert (found.kendall_w, found.tau_mean, found.tau_min) == pytest.approx((1, 1, 1))
    assert {(row.label, row.method): row.place for row in placed} == {
        ("", "a"): 1, ("", "b"): 2, ("", "c"): 3, ("zero", "a"): 1, ("zero", "b"): 2, ("zero", "c"): 3,
    }  # fmt: skip


def test_a_reversed_point_contradicts_the_base() -> None:
    points = [Point("fill", "zero", {"a": 0.1, "b": 0.5, "c": 0.9}), Point("steps", "9", {"a": 3, "b": 1, "c": 2})]
    _placed, found = stability(_BASE, points, higher_is_better=False)
    by_factor = {row.factor: row for row in found}
    assert list(by_factor) == ["fill", "steps", "all"]
    assert (by_factor["fill"].tau_min, by_factor["fill"].kendall_w) == pytest.approx((-1, 0))
    # a, b, c against a, c, b: one of three pairs turned round.
    assert by_factor["steps"].tau_mean == pytest.approx(1 / 3)
    assert by_factor["all"].points == 2
    assert by_factor["all"].tau_mean == pytest.approx((-1 + 1 / 3) / 2)
    assert by_factor["all"].tau_min == pytest.approx(-1)
    places = [[3, 2, 1], [1, 2, 3], [3, 1, 2]]
    assert by_factor["all"].kendall_w == pytest.approx(stats.friedmanchisquare(*zip(*places, strict=True))[0] / 6)


def test_methods_that_a_point_lacks_are_left_out_of_all_rankings() -> None:
    points = [Point("repeat", "0", {"a": 1, "b": 2}), Point("repeat", "1", {"a": 1, "b": 2, "c": 3})]
    placed, (found,) = stability(_BASE, points, higher_is_better=True)
    assert found.methods == 2
    assert {row.method for row in placed} == {"a", "b"}
    assert stability(_BASE, [Point("repeat", "0", {"a": 1})], higher_is_better=True) == ([], [])
    assert stability(_BASE, [], higher_is_better=True) == ([], [])


def test_a_point_where_all_methods_are_equal_ranks_nothing() -> None:
    """Nothing removed, everything removed: no method differs from another."""
    nothing = Point("removed_fraction", "0", dict.fromkeys(_BASE, 1.0))
    assert stability(_BASE, [nothing], higher_is_better=True) == ([], [])
    _placed, (found,) = stability(_BASE, [nothing, Point("removed_fraction", "0.5", _BASE)], higher_is_better=True)
    assert (found.points, found.kendall_w) == (1, pytest.approx(1))


def test_a_base_where_all_methods_are_equal_has_no_tau() -> None:
    _placed, (found,) = stability(dict.fromkeys(_BASE, 1.0), [Point("fill", "zero", _BASE)], higher_is_better=True)
    assert (found.tau_mean, found.tau_min) == (None, None)
