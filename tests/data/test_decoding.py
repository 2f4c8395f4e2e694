"""Decoding, resizing and cropping."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional

from roarline.data.decoding import decode, from_array, resize_and_crop, to_array
from roarline.errors import DataError
from tests.data.builders import encoded


def _save(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.data())
def test_parity_with_torchvisions_resize_and_centre_crop(
    width: int, height: int, resize_px: int, data: st.DataObject
) -> None:
    pixels = np.random.default_rng(width * 61 + height).integers(0, 256, (3, height, width), dtype=np.uint8)
    image = from_array(pixels)
    crop_px = data.draw(st.integers(1, resize_px))
    expected = functional.center_crop(functional.resize(image, resize_px), [crop_px])
    assert np.array_equal(to_array(resize_and_crop(image, resize_px, crop_px, "x")), to_array(expected))
    crop_px = min(crop_px, width, height)
    expected = functional.center_crop(image, [crop_px])
    assert np.array_equal(to_array(resize_and_crop(image, None, crop_px, "x")), to_array(expected))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_stretching_is_torchvisions_resize_to_a_square(width: int, height: int, resize_px: int) -> None:
    """What NN-Explainer and wsolevaluation do to every image."""
    image = from_array(np.random.default_rng(width * 61 + height).integers(0, 256, (3, height, width), dtype=np.uint8))
    expected = to_array(functional.resize(image, [resize_px, resize_px]))
    assert np.array_equal(to_array(resize_and_crop(image, resize_px, None, "x", stretch=True)), expected)
    assert np.array_equal(to_array(resize_and_crop(image, resize_px, resize_px, "x", stretch=True)), expected)


def test_torchvision_pads_small_images_with_black_and_roarline_refuses() -> None:
    image = from_array(np.full((3, 4, 6), 255, dtype=np.uint8))
    assert to_array(functional.center_crop(image, [8])).min() == 0
    with pytest.raises(
        DataError, match=r"tiny\.png: 6×4 px is smaller than data\.crop_px 8; set data\.resize_px to 8 or more"
    ):
        resize_and_crop(image, None, 8, "tiny.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_and_images_round_trip(channels: int, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 256, (channels, 5, 7), dtype=np.uint8)
    assert np.array_equal(to_array(from_array(pixels)), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_eight_bit_mode_becomes_rgb(mode: str) -> None:
    grey = np.full((3, 4, 5), 255, dtype=np.uint8)
    image = from_array(grey).convert(mode)
    decoded = decode(_save(image, "TIFF"), "x")
    assert decoded.mode == "RGB"
    assert np.array_equal(to_array(decoded), grey)


def test_sixteen_bits_are_refused_where_pillow_would_clip() -> None:
    with pytest.raises(DataError, match=r"deep\.png: pixels of mode 'I;16'; convert it to 8 bits"):
        decode(_save(Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16))), "deep.png")


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    assert decode(_save(Image.new("RGB", (9, 4)), "JPEG", exif=exif), "x").size == (9, 4)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_image_is_named(kind: str, share: float) -> None:
    whole = encoded(0, (64, 64), kind)
    with pytest.raises(
        DataError, match=r"broken\.img: (damaged or truncated|no readable image) .*replace or delete it"
    ):
        decode(whole[: int(share * len(whole))], "broken.img")


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"bomb\.png: damaged or truncated \(Image size"):
        decode(encoded(), "bomb.png")
