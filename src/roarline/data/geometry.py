"""Boxes and segmentation brought to the size to which images are resized and cropped. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from roarline.data.decoding import crop_corner, resized
from roarline.data.raw import Rows
from roarline.errors import DataError

_ROWS_A_CHUNK = 256


def fit_boxes(
    boxes: np.ndarray, rows: np.ndarray, raw_sizes: np.ndarray, resize_px: int | None, crop_px: int | None
) -> np.ndarray:
    """Boxes of the rows that are used, resized and cropped as the images are.

    Args:
        boxes: [M, 6] int (row of the raw data, class, x0, y0, x1, y1 in px, inclusive).
        rows: [N] the raw rows that are used, rising.
        raw_sizes: [N, 2] their H, W before resizing.

    Returns:
        [L, 6] int64 with rows from 0 to N - 1, rising; a box covers every pixel that it touches, is clipped to the
        image, and left out where it lies wholly outside the crop.
    """
    place = np.searchsorted(rows, boxes[:, 0])
    used = rows[np.minimum(place, len(rows) - 1)] == boxes[:, 0]
    boxes, place = boxes[used].astype(np.int64), place[used]
    order = np.argsort(place, kind="stable")
    boxes, place = boxes[order], place[order]
    fitted = []
    for row, (_, label, x0, y0, x1, y1) in zip(place.tolist(), boxes.tolist(), strict=True):
        height, width = (int(side) for side in raw_sizes[row])
        size = resized((width, height), resize_px) if resize_px is not None else (width, height)
        left, top = crop_corner(size, crop_px) if crop_px is not None else (0, 0)
        shown_width, shown_height = (crop_px, crop_px) if crop_px is not None else size
        x0, x1 = x0 * size[0] // width - left, -(-(x1 + 1) * size[0] // width) - 1 - left
        y0, y1 = y0 * size[1] // height - top, -(-(y1 + 1) * size[1] // height) - 1 - top
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, shown_width - 1), min(y1, shown_height - 1)
        if x0 <= x1 and y0 <= y1:
            fitted.append((row, label, x0, y0, x1, y1))
    return np.asarray(fitted, dtype=np.int64).reshape(-1, 6)


def fit_segmentation(
    segmentation: Rows, rows: np.ndarray, raw_sizes: np.ndarray, resize_px: int | None, crop_px: int | None
) -> Iterator[np.ndarray]:
    """Segmentation of the rows that are used, in chunks: uint8 [B, H, W], the nearest label where resized.

    Raises:
        DataError: It has not the size of the images.
    """
    for start in range(0, len(rows), _ROWS_A_CHUNK):
        chosen = rows[start : start + _ROWS_A_CHUNK]
        masks = np.asarray(segmentation[chosen], dtype=np.uint8)
        for mask, size in zip(masks, raw_sizes[start : start + _ROWS_A_CHUNK].tolist(), strict=True):
            if list(mask.shape) != size:
                raise DataError(f"segmentation: masks of {list(mask.shape)} px for images of {size} px")
        if resize_px is None and crop_px is None:
            yield masks
        else:
            yield np.stack([_fit_mask(mask, resize_px, crop_px) for mask in masks])


def _fit_mask(mask: np.ndarray, resize_px: int | None, crop_px: int | None) -> np.ndarray:
    image = Image.fromarray(mask)
    if resize_px is not None:
        image = image.resize(resized(image.size, resize_px), Image.Resampling.NEAREST)
    if crop_px is not None:
        left, top = crop_corner(image.size, crop_px)
        image = image.crop((left, top, left + crop_px, top + crop_px))
    return np.asarray(image)
