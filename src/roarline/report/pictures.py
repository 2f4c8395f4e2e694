"""Arrays to pictures: heat maps, overlays, thumbnails, PNG files and data URIs.

Legend: H, W height and width in px; a picture is uint8 [H, W, 3].
"""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Literal

import numpy as np
from PIL import Image

from roarline.report.palette import LEVELS, colour_table

_CLIP_PERCENTILE = 99.5
LOSSLESS_UP_TO_PX = 64
THUMBNAIL_PX = 112
_NOTHING = 1e-300
_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def is_signed(maps: np.ndarray) -> bool:
    """True where a value is negative, so that 0 must be the middle of the colours."""
    return bool((maps < 0).any())


def scale_of(map_HW: np.ndarray, *, signed: bool) -> tuple[float, float]:
    """Where a map's colour scale begins and ends.

    Args:
        map_HW: Float [H, W], finite.
        signed: True: symmetric around 0. False: from 0, or from the map's smallest value where that lies above half of
            the end: such a map (RISE's, on an unsure network) is a constant with a picture on top of it.

    Returns:
        (begin, end). The end is the 99.5th percentile of the absolute value, so that single outliers don't darken the
        rest; where that is 0, it is the largest absolute value.
    """
    magnitude = np.abs(map_HW.astype(np.float64))
    end = float(np.percentile(magnitude, _CLIP_PERCENTILE)) or float(magnitude.max())
    if signed:
        return -end, end
    smallest = float(map_HW.min())
    return (smallest, end) if end / 2 < smallest < end else (0.0, end)


def levels(map_HW: np.ndarray, *, signed: bool) -> np.ndarray:
    """Scale one map to entries of the colour table.

    Args:
        map_HW: Float [H, W], finite.
        signed: As for ``scale_of``. True: 0 is entry 128. False: values below the scale are entry 0.

    Returns:
        int64 [H, W] in [0, 256].
    """
    begin, end = scale_of(map_HW, signed=signed)
    wide = map_HW.astype(np.float64)
    # A limit so small that 1 / limit overflows is as good as 0.
    scaled: np.ndarray = np.zeros_like(wide) if end < _NOTHING else wide / end
    half = (LEVELS - 1) // 2
    entries: np.ndarray = half + np.rint(np.clip(scaled, -1, 1) * half)
    if not signed:
        from_begin = (wide - begin) / (end - begin) if begin > 0 else scaled
        entries = np.rint(np.clip(from_begin, 0, 1) * (LEVELS - 1))
    return entries.astype(np.int64)


def heat_map(map_HW: np.ndarray, *, signed: bool) -> np.ndarray:
    """Colour one map; see ``scale_of`` for its scale."""
    picture: np.ndarray = colour_table(signed=signed)[levels(map_HW, signed=signed)]
    return picture


def overlay(picture: np.ndarray, map_HW: np.ndarray, *, signed: bool, opacity: float = 0.6) -> np.ndarray:
    """Lay the colours of a map over the greyscale of its image.

    Args:
        picture: The image.
        map_HW: Float [H, W] of the same height and width.
        signed: As for ``heat_map``.
        opacity: Share of the map's colour in [0, 1].
    """
    grey = (picture.astype(np.float32) @ _GREY_WEIGHTS)[..., None]
    return np.rint(opacity * heat_map(map_HW, signed=signed) + (1 - opacity) * grey).astype(np.uint8)


def as_picture(image_CHW: np.ndarray) -> np.ndarray:
    """Floats in [0, 1], [C, H, W] with 1 or 3 channels, to a picture."""
    picture = np.rint(np.clip(image_CHW, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture


def png_bytes(picture: np.ndarray) -> bytes:
    """Encode as PNG."""
    return _encode(picture, "PNG")


def enlarged(picture: np.ndarray, at_least_px: int) -> np.ndarray:
    """Repeat pixels so that the longer side has at least so many px; larger pictures stay as they are."""
    factor = -(-at_least_px // max(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else picture


def picture_sha256(picture: np.ndarray) -> str:
    """SHA-256 of a picture's shape and pixels, whatever file format it is later put in."""
    return hashlib.sha256(str(picture.shape).encode() + np.ascontiguousarray(picture).tobytes()).hexdigest()


def thumbnail_uri(picture: np.ndarray) -> str:
    """A data URI: small pictures exactly, as PNG; larger ones shrunk to 112 px, as JPEG."""
    height, width = picture.shape[:2]
    if max(height, width) <= LOSSLESS_UP_TO_PX:
        return data_uri(png_bytes(picture), "image/png")
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    return data_uri(_encode(small, "JPEG"), "image/jpeg")


def data_uri(content: bytes, media_type: str) -> str:
    """``data:`` address of some bytes, so that a page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _encode(picture: np.ndarray, kind: Literal["PNG", "JPEG"]) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if kind == "PNG":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=75, subsampling=0)
    return buffer.getvalue()
