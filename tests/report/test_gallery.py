"""The gallery: a stratified draw, honest probabilities, pictures that show what is ranked."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.report.gallery import choose, class_scores, plane, tiles
from roarline.report.scores import Method


@settings(max_examples=50)
@given(st.integers(0, 40), st.integers(0, 12), st.integers(1, 5), st.integers(0, 2**31))
def test_a_draw_has_the_right_number_of_images_and_none_twice(images: int, count: int, classes: int, seed: int):
    rows = np.arange(100, 100 + images)
    chosen = choose(rows, np.arange(images) % classes, count, seed)
    assert len(chosen) == min(count, images)
    assert len({choice.row for choice in chosen}) == len(chosen)
    assert all(choice.drawn_for == (choice.row - 100) % classes for choice in chosen)
    # The classes take turns: their counts differ by one at most, while every class has images left.
    if chosen and images >= classes * count:
        counts = Counter(choice.drawn_for for choice in chosen)
        assert max(counts.values()) - min(counts.get(label, 0) for label in range(classes)) <= 1


def test_a_draw_depends_on_the_seed_alone():
    rows, labels = np.arange(200), np.arange(200) % 10
    assert choose(rows, labels, 8, 1) == choose(rows, labels, 8, 1)
    assert choose(rows, labels, 8, 1) != choose(rows, labels, 8, 2)
    # With fewer pictures than classes, the classes are drawn, too.
    assert {choice.drawn_for for seed in range(20) for choice in choose(rows, labels, 2, seed)} == set(range(10))


def test_with_several_labels_an_image_is_drawn_for_one_it_has():
    hot = np.zeros((12, 3), dtype=np.uint8)
    hot[np.arange(12), np.arange(12) % 3] = 1
    hot[:, 0] = 1
    hot[5] = 0
    chosen = choose(np.arange(12), hot, 12, 0)
    assert len({choice.row for choice in chosen}) == 12
    assert [choice.row for choice in chosen if choice.drawn_for == -1] == [5]
    assert all(hot[choice.row, choice.drawn_for] for choice in chosen if choice.drawn_for >= 0)


def test_probabilities_are_the_softmax_or_the_sigmoid():
    logits = torch.tensor([0.5, 3.0, -1.0, 2.0])
    single = class_scores(logits.numpy(), "abcd", multi_label=False)
    assert [score.name for score in single] == ["b", "d"]
    expected = torch.softmax(logits.double(), 0)
    assert [score.probability for score in single] == pytest.approx([expected[1].item(), expected[3].item()])
    multi = class_scores(logits.numpy(), "abcd", multi_label=True, most=1)
    assert multi[0].probability == pytest.approx(torch.sigmoid(logits.double())[1].item())


def test_probabilities_of_huge_logits_stay_finite():
    assert class_scores(np.array([1e4, -1e4], dtype=np.float32), "ab", multi_label=False)[0].probability == 1.0
    assert class_scores(np.array([1e4, -1e4], dtype=np.float32), "ab", multi_label=True)[1].probability < 1e-300


def test_the_masked_image_lacks_the_most_relevant_pixels_and_no_others(rng: np.random.Generator):
    image = torch.zeros(3, 4, 5)
    map_HW = rng.permutation(20).reshape(4, 5).astype(np.float32)
    method = Method("m", "m", "signed", "sum", {}, False)
    tile = tiles(image, {"m": map_HW}, [method], torch.ones(3, 1, 1), 0.3, 0)[0]
    np.testing.assert_array_equal(tile.removed[..., 0] == 255, map_HW >= 14)
    assert not tile.signed
    assert tile.map.shape == tile.overlay.shape == (4, 5, 3)


def test_a_map_is_shown_as_it_is_ranked():
    map_HW = np.array([[-2.0, 1.0]], dtype=np.float32)
    np.testing.assert_array_equal(plane(map_HW, "absolute"), [[2, 1]])
    np.testing.assert_array_equal(plane(map_HW, "positive"), [[0, 1]])
    np.testing.assert_array_equal(plane(np.stack([map_HW, 3 * map_HW]), "signed"), [[-2, 3]])
    np.testing.assert_array_equal(plane(np.stack([map_HW, 3 * map_HW]), "absolute"), [[6, 3]])
