"""Perfect masks of box metrics: best of all masks by trying all, 1 wherever a mask can score 1."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.evaluation.mask_boxes import BoxScores, binarised, box_scores, largest_part
from roarline.evaluation.max_box_accuracy import boxes_right
from roarline.evaluation.perfect_masks import best_mean_f1_mask, largest_box_mask

SIDE, F1_SHORT = 24, 2e-6  # published denominators have 1e-6 more
WHOLE, TOUCHING = [[0, 0, SIDE, SIDE]], [[2, 2, 10, 10], [10, 2, 18, 10]]
NESTED, TWO_EQUAL = [[0, 0, 20, 20], [5, 5, 9, 9]], [[0, 0, 6, 6], [12, 12, 18, 18]]


def scored(mask_HW: np.ndarray, boxes_G4: np.ndarray) -> BoxScores:
    inside = binarised(torch.from_numpy(mask_HW)[None].double())[0].numpy()
    return box_scores(mask_HW.astype(np.float64), largest_part(inside), boxes_G4)


@pytest.mark.parametrize("boxes", [WHOLE, TOUCHING, NESTED, TWO_EQUAL, [[3, 4, 4, 5]]])
def test_the_largest_box_is_perfect_wherever_boxes_lie(boxes: list[list[int]]) -> None:
    truth = np.array(boxes)
    mask = largest_box_mask(truth, (SIDE, SIDE))
    found = scored(mask, truth)
    assert found.localization_error == 0
    assert found.iou.max() == 1
    assert found.f1.max() == pytest.approx(1, abs=F1_SHORT)
    inclusive = truth - np.array([0, 0, 1, 1])
    for which in ("largest", "all"):
        assert boxes_right(mask.astype(np.float64), inclusive, overlaps=(1.0,), which=which).all()  # type: ignore[arg-type]


def test_all_boxes_together_are_one_part_where_they_touch() -> None:
    """Why the perfect mask of box metrics is one box: saliency_investigation and wsolevaluation box whole parts."""
    truth, mask = np.array(TOUCHING), np.zeros((SIDE, SIDE))
    mask[2:10, 2:18] = 1
    assert scored(mask, truth).iou.max() == 0.5
    assert scored(mask, truth).localization_error == 1
    assert not boxes_right(mask, truth - np.array([0, 0, 1, 1]), overlaps=(0.7,), which="all").any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 2)] * 4), min_size=1, max_size=3))
def test_no_mask_has_a_higher_mean_f1(corners: list[tuple[int, int, int, int]]) -> None:
    boxes = np.array([[min(a, c), min(b, d), max(a, c) + 1, max(b, d) + 1] for a, b, c, d in corners])
    every = [np.array(bits, dtype=bool).reshape(3, 3) for bits in product((0, 1), repeat=9)]
    nothing = np.zeros(4, dtype=np.int64)
    best = max(box_scores(mask, nothing, boxes).f1.mean() for mask in every)
    found = box_scores(best_mean_f1_mask(boxes, (3, 3)), nothing, boxes).f1.mean()
    assert found == pytest.approx(best, abs=F1_SHORT)


def test_several_boxes_want_more_than_the_largest() -> None:
    """Two equal boxes apart: both have 2 a / (2 a + a); with one of them the mean is 1/2."""
    truth, nothing = np.array(TWO_EQUAL), np.zeros(4, dtype=np.int64)
    together = box_scores(best_mean_f1_mask(truth, (SIDE, SIDE)), nothing, truth)
    assert together.f1.mean() == pytest.approx(2 / 3, abs=F1_SHORT)
    alone = box_scores(largest_box_mask(truth, (SIDE, SIDE)), nothing, truth)
    assert alone.f1.mean() == pytest.approx(1 / 2, abs=F1_SHORT)


def test_no_box_gives_nothing() -> None:
    none = np.empty((0, 4), dtype=np.int64)
    assert not largest_box_mask(none, (4, 5)).any()
    assert not best_mean_f1_mask(none, (4, 5)).any()
