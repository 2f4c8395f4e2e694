"""Stratified draws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roarline.data.splits import draw_count, draw_per_group, draw_share, strata
from roarline.errors import DataError

SIZES = st.lists(st.integers(2, 40), min_size=1, max_size=6)


def _samples(sizes: list[int]) -> tuple[list[str], np.ndarray]:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    return [f"{group}/{row}" for row, group in enumerate(groups)], groups


@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_each_class_gives_its_exact_share_rounded_up_or_down(sizes: list[int], fraction: float, seed: int) -> None:
    ids, groups = _samples(sizes)
    drawn = draw_share(ids, groups, fraction, seed)
    total = int(np.floor(fraction * len(ids) + 0.5))
    for group, size in enumerate(sizes):
        count, exact = int(drawn[groups == group].sum()), size * total / len(ids)
        assert 1 <= count <= size - 1
        assert np.floor(exact) <= count <= np.ceil(exact) or count in (1, size - 1)


@given(st.integers(1, 6), st.integers(1, 8), st.integers(2, 5))
def test_equal_classes_give_equally_many(classes: int, per_class: int, parts: int) -> None:
    ids, groups = _samples([per_class * parts] * classes)
    drawn = draw_share(ids, groups, 1 / parts, seed=0)
    assert np.bincount(groups[drawn]).tolist() == [per_class] * classes


@given(SIZES, st.integers(1, 100), st.integers(0, 2**32))
def test_a_limit_is_exact_and_keeps_the_shares(sizes: list[int], count: int, seed: int) -> None:
    ids, groups = _samples(sizes)
    drawn = draw_count(ids, groups, count, seed)
    assert drawn.sum() == min(count, len(ids))
    for group, size in enumerate(sizes):
        exact = size * min(count, len(ids)) / len(ids)
        assert np.floor(exact) <= drawn[groups == group].sum() <= np.ceil(exact)


@given(SIZES, st.randoms(use_true_random=False))
def test_the_order_of_the_samples_changes_nothing(sizes: list[int], random) -> None:
    ids, groups = _samples(sizes)
    shuffled = list(range(len(ids)))
    random.shuffle(shuffled)
    for draw in (lambda i, g: draw_share(i, g, 0.3, 5), lambda i, g: draw_count(i, g, 7, 5)):
        straight = {ids[row] for row in np.flatnonzero(draw(ids, groups))}
        other_ids = [ids[row] for row in shuffled]
        assert {other_ids[row] for row in np.flatnonzero(draw(other_ids, groups[shuffled]))} == straight


def test_same_seed_same_draw_other_seed_another() -> None:
    ids, groups = _samples([50, 50])
    assert np.array_equal(draw_share(ids, groups, 0.2, 1), draw_share(ids, groups, 0.2, 1))
    assert not np.array_equal(draw_share(ids, groups, 0.2, 1), draw_share(ids, groups, 0.2, 2))


def test_every_sample_is_drawn_about_equally_often() -> None:
    ids, groups = _samples([20])
    often = sum(draw_share(ids, groups, 0.25, seed).astype(int) for seed in range(800))
    assert abs(often - 200).max() < 5 * np.sqrt(800 * 0.25 * 0.75)


def test_a_class_with_one_image_is_named() -> None:
    with pytest.raises(DataError, match="class 'rare': 1 image where 2 are needed"):
        draw_share(["a", "b", "c"], np.asarray([0, 0, 1]), 0.5, 0, group_names=["common", "rare"])


def test_without_names_a_lonely_sample_is_not_drawn() -> None:
    assert not draw_share(["a", "b", "c"], np.asarray([0, 0, 1]), 0.9, 0)[2]


def test_strata_of_several_labels_are_the_rarest_of_each_sample() -> None:
    labels = np.asarray([[1, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert strata(labels).tolist() == [0, 1, 2, 3, 0]
    assert strata(np.asarray([2, 0])).tolist() == [2, 0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 3))
def test_so_many_of_each_group(labels: list[int], count: int, seed: int) -> None:
    groups = np.asarray(labels)
    ids = [f"id {row}" for row in range(len(labels))]
    drawn = draw_per_group(ids, groups, count, seed)
    for group in set(labels):
        assert drawn[groups == group].sum() == min(count, labels.count(group))
    assert (draw_per_group(ids, groups, count + 1, seed) >= drawn).all()  # a larger draw holds the smaller one
    order = np.random.default_rng(seed).permutation(len(labels))
    again = draw_per_group([ids[row] for row in order], groups[order], count, seed)
    assert np.array_equal(again, drawn[order])
