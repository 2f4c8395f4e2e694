"""Boxes and segmentation follow the pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roarline.data.decoding import from_array, resize_and_crop, to_array
from roarline.data.geometry import fit_boxes, fit_segmentation
from roarline.errors import DataError


def test_boxes_of_unused_rows_go_and_rows_are_numbered_anew() -> None:
    boxes = np.asarray([[5, 1, 0, 0, 3, 3], [0, 0, 1, 1, 2, 2], [2, 1, 0, 1, 2, 3], [2, 0, 0, 0, 0, 0]])
    fitted = fit_boxes(boxes, np.asarray([2, 5]), np.full((2, 2), 4), None, None)
    assert fitted.tolist() == [[0, 1, 0, 1, 2, 3], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 3, 3]]


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.data())
def test_enlarged_boxes_cover_exactly_the_enlarged_pixels(
    width: int, height: int, factor: int, data: st.DataObject
) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))
    mask = np.zeros((1, height, width), dtype=np.uint8)
    mask[0, y0 : y1 + 1, x0 : x1 + 1] = 1
    resize_px, sizes, row = factor * min(width, height), np.asarray([[height, width]]), np.asarray([0])
    crop_px = data.draw(st.none() | st.integers(1, resize_px))
    (seen,) = next(fit_segmentation(mask, row, sizes, resize_px, crop_px))
    boxes = fit_boxes(np.asarray([[0, 0, x0, y0, x1, y1]]), row, sizes, resize_px, crop_px)
    assert seen.shape == to_array(resize_and_crop(from_array(mask), resize_px, crop_px, "x")).shape[1:]
    ys, xs = np.nonzero(seen)
    expected = [[0, 0, xs.min(), ys.min(), xs.max(), ys.max()]] if len(xs) else []
    assert boxes.tolist() == expected


def test_a_mask_of_another_size_than_its_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"masks of \[4, 4\] px for images of \[4, 5\] px"):
        next(fit_segmentation(np.zeros((1, 4, 4)), np.asarray([0]), np.asarray([[4, 5]]), None, None))
