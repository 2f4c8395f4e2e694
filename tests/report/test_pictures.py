"""Heat maps and thumbnails: symmetric scales, exact small pictures, small files for large ones."""

from __future__ import annotations

import base64
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from roarline.report.palette import LEVELS, colour_table
from roarline.report.pictures import (
    as_picture,
    enlarged,
    heat_map,
    is_signed,
    levels,
    overlay,
    picture_sha256,
    png_bytes,
    thumbnail_uri,
)

_MAPS = arrays(np.float32, (4, 5), elements=st.floats(-(2.0**100), 2.0**100, width=32))


def _decode(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"))


@given(_MAPS)
def test_the_negated_map_has_the_mirrored_colours(map_HW: np.ndarray):
    np.testing.assert_array_equal(levels(-map_HW, signed=True), LEVELS - 1 - levels(map_HW, signed=True))


@given(_MAPS)
def test_zero_is_always_the_middle_of_a_signed_map(map_HW: np.ndarray):
    map_HW = map_HW.copy()
    map_HW[0, 0] = 0
    assert levels(map_HW, signed=True)[0, 0] == (LEVELS - 1) // 2
    assert levels(map_HW, signed=False)[0, 0] == 0


# A power of two scales floats exactly, so the colours must be the same to the last pixel.
@given(_MAPS.map(lambda values: values.clip(-(2.0**60), 2.0**60)), st.sampled_from([2.0**-20, 0.5, 2.0**20]))
def test_colours_do_not_depend_on_the_unit_of_the_map(map_HW: np.ndarray, factor: float):
    wide = map_HW.astype(np.float64)
    np.testing.assert_array_equal(heat_map(wide, signed=True), heat_map(wide * factor, signed=True))


def test_one_outlier_does_not_darken_the_rest():
    map_HW = np.full((100, 100), 0.5, dtype=np.float32)
    map_HW[0, 0] = 1e6
    assert (levels(map_HW, signed=False) == LEVELS - 1).all()


def test_a_map_far_from_zero_is_shown_from_its_smallest_value():
    map_HW = np.linspace(0.8, 0.9, 10_000, dtype=np.float64).reshape(100, 100)
    entries = levels(map_HW, signed=False)
    assert entries[0, 0] == 0
    assert entries[-1, -1] == LEVELS - 1
    # Once a value is low, differences among the high ones are as small as they are.
    map_HW[0, 0] = 0.1
    assert levels(map_HW, signed=False)[0, 1:].min() > 200
    assert (levels(np.full((4, 4), 0.7), signed=False) == LEVELS - 1).all()


def test_a_sparse_map_still_shows_its_only_value():
    # The 99.5th percentile of this map is 0.
    map_HW = np.zeros((32, 32), dtype=np.float32)
    map_HW[3, 4] = 0.25
    assert levels(map_HW, signed=True)[3, 4] == LEVELS - 1
    assert (levels(map_HW, signed=True) == (LEVELS - 1) // 2).sum() == 32 * 32 - 1


def test_a_map_of_zeros_is_the_colour_of_zero():
    table = colour_table(signed=True)
    assert (heat_map(np.zeros((3, 3), dtype=np.float32), signed=True) == table[(LEVELS - 1) // 2]).all()


def test_signed_means_a_value_below_zero():
    assert is_signed(np.array([[0.0, -1e-9]]))
    assert not is_signed(np.array([[0.0, 2.0]]))


def test_full_opacity_is_the_heat_map_and_none_the_grey_image(rng: np.random.Generator):
    picture = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    map_HW = rng.normal(size=(6, 6))
    np.testing.assert_array_equal(overlay(picture, map_HW, signed=True, opacity=1), heat_map(map_HW, signed=True))
    grey = overlay(picture, map_HW, signed=True, opacity=0)
    assert (grey[..., 0] == grey[..., 1]).all()
    assert (grey[..., 1] == grey[..., 2]).all()


def test_one_channel_becomes_grey_and_values_round():
    picture = as_picture(np.array([[[0.0, 0.5], [1.0, 2.0]]]))
    np.testing.assert_array_equal(picture[..., 0], [[0, 128], [255, 255]])
    assert picture.shape == (2, 2, 3)


def test_small_pictures_survive_exactly(rng: np.random.Generator):
    picture = rng.integers(0, 256, (8, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_decode(thumbnail_uri(picture)), picture)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(picture)))), picture)


def test_large_pictures_shrink_and_keep_their_shape(rng: np.random.Generator):
    noise = rng.integers(0, 256, (224, 448, 3), dtype=np.uint8)
    uri = thumbnail_uri(noise)
    assert _decode(uri).shape == (56, 112, 3)
    # 15 methods × 8 images × 3 pictures of pure noise, the worst case, stay below 6 MB.
    assert len(uri) * 2 * 360 < 6e6


def test_enlarging_repeats_pixels():
    picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    large = enlarged(picture, 5)
    assert large.shape == (6, 6, 3)
    np.testing.assert_array_equal(large[::3, ::3], picture)
    assert enlarged(large, 5) is large


def test_the_hash_tells_shape_and_pixels(rng: np.random.Generator):
    picture = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    assert picture_sha256(picture) == picture_sha256(picture.copy())
    assert picture_sha256(picture) != picture_sha256(picture.reshape(6, 4, 3))
    assert picture_sha256(picture) != picture_sha256(picture ^ 1)
