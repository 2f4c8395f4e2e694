"""MaxBoxAcc: wsolevaluation's boxes and counts, OpenCV's contours on random maps, what perfect maps must score."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.evaluation.box_overlap import iou_matrix
from roarline.evaluation.max_box_accuracy import boxes_at_levels, boxes_right, thresholds
from roarline.evaluation.statistics_of_means import best_threshold, mean_of_three_best
from tests.golden_cases import case

OVERLAPS = (0.3, 0.5, 0.7)


@pytest.fixture
def wsol() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Maps [6, 224, 224], boxes (image, x0, y0, x1, y1) as the network sees them, and the case."""
    arrays, _ = case("s3_wsol_maxboxacc")
    maps = arrays["in_scoremap_u16"].repeat(2, axis=1).repeat(2, axis=2) / 997.0
    return maps, arrays["out_resized_gt"], arrays


def test_overlaps_as_published(wsol: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> None:
    _, boxes, arrays = wsol
    overlap = iou_matrix(arrays["out_single_boxes_map0"][:20], boxes[:, 1:])
    np.testing.assert_allclose(overlap, arrays["out_iou_matrix"], rtol=1e-12)


def found_boxes(map_HW: np.ndarray, step: float, which: Literal["largest", "all"]) -> list[list[list[int]]]:
    """Published boxes at each threshold."""
    found = boxes_at_levels(map_HW, step=step, which=which, compat="original")
    return [found.boxes[found.level == level].tolist() for level in found.of_threshold]


@pytest.mark.parametrize("image", [0, 2])
def test_boxes_of_every_threshold_as_published(
    wsol: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]], image: int
) -> None:
    maps, _, arrays = wsol
    (largest,) = zip(*found_boxes(maps[image], 0.01, "largest"), strict=True)
    np.testing.assert_array_equal(largest, arrays[f"out_single_boxes_map{image}"])
    numbers = arrays[f"out_multi_nboxes_map{image}"]
    expected = np.split(arrays[f"out_multi_boxes_map{image}"], np.cumsum(numbers)[:-1])
    for found, published in zip(found_boxes(maps[image], 0.01, "all"), expected, strict=True):
        assert sorted(found) == sorted(published.tolist())


@pytest.mark.parametrize(("which", "name"), [("largest", "single"), ("all", "multi")])
def test_counts_and_scores_as_published(
    wsol: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]], which: Literal["largest", "all"], name: str
) -> None:
    maps, boxes, arrays = wsol
    right = np.stack(
        [
            boxes_right(map_, boxes[boxes[:, 0] == image, 1:], overlaps=OVERLAPS, which=which, compat="original")
            for image, map_ in enumerate(maps)
        ]
    )
    np.testing.assert_array_equal(right.sum(axis=0), arrays[f"out_{name}_num_correct"])
    means = torch.from_numpy(right.astype(float).mean(axis=0))
    np.testing.assert_allclose(100 * best_threshold(means), arrays[f"out_{name}_maxboxacc"])
    expected = arrays[f"out_{name}_maxboxacc"].mean()
    assert 100 * mean_of_three_best(means.flatten()).item() == pytest.approx(expected)


def contours(map_HW: np.ndarray, step: float) -> list[list[Any]]:
    """OpenCV's contours at each threshold, as wsolevaluation takes them."""
    grey = (map_HW * 255).astype(np.uint8)
    above = [(grey > int(tau * grey.max())).astype(np.uint8) for tau in thresholds(step)]
    return [list(cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]) for binary in above]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30), st.integers(2, 24), st.sampled_from([0.05, 0.2]))
def test_boxes_as_opencv_finds_them(seed: int, side: int, step: float) -> None:
    generator = np.random.default_rng(seed)
    map_HW = generator.integers(0, generator.integers(2, 9), (side, side + 3)) / 8
    found = zip(
        found_boxes(map_HW, step, "largest"), found_boxes(map_HW, step, "all"), contours(map_HW, step), strict=True
    )
    for largest, every, published in found:
        boxes = [cv2.boundingRect(contour) for contour in published]
        limited = [[x, y, min(x + w, side + 2), min(y + h, side - 1)] for x, y, w, h in boxes]
        assert sorted(every) == sorted(limited or [[0, 0, 0, 0]])
        areas = [cv2.contourArea(contour) for contour in published]
        of_largest = [box for box, area in zip(limited, areas, strict=True) if area == max(areas)]
        assert len(largest) == 1
        assert largest[0] in (of_largest or [[0, 0, 0, 0]])


def test_a_perfect_map_is_right_at_every_threshold_and_overlap() -> None:
    map_HW = np.zeros((30, 40))
    map_HW[5:12, 20:33] = 1
    box = np.array([[20, 5, 32, 11]])
    for which in ("largest", "all"):
        assert boxes_right(map_HW, box, overlaps=(0.5, 1.0), which=which).all()  # type: ignore[arg-type]
    assert not boxes_right(map_HW, box, overlaps=(1.0,), compat="original").any()  # its boxes are too large


def test_several_objects_need_all_boxes_only_where_one_is_to_be_found() -> None:
    map_HW = np.zeros((30, 40))
    map_HW[2:10, 2:10] = 1
    map_HW[15:20, 25:30] = 0.9
    small = np.array([[25, 15, 29, 19]])
    assert not boxes_right(map_HW, small, which="largest").any()
    assert boxes_right(map_HW, small, which="all")[0, :90].all()


def test_a_map_of_zeros_has_no_box_and_a_constant_one_the_whole_image() -> None:
    whole, corner = np.array([[0, 0, 9, 7]]), np.array([[0, 0, 0, 0]])
    assert not boxes_right(np.zeros((8, 10)), corner).any()
    assert boxes_right(np.zeros((8, 10)), corner, compat="original").all()  # an empty box is a box of one px there
    assert boxes_right(np.full((8, 10), 0.4), whole, overlaps=(1.0,)).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**30))
def test_invariances(seed: int) -> None:
    generator = np.random.default_rng(seed)
    map_HW = generator.random((16, 16)).repeat(2, axis=0).repeat(2, axis=1)
    x0, y0 = generator.integers(0, 16, 2)
    box = np.array([[x0, y0, x0 + 12, y0 + 15]])
    for which in ("largest", "all"):
        right = boxes_right(map_HW, box, overlaps=OVERLAPS, which=which)  # type: ignore[arg-type]
        assert (right[0] >= right[1]).all()
        assert (right[1] >= right[2]).all()
        transposed = boxes_right(map_HW.T, box[:, [1, 0, 3, 2]], overlaps=OVERLAPS, which=which)  # type: ignore[arg-type]
        if which == "all":  # the largest of equal parts depends on where one begins to count
            np.testing.assert_array_equal(transposed, right)
