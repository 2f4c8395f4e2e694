"""Encoded bytes to RGB pixels, resized and cropped. Imports no torch.

EXIF orientation is ignored and transparency dropped, as torchvision's folder data sets do.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from roarline.errors import DataError

_EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})


def decode(data: bytes, name: str) -> Image.Image:
    """Decode a JPEG, PNG or other image to RGB.

    Args:
        data: The whole file.
        name: What to call it in messages.

    Raises:
        DataError: It is no image, truncated, larger than 179 million pixels, or deeper than 8 bits a channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken EXIF and of palettes' transparency: both unused
            image = Image.open(io.BytesIO(data))
            if image.mode not in _EIGHT_BIT_MODES:
                raise DataError(f"{name}: pixels of mode {image.mode!r}; convert it to 8 bits a channel")
            return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise DataError(f"{name}: no readable image ({len(data)} bytes); replace or delete it") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: damaged or truncated ({error}); replace or delete it") from error


def resize_and_crop(
    image: Image.Image, resize_px: int | None, crop_px: int | None, name: str, *, stretch: bool = False
) -> Image.Image:
    """Resize the shorter side (bilinear, antialiased), then cut a centre square; None leaves a step out.

    Equal to torchvision's Resize and CenterCrop on a Pillow image, but for images smaller than the square, which
    torchvision pads with black.

    Args:
        stretch: Resize both sides instead, whatever the image's aspect.

    Raises:
        DataError: The image is smaller than the square.
    """
    if resize_px is not None:
        image = image.resize(resized(image.size, resize_px, stretch=stretch), Image.Resampling.BILINEAR)
    if crop_px is not None:
        width, height = image.size
        if min(width, height) < crop_px:
            raise DataError(
                f"{name}: {width}×{height} px is smaller than data.crop_px {crop_px}; "
                f"set data.resize_px to {crop_px} or more"
            )
        left, top = crop_corner(image.size, crop_px)
        image = image.crop((left, top, left + crop_px, top + crop_px))
    return image


def resized(size: tuple[int, int], resize_px: int, *, stretch: bool = False) -> tuple[int, int]:
    """Width and height (or height and width) once the shorter side has ``resize_px``; the longer is rounded down.

    Stretched, both sides have it.
    """
    if stretch:
        return resize_px, resize_px
    short, long = min(size), max(size)
    other = resize_px * long // short
    return (resize_px, other) if size[0] <= size[1] else (other, resize_px)


def crop_corner(size: tuple[int, int], crop_px: int) -> tuple[int, int]:
    """Left and top corner (or top and left) of the centre square; halves go to the even number."""
    return round((size[0] - crop_px) / 2), round((size[1] - crop_px) / 2)


def to_array(image: Image.Image) -> np.ndarray:
    """uint8 [C, H, W] of a grey or RGB image."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def from_array(pixels: np.ndarray) -> Image.Image:
    """A grey or RGB image of uint8 [C, H, W]."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
