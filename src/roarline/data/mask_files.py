"""Segmentation in image files, and masks of several classes painted into one. Imports no torch."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image, UnidentifiedImageError

from roarline.data.raw import RawMask
from roarline.errors import DataError


def decode_mask(data: bytes, where: str) -> Image.Image:
    """Decode an image of mode ``1``, ``L`` or ``P`` (whose pixels are places in the palette).

    Raises:
        DataError: It is no such image, damaged, or larger than 179 million pixels.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise DataError(f"{where}: no readable image ({len(data)} bytes)") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: damaged or truncated ({error})") from error
    if image.mode not in ("1", "L", "P"):
        raise DataError(f"{where}: a mask with pixels of mode {image.mode!r}, expected grey levels or a palette")
    return image


def decode_labels(data: bytes, where: str) -> np.ndarray:
    """The pixels of a mask as they are in the file, uint8 [H, W].

    Raises:
        DataError: As ``decode_mask``.
    """
    return np.asarray(decode_mask(data, where), dtype=np.uint8)


def paint(masks: Mapping[int, np.ndarray], size: tuple[int, int]) -> RawMask:
    """Masks of several classes as one, smaller ones on top.

    Args:
        masks: Class to bool [H, W].
        size: H, W.

    Returns:
        With the whole masks of the classes that others cover in part.
    """
    labels = np.zeros(size, dtype=np.uint8)
    areas = {label: int(np.count_nonzero(mask)) for label, mask in masks.items()}
    for label in sorted(masks, key=lambda label: (-areas[label], label)):
        labels[masks[label]] = label + 1
    visible = np.bincount(labels.ravel(), minlength=256)
    return RawMask(labels, {label: mask for label, mask in masks.items() if visible[label + 1] < areas[label]})
