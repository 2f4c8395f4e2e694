"""Masks in files, and masks of several classes in one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from roarline.data.mask_files import decode_labels, paint
from roarline.errors import DataError
from tests.data.builders import encoded
from tests.data.layouts import mask_png

LABELS = np.asarray([[0, 1, 20], [255, 3, 0]], dtype=np.uint8)


@pytest.mark.parametrize("mode", ["P", "L"])
def test_pixels_are_those_of_the_file(mode: str) -> None:
    assert np.array_equal(decode_labels(mask_png(LABELS, mode), "x"), LABELS)


def test_bits_are_0_and_1() -> None:
    assert np.array_equal(decode_labels(mask_png((LABELS > 0).astype(np.uint8), "1"), "x"), LABELS > 0)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"none", "m.png: no readable image"),
        (mask_png(np.zeros((64, 64), dtype=np.uint8), "L")[:60], "m.png: damaged or truncated"),
        (encoded(), "m.png: a mask with pixels of mode 'RGB', expected grey levels or a palette"),
    ],
)
def test_what_is_no_mask_is_named(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_labels(data, "m.png")


@given(st.dictionaries(st.integers(0, 253), arrays(bool, (3, 4)), max_size=4))
def test_painted_masks_lose_nothing(masks: dict[int, np.ndarray]) -> None:
    painted = paint(masks, (3, 4))
    together = np.any([*masks.values(), np.zeros((3, 4), dtype=bool)], axis=0)
    assert np.array_equal(painted.labels > 0, together)
    for label, mask in masks.items():
        assert np.array_equal(painted.covered.get(label, painted.labels == label + 1), mask)


def test_smaller_objects_lie_on_top() -> None:
    large, small = np.ones((3, 4), dtype=bool), np.eye(3, 4, dtype=bool)
    for masks in ({0: large, 1: small}, {0: small, 1: large}):
        top = next(label for label, mask in masks.items() if mask is small)
        painted = paint(masks, (3, 4))
        assert np.array_equal(painted.labels == top + 1, small)
        assert list(painted.covered) == [1 - top]
