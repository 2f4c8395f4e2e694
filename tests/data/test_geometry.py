"""Boxes and segmentation follow the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from roarline.artifacts.runs import CoveredMasks, from_run_lengths
from roarline.data.decoding import from_array, resize_and_crop, to_array
from roarline.data.geometry import fit_boxes, fit_mask, fit_segmentation, truncated_boxes
from roarline.data.raw import RawMask
from roarline.errors import DataError
from tests.golden_cases import case


@settings(max_examples=50)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 4), st.data())
def test_stretched_boxes_cover_exactly_the_stretched_pixels(
    width: int, height: int, factor: int, data: st.DataObject
) -> None:
    """To a side that is a multiple of both, so that a pixel becomes a rectangle of whole pixels."""
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))
    mask = np.zeros((1, height, width), dtype=np.uint8)
    mask[0, y0 : y1 + 1, x0 : x1 + 1] = 1
    side, sizes, row = factor * math.lcm(width, height), np.asarray([[height, width]]), np.asarray([0])
    crop_px = data.draw(st.none() | st.integers(1, side))
    (seen,) = next(fit_segmentation(mask, row, sizes, side, crop_px, stretch=True))
    boxes = fit_boxes(np.asarray([[0, 0, x0, y0, x1, y1]]), row, sizes, side, crop_px, stretch=True).boxes
    assert seen.shape == (crop_px or side, crop_px or side)
    ys, xs = np.nonzero(seen)
    expected = [[0, 0, xs.min(), ys.min(), xs.max(), ys.max()]] if len(xs) else []
    assert boxes.tolist() == expected


def test_truncated_boxes_as_saliency_investigation_cuts_them() -> None:
    arrays, _ = case("s3_resize_boxes")
    for (width, height, *box, break_ratio), expected in zip(
        arrays["in_boxes"].tolist(), arrays["out_boxes"], strict=True
    ):
        size = np.array([width, height])
        shown = np.array([224, 224]) if break_ratio else size * 224 / size.min()
        np.testing.assert_array_equal(truncated_boxes(np.array([box]), size, shown, (shown - 224) / 2)[0], expected)


def test_truncated_boxes_as_wsolevaluation_cuts_them() -> None:
    """They may end one px outside the image: the last corner counts as inside there, and is scaled like the first."""
    arrays, _ = case("s3_wsol_maxboxacc")
    sizes, boxes = arrays["in_sizes_wh"][:, ::-1], arrays["in_boxes"]
    raw = np.column_stack([boxes[:, 0], np.zeros(len(boxes), dtype=np.int64), boxes[:, 1:]])
    rows = np.arange(len(sizes))
    fitted = fit_boxes(raw, rows, sizes, 224, None, stretch=True, truncate=True).boxes
    np.testing.assert_array_equal(fitted[:, [0, 2, 3, 4, 5]], arrays["out_resized_gt"])


def test_masks_as_nn_explainer_opens_them() -> None:
    """VOC: coloured to grey, stretched bilinearly, above 0, void and all; COCO: soft."""
    arrays, params = case("s0_open_segmentation")
    picture = Image.fromarray(arrays["in_voc_index"])
    picture.putpalette(arrays["in_palette"].ravel().tolist())
    size, side = arrays["in_voc_index"].shape, params["size"]
    voc = RawMask(arrays["in_voc_index"], dilated_from=np.asarray(picture.convert("L")))
    np.testing.assert_array_equal(fit_mask(voc, size, side, None, stretch=True).labels > 0, arrays["out_voc"] == 1)
    grey = arrays["in_coco_gray"]
    coco = RawMask((grey > 0).astype(np.uint8), dilated_from=grey)
    (labels,) = next(fit_segmentation(_One(coco), np.array([0]), np.array([size]), side, None, stretch=True))
    (soft,) = next(fit_segmentation(_One(coco), np.array([0]), np.array([size]), side, None, stretch=True, shares=True))
    np.testing.assert_allclose(soft / 255, arrays["out_coco"], atol=1e-7)  # float32 there
    np.testing.assert_array_equal(labels > 0, soft > 0)


@dataclass
class _One:
    """The same mask for every row."""

    mask: RawMask

    def read(self, row: int) -> RawMask:
        return self.mask


def test_boxes_of_unused_rows_go_and_rows_are_numbered_anew() -> None:
    boxes = np.asarray([[5, 1, 0, 0, 3, 3], [0, 0, 1, 1, 2, 2], [2, 1, 0, 1, 2, 3], [2, 0, 0, 0, 0, 0]])
    fitted = fit_boxes(boxes, np.asarray([2, 5]), np.full((2, 2), 4), None, None).boxes
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
    boxes = fit_boxes(np.asarray([[0, 0, x0, y0, x1, y1]]), row, sizes, resize_px, crop_px).boxes
    assert seen.shape == to_array(resize_and_crop(from_array(mask), resize_px, crop_px, "x")).shape[1:]
    ys, xs = np.nonzero(seen)
    expected = [[0, 0, xs.min(), ys.min(), xs.max(), ys.max()]] if len(xs) else []
    assert boxes.tolist() == expected


def test_a_mask_of_another_size_than_its_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"masks of \[4, 4\] px for images of \[4, 5\] px"):
        next(fit_segmentation(np.zeros((1, 4, 4)), np.asarray([0]), np.asarray([[4, 5]]), None, None))


def test_boxes_say_which_raw_box_they_were() -> None:
    boxes = np.asarray([[1, 0, 9, 9, 9, 9], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [7, 0, 0, 0, 1, 1]])
    fitted = fit_boxes(boxes, np.asarray([0, 1]), np.asarray([[4, 4], [4, 4]]), None, None)
    assert fitted.kept.tolist() == [2, 1]
    assert fitted.boxes[:, 0].tolist() == [0, 1]


def test_boxes_drawn_on_a_larger_copy_shrink_with_it() -> None:
    boxes = np.asarray([[0, 0, 100, 40, 199, 79], [1, 0, 1, 2, 3, 3]])
    sizes = np.asarray([[40, 80], [40, 80]])
    fitted = fit_boxes(boxes, np.asarray([0, 1]), sizes, None, None, drawn_on=np.asarray([[400, 800], [0, 0]]))
    assert fitted.boxes.tolist() == [[0, 0, 10, 4, 19, 7], [1, 0, 1, 2, 3, 3]]


@settings(max_examples=30)
@given(st.integers(2, 30), st.integers(2, 30), st.integers(2, 40), st.data())
def test_shrunk_boxes_hold_every_pixel_of_the_shrunk_mask(
    width: int, height: int, resize_px: int, data: st.DataObject
) -> None:
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0, width - 1)), data.draw(st.integers(y0, height - 1))
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[y0 : y1 + 1, x0 : x1 + 1] = 1
    crop_px = data.draw(st.none() | st.integers(1, resize_px))
    seen = fit_mask(RawMask(labels), (height, width), resize_px, crop_px).labels
    box = np.asarray([[0, 0, x0, y0, x1, y1]])
    fitted = fit_boxes(box, np.asarray([0]), np.asarray([[height, width]]), resize_px, crop_px).boxes
    ys, xs = np.nonzero(seen)
    if len(xs):
        _, _, left, top, right, bottom = fitted[0].tolist()
        assert left <= xs.min() <= xs.max() <= right
        assert top <= ys.min() <= ys.max() <= bottom
        scale = resize_px / min(width, height)
        assert right - left + 1 <= (x1 - x0 + 1) * scale + 2  # and at most a pixel more on either side
        assert bottom - top + 1 <= (y1 - y0 + 1) * scale + 2


class _Masks:
    """Masks one by one: row 1 has none, row 2 has one that another covers."""

    def read(self, row: int) -> RawMask | None:
        labels = np.full((4, 6), row, dtype=np.uint8)
        whole = {4: np.arange(24).reshape(4, 6) % 6 < 3} if row == 2 else {}
        return None if row == 1 else RawMask(labels, whole)


@pytest.mark.parametrize("threads", [1, 3])
def test_masks_that_are_read_one_by_one(threads: int) -> None:
    covered = CoveredMasks()
    sizes = np.full((3, 2), (4, 6))
    (masks,) = fit_segmentation(_Masks(), np.asarray([1, 2, 3]), sizes, 2, 2, covered=covered, threads=threads)
    assert masks.shape == (3, 2, 2)
    assert [np.unique(mask).tolist() for mask in masks] == [[255], [2], [3]]
    assert covered.places == [(1, 4)]
    # at half size columns 0, 1, 2 come from 1, 3, 5; the centre crop of 2 takes the first two (halves go to the even)
    assert from_run_lengths(covered.runs[0], (2, 2)).tolist() == [[True, False], [True, False]]


def test_a_mask_is_stretched_only_where_it_may_be() -> None:
    small = np.asarray([[1, 0]], dtype=np.uint8)
    assert fit_mask(RawMask(small, stretched=True), (2, 4), None, None).labels.tolist() == [[1, 1, 0, 0]] * 2
    with pytest.raises(DataError, match=r"masks of \[1, 2\] px for images of \[2, 4\] px"):
        fit_mask(RawMask(small), (2, 4), None, None)


def test_dilated_objects_are_exactly_what_bilinear_resizing_leaves_above_zero() -> None:
    """The original code's VOC masks: void counts as object, and resizing bleeds into the background."""
    labels = np.zeros((40, 60), dtype=np.uint8)
    labels[10:20, 5:15], labels[10:20, 15:18], labels[25:35, 40:55] = 3, 255, 8
    grey = np.where(labels == 255, 220, labels * 14).astype(np.uint8)
    dilated = fit_mask(RawMask(labels, dilated_from=grey), (40, 60), 16, 16).labels
    shrunk = resize_and_crop(from_array(grey[None]), 16, 16, "x")
    assert np.array_equal(dilated > 0, np.asarray(shrunk) > 0)
    assert set(np.unique(dilated)) == {0, 3, 8}
    plain = fit_mask(RawMask(labels), (40, 60), 16, 16).labels
    assert (dilated > 0).sum() > ((plain > 0) & (plain < 255)).sum()
    assert (dilated[(plain > 0) & (plain < 255)] > 0).all()
