"""One metric, all methods: which tests decide, which images count, what places and reliability say."""

from __future__ import annotations

import numpy as np
import pytest

from roarline.evaluation.method_comparison import Comparison, Scored, compare_methods, images_by_method


def scored(rows: np.ndarray, *, higher: bool | None = True, clusters: np.ndarray | None = None) -> Scored:
    """rows [K, R, M]."""
    means = np.nanmean(rows.reshape(len(rows), -1), axis=1)
    cluster = np.arange(rows.shape[2]) if clusters is None else clusters
    names = tuple("abcdefgh"[: len(rows)])
    draws = means[:, None] + np.random.default_rng(0).normal(0, 0.01, (len(rows), 200)) if rows.shape[1] > 1 else None
    return Scored("m", "", higher, names, means, rows, cluster, draws)


def compare(one: Scored) -> Comparison:
    return compare_methods(one, confidence=0.95, resamples=300, seed=0)


@pytest.fixture
def rows(rng: np.random.Generator) -> np.ndarray:
    """a clearly below b and c, which are told apart by nothing: [3, 1, 60]."""
    base = rng.normal(size=60)
    return np.stack([base - 1, base, base + rng.normal(0, 0.5, 60)])[:, None]


def test_clear_methods_are_told_apart_and_equal_ones_share_a_bar(rows: np.ndarray) -> None:
    found = compare(scored(rows))
    better = {(pair.first, pair.second): pair.better for pair in found.pairs}
    assert better == {("a", "b"): "b", ("a", "c"): "c", ("b", "c"): None}
    places = {row.method: row for row in found.places}
    assert places["a"].bars == ()
    assert places["b"].bars == places["c"].bars == (1,)
    assert places["a"].place > 2.5 > places["b"].place
    for row in found.places:
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.place <= row.high
    assert [row.place for row in found.places] == sorted(row.place for row in found.places)
    reliability = found.reliability
    assert reliability is not None
    assert (reliability.test, reliability.images, reliability.methods) == ("signed-rank", 60, 3)
    assert reliability.friedman is not None
    assert reliability.friedman[1] < 1e-6
    assert reliability.alpha_low is not None
    assert reliability.alpha is not None
    assert reliability.alpha_high is not None
    assert reliability.alpha_low < reliability.alpha < reliability.alpha_high


def test_where_lower_is_better_the_order_turns_round_and_alpha_stays(rows: np.ndarray) -> None:
    higher, lower = compare(scored(rows)), compare(scored(rows, higher=False))
    assert {pair.better for pair in lower.pairs} == {"a", None}
    assert next(row.method for row in lower.places) == "a"
    assert higher.reliability is not None
    assert lower.reliability is not None
    assert lower.reliability.alpha == pytest.approx(higher.reliability.alpha)


def test_a_metric_without_direction_is_tested_and_not_ranked(rows: np.ndarray) -> None:
    found = compare(scored(rows, higher=None))
    assert (found.places, found.reliability) == ([], None)
    assert [pair.better for pair in found.pairs] == [None] * 3
    assert found.pairs[0].p_wilcoxon_holm is not None
    assert found.pairs[0].p_wilcoxon_holm < 1e-6


def test_one_bar_for_all_where_friedmans_test_finds_nothing(rng: np.random.Generator) -> None:
    noise = rng.normal(size=(4, 1, 30))
    found = compare(scored(noise))
    assert found.reliability is not None
    assert found.reliability.friedman is not None
    assert found.reliability.friedman[1] > 0.05
    assert {row.bars for row in found.places} == {(1,)}


def test_methods_that_failed_on_most_images_are_left_out_and_others_compared_on_common_images(
    rows: np.ndarray,
) -> None:
    some = np.concatenate([rows, rows[:1] + 2, np.full((1, 1, 60), np.nan)])
    some[3, 0, 20:] = np.nan  # d: a third of the images; e: none at all, so it has no score
    some[2, 0, :10] = np.nan  # c: five sixths
    with pytest.warns(RuntimeWarning, match="Mean of empty slice"):  # numpy's, of e's score
        one = scored(some)
    found = compare(one)
    assert found.reliability is not None
    assert (found.reliability.left_out, found.reliability.images) == (("d",), 50)
    assert {row.method for row in found.places} == {"a", "b", "c"}
    images = {(pair.first, pair.second): pair.images for pair in found.pairs}
    assert images == {
        ("a", "b"): 60, ("a", "c"): 50, ("a", "d"): 20, ("b", "c"): 50, ("b", "d"): 20, ("c", "d"): 10,
    }  # fmt: skip


def test_several_repeats_are_tested_by_means_and_placed_by_scores(rng: np.random.Generator) -> None:
    rows = np.stack([0.5 + 0.2 * k + rng.normal(0, 0.01, (3, 1)) + rng.normal(0, 0.1, (3, 80)) for k in range(3)])
    found = compare(scored(rows))
    assert found.reliability is not None
    assert found.reliability.test == "mean difference"
    assert (found.reliability.friedman, found.reliability.nemenyi) == (None, None)
    assert all(pair.p_wilcoxon is None and pair.p_mean is not None for pair in found.pairs)
    assert [(row.method, row.place, row.low, row.high) for row in found.places] == [
        ("c", 1, 1, 1), ("b", 2, 2, 2), ("a", 3, 3, 3),
    ]  # fmt: skip
    assert {pair.better for pair in found.pairs} == {"b", "c"}


def test_scores_that_are_no_means_are_tested_from_their_resamples(rng: np.random.Generator) -> None:
    draws = np.array([[0.4], [0.6], [0.61]]) + rng.normal(0, 0.02, (3, 500))
    found = compare(Scored("m", "", True, ("a", "b", "c"), np.array([0.4, 0.6, 0.61]), draws_KB=draws))
    assert {(pair.first, pair.second): pair.better for pair in found.pairs} == {
        ("a", "b"): "b", ("a", "c"): "c", ("b", "c"): None,
    }  # fmt: skip
    assert found.reliability is not None
    assert (found.reliability.test, found.reliability.images, found.reliability.alpha) == (
        "resampled scores",
        None,
        None,
    )
    places = {row.method: row for row in found.places}
    assert (places["c"].place, places["c"].low, places["c"].high) == (1, 1, 2)
    assert (places["a"].low, places["a"].high) == (3, 3)


def test_one_method_or_one_image_says_little_and_breaks_nothing(rows: np.ndarray) -> None:
    assert compare(scored(rows[:1])).reliability is None
    found = compare(scored(rows[:, :, :1]))
    assert found.reliability is not None
    assert found.reliability.alpha is None
    assert all(row.low is None for row in found.places)
    assert all(pair.better is None for pair in found.pairs)


def test_an_images_value_is_the_mean_of_its_rows() -> None:
    rows = np.array([[[1.0, 3.0, np.nan, 5.0, np.nan]]])
    found = images_by_method(rows, np.array([0, 0, 1, 1, 2]))
    assert found[:2, 0].tolist() == [2, 5]
    assert np.isnan(found[2, 0])
