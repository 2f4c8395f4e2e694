"""Boxes and segmentation brought to the size to which images are resized and cropped. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from roarline.artifacts.dataset import VOID
from roarline.artifacts.runs import CoveredMasks
from roarline.data.decoding import crop_corner, resized
from roarline.data.raw import MaskReader, RawMask, Rows
from roarline.errors import DataError

_ROWS_A_CHUNK = 256


@dataclass(frozen=True)
class FittedBoxes:
    """Boxes of the images as the network sees them.

    Attributes:
        boxes: [L, 6] int64 (row, class, x0, y0, x1, y1 in px, inclusive), rows rising.
        kept: [L] int64: which of the raw boxes each was.
    """

    boxes: np.ndarray
    kept: np.ndarray


def fit_boxes(
    boxes: np.ndarray,
    rows: np.ndarray,
    raw_sizes: np.ndarray,
    resize_px: int | None,
    crop_px: int | None,
    *,
    stretch: bool = False,
    drawn_on: np.ndarray | None = None,
    truncate: bool = False,
) -> FittedBoxes:
    """Boxes of the rows that are used, resized and cropped as the images are.

    Args:
        boxes: [M, 6] int (row of the raw data, class, x0, y0, x1, y1 in px, inclusive).
        rows: [N] the raw rows that are used, rising.
        raw_sizes: [N, 2] their H, W before resizing.
        stretch: Both sides of the images are resized to ``resize_px``.
        drawn_on: [N, 2] H, W of the images to which the boxes' px refer, 0 where those are ``raw_sizes``.
        truncate: Corners are cut to whole px as ``truncated_boxes`` does, and may lie outside the image.

    Returns:
        With rows from 0 to N - 1; a box covers every pixel that it touches, is clipped to the image, and left out where
        it lies wholly outside the image or its crop.
    """
    place = np.searchsorted(rows, boxes[:, 0])
    used = np.flatnonzero(rows[np.minimum(place, len(rows) - 1)] == boxes[:, 0]) if len(rows) else np.empty(0, np.int64)
    used = used[np.argsort(place[used], kind="stable")]
    place, corners = place[used], boxes[used, 2:].astype(np.int64)
    shown, left_top, seen = _shown(raw_sizes, resize_px, crop_px, stretch=stretch)
    scale = raw_sizes if drawn_on is None else np.where(drawn_on > 0, drawn_on, raw_sizes)
    # sizes are (H, W), corners (x, y): turned around, so that each side meets its own
    new, old = shown[place][:, ::-1], np.maximum(scale[place][:, ::-1].astype(np.int64), 1)
    first = corners[:, :2] * new // old - left_top[place][:, ::-1]
    last = -(-(corners[:, 2:] + 1) * new // old) - 1 - left_top[place][:, ::-1]
    if truncate:
        cut = truncated_boxes(corners, old, new, left_top[place][:, ::-1])
        first, last = cut[:, :2], cut[:, 2:]
    inside = np.maximum(first, 0), np.minimum(last, seen[place][:, ::-1] - 1)
    visible = (inside[0] <= inside[1]).all(axis=1)
    if not truncate:
        first, last = inside
    fitted = np.column_stack([place, boxes[used, 1], first, last])[visible]
    return FittedBoxes(fitted.astype(np.int64).reshape(-1, 6), used[visible])


def truncated_boxes(
    boxes_n4: np.ndarray, drawn_on_n2: np.ndarray, shown_n2: np.ndarray, left_top_n2: np.ndarray
) -> np.ndarray:
    """Boxes scaled as published code does: every corner cut towards 0 to a whole px, and not at the image.

    Args:
        boxes_n4: x0, y0, x1, y1 in px of the pictures.
        drawn_on_n2: Width and height of the pictures.
        shown_n2: Width and height to which they are resized.
        left_top_n2: Corner of the crop, in px of the resized picture; may be fractional.

    Returns:
        int64 [n, 4].

    Source: wsolevaluation ``resize_bbox`` (no crop), saliency_investigation ``export_bboxes.resize_pos``.
    """
    scale = np.tile(np.asarray(shown_n2, dtype=np.float64) / drawn_on_n2, 2)
    cut: np.ndarray = np.trunc(boxes_n4 * scale - np.tile(left_top_n2, 2)).astype(np.int64)
    return cut


def fit_segmentation(
    segmentation: Rows | MaskReader,
    rows: np.ndarray,
    raw_sizes: np.ndarray,
    resize_px: int | None,
    crop_px: int | None,
    *,
    stretch: bool = False,
    covered: CoveredMasks | None = None,
    threads: int = 1,
    shares: bool = False,
) -> Iterator[np.ndarray]:
    """Segmentation of the rows that are used, in chunks: uint8 [B, H, W], the nearest label where resized.

    An image without a mask is void all over.

    Args:
        stretch: Both sides of the images are resized to ``resize_px``.
        shares: Give soft masks instead: of 255, how much of a pixel is an object's; 0 where there is none.
        rows: [N] the raw rows that are used, rising.
        raw_sizes: [N, 2] their H, W before resizing.
        covered: Takes the covered masks, with rows from 0 to N - 1, as the chunks are consumed.
        threads: Threads that read masks.

    Raises:
        DataError: A mask has not the size of its image.
    """
    reader = segmentation if isinstance(segmentation, MaskReader) else _ArrayMasks(segmentation)
    sizes = [(int(height), int(width)) for height, width in raw_sizes]

    def fitted(place: int) -> RawMask:
        return fit_mask(reader.read(int(rows[place])), sizes[place], resize_px, crop_px, stretch=stretch)

    with ThreadPoolExecutor(threads, thread_name_prefix="masks") as pool:
        for start in range(0, len(rows), _ROWS_A_CHUNK):
            places = range(start, min(start + _ROWS_A_CHUNK, len(rows)))
            masks = list(pool.map(fitted, places))
            if covered is not None:
                for place, mask in zip(places, masks, strict=True):
                    for label, whole in sorted(mask.covered.items()):
                        if whole.any():
                            covered.add(place, label, whole)
            yield np.stack([_soft(mask) if shares else mask.labels for mask in masks])


def fit_mask(
    mask: RawMask | None,
    raw_size: tuple[int, int],
    resize_px: int | None,
    crop_px: int | None,
    *,
    stretch: bool = False,
) -> RawMask:
    """One mask, resized and cropped as its image is.

    Args:
        raw_size: H, W of the image before resizing.
        stretch: Both sides of the image are resized to ``resize_px``.

    Returns:
        Its ``labels``, ``covered`` and ``dilated_from`` have the size that the network sees.

    Raises:
        DataError: It has not the size of its image.
    """
    if mask is None:
        mask = RawMask(np.full(raw_size, VOID, dtype=np.uint8))
    if mask.labels.shape != raw_size and not mask.stretched:
        raise DataError(f"segmentation: masks of {list(mask.labels.shape)} px for images of {list(raw_size)} px")
    target = resized(raw_size, resize_px, stretch=stretch) if resize_px is not None else raw_size
    labels = _resize(mask.labels, target, Image.Resampling.NEAREST)
    covered = {
        label: _resize(whole.astype(np.uint8), target, Image.Resampling.NEAREST)
        for label, whole in mask.covered.items()
    }
    grey = None if mask.dilated_from is None else _resize(mask.dilated_from, target, Image.Resampling.BILINEAR)
    if grey is not None:
        labels = _spread(labels, grey > 0)
    return RawMask(
        _crop(labels, crop_px),
        {label: _crop(whole, crop_px).astype(bool) for label, whole in covered.items()},
        dilated_from=None if grey is None else _crop(grey, crop_px),
    )


def _soft(mask: RawMask) -> np.ndarray:
    return np.zeros_like(mask.labels) if mask.dilated_from is None else mask.dilated_from


def _shown(
    raw_sizes: np.ndarray, resize_px: int | None, crop_px: int | None, *, stretch: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each image H, W once resized, top and left of its crop, and H, W of what is seen: int64 [N, 2] each."""
    sizes = [(int(height), int(width)) for height, width in raw_sizes]
    shown = [resized(size, resize_px, stretch=stretch) if resize_px is not None else size for size in sizes]
    corners = [crop_corner(size, crop_px) if crop_px is not None else (0, 0) for size in shown]
    seen = [(crop_px, crop_px) if crop_px is not None else size for size in shown]
    return tuple(np.asarray(column, dtype=np.int64).reshape(-1, 2) for column in (shown, corners, seen))  # type: ignore[return-value]


def _resize(plane: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    if plane.shape == size:
        return plane
    return np.asarray(Image.fromarray(plane).resize((size[1], size[0]), how))


def _crop(plane: np.ndarray, crop_px: int | None) -> np.ndarray:
    if crop_px is None:
        return plane
    top, left = crop_corner((plane.shape[0], plane.shape[1]), crop_px)
    return plane[top : top + crop_px, left : left + crop_px]


def _spread(labels: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Exactly ``objects`` as object pixels, each of the class that is nearest; nothing is void."""
    from scipy.ndimage import distance_transform_edt

    known = (labels != 0) & (labels != VOID)
    if not known.any():
        return np.zeros_like(labels)
    rows, columns = distance_transform_edt(~known, return_distances=False, return_indices=True)
    return np.where(objects, labels[rows, columns], 0).astype(np.uint8)


class _ArrayMasks:
    """Masks that are rows of an array, or drawn when asked for."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def read(self, row: int) -> RawMask:
        return RawMask(np.asarray(self._rows[np.asarray([row])], dtype=np.uint8)[0])
