"""What a reader of raw data gives: ids, labels, splits, ground truth, and pixels or files. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from roarline.artifacts.dataset import SPLITS
from roarline.errors import DataError

OWN_FILE = -1
STREAMED = -2
MOST_SEGMENTED_CLASSES = 254
"""Masks are bytes in which 0 is background and 255 void."""


class Rows(Protocol):
    """An array, or something that computes its rows when asked: uint8, rows first."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all rows."""

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray:
        """Some rows, by their numbers (int64 [B])."""


@dataclass(frozen=True, eq=False)
class RawMask:
    """The segmentation of one image.

    Attributes:
        labels: uint8 [H, W]: 0 background, c + 1 class c, 255 void.
        covered: Whole masks, bool [H, W], of classes that other classes' objects cover in part.
        stretched: The mask may be of another size than the image, over which it is then stretched.
        dilated_from: uint8 [H, W] or None. Where given, whatever is above 0 once this is resized bilinearly is object,
            of the class that is nearest, and nothing is void.
    """

    labels: np.ndarray
    covered: Mapping[int, np.ndarray] = field(default_factory=dict)
    stretched: bool = False
    dilated_from: np.ndarray | None = None


@runtime_checkable
class MaskReader(Protocol):
    """Reads the segmentation of one image after another, in threads."""

    def read(self, row: int, /) -> RawMask | None:
        """The mask of a row of the raw data; None where that image has none."""


class RawFile(NamedTuple):
    """Where an encoded image lies.

    Attributes:
        path: Relative to the raw data's root; for a member of a tar its name in there.
        offset: Place of the bytes in a plain tar; ``OWN_FILE``: a file of its own; ``STREAMED``: a member of a
            compressed tar, which can only be read from its beginning.
        size: In bytes.
    """

    path: str
    offset: int
    size: int


@dataclass(frozen=True, eq=False)
class RawDataset:
    """A data set before it is split, limited, resized and packed (N samples, K classes).

    Attributes:
        sample_ids: [N] unique, stable names, from a path or an index.
        splits: [N] of ``train``, ``validation``, ``test``; a missing validation split is drawn from ``train``.
        labels: [N] int in [0, K), or multi-hot [N, K] of 0 and 1 where ``multi_label``.
        images: uint8 [N, C, H, W] with C of 1 (grey) or 3 (RGB); or None, and ``files`` instead.
        files: [N] encoded images, read as RGB.
        boxes: [M, 6] int (row, class, x0, y0, x1, y1 in px of the raw image, inclusive).
        box_difficult: bool [M]: flagged as hard to recognise; None: none is.
        box_image_sizes: [N, 2] int: H, W of the image that the boxes were drawn on, where the raw image may have been
            scaled since; 0 and None: that of the raw image.
        truncated_boxes: Where images are resized, corners of boxes are cut to whole px; else a box covers every pixel
            that it touches.
        segmentation: uint8 [N, H, W] (0 background, c + 1 class c, 255 void), of the raw image's size; or what reads
            the masks one by one.
        soft_masks: What ``RawMask.dilated_from`` gives once resized is kept, as shares of pixels that are an object's.
    """

    name: str
    class_names: Sequence[str]
    sample_ids: Sequence[str]
    splits: Sequence[str]
    labels: np.ndarray
    multi_label: bool = False
    images: Rows | None = None
    files: Sequence[RawFile] | None = None
    boxes: np.ndarray | None = None
    box_difficult: np.ndarray | None = None
    box_image_sizes: np.ndarray | None = None
    truncated_boxes: bool = False
    segmentation: Rows | MaskReader | None = None
    soft_masks: bool = False

    def __len__(self) -> int:
        return len(self.sample_ids)

    def check(self) -> None:
        """Refuse what later stages could misread.

        Raises:
            DataError: Says what is wrong with which attribute.
        """
        count, classes = len(self), len(self.class_names)
        if count == 0:
            raise self._wrong("sample_ids", "at least one sample", "none")
        if len(set(self.sample_ids)) != count:
            raise self._wrong("sample_ids", "unique ids", f"{_first_twice(self.sample_ids)!r} twice")
        if len(set(self.class_names)) != classes:
            raise self._wrong("class_names", "unique names", f"{_first_twice(self.class_names)!r} twice")
        unknown = sorted(set(self.splits) - set(SPLITS))
        if len(self.splits) != count or unknown:
            what = f"{unknown[0]!r}" if unknown else f"{len(self.splits)} of them"
            raise self._wrong("splits", f"one of {', '.join(SPLITS)} for each of {count} samples", what)
        self._check_labels(count, classes)
        if (self.images is None) == (self.files is None):
            raise self._wrong("images and files", "one of the two", "both" if self.files is not None else "neither")
        if self.files is not None and len(self.files) != count:
            raise self._wrong("files", f"one for each of {count} samples", f"{len(self.files)}")
        if self.images is not None and not _is_image_shape(self.images.shape, count):
            raise self._wrong("images", f"shape [{count}, 1 or 3, H, W]", f"{list(self.images.shape)}")
        self._check_ground_truth(count, classes)

    def _check_labels(self, count: int, classes: int) -> None:
        shape = (count, classes) if self.multi_label else (count,)
        top = 1 if self.multi_label else classes - 1
        if self.labels.shape != shape or self.labels.dtype.kind not in "iub":
            raise self._wrong(
                "labels", f"integers of shape {list(shape)}", f"{self.labels.dtype} {list(self.labels.shape)}"
            )
        if self.labels.min(initial=0) < 0 or self.labels.max(initial=0) > top:
            raise self._wrong("labels", f"values from 0 to {top}", f"{self.labels.min()} to {self.labels.max()}")

    def _check_ground_truth(self, count: int, classes: int) -> None:
        boxes, segmentation = self.boxes, self.segmentation
        if boxes is not None:
            if boxes.ndim != 2 or boxes.shape[1] != 6:
                raise self._wrong("boxes", "shape [M, 6]", f"{list(boxes.shape)}")
            x0, y0, x1, y1 = boxes[:, 2:].T
            bad = (boxes[:, 0] < 0) | (boxes[:, 0] >= count) | (boxes[:, 1] < 0) | (boxes[:, 1] >= classes)
            bad |= (x0 < 0) | (y0 < 0) | (x1 < x0) | (y1 < y0)
            if bad.any():
                expected = "row, class, x0 ≤ x1, y0 ≤ y1, all from 0"
                raise self._wrong("boxes", expected, f"{boxes[np.flatnonzero(bad)[0]].tolist()}")
            if self.box_difficult is not None and self.box_difficult.shape != (len(boxes),):
                raise self._wrong("box_difficult", f"one for each of {len(boxes)} boxes", f"{self.box_difficult.shape}")
            if self.box_image_sizes is not None and self.box_image_sizes.shape != (count, 2):
                raise self._wrong("box_image_sizes", f"shape [{count}, 2]", f"{list(self.box_image_sizes.shape)}")
        if segmentation is not None and classes > MOST_SEGMENTED_CLASSES:
            raise self._wrong("segmentation", f"at most {MOST_SEGMENTED_CLASSES} classes", f"{classes}")
        if segmentation is None or isinstance(segmentation, MaskReader):
            return
        if len(segmentation.shape) != 3 or segmentation.shape[0] != count:
            raise self._wrong("segmentation", f"shape [{count}, H, W]", f"{list(segmentation.shape)}")

    def _wrong(self, attribute: str, expected: str, got: Any) -> DataError:
        return DataError(f"data set {self.name!r}: {attribute}: expected {expected}, got {got}")


def _is_image_shape(shape: tuple[int, ...], count: int) -> bool:
    return len(shape) == 4 and shape[0] == count and shape[1] in (1, 3) and min(shape[2:]) > 0


def _first_twice(names: Sequence[str]) -> str:
    seen: set[str] = set()
    return next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
